"""Contract: the limits of AMQP, for every transport.

Without them, a pipeline could run in memory with messages that RabbitMQ refuses, and on RabbitMQ one bad header could
end a connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from runner.errors import PublishFailed
from runner.message import MAX_BODY_BYTES, NO_HEADERS, Envelope
from runner.transports.failure_copies import MAX_HEADER_BYTES

MAX_SHORT_BYTES = 255
"""Properties are AMQP short strings."""

MAX_NAME_BYTES = 255
"""Maximum length of a header's name. RabbitMQ accepts more than the 128 bytes of AMQP 0-9-1."""

MAX_TABLE_BYTES = 2 * MAX_HEADER_BYTES
"""RabbitMQ closes the connection over a header table that does not fit into a frame, which is twice as large."""

MAX_COPY_TABLE_BYTES = 120 * 1024
"""The copy of a failed message has headers that the broker accepted once, and those of the runner."""

MAX_TABLE_DEPTH = 64
"""Deeper tables break AMQP libraries that decode by recursion, also those of other consumers."""

MAX_EXPIRATION_MS = 10 * 365 * 86_400 * 1000
"""RabbitMQ accepts about ten years (measured with 3.10 and 4.3)."""

_ATOMS = frozenset({str, bytes, bool, int, float, Decimal, datetime, type(None)})
"""Types of immutable values, which need no copy."""

_FIXED = frozenset({bool, float, type(None)})
_FIXED_SIZE = 9


class NormalEnvelope(Envelope):
    """An envelope that is as AMQP carries it. What `_replace` makes of it is a plain one, which is checked again."""

    __slots__ = ()
    _make = Envelope._make  # type: ignore[assignment]  # a class method, bound to the other class


def normalize_envelope(envelope: Envelope, *, is_copy: bool = False) -> Envelope:
    """Return the envelope as AMQP carries it: with its own copy of the headers, and times in whole seconds, UTC.

    `is_copy` allows a body and headers as large as those of a message that the broker accepted once.

    Raises TypeError for a body that is not bytes, and PublishFailed("invalid") for what AMQP cannot carry.
    """
    if type(envelope) is NormalEnvelope:
        return envelope
    body, id_, correlation_id, kind, app, timestamp, content_type, encoding, reply_to, priority, ttl, headers = envelope
    if type(body) is not bytes:
        raise TypeError(f"a body must be bytes, not {type(body).__name__}")
    if len(body) > MAX_BODY_BYTES and not is_copy:
        raise _invalid(f"the body has {len(body)} bytes, at most {MAX_BODY_BYTES} are allowed")
    for text in (id_, correlation_id, kind, app, content_type, encoding, reply_to):
        if text is not None and (type(text) is not str or len(text) > MAX_SHORT_BYTES or not text.isascii()):
            _check_short(text, "a property", MAX_SHORT_BYTES)
    if priority is not None or ttl is not None:
        _check_number("priority", priority, 255)
        _check_number("expiration_ms", ttl, MAX_EXPIRATION_MS)
    if isinstance(timestamp, datetime) and (timestamp.tzinfo is not UTC or timestamp.microsecond):
        timestamp = _whole_seconds(timestamp)
    elif headers is NO_HEADERS:
        return envelope
    return _envelope(
        (
            *(body, id_, correlation_id, kind, app, timestamp, content_type, encoding, reply_to, priority, ttl),
            _checked_headers(headers, MAX_COPY_TABLE_BYTES if is_copy else MAX_TABLE_BYTES),
        )
    )


def check_routing_key(key: str) -> None:
    """Raise PublishFailed("invalid") for a routing key that AMQP cannot carry."""
    if type(key) is not str or len(key) > MAX_SHORT_BYTES or not key.isascii():
        _check_short(key, "the routing key", MAX_SHORT_BYTES)


def copy_headers(envelope: Envelope) -> Envelope:
    """Return the envelope with a copy of its headers, so that no subscriber sees what another one changes in them."""
    *rest, headers = envelope
    own = dict(headers)
    for name, value in own.items():
        if type(value) not in _ATOMS:
            own[name] = _copy_value(value)
    return _envelope((*rest, own))


