"""How deliveries end, and `decide`, the pure function that decides it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from runner.errors import Reject, RetryLater

Reason = Literal[
    "exhausted", "rejected", "invalid", "too-large", "unreadable", "invalid-result", "expired", "delivery_limit"
]
Backoff = Literal["exponential", "linear", "fixed"]

MAX_ERROR_CHARACTERS = 1024
MAX_DELAY_S = 7 * 86_400.0
"""Longer delays are cut to this. RabbitMQ's limit is about 49 days."""

JITTER_STEPS = 5
"""How many different delays jitter makes of one. Each is a wait queue on the broker."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The message was handled; the broker removes it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt failed. The message comes again after `after_s` seconds, with a higher attempt number."""

    after_s: float
    error_type: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The message goes to the dead-letter queue, with a reason."""

    reason: Reason
    error_type: str = ""
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """The message goes back to its queue as it was, at a stop or a pause. This uses up no attempt."""


Outcome = Ack | Retry | DeadLetter | Release

ACK = Ack()
RELEASE = Release()


class InvalidMessage(Exception):
    """The message cannot be decoded or does not match its schema. It is dead-lettered without a retry."""

    def __init__(self, text: str, reason: Reason = "invalid") -> None:
        super().__init__(text)
        self.reason: Reason = reason


class ResultFailed(Exception):
    """The handler has done its work, but a result cannot be published.

    The message is dead-lettered without another call.

    The reason is `invalid-result` if the result is invalid and always will be, `exhausted` if all attempts to publish
    it have failed.
    """

    def __init__(self, cause: Exception, reason: Literal["invalid-result", "exhausted"]) -> None:
        hint = getattr(cause, "hint", "")
        super().__init__(f"{cause}; {hint}" if hint else str(cause))
        self.cause = cause
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when a failed message is retried.

    `attempts` includes the first one. With `only_on`, any other exception is dead-lettered at once; one in `not_on`
    always is. `jitter` is the share by which a delay may be shorter or longer.
    """

    attempts: int = 3
    backoff: Backoff = "exponential"
    delay_s: float = 1.0
    max_delay_s: float = 300.0
    only_on: tuple[type[BaseException], ...] | None = None
    not_on: tuple[type[BaseException], ...] = ()
    jitter: float = 0.0

    def delay_after(self, attempt: int) -> float:
        """Return the seconds to wait after attempt number `attempt` (from 1) has failed."""
        match self.backoff:
            case "fixed":
                delay = self.delay_s
            case "linear":
                delay = self.delay_s * attempt
            case "exponential":
                delay = self.delay_s * 2.0 ** min(attempt - 1, 64)
        return min(delay, self.max_delay_s)

    def covers(self, item: ErrorInfo) -> bool:
        """Return whether the policy retries an exception."""
        if any(map(item.is_a, self.not_on)):
            return False
        return self.only_on is None or any(map(item.is_a, self.only_on))

    def spread(self, delay_s: float) -> tuple[float, ...]:
        """Return the delays that jitter makes of one, evenly spaced and none above `max_delay_s`."""
        if not self.jitter:
            return (delay_s,)
        shortest, longest = delay_s * (1 - self.jitter), min(delay_s * (1 + self.jitter), self.max_delay_s)
        step = (longest - shortest) / (JITTER_STEPS - 1)
        return tuple(shortest + number * step for number in range(JITTER_STEPS))

    def delays(self) -> tuple[float, ...]:
        """Return all delays that this policy can ask for, in order, each once."""
        plain = dict.fromkeys(self.delay_after(attempt) for attempt in range(1, min(self.attempts, 1000)))
        return tuple(dict.fromkeys(delay_s for each in plain for delay_s in self.spread(each)))


@dataclass(frozen=True, slots=True)
class TripPolicy:
    """When a subscriber pauses by itself: `failures` is a share of the attempts of the last `over_s` seconds.

    Nothing happens below `least` attempts. The first pause takes `pause_s` seconds.
    """

    failures: float = 0.5
    over_s: float = 60.0
    least: int = 20
    pause_s: float = 30.0
    on: tuple[type[BaseException], ...] | None = None

    def counts(self, error: BaseException) -> bool:
        """Return whether an error counts: one of `on`, else any of the handler's but `Reject`.

        A `Reject`, and a message that cannot be decoded, say something about the message alone.
        """
        if isinstance(error, InvalidMessage | ResultFailed):
            return False
        items = flatten_errors(error)
        if self.on is None:
            return not any(item.is_a(Reject) for item in items)
        return any(item.is_a(each) for item in items for each in self.on)


