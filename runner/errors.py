"""Errors, and the problems found in a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runner.units import parse_duration, pluralize

Severity = Literal["error", "warning", "notice"]
PublishFailureReason = Literal["unroutable", "refused", "unavailable", "invalid"]


@dataclass(frozen=True, slots=True)
class Fix:
    """A change of the problem's file that keeps what its author meant: `text` replaces what lies before `end`.

    `start` and `end` are lines and columns that count from 1. The character at `end` is not replaced.
    """

    start: tuple[int, int]
    end: tuple[int, int]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem of a pipeline: what is wrong, where, and how to fix it.

    `line` and `column` count from 1; 0 means no position in a file. `length` is the number of characters to underline.
    `path` is dotted, as in `subscribers.process_orders`. `help` is one sentence without the word "help". `fix` is None
    unless the help says exactly what to write.
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
    fix: Fix | None = None


def has_errors(problems: Iterable[Problem]) -> bool:
    """Whether one of the problems is an error, not a warning or a notice."""
    return any(problem.severity == "error" for problem in problems)


class RunnerError(Exception):
    """An error that the runner raises on purpose: one sentence and a hint, printed without a traceback.

    `exit_code` is the exit code of the command.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(hint)  # for a traceback


class InvalidUsage(RunnerError):
    """A command is given something that it cannot work on, such as a name that does not exist."""

    exit_code = 2


class PipelineInvalid(RunnerError):
    """The YAML or the handlers are wrong. Holds all problems, warnings included."""

    exit_code = 78

    def __init__(self, problems: Sequence[Problem], text: str = "") -> None:
        errors = sum(problem.severity == "error" for problem in problems)
        super().__init__(text or pluralize(errors, "error"))
        self.problems = tuple(problems)


class BrokerUnavailable(RunnerError):
    """The broker cannot be reached or refuses the connection."""

    exit_code = 69


class TopologyMismatch(RunnerError):
    """A queue or exchange on the broker has other arguments than the pipeline says."""

    exit_code = 69


class PublishFailed(RunnerError):
    """The broker has certainly not taken a message.

    `reason` is `unroutable` (no queue is bound), `refused` (a negative acknowledgement, as from a full queue),
    `unavailable` (the exchange does not exist, or the user may not publish there) or `invalid` (the message can never
    be published: it does not match its schema, is too large, or has an invalid property). All but `invalid` may succeed
    later.
    """

    def __init__(self, message: str, *, reason: PublishFailureReason, hint: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


class PublishUnknown(RunnerError):
    """A message may or may not have arrived, after a timeout or a lost connection.

    Publish it again with the same id.
    """


class PublishTimeout(PublishUnknown):
    """A message was not confirmed in time, because of the broker or the connection. It may arrive all the same."""


class NoAnswer(RunnerError):
    """A question was not answered. Its message may be handled all the same, also later.

    `reason` is `timeout`, or `lost`: the connection that the answer would come by was lost.
    """

    exit_code = 75

    def __init__(
        self, message: str, *, reason: Literal["timeout", "lost"], hint: str = "the message may be handled all the same"
    ) -> None:
        super().__init__(message, hint)
        self.reason = reason


class CallFailed(RunnerError):
    """The handler that was asked gave up, and its message is a dead letter.

    `reason` is that of the dead letter: `rejected`, `exhausted`, `invalid` and so on. `error_type` is the class of the
    error, and `error` its text.
    """

    def __init__(self, message: str, *, reason: str, error_type: str = "", error: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.error_type = error_type
        self.error = error


class PublisherClosed(RunnerError):
    """A publisher was used after `close`. Nothing was published."""


class OutboxUnavailable(RunnerError):
    """The outbox cannot keep a message: its file is full, or cannot be written. The message may arrive all the same."""


class BadRecord(Exception):
    """A line of a file is invalid, or does not match the schema of its destination. The message has the line."""


class AlreadySettled(RunnerError):
    """A delivery was settled twice. A bug in the caller, without effect on the broker."""


class Reject(Exception):
    """Raise it in a handler to dead-letter the message at once, with this text as the reason."""

    def __init__(self, reason: str = "rejected by the handler") -> None:
        super().__init__(reason)
        self.reason = reason


class RetryLater(Exception):
    """Raise it in a handler to retry the message after a delay: `"30s"`, or a number of seconds.

    The delay is rounded up to two significant digits of its milliseconds. The retry counts as an attempt. Raises
    ValueError if `after` is not a duration.
    """

    def __init__(self, after: str | float, reason: str = "") -> None:
        self.after_s = parse_duration(after)
        super().__init__(reason or f"the handler asked for it again after {after}")


class BatchFailed(Exception):
    """Raise it in the handler of a batch to fail some of its messages: `BatchFailed({2: error, 5: Reject("why")})`.

    The keys are positions in the list that the handler got, counted from 0; each message fails with its own error. The
    other messages are done. An IndexError follows for a position that the batch does not have: then all of it fails.
    Raises TypeError or ValueError if `errors` is not such a mapping.
    """

    def __init__(self, errors: Mapping[Any, Any]) -> None:
        if not errors:
            raise ValueError("BatchFailed needs at least one position; return, if nothing has failed")
        for position, error in errors.items():
            if isinstance(position, bool) or not isinstance(position, int) or position < 0:
                raise TypeError(f"a position in the batch is a number from 0, not {position!r}")
            if not isinstance(error, BaseException):
                raise TypeError(f"the error at position {position} is not an exception: {error!r}")
        self.errors: dict[int, BaseException] = dict(errors)
        super().__init__(f"{pluralize(len(self.errors), 'message')} of the batch failed")
