"""AMQP 0-9-1 bytes of the frames that make up a message's way: deliveries, confirms, publications and acknowledgements.

Generic encoders look at each field of each frame by its name; these know the few layouts that matter. What is seldom
(tables of headers, flags that nobody uses) is left to pamqp. Source: https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf
sections 2.3.5 and 4.2.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from struct import Struct
from typing import Any, NamedTuple

from pamqp import decode, encode

from runner.message import NO_HEADERS, Address, Envelope

METHOD, HEADER, BODY = 1, 2, 3
FRAME_END = 0xCE
FRAME_HEAD = Struct(">BHI")
"""Type, channel and size of a frame; the payload and FRAME_END follow."""

DELIVER = b"\x00\x3c\x00\x3c"
RETURN = b"\x00\x3c\x00\x32"
ACK = b"\x00\x3c\x00\x50"
NACK = b"\x00\x3c\x00\x78"

_REJECT = b"\x00\x3c\x00\x5a"
_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
_MANDATORY = b"\x01"
_BASIC = 60
_TAG = Struct(">Q")
_TAG_AND_BITS = Struct(">4sQB")
_CONTENT = Struct(">HHQH")
_END = b"\xce"
_PERSISTENT = b"\x02"


class Delivered(NamedTuple):
    """What a deliver frame says of the message behind it."""

    consumer: bytes
    tag: int
    is_redelivered: bool
    exchange: str
    routing_key: str


class Content(NamedTuple):
    """What a content header says: the body's size in bytes, and the properties, in the order of an envelope."""

    size: int
    properties: tuple[Any, ...]


def read_deliver(payload: bytes) -> Delivered:
    """Read a deliver frame. Raises ValueError or IndexError."""
    end = 5 + payload[4]
    consumer = payload[5:end]
    (tag,) = _TAG.unpack_from(payload, end)
    exchange_at = end + 10
    key_at = exchange_at + payload[end + 9]
    exchange = payload[exchange_at:key_at].decode()
    routing_key = payload[key_at + 1 : key_at + 1 + payload[key_at]].decode()
    return Delivered(consumer, tag, bool(payload[end + 8] & 1), exchange, routing_key)


def read_tag(payload: bytes) -> int:
    """Read only the delivery tag of a deliver frame."""
    (tag,) = _TAG.unpack_from(payload, 5 + payload[4])
    return int(tag)


def read_size(payload: bytes) -> int:
    """Read only the body's size, in bytes, of a content header."""
    (size,) = _TAG.unpack_from(payload, 4)
    return int(size)


def read_confirm(payload: bytes) -> tuple[int, bool]:
    """Return the delivery tag of an ack or nack frame, and whether it stands for all before it, too."""
    _, tag, bits = _TAG_AND_BITS.unpack_from(payload)
    return tag, bool(bits & 1)


def read_content(payload: bytes) -> Content:
    """Read a content header. Raises what decoding raises: struct.error, ValueError, IndexError."""
    _, _, size, flags = _CONTENT.unpack_from(payload)
    if flags & 0b11:
        raise ValueError("more property flags than AMQP 0-9-1 has")
    return Content(size, _read_properties(payload, flags))


def _read_properties(payload: bytes, flags: int) -> tuple[Any, ...]:
    at = 14

    def text() -> str:
        nonlocal at
        start = at + 1
        at = start + payload[at]
        if at > len(payload):
            raise ValueError("a property is longer than its frame")
        return payload[start:at].decode()

    content_type = text() if flags & 0x8000 else None
    content_encoding = text() if flags & 0x4000 else None
    headers: Any = NO_HEADERS
    if flags & 0x2000:
        used, table = decode.field_table(payload[at:])
        headers = {name: plain(value) for name, value in table.items()} or NO_HEADERS
        at += used
    if flags & 0x1000:
        at += 1
    priority = None
    if flags & 0x0800:
        priority = payload[at]
        at += 1
    correlation_id = text() if flags & 0x0400 else None
    reply_to = text() if flags & 0x0200 else None
    expiration = text() if flags & 0x0100 else None
    message_id = text() if flags & 0x0080 else None
    timestamp = None
    if flags & 0x0040:
        _, timestamp = decode.timestamp(payload[at : at + 8])
        at += 8
    kind = text() if flags & 0x0020 else None
    if flags & 0x0010:
        text()
    app_id = text() if flags & 0x0008 else None
    ids = (message_id, correlation_id, kind, app_id)
    kinds = (content_type, content_encoding, reply_to)
    return (*ids, timestamp, *kinds, priority, milliseconds(expiration), headers)


