"""Reads and writes AMQP's field tables, which carry headers. It accepts everything that RabbitMQ accepts.

pamqp refuses dates before 1970, text that is not UTF-8 and deeply nested tables, and writes floats with half of their
digits. Here, text that is not UTF-8 becomes text with lone surrogates (Python's `surrogateescape`), and the same bytes
again when it is written. A time that `datetime` cannot hold is a `Timestamp`, a value nested too deeply is `Undecoded`.
Types of fields: https://www.rabbitmq.com/amqp-0-9-1-errata#section_3
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from struct import Struct
from typing import Any

from pamqp.encode import table_integer

from runner.message import NO_HEADERS, Timestamp, Undecoded
from runner.transports.amqp_limits import MAX_TABLE_DEPTH

ODD_BYTES = "surrogateescape"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIZE = Struct(">I")
_SECONDS = Struct(">q")
_DECIMAL = Struct(">Bi")
_DOUBLE = Struct(">d")


def read_text(data: bytes) -> str:
    """Return bytes as text. Bytes that are not UTF-8 become lone surrogates."""
    return data.decode("utf-8", ODD_BYTES)


def write_text(text: str) -> bytes:
    """Return the bytes of a text. A text that was read gives the same bytes again."""
    return text.encode("utf-8", ODD_BYTES)


def read_time(data: bytes, at: int) -> datetime | Timestamp:
    """Return the time at an offset: a number where `datetime` cannot hold it."""
    (seconds,) = _SECONDS.unpack_from(data, at)
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return Timestamp(seconds)


def write_time(moment: datetime | Timestamp) -> bytes:
    """Return the bytes of a time: whole seconds since 1970."""
    if isinstance(moment, Timestamp):
        return _SECONDS.pack(moment)
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return _SECONDS.pack((aware - _EPOCH) // timedelta(seconds=1))


def read_table(data: bytes, at: int) -> tuple[Mapping[str, Any], int]:
    """Return the table at an offset, and where it ends. Raises ValueError, struct.error or IndexError."""
    start, end = _extent(data, at, len(data))
    return _read_entries(data, start, end, 1) or NO_HEADERS, end


def _extent(data: bytes, at: int, limit: int) -> tuple[int, int]:
    """Return where the content of a value with a length prefix starts and ends."""
    (size,) = _SIZE.unpack_from(data, at)
    if at + 4 + size > limit:
        raise ValueError("a header is longer than what it is in")
    return at + 4, at + 4 + size


def _read_entries(data: bytes, at: int, end: int, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while at < end:
        start = at + 1
        at = start + data[at]
        name = read_text(data[start:at])
        found[name], at = _read_value(data, at, end, depth)
    return found


def _read_items(data: bytes, at: int, end: int, depth: int) -> list[Any]:
    found = []
    while at < end:
        value, at = _read_value(data, at, end, depth)
        found.append(value)
    return found


def _read_value(data: bytes, at: int, end: int, depth: int) -> tuple[Any, int]:
    """Return the value at an offset, and where it ends."""
    if at >= end:
        raise ValueError("a header has no value")
    kind = data[at : at + 1]
    value: Any
    if (number := _NUMBERS.get(kind)) is not None:
        (value,), at = number.unpack_from(data, at + 1), at + 1 + number.size
    elif (read := _TEXTS.get(kind)) is not None:
        start, at = _extent(data, at + 1, end)
        value = read(data[start:at])
    elif (read_inner := _NESTED.get(kind)) is not None:
        begin = at
        start, at = _extent(data, at + 1, end)
        is_too_deep = depth >= MAX_TABLE_DEPTH
        value = Undecoded(data[begin:at]) if is_too_deep else read_inner(data, start, at, depth + 1)
    elif kind == b"T":
        value, at = read_time(data, at + 1), at + 9
    elif kind == b"D":
        scale, digits = _DECIMAL.unpack_from(data, at + 1)
        value, at = Decimal(digits).scaleb(-scale), at + 6
    elif kind == b"V":
        value, at = None, at + 1
    else:
        raise ValueError(f"a header has the type {kind!r}, which AMQP does not have")
    if at > end:
        raise ValueError("a header is longer than what it is in")
    return value, at


_LAYOUTS = {b"b": ">b", b"B": ">B", b"s": ">h", b"u": ">H", b"I": ">i", b"i": ">I", b"l": ">q", b"L": ">q"}
_LAYOUTS |= {b"f": ">f", b"d": ">d", b"t": ">?"}
_NUMBERS = {kind: Struct(layout) for kind, layout in _LAYOUTS.items()}
_TEXTS: dict[bytes, Callable[[bytes], Any]] = {b"S": read_text, b"x": bytes}
_NESTED: dict[bytes, Callable[[bytes, int, int, int], Any]] = {b"F": _read_entries, b"A": _read_items}


def write_table(headers: Mapping[str, Any]) -> bytes:
    """Return headers as AMQP has them. Raises ValueError or struct.error for what `wire.as_sent` refuses."""
    parts: list[bytes] = []
    for name, value in headers.items():
        key = write_text(name)
        parts += (bytes((len(key),)), key, _write_value(value))
    return _sized(b"".join(parts))


def _write_value(value: Any) -> bytes:
    match value:
        case str():
            return b"S" + _sized(write_text(value))
        case bool():
            return b"t\x01" if value else b"t\x00"
        case Timestamp() | datetime():
            return b"T" + write_time(value)
        case int():
            return table_integer(value)
        case float():
            return b"d" + _DOUBLE.pack(value)
        case Undecoded():
            return bytes(value)
        case bytes():
            return b"x" + _sized(value)
        case None:
            return b"V"
        case Mapping():
            return b"F" + write_table(value)
        case list():
            return b"A" + _sized(b"".join(map(_write_value, value)))
        case Decimal():
            return b"D" + _write_decimal(value)
    raise ValueError(f"a header cannot be a {type(value).__name__}")


def _write_decimal(value: Decimal) -> bytes:
    exponent = int(value.as_tuple().exponent)
    scale = max(0, -exponent)
    return _DECIMAL.pack(scale, int(value.scaleb(scale)))


def _sized(data: bytes) -> bytes:
    return _SIZE.pack(len(data)) + data
