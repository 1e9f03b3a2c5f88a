"""A message that waits aside is harmless there, and comes back as exactly what it was."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from runner.operations.rabbitmq.properties_packing import pack_properties, unpack_properties, without_delivery_counts


def header(properties: bytes, size: int = 5) -> bytes:
    """Return the payload of a content header: class, weight, size of the body, properties."""
    return struct.pack(">HHQ", 60, 0, size) + properties


def table(*entries: bytes) -> bytes:
    content = b"".join(entries)
    return struct.pack(">I", len(content)) + content


def entry(key: bytes, value: bytes) -> bytes:
    return bytes([len(key)]) + key + value


def text(value: bytes) -> bytes:
    return b"S" + struct.pack(">I", len(value)) + value


FOREIGN = (
    entry(b"double", b"d" + struct.pack(">d", 0.1))
    + entry(b"bad\xff", text(b"\xff\xfe"))
    + entry(b"when", b"T" + struct.pack(">Q", 1_700_000_000_000_000))
    + entry(b"CC", b"A" + struct.pack(">I", 9) + text(b"othr"))
    + entry(b"deep", b"F" + table(entry(b"n", b"l" + struct.pack(">q", 7))))
    + entry(b"none", b"V")
)
"""Headers that a client which decodes messages would change, or fail on."""

HAS_TYPE, HAS_HEADERS, HAS_PRIORITY, HAS_EXPIRATION, HAS_USER = 1 << 15, 1 << 13, 1 << 11, 1 << 8, 1 << 4


def foreign(headers: bytes = FOREIGN) -> bytes:
    flags = struct.pack(">H", HAS_TYPE | HAS_HEADERS | HAS_PRIORITY | HAS_EXPIRATION | HAS_USER)
    return header(flags + b"\x04text" + table(headers) + b"\x09" + b"\x0512000" + b"\x05alice")


def test_what_comes_back_is_byte_for_byte_what_it_was() -> None:
    """Floats, text that is not UTF-8, timestamps beyond reason, and everything else."""
    assert unpack_properties(pack_properties(foreign())) == foreign()


def test_nothing_acts_in_what_waits_aside() -> None:
    """No CC that routes, no expiration, no priority, no user: one header, and it is persistent."""
    _, _, _, properties = _decoded(pack_properties(foreign()))
    assert set(properties.headers or {}) == {"x-runner-recreating"}
    assert properties.delivery_mode == 2
    assert (properties.expiration, properties.priority, properties.user_id) == (None, None, None)


def test_a_message_that_came_by_a_binding_is_left_alone() -> None:
    """It was never wrapped."""
    assert unpack_properties(foreign()) == foreign()
    assert unpack_properties(header(b"\x00\x00")) == header(b"\x00\x00")


def test_it_comes_back_also_when_the_queue_has_counted_its_deliveries() -> None:
    """Quorum queues write a header of their own into what they deliver again."""
    waiting = pack_properties(foreign())
    size = struct.unpack_from(">I", waiting, 14)[0]
    count = entry(b"x-delivery-count", b"l" + struct.pack(">q", 2))
    counted = waiting[:14] + struct.pack(">I", size + len(count)) + count + waiting[18:]
    assert unpack_properties(counted) == foreign()
    assert unpack_properties(without_delivery_counts(counted)) == foreign()


def test_the_queues_own_counts_go_and_nothing_else() -> None:
    """Nor is a table of headers left where there was none."""
    count = entry(b"x-delivery-count", b"l" + struct.pack(">q", 2))
    assert without_delivery_counts(foreign(FOREIGN + count)) == foreign()
    assert without_delivery_counts(foreign()) == foreign()
    only_count = header(struct.pack(">H", HAS_HEADERS | HAS_PRIORITY) + table(count) + b"\x09")
    assert without_delivery_counts(only_count) == header(struct.pack(">H", HAS_PRIORITY) + b"\x09")


@given(
    st.builds(
        Basic.Properties,
        content_type=st.none() | st.text("abc/", min_size=1, max_size=20),
        content_encoding=st.none() | st.text("abc", min_size=1, max_size=20),
        headers=st.none()
        | st.dictionaries(
            st.text("abcx-", min_size=1, max_size=20),
            st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20),
            min_size=1,
        ),
        priority=st.none() | st.integers(1, 255),
        message_id=st.none() | st.text("abc", min_size=1, max_size=20),
        app_id=st.none() | st.text("abc", min_size=1, max_size=20),
    ),
    st.integers(0, 2**40),
)
def test_any_message_comes_back(properties: Basic.Properties, size: int) -> None:
    """Whatever properties it has or lacks."""
    payload = ContentHeader(0, size, properties).marshal()
    assert unpack_properties(pack_properties(payload)) == payload
    assert without_delivery_counts(payload) == payload


def _decoded(payload: bytes) -> tuple[int, int, int, Basic.Properties]:
    found = ContentHeader()
    found.unmarshal(payload)
    return 60, 0, found.body_size, found.properties
