"""Reads and writes the AMQP 0-9-1 frames of deliveries, confirms, publications and acknowledgements.

Generic codecs look up each field of each frame by its name; these functions know the few layouts that matter. Tables of
headers are in `field_tables`. Source: https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf sections 2.3.5 and 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

from runner.message import NO_HEADERS, Address, Envelope, Timestamp
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
_PERSISTENT = 2
_CONTENT_FRAME = Struct(">BHIHHQH")
"""The head of a content header's frame, and its payload up to the flags."""

_LENGTHS = [bytes((length,)) for length in range(256)]
_FIXED_SIZE = _CONTENT.size + _FLAGS.size + 1 + 1 + 8
"""Of its properties and the header: class, size, flags, two lengths, and the time."""

_NONE_RARE = [None, None, None]
"""No `reply_to`, priority and expiration."""

_TOO_LONG = "a short text is longer than 255 bytes"
MAX_TEMPLATES = 1000

new_tuple = tuple.__new__
"""Makes named tuples three times as fast as their constructors."""

_TIME_PLACE, _PRIORITY_PLACE, _EXPIRATION_PLACE, _HEADERS_PLACE, _MODE_PLACE, _USER_PLACE = 4, 8, 9, 10, 11, 12
_PLACES = 13
_NO_TEXTS = frozenset({_TIME_PLACE, _PRIORITY_PLACE, _HEADERS_PLACE, _MODE_PLACE})
_PROPERTIES = (
    *((0x8000, 5), (0x4000, 6), (0x2000, _HEADERS_PLACE), (0x1000, _MODE_PLACE), (0x0800, _PRIORITY_PLACE)),
    *((0x0400, 1), (0x0200, 7), (0x0100, _EXPIRATION_PLACE), (0x0080, 0), (0x0040, _TIME_PLACE), (0x0020, 2)),
    *((0x0010, _USER_PLACE), (0x0008, 3)),
)
"""The flags of properties in AMQP's order, and their places in an envelope behind the body; two have none there."""

CONTENT_START = 12
"""Where the properties begin in the payload of a content header: after class, weight and body size."""


class DeliverFrame(NamedTuple):
    """The fields of a deliver frame, which precedes the message."""

    tag: int
    is_redelivered: bool
    exchange: str
    routing_key: str


def read_deliver(payload: bytes) -> DeliverFrame:
    """Read the payload of a deliver frame. Raises IndexError or struct.error where it is cut off."""
    end = 5 + payload[4]  # where the consumer tag ends
    (tag,) = _TAG.unpack_from(payload, end)
    return new_tuple(DeliverFrame, (tag, bool(payload[end + 8] & 1), *_read_address(payload[end + 9 :])))


@lru_cache(MAX_TEMPLATES)
def _read_address(names: bytes) -> tuple[str, str]:
    """Return the exchange and the routing key, which many deliveries have in common."""
    key_at = 1 + names[0]
    key = names[key_at + 1 : key_at + 1 + names[key_at]]
    return names[1:key_at].decode("utf-8", ODD_BYTES), key.decode("utf-8", ODD_BYTES)


def read_size(payload: bytes) -> int:
    """Return the body's size in bytes, from the payload of a content header."""
    (size,) = _TAG.unpack_from(payload, 4)
    return int(size)


def read_confirm(payload: bytes) -> tuple[int, bool]:
    """Return the delivery tag of an ack or nack frame, and whether it covers all tags before it."""
    _, tag, bits = _TAG_AND_BITS.unpack_from(payload)
    return tag, bool(bits & 1)


def read_properties(payload: bytes) -> list[Any]:
    """Read the payload of a content header: return the properties in the order of an envelope.

    Raises struct.error, ValueError or IndexError.
    """
    (flags,) = _FLAGS.unpack_from(payload, CONTENT_START)
    at, size = CONTENT_START + _FLAGS.size, len(payload)
    found: list[Any] = [None] * _PLACES
    for place in _places(flags):
        if place not in _NO_TEXTS:
            start = at + 1
            at = start + payload[at]
            found[place] = payload[start:at].decode("utf-8", ODD_BYTES)
        elif place == _TIME_PLACE:
            found[place], at = _read_moment(payload[at : at + 8]), at + 8
        elif place == _HEADERS_PLACE:
            found[place], at = read_table(payload, at)
        else:
            found[place], at = payload[at], at + 1
    if at > size:
        raise ValueError("a property is longer than its frame")
    if found[_HEADERS_PLACE] is None:
        found[_HEADERS_PLACE] = NO_HEADERS
    if found[_EXPIRATION_PLACE] is not None:
        found[_EXPIRATION_PLACE] = milliseconds(found[_EXPIRATION_PLACE])
    del found[_HEADERS_PLACE + 1 :]
    return found


@lru_cache(MAX_TEMPLATES)
def _places(flags: int) -> tuple[int, ...]:
    """Return the places of the properties that a message has."""
    if flags & 1:
        raise ValueError("more property flags than AMQP 0-9-1 has")
    return tuple(place for flag, place in _PROPERTIES if flags & flag)


