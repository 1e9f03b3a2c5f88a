"""Messages: as they travel (`Envelope`), as handlers see them (`Message`), and as handlers return them (`Publish`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from runner.units import format_duration, parse_duration

NO_HEADERS: Mapping[str, Any] = MappingProxyType({})

# Headers of the runner. Invalid values are ignored: anyone can publish them.
ATTEMPT = "x-runner-attempt"
DELAY_TO = "x-runner-delay-to"
"""The queue or event that a delayed message is for."""

ERROR = "x-runner-error"
ERROR_TYPE = "x-runner-error-type"
FIRST_FAILED_AT = "x-runner-first-failed-at"
EXPIRES_AT = "x-runner-expires-at"
"""When a delayed message expires: milliseconds since 1970. Brokers remove the property when a delay is over."""

EDITED_AT = "x-runner-edited-at"
"""When `runner dead replay --edit` changed the body."""

HOST = "x-runner-host"
"""Where the last attempt of a dead letter ran."""

ORIGIN = "x-runner-origin"
ORIGIN_EXCHANGE = "x-runner-origin-exchange"
ORIGIN_KEY = "x-runner-origin-key"
REASON = "x-runner-reason"
RELEASE = "x-runner-release"
"""The release of the code that the last attempt of a dead letter ran, if it has one."""

REPLAYED_AT = "x-runner-replayed-at"
REPLAYS = "x-runner-replays"
SUBSCRIBER = "x-runner-subscriber"
TRACEBACK = "x-runner-traceback"
"""Of the last attempt of a dead letter: its end, where it is long."""

UNREADABLE = "x-runner-unreadable"
"""The properties and headers of a message that could not be decoded, in AMQP's encoding."""

MAX_ATTEMPT = 1_000_000
"""Higher attempt numbers are ignored as invalid."""

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Larger bodies are neither published nor handed to a handler. This is also RabbitMQ 4's default limit."""


MAX_DELAY_S = 365 * 86_400.0
"""The longest delay and the longest time to live of a publication."""

MIN_EXPIRES_S = 0.001
MAX_PRIORITY = 255


class Timestamp(int):
    """A time outside the range of `datetime`: seconds since 1970, as in AMQP. For a handler it is an int."""


class Undecoded(bytes):
    """A header value that is nested too deeply, in AMQP's encoding: type, length and contents."""


class Envelope(NamedTuple):
    """A message as it travels: body, properties and headers.

    A tuple, because one is made for each delivery and a frozen dataclass costs three times as much. `timestamp` has the
    resolution of AMQP: whole seconds, UTC. `expiration_ms` is the per-message TTL. In text that was not UTF-8, each
    invalid byte is a lone surrogate (`surrogateescape`).
    """

    body: bytes
    message_id: str | None = None
    correlation_id: str | None = None
    type: str | None = None
    app_id: str | None = None
    timestamp: datetime | Timestamp | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    reply_to: str | None = None
    priority: int | None = None
    expiration_ms: int | None = None
    headers: Mapping[str, Any] = NO_HEADERS


class Address(NamedTuple):
    """Where a message is published to. For the default exchange, which has no name, the key is the name of a queue."""

    exchange: str
    key: str

    def __str__(self) -> str:
        return f"{self.exchange}:{self.key}" if self.exchange else self.key


def attempt_of(headers: Mapping[str, Any]) -> int:
    """Return the number of the attempt, counted from 1. Anything but a valid number counts as 1."""
    return _count(headers.get(ATTEMPT), 1)


def replays_of(headers: Mapping[str, Any]) -> int:
    """Return how often `runner dead replay` has sent the message back. Anything but a valid number counts as 0."""
    return _count(headers.get(REPLAYS), 0)


def is_expired(headers: Mapping[str, Any], now: Callable[[], datetime]) -> bool:
    """Return whether a message that was delayed has expired since. Anything but a whole number is ignored."""
    if EXPIRES_AT not in headers:
        return False
    expires_at = headers[EXPIRES_AT]
    is_valid = isinstance(expires_at, int) and not isinstance(expires_at, bool)
    return is_valid and now().timestamp() * 1000 > expires_at


def _count(value: Any, otherwise: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        return otherwise
    return value if 1 <= value <= MAX_ATTEMPT else otherwise


@dataclass(frozen=True, slots=True)
class Message:
    """A delivery, for a parameter annotated with `runner.Message`.

    `event` is the name of the event, derived from the exchange and the routing key, else the AMQP property `type`.
    `timestamp` is in UTC, `attempt` counts from 1. Tests can make one from a payload alone: `Message({"order": 1})`.
    """

    payload: Any
    _: KW_ONLY
    id: str | None = None
    correlation_id: str | None = None
    event: str | None = None
    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    attempt: int = 1
    is_redelivered: bool = False
    timestamp: datetime | None = None
    app_id: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    reply_to: str | None = None
    priority: int | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)