class ErrorInfo(NamedTuple):
    """An exception that a handler raised, as plain data. It is enough to decide the outcome, in any process.

    `class_paths` are the paths of its class and of all base classes; `after_s` is the delay that a RetryLater asks for.
    """

    name: str
    text: str
    class_paths: frozenset[str]
    after_s: float | None = None

    def is_a(self, error_class: type[BaseException]) -> bool:
        """Return whether the exception is an instance of this class."""
        return _class_path(error_class) in self.class_paths


class RemoteError(Exception):
    """Represents what a handler raised in another process. The exception itself stays there."""

    def __init__(self, errors: Sequence[ErrorInfo]) -> None:
        super().__init__(_joined_texts(errors))
        self.errors = tuple(errors)


def flatten_errors(error: BaseException) -> tuple[ErrorInfo, ...]:
    """Return the errors in an exception: itself, or all members of an exception group, nested groups included.

    A member also counts as an instance of its group's classes.
    """
    if isinstance(error, RemoteError):
        return error.errors
    found: list[ErrorInfo] = []
    waiting: list[tuple[BaseException, frozenset[str]]] = [(error, frozenset())]
    while waiting:
        item, class_paths = waiting.pop()
        class_paths = class_paths.union(map(_class_path, type(item).__mro__))
        if isinstance(item, BaseExceptionGroup):
            waiting += [(inner, class_paths) for inner in reversed(item.exceptions)]
        else:
            after_s = _requested_delay_s(item) if isinstance(item, RetryLater) else None
            found.append(ErrorInfo(type(item).__qualname__, _capped_text(item), class_paths, after_s))
    return tuple(found)


def error_type(error: BaseException) -> str:
    """Return the class name of an error; for a group those of its members, each once."""
    return ", ".join(dict.fromkeys(item.name for item in flatten_errors(error)))[:MAX_ERROR_CHARACTERS]


def error_text(error: BaseException) -> str:
    """Return the message of an error, capped; for a group those of its members. Empty if `__str__` fails."""
    return _joined_texts(flatten_errors(error))


def is_rejection(error: BaseException) -> bool:
    """Return whether the handler has raised a Reject, possibly in a group."""
    return any(item.is_a(Reject) for item in flatten_errors(error))


def decide(
    error: BaseException | None,
    attempt: int,
    policy: RetryPolicy,
    choose: Callable[[Sequence[float]], float] = random.choice,
) -> Outcome:
    """Return the outcome of a delivery. Nothing else decides it.

    `error` is None if the handler returned; `attempt` counts from 1. In a group, one Reject is enough, the longest
    delay counts, and the policy must cover every exception. `choose` picks one of the delays that jitter makes.
    """
    if error is None:
        return ACK
    if isinstance(error, InvalidMessage):
        return DeadLetter(error.reason, error_type(error), error_text(error))
    if isinstance(error, ResultFailed):
        return DeadLetter(error.reason, error_type(error.cause), error_text(error))
    items = flatten_errors(error)
    name, text = error_type(error), _joined_texts(items)
    if is_rejection(error):
        return DeadLetter("rejected", name, text)
    if attempt >= policy.attempts:
        return DeadLetter("exhausted", name, text)
    if not all(item.is_a(RetryLater) or policy.covers(item) for item in items):
        return DeadLetter("rejected", name, text)
    delays = [item.after_s for item in items if item.after_s is not None]
    after_s = min(max(delays), MAX_DELAY_S) if delays else choose(policy.spread(policy.delay_after(attempt)))
    return Retry(after_s, name, text)


def _joined_texts(items: Sequence[ErrorInfo]) -> str:
    if len({(item.name, item.text) for item in items}) == 1:
        return items[0].text
    texts = (f"{item.name}: {item.text}" if item.text else item.name for item in items)
    return "; ".join(dict.fromkeys(texts))[:MAX_ERROR_CHARACTERS]


def _class_path(error_class: type) -> str:
    return f"{error_class.__module__}:{error_class.__qualname__}"


def _requested_delay_s(error: RetryLater) -> float | None:
    """Return the delay that an error asks for; None if a subclass did not call `__init__`."""
    after_s = getattr(error, "after_s", None)
    return float(after_s) if isinstance(after_s, int | float) and 0 <= after_s < math.inf else None


def _capped_text(error: BaseException) -> str:
    """Return the message of an error, capped. Empty if its `__str__` fails."""
    try:
        return str(error)[:MAX_ERROR_CHARACTERS]
    except Exception:  # a user's __str__ may raise anything; the message must be settled all the same
        return ""