@lru_cache(MAX_TEMPLATES)
def _read_moment(data: bytes) -> datetime | Timestamp:
    """Return a time, which all messages of a second have in common."""
    return read_time(data, 0)


def milliseconds(expiration: str | None) -> int | None:
    """Return an expiration as a number; None where it is not one."""
    return int(expiration) if expiration and expiration.isdecimal() else None


def write_ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Return the frame that acknowledges a delivery, with `multiple` also all before it."""
    return FRAME_HEAD.pack(METHOD, channel, 13) + _TAG_AND_BITS.pack(ACK, tag, multiple) + _END


class PublicationWriter:
    """Writes the publications of one channel. What the messages of one destination have in common is encoded once.

    Raises ValueError for a name or a property longer than 255 bytes.
    """

    __slots__ = ("_channel", "_max_frame", "_moment", "_templates", "_time")

    def __init__(self, channel: int, max_frame: int) -> None:
        self._channel = channel
        self._max_frame = max_frame
        self._templates: dict[tuple[Address, str | None, str | None, str | None], tuple[bytes, int, bytes, bytes]] = {}
        self._moment = datetime.min
        """The last message's timestamp: the same object for all messages of a second."""
        self._time = b""

    def write(self, address: Address, envelope: Envelope) -> bytes:
        """Return the frames that publish a message.

        The short way is for messages with an id, a correlation id, a time and a body of one frame. A message with
        headers or with a property that is not set otherwise takes the general way.
        """
        body, message_id, correlation_id, kind, app_id, moment, content_type, encoding, *rare, headers = envelope
        size = len(body)
        if (
            encoding is not None or message_id is None or correlation_id is None or not 0 < size <= self._max_frame - 8
        ) or (type(moment) is not datetime or headers or rare != _NONE_RARE):
            return write_publish(self._channel, address) + write_content(self._channel, envelope, self._max_frame)
        if moment is not self._moment:
            self._moment, self._time = moment, write_time(moment)
        own_id = message_id.encode("utf-8", ODD_BYTES)
        correlation = own_id if correlation_id == message_id else correlation_id.encode("utf-8", ODD_BYTES)
        length, correlation_length = len(own_id), len(correlation)
        if length > 255 or correlation_length > 255:
            raise ValueError(_TOO_LONG)
        key = (address, content_type, kind, app_id)
        method, flags, before, after = self._templates.get(key) or self._make_template(key)
        payload_size = len(before) + len(after) + length + correlation_length + _FIXED_SIZE
        return b"".join(
            (
                *(method, _CONTENT_FRAME.pack(HEADER, self._channel, payload_size, _BASIC, 0, size, flags), before),
                *(_LENGTHS[correlation_length], correlation, _LENGTHS[length], own_id, self._time, after),
                *(_END, FRAME_HEAD.pack(BODY, self._channel, size), body, _END),
            )
        )

    def _make_template(
        self, key: tuple[Address, str | None, str | None, str | None]
    ) -> tuple[bytes, int, bytes, bytes]:
        """Return the publish frame, the flags, and the properties before the ids and after the time."""
        address, content_type, kind, app_id = key
        properties = write_properties(Envelope(b"", "", "", kind, app_id, self._moment, content_type))
        (flags,) = _FLAGS.unpack_from(properties)
        ids_at = 3 + (0 if content_type is None else 1 + properties[2])
        if len(self._templates) >= MAX_TEMPLATES:
            self._templates.clear()
        template = write_publish(self._channel, address), flags, properties[2:ids_at], properties[ids_at + 10 :]
        self._templates[key] = template
        return template


def write_frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a frame."""
    return FRAME_HEAD.pack(kind, channel, len(payload)) + payload + _END


def write_publish(channel: int, address: Address) -> bytes:
    """Return the frame with the address of the message that follows, mandatory. Raises ValueError for a long name."""
    return write_frame(METHOD, channel, _PUBLISH + _short(address.exchange) + _short(address.key) + _MANDATORY)


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
    flags, parts = 0, list[bytes]()
    values = (*envelope[1:-1], envelope.headers or None, _PERSISTENT, None)
    for flag, place in _PROPERTIES:
        if values[place] is not None:
            flags |= flag
            parts.append(_WRITERS.get(place, _short)(values[place]))
    return _FLAGS.pack(flags) + b"".join(parts)


def _short(text: str) -> bytes:
    encoded = text.encode("utf-8", ODD_BYTES)
    if len(encoded) > 255:
        raise ValueError(_TOO_LONG)
    return bytes((len(encoded),)) + encoded


_WRITERS: Mapping[int, Callable[[Any], bytes]] = {
    _TIME_PLACE: write_time,
    _PRIORITY_PLACE: lambda priority: bytes((priority,)),
    _EXPIRATION_PLACE: lambda expiration: _short(str(expiration)),
    _HEADERS_PLACE: write_table,
    _MODE_PLACE: lambda mode: bytes((mode,)),
}
"""Writes the properties that are no text, by their places."""