_envelope = Envelope._make
"""Builds an envelope three times as fast as `_replace`."""


def _checked_headers(headers: Mapping[str, Any], at_most: int) -> Mapping[str, Any]:
    if not headers:
        return NO_HEADERS
    table, size = _table(headers, 1)
    if size > at_most:
        raise _invalid(f"the headers have about {size} bytes, at most {at_most} are allowed")
    return table


def _table(items: Mapping[Any, Any], depth: int) -> tuple[dict[str, Any], int]:
    """Return a copy of a table, and about how many bytes it takes in a frame."""
    if depth > MAX_TABLE_DEPTH:
        raise _invalid(f"the headers are nested more than {MAX_TABLE_DEPTH} deep")
    table, size = {}, 4
    for name, value in items.items():
        if type(name) is not str or len(name) > MAX_NAME_BYTES or not name.isascii():
            _check_short(name, "a header's name", MAX_NAME_BYTES)
        if type(value) is str and value.isascii():
            size += len(name) + len(value) + 6
            table[name] = value
        elif type(value) in _FIXED:
            size += len(name) + 1 + _FIXED_SIZE
            table[name] = value
        else:
            table[name], value_size = _value(value, depth)
            size += len(name) + 1 + value_size
    return table, size


def _value(value: Any, depth: int) -> tuple[Any, int]:
    """Return a header's value as it arrives, and about how many bytes it takes in a frame."""
    match value:
        case bool() | None | float():
            return value, _FIXED_SIZE
        case int() if -(2**63) <= value < 2**63:
            return value, _FIXED_SIZE
        case str():
            return value, 5 + len(_encoded(value))
        case bytes():
            return value, 5 + len(value)
        case Decimal() if _fits_decimal(value):
            return value, _FIXED_SIZE
        case datetime():
            return _whole_seconds(value), _FIXED_SIZE
        case list() if depth <= MAX_TABLE_DEPTH:
            pairs = [_value(item, depth + 1) for item in value]
            return [item for item, _ in pairs], 5 + sum(size for _, size in pairs)
        case dict():
            return _table(value, depth + 1)
        case _:
            pass
    raise _invalid(f"a header's value cannot be a {type(value).__name__}: {value!r:.80}")


def _copy_value(value: Any) -> Any:
    """Return a copy of a value in checked headers."""
    if isinstance(value, dict):
        return {name: _copy_value(item) for name, item in value.items()}
    return [_copy_value(item) for item in value] if isinstance(value, list) else value


def _whole_seconds(moment: datetime) -> datetime:
    """Return the moment as AMQP carries it. Without a time zone it counts as UTC."""
    try:
        aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (OverflowError, ValueError):  # on the first or the last day of `datetime`, in another time zone
        raise _invalid(f"a time that is out of range in UTC: {moment.isoformat()}") from None
    return aware.replace(microsecond=0)


def _fits_decimal(value: Decimal) -> bool:
    """Return whether it fits into AMQP's decimal of 32 bits with a scale of 8 bits."""
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):  # NaN or infinity
        return False
    return exponent >= -255 and value.adjusted() < 10 and -(2**31) <= value.scaleb(max(0, -exponent)) < 2**31


def _check_short(text: Any, what: str, at_most: int) -> None:
    if not isinstance(text, str):
        raise _invalid(f"{what} must be text, not {type(text).__name__}")
    if len(_encoded(text)) > at_most:
        raise _invalid(f"{what} has more than {at_most} bytes: {text[:40]}…")


def _check_number(name: str, value: Any, at_most: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= at_most):
        raise _invalid(f"{name} must be a whole number from 0 to {at_most}, not {value!r:.40}")


def _encoded(text: str) -> bytes:
    """Return the bytes of a text. A lone surrogate is a byte that was not UTF-8 when the text arrived."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise _invalid(f"text that is not valid Unicode: {text[:40]!r}") from None


def _invalid(message: str) -> PublishFailed:
    return PublishFailed(message, reason="invalid", hint="RabbitMQ would refuse it as well")
