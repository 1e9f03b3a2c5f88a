"""Vocabulary: what travels (`Envelope`), what a handler sees (`Message`) and what it may return (`Publish`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

NO_HEADERS: Mapping[str, Any] = MappingProxyType({})

# Headers of ours. Garbage in them is ignored, never trusted.
ATTEMPT = "x-runner-attempt"
ERROR = "x-runner-error"
ERROR_TYPE = "x-runner-error-type"
FIRST_FAILED_AT = "x-runner-first-failed-at"
ORIGIN = "x-runner-origin"
ORIGIN_EXCHANGE = "x-runner-origin-exchange"
ORIGIN_KEY = "x-runner-origin-key"
REASON = "x-runner-reason"
REPLAYED_AT = "x-runner-replayed-at"
REPLAYS = "x-runner-replays"
SUBSCRIBER = "x-runner-subscriber"
TRACEBACK = "x-runner-traceback"
"""Of the last attempt of a dead letter: its end, where it is long."""

UNREADABLE = "x-runner-unreadable"
"""The properties and headers of a message that could not be decoded, as AMQP's bytes."""

MAX_ATTEMPT = 1_000_000
"""Attempts above this are taken for garbage."""

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Bodies above this are neither published nor handed to a handler (RabbitMQ 4's own default limit)."""


class Timestamp(int):
    """A time that `datetime` cannot hold, as AMQP carries it: seconds since 1970. A number to a handler."""


class Undecoded(bytes):
    """The value of a header that is nested too deeply, as AMQP's bytes: its type, its length and its contents."""


class Envelope(NamedTuple):
    """A message as it travels: bytes, properties and headers.

    A tuple because one is made for each delivery, and a frozen dataclass costs three times as much.
    `timestamp` has the resolution of AMQP: whole seconds, UTC. `expiration_ms` is the per-message TTL a foreign
    publisher set; ours set none. Text that was not UTF-8 has a lone surrogate for each such byte (`surrogateescape`).
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
    """Where an envelope is published to. The empty exchange is the default one: the key is then a queue's name."""

    exchange: str
    key: str

    def __str__(self) -> str:
        return f"{self.exchange}:{self.key}" if self.exchange else self.key


def attempt_of(headers: Mapping[str, Any]) -> int:
    """Return which attempt this is, counted from 1; anything but a sane integer counts as the first."""
    return _count(headers.get(ATTEMPT), 1)


def replays_of(headers: Mapping[str, Any]) -> int:
    """Return how often `runner dead replay` has sent it back to its queue; anything but a sane integer counts as 0."""
    return _count(headers.get(REPLAYS), 0)


def _count(value: Any, otherwise: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        return otherwise
    return value if 1 <= value <= MAX_ATTEMPT else otherwise


@dataclass(frozen=True, slots=True)
class Message:
    """What a handler sees of one delivery, for a parameter annotated `runner.Message`.

    `event` is the name of the event: by the exchange and the routing key that it was published with, else by the AMQP
    property `type`. `timestamp` is UTC, `attempt` counts from 1. A test can make one of a payload alone:
    `Message({"order": 1})`.
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


class Publish:
    """A result that says where it goes and how.

    `to` names a queue or an event of the pipeline, or is the `reply_to` of the message (default: the subscriber's
    `to`); `key` replaces the event's routing key; `headers` are added. Headers that start with `x-runner-` are ours and
    refused.

    It is no dataclass, which JSON would take for an object: inside another value it is refused, and never becomes JSON.
    """

    __slots__ = ("headers", "key", "payload", "to")

    def __init__(
        self, payload: Any, to: str | None = None, key: str | None = None, headers: Mapping[str, Any] | None = None
    ) -> None:
        self.payload = payload
        self.to = to
        self.key = key
        self.headers: Mapping[str, Any] = {} if headers is None else headers
        for name in self.headers:
            if str(name).startswith("x-runner-"):
                raise ValueError(f'header "{name}": names that start with "x-runner-" belong to the runner')

    def __repr__(self) -> str:
        return f"Publish({self.payload!r}, to={self.to!r}, key={self.key!r}, headers={self.headers!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Publish) and self._parts() == other._parts()

    __hash__ = None  # type: ignore[assignment]  # its parts need not have one

    def _parts(self) -> tuple[Any, ...]:
        return self.payload, self.to, self.key, self.headers
