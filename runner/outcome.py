"""Vocabulary: how a delivery ends, and the one pure function that decides it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runner.errors import Reject, RetryLater

Reason = Literal["exhausted", "rejected", "invalid", "too-large", "unreadable"]
Backoff = Literal["exponential", "linear", "fixed"]

MAX_ERROR_CHARACTERS = 1024
MAX_DELAY_S = 7 * 86_400.0
"""A longer wait is cut to this: RabbitMQ takes at most about 49 days, and nobody means that."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The work is done; the broker may forget the message."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt failed; hand the message out again after `after_s` seconds, with the attempt counted up."""

    after_s: float
    error_type: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The message is given up on and kept, with its reason."""

    reason: Reason
    error_type: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """Give the message back untouched, because we are stopping; uses up no attempt."""


Outcome = Ack | Retry | DeadLetter | Release

ACK = Ack()
RELEASE = Release()


class InvalidMessage(Exception):
    """The message cannot be decoded or breaks its schema: dead-lettered, never retried."""

    def __init__(self, text: str, reason: Reason = "invalid") -> None:
        super().__init__(text)
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when a failed message comes back.

    `attempts` counts the first try. With `only_on`, every other exception goes straight to the dead-letter queue.
    """

    attempts: int = 3
    backoff: Backoff = "exponential"
    delay_s: float = 1.0
    max_delay_s: float = 300.0
    only_on: tuple[type[BaseException], ...] | None = None

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

    def delays(self) -> tuple[float, ...]:
        """Return every delay this policy can ask for, in order, each once."""
        seen = dict.fromkeys(self.delay_after(attempt) for attempt in range(1, min(self.attempts, 1000)))
        return tuple(seen)


def decide(error: BaseException | None, attempt: int, policy: RetryPolicy) -> Outcome:
    """Decide how a delivery ends, from what its handler did: nothing else decides.

    `error` is None when the handler returned; `attempt` counts from 1.
    """
    match error:
        case None:
            return ACK
        case InvalidMessage():
            return DeadLetter(error.reason, _name(error), _text(error))
        case Reject():
            return DeadLetter("rejected", _name(error), _text(error))
        case _ if attempt >= policy.attempts:
            return DeadLetter("exhausted", _name(error), _text(error))
        case RetryLater():
            return Retry(min(error.after_s, MAX_DELAY_S), _name(error), _text(error))
        case _ if policy.only_on is not None and not isinstance(error, policy.only_on):
            return DeadLetter("rejected", _name(error), _text(error))
    return Retry(policy.delay_after(attempt), _name(error), _text(error))


def _name(error: BaseException) -> str:
    return type(error).__qualname__


def _text(error: BaseException) -> str:
    """Return the error's own words, capped; an exception whose `__str__` fails has none."""
    try:
        return str(error)[:MAX_ERROR_CHARACTERS]
    except Exception:  # a foreign __str__ may raise anything; its message must still be settled
        return ""
