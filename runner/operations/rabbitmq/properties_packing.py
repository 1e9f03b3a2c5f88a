"""Packs a message's properties into a single header while it waits aside, and unpacks exactly the same bytes.

While a message waits aside, none of its properties may act: a header `CC` would route copies to other queues, an
expiration would run out, a priority would change the order, and a `user_id` may be published by that user only. So all
properties are kept as bytes in one header. Types of fields: https://www.rabbitmq.com/amqp-0-9-1-errata#section_3
"""

from __future__ import annotations

import struct

from pamqp.commands import Basic
from pamqp.header import ContentHeader

PACKED_HEADER = "x-runner-recreating"

_COUNTS = (b"x-delivery-count", b"x-acquired-count")
"""Headers that quorum queues add to a redelivered message; they are not the publisher's."""

_START = 12  # class, weight, body size
_HAS_TYPE, _HAS_ENCODING, _HAS_HEADERS = 1 << 15, 1 << 14, 1 << 13
_SIZES = {b"t": 1, b"b": 1, b"B": 1, b"s": 2, b"u": 2, b"I": 4, b"i": 4, b"f": 4}
_SIZES |= {b"l": 8, b"L": 8, b"d": 8, b"T": 8, b"D": 5, b"V": 0}
_LONG = (b"S", b"x", b"A", b"F")

Entries = list[tuple[bytes, bytes]]
"""Keys and values of a field table. A value begins with the byte of its type."""


def pack_properties(header: bytes) -> bytes:
    """Return the content header for waiting aside, from the original content header."""
    (size,) = struct.unpack_from(">Q", header, 4)
    properties = Basic.Properties(delivery_mode=2, headers={PACKED_HEADER: bytearray(header[_START:])})
    payload: bytes = ContentHeader(0, size, properties).marshal()
    return payload


def unpack_properties(header: bytes) -> bytes:
    """Return the original content header. A header that is not packed, of a message that came by a binding, stays."""
    kept = next((value for key, value in _entries(header) if key == PACKED_HEADER.encode()), None)
    if kept is None or kept[:1] != b"x":
        return header
    return header[:_START] + kept[5:]


def without_delivery_counts(header: bytes) -> bytes:
    """Return the content header without the headers that the queue added."""
    entries = _entries(header)
    kept = [(key, value) for key, value in entries if key not in _COUNTS]
    if len(kept) == len(entries):
        return header
    start, end = _table(header)
    table = b"".join(bytes([len(key)]) + key + value for key, value in kept)
    if kept:
        return header[:start] + struct.pack(">I", len(table)) + table + header[end:]
    (flags,) = struct.unpack_from(">H", header, _START)
    without = struct.pack(">H", flags & ~_HAS_HEADERS)
    return header[:_START] + without + header[_START + 2 : start] + header[end:]


def _table(header: bytes) -> tuple[int, int]:
    """Return where the table of headers starts and ends; twice the same offset without headers."""
    (flags,) = struct.unpack_from(">H", header, _START)
    position = _START + 2
    for flag in (_HAS_TYPE, _HAS_ENCODING):
        if flags & flag:
            position += 1 + header[position]
    if not flags & _HAS_HEADERS:
        return position, position
    (length,) = struct.unpack_from(">I", header, position)
    return position, position + 4 + length


def _entries(header: bytes) -> Entries:
    """Return the headers; nothing where one has an unknown field type."""
    position, end = _table(header)
    position += 4
    found: Entries = []
    while position < end:
        key = header[position + 1 : position + 1 + header[position]]
        position += 1 + len(key)
        kind = header[position : position + 1]
        if kind in _LONG:
            size = 4 + int(struct.unpack_from(">I", header, position + 1)[0])
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            return []
        found.append((key, header[position : position + 1 + size]))
        position += 1 + size
    return found
