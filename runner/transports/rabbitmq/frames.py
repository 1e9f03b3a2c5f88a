"""Reads and writes the AMQP 0-9-1 frames of deliveries, confirms, publications and acknowledgements.

Generic codecs look up each field of each frame by its name; these functions know the few layouts that matter. Tables of
headers are in `field_tables`. Source: https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf sections 2.3.5 and 4.2.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, NamedTuple

from runner.message import NO_HEADERS, Address, Envelope
from runner.transports.rabbitmq.field_tables import ODD_BYTES, read_table, read_time, write_table, write_time

METHOD, HEADER, BODY = 1, 2, 3
FRAME_END = 0xCE
FRAME_HEAD = Struct(">BHI")
"""The type, channel and size of a frame. The payload and FRAME_END follow."""

DELIVER = b"\x00\x3c\x00\x3c"
RETURN = b"\x00\x3c\x00\x32"
ACK = b"\x00\x3c\x00\x50"
NACK = b"\x00\x3c\x00\x78"
CHANNEL_CLOSE = b"\x00\x14\x00\x28"
CHANNEL_CLOSE_OK = b"\x00\x14\x00\x29"
CONNECTION_CLOSE = b"\x00\x0a\x00\x32"

_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
_MANDATORY = b"\x01"
_BASIC = 60
BODY_SIZE = Struct(">Q")
BODY_SIZE_AT = 4
"""The body's size in the payload of a content header."""

_TAG = Struct(">Q")
_TAG_AND_BITS = Struct(">4sQB")
_CONTENT = Struct(">HHQ")
_FLAGS = Struct(">H")
_END = b"\xce"
_PERSISTENT = b"\x02"


CONTENT_START = 12
"""Where the properties begin in the payload of a content header: after class, weight and body size."""


class DeliverFrame(NamedTuple):
    """The fields of a deliver frame, which precedes the message."""

    tag: int
    is_redelivered: bool
    exchange: str
    routing_key: str


class ContentHeader(NamedTuple):
    """The fields of a content header: the body's size in bytes, and the properties in the order of an envelope."""

    size: int
    properties: tuple[Any, ...]


def read_deliver(payload: bytes) -> DeliverFrame:
    """Read the payload of a deliver frame. Raises IndexError or struct.error where it is cut off."""
    end = 5 + payload[4]  # where the consumer tag ends
    (tag,) = _TAG.unpack_from(payload, end)
    exchange_at = end + 10
    key_at = exchange_at + payload[end + 9]
    exchange = payload[exchange_at:key_at].decode("utf-8", ODD_BYTES)
    routing_key = payload[key_at + 1 : key_at + 1 + payload[key_at]].decode("utf-8", ODD_BYTES)
    return DeliverFrame(tag, bool(payload[end + 8] & 1), exchange, routing_key)


def read_size(payload: bytes) -> int:
    """Return the body's size in bytes, from the payload of a content header."""
    (size,) = _TAG.unpack_from(payload, 4)
    return int(size)


def read_confirm(payload: bytes) -> tuple[int, bool]:
    """Return the delivery tag of an ack or nack frame, and whether it covers all tags before it."""
    _, tag, bits = _TAG_AND_BITS.unpack_from(payload)
    return tag, bool(bits & 1)


def read_content(payload: bytes) -> ContentHeader:
    """Read the payload of a content header. Raises struct.error, ValueError or IndexError."""
    size = read_size(payload)
    (flags,) = _FLAGS.unpack_from(payload, CONTENT_START)
    if flags & 1:
        raise ValueError("more property flags than AMQP 0-9-1 has")
    return ContentHeader(size, _read_properties(payload, flags))


def _read_properties(payload: bytes, flags: int) -> tuple[Any, ...]:
    at = CONTENT_START + _FLAGS.size

    def text() -> str:
        nonlocal at
        start = at + 1
        at = start + payload[at]
        if at > len(payload):
            raise ValueError("a property is longer than its frame")
        return payload[start:at].decode("utf-8", ODD_BYTES)

    content_type = text() if flags & 0x8000 else None
    content_encoding = text() if flags & 0x4000 else None
    headers: Any = NO_HEADERS
    if flags & 0x2000:
        headers, at = read_table(payload, at)
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
        timestamp, at = read_time(payload, at), at + 8
    kind = text() if flags & 0x0020 else None
    if flags & 0x0010:
        text()
    app_id = text() if flags & 0x0008 else None
    ids = (message_id, correlation_id, kind, app_id)
    kinds = (content_type, content_encoding, reply_to)
    return (*ids, timestamp, *kinds, priority, milliseconds(expiration), headers)


def milliseconds(expiration: str | None) -> int | None:
    """Return an expiration as a number; None where it is not one."""
    return int(expiration) if expiration and expiration.isdecimal() else None


def write_ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Return the frame that acknowledges a delivery, with `multiple` also all before it."""
    return FRAME_HEAD.pack(METHOD, channel, 13) + _TAG_AND_BITS.pack(ACK, tag, multiple) + _END


def write_publish(channel: int, address: Address) -> bytes:
    """Return the frame with the address of the message that follows, mandatory. Raises ValueError for a long name."""
    payload = _PUBLISH + _short(address.exchange) + _short(address.key) + _MANDATORY
    return FRAME_HEAD.pack(METHOD, channel, len(payload)) + payload + _END


def write_content(channel: int, envelope: Envelope, max_frame: int) -> bytes:
    """Return the content header and the body of a persistent message, in frames of at most `max_frame` bytes.

    Raises ValueError for a property longer than 255 bytes.
    """
    body = envelope.body
    properties = write_properties(envelope)
    header = _CONTENT.pack(_BASIC, 0, len(body))
    frames = [FRAME_HEAD.pack(HEADER, channel, len(header) + len(properties)), header, properties, _END]
    room = max_frame - 8
    for start in range(0, len(body), room):
        piece = body[start : start + room]
        frames += (FRAME_HEAD.pack(BODY, channel, len(piece)), piece, _END)
    return b"".join(frames)


def write_properties(envelope: Envelope) -> bytes:
    """Return the flags and the properties, in the order that AMQP prescribes."""
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
        parts.append(write_table(envelope.headers))
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
        parts.append(write_time(envelope.timestamp))
    add(0x0020, envelope.type)
    add(0x0008, envelope.app_id)
    return _FLAGS.pack(flags) + b"".join(parts)


def _short(text: str) -> bytes:
    encoded = text.encode("utf-8", ODD_BYTES)
    if len(encoded) > 255:
        raise ValueError("a short text is longer than 255 bytes")
    return bytes((len(encoded),)) + encoded
