"""Vocabulary: errors, named for who must act, and the problems found in a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from runner.units import parse_duration

Severity = Literal["error", "warning"]
PublishFailureReason = Literal["unroutable", "refused", "unavailable", "invalid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a pipeline: what, where, and what to do next.

    `line` and `column` count from 1, 0 where there is no place in a file; `length` is how many characters are meant.
    `path` is dotted, as in `subscribers.process_orders`. `help` is one sentence without the word "help".
    """

    code: str
    message: str
    path: str = ""
    help: str = ""
    severity: Severity = "error"
    file: str = ""
    line: int = 0
    column: int = 0
    length: int = 1


class RunnerError(Exception):
    """Raised on purpose by us: one sentence and a hint, never a traceback.

    `exit_code` is what the command line ends with.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class PipelineInvalid(RunnerError):
    """The YAML or the handlers are wrong; the author must act. Holds every problem, warnings included."""

    exit_code = 78

    def __init__(self, problems: Sequence[Problem]) -> None:
        errors = sum(problem.severity == "error" for problem in problems)
        super().__init__(f"{errors} error{'s'[: errors != 1]}")
        self.problems = tuple(problems)


class BrokerUnavailable(RunnerError):
    """The broker cannot be reached or refuses us; the operator must act."""

    exit_code = 69


class TopologyMismatch(RunnerError):
    """Something on the broker has other arguments than the pipeline says; the operator must act."""

    exit_code = 69


class PublishFailed(RunnerError):
    """The broker did not take a message, for certain.

    `reason` is `unroutable` (no queue is bound), `refused` (negative acknowledgement: a full queue), `unavailable` (the
    exchange does not exist, or the broker does not let us publish there) or `invalid` (this message can never be
    published: it does not fit its schema, is too large, has a bad property). All but the last may work later.
    """

    def __init__(self, message: str, *, reason: PublishFailureReason, hint: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


class PublishUnknown(RunnerError):
    """A message may or may not have arrived (timeout, connection lost): send it again with the same id."""


class AlreadySettled(RunnerError):
    """A delivery was settled twice: a mistake in the caller, without effect on the broker."""


class Reject(Exception):
    """Raise in a handler to send its message to the dead-letter queue at once, with this text as the reason."""

    def __init__(self, reason: str = "rejected by the handler") -> None:
        super().__init__(reason)
        self.reason = reason


class RetryLater(Exception):
    """Raise in a handler to get its message again after a delay: `"30s"`, or a number of seconds.

    The delay is rounded up to two significant digits of its milliseconds. It uses up an attempt. Raises ValueError
    for what is not a duration.
    """

    def __init__(self, after: str | float, reason: str = "") -> None:
        self.after_s = parse_duration(after)
        super().__init__(reason or f"the handler asked for it again after {after}")