def plain(value: Any) -> Any:
    """Return a header's value as Python has it: pamqp makes bytearrays of bytes."""
    match value:
        case bytearray():
            return bytes(value)
        case dict():
            return {name: plain(item) for name, item in value.items()}
        case list():
            return [plain(item) for item in value]
    return value


def milliseconds(expiration: str | None) -> int | None:
    """Return an expiration as a number; None where it is none."""
    return int(expiration) if expiration and expiration.isdecimal() else None


def write_ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Return the frame that acknowledges a delivery, or it and all before it."""
    return FRAME_HEAD.pack(METHOD, channel, 13) + _TAG_AND_BITS.pack(ACK, tag, multiple) + _END


def write_reject(channel: int, tag: int) -> bytes:
    """Return the frame that refuses a delivery for good: the broker dead-letters it, if its queue says where to."""
    return FRAME_HEAD.pack(METHOD, channel, 13) + _TAG_AND_BITS.pack(_REJECT, tag, 0) + _END


def write_publish(channel: int, address: Address) -> bytes:
    """Return the frame that says where the message behind it goes: mandatory. Raises ValueError for a long name."""
    payload = _PUBLISH + _short(address.exchange) + _short(address.key) + _MANDATORY
    return FRAME_HEAD.pack(METHOD, channel, len(payload)) + payload + _END


def write_content(channel: int, envelope: Envelope, max_frame: int, as_table: Callable[[Any], Any]) -> bytes:
    """Return the content header and the body of a persistent message, in frames of at most `max_frame` bytes.

    `as_table` turns headers into what pamqp encodes. Raises ValueError for a property longer than 255 bytes.
    """
    body = envelope.body
    flags, properties = _write_properties(envelope, as_table)
    header = _CONTENT.pack(_BASIC, 0, len(body), flags)
    frames = [FRAME_HEAD.pack(HEADER, channel, len(header) + len(properties)), header, properties, _END]
    room = max_frame - 8
    for start in range(0, len(body), room):
        piece = body[start : start + room]
        frames += (FRAME_HEAD.pack(BODY, channel, len(piece)), piece, _END)
    return b"".join(frames)


def _write_properties(envelope: Envelope, as_table: Callable[[Any], Any]) -> tuple[int, bytes]:
    """Return the flags and the bytes of the properties, in the order that AMQP gives them."""
    flags = 0x1000
    parts: list[bytes] = []

    def add(flag: int, value: str | None) -> None:
        nonlocal flags
        if value is not None:
            flags |= flag
            parts.append(_short(value))

    add(0x8000, envelope.content_type)
    add(0x4000, envelope.content_encoding)
    if envelope.headers:
        flags |= 0x2000
        parts.append(encode.field_table(as_table(envelope.headers)))
    parts.append(_PERSISTENT)
    if envelope.priority is not None:
        flags |= 0x0800
        parts.append(bytes((envelope.priority,)))
    add(0x0400, envelope.correlation_id)
    add(0x0200, envelope.reply_to)
    add(0x0100, None if envelope.expiration_ms is None else str(envelope.expiration_ms))
    add(0x0080, envelope.message_id)
    if envelope.timestamp is not None:
        flags |= 0x0040
        parts.append(_TAG.pack(_seconds(envelope.timestamp)))
    add(0x0020, envelope.type)
    add(0x0008, envelope.app_id)
    return flags, b"".join(parts)


def _seconds(moment: datetime) -> int:
    return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp())


def _short(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > 255:
        raise ValueError("a short text is longer than 255 bytes")
    return bytes((len(encoded),)) + encoded