class PublishOptions(NamedTuple):
    """How a message is delivered: after a delay, until it expires, before others. None is not set."""

    delay_s: float | None = None
    expires_s: float | None = None
    priority: int | None = None

    def over(self, other: PublishOptions) -> PublishOptions:
        """Return these options, and those of `other` that are not set here."""
        return PublishOptions(
            other.delay_s if self.delay_s is None else self.delay_s,
            other.expires_s if self.expires_s is None else self.expires_s,
            other.priority if self.priority is None else self.priority,
        )


class Publish:
    """A result with a destination, routing key, headers, origin or delivery of its own.

    `to` names a queue or an event of the pipeline, or is the `reply_to` of the message (default: the subscriber's
    `to`). `key` replaces the routing key of the event. `headers` are added to the message; names that start with
    `x-runner-` are reserved. `of` is the message of a batch that the result belongs to: the result has its correlation
    id, and an id that is the same in the next attempt, whatever other messages are in that batch.
    `delay` and `expires` are durations such as `"2h"`, or a `timedelta`, of at most a year: the message arrives after
    the delay, and is dead-lettered when it has waited for a handler for `expires` since then. `priority` is a number
    that the queue has. They replace those of `to:` in the YAML. `id` is the message id.

    Raises ValueError for a reserved header, and for a delay, an expiry or a priority that no broker takes.

    It is not a dataclass, which the JSON encoder would accept as an object: inside of another value it is an error.
    """

    __slots__ = ("headers", "id", "key", "of", "options", "payload", "to")

    def __init__(
        self,
        payload: Any,
        to: str | None = None,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        *,
        of: Message | None = None,
        delay: str | timedelta | None = None,
        expires: str | timedelta | None = None,
        priority: int | None = None,
        id: str | None = None,
    ) -> None:
        self.payload = payload
        self.to = to
        self.key = key
        self.headers: Mapping[str, Any] = {} if headers is None else headers
        self.of = of
        self.id = id
        self.options: PublishOptions | None = None
        if delay is not None or expires is not None or priority is not None:
            self.options = publish_options(delay, expires, priority)
        for name in self.headers:
            if str(name).startswith("x-runner-"):
                raise ValueError(f'header "{name}": names that start with "x-runner-" belong to the runner')

    def __repr__(self) -> str:
        more = "".join(
            f", {name}={value!r}"
            for name, value in (("of", self.of), ("options", self.options), ("id", self.id))
            if value is not None
        )
        return f"Publish({self.payload!r}, to={self.to!r}, key={self.key!r}, headers={self.headers!r}{more})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Publish) and self._parts() == other._parts()

    __hash__ = None  # type: ignore[assignment]  # its parts need not have one

    def _parts(self) -> tuple[Any, ...]:
        return self.payload, self.to, self.key, self.headers, self.of, self.options, self.id


def publish_options(
    delay: str | timedelta | None, expires: str | timedelta | None, priority: int | None
) -> PublishOptions:
    """Return the options of a publication. Raises ValueError for values out of range, and for numbers without a unit.

    The bounds are also those of `to:` in the YAML.
    """
    is_number = isinstance(priority, int) and not isinstance(priority, bool)
    if priority is not None and not (is_number and 0 <= priority <= MAX_PRIORITY):
        raise ValueError(f"priority: must be a whole number from 0 to {MAX_PRIORITY}, not {priority!r:.80}")
    return PublishOptions(_seconds("delay", delay, 0.0), _seconds("expires", expires, MIN_EXPIRES_S), priority)


def _seconds(name: str, value: object, least: float) -> float | None:
    if value is None:
        return None
    if not isinstance(value, str | timedelta):
        raise ValueError(f'{name}: must be a duration with a unit, as in "2h", or a timedelta, not {value!r:.80}')
    try:
        seconds = value.total_seconds() if isinstance(value, timedelta) else parse_duration(value)
    except ValueError:
        raise ValueError(f'{name}: must be a duration, as in "2h", not {value!r:.80}') from None
    if not least <= seconds <= MAX_DELAY_S:
        bounds = f"from {format_duration(least)} to {format_duration(MAX_DELAY_S)}"
        raise ValueError(f"{name}: must be a duration {bounds}, not {value!s:.80}")
    return seconds
