"""Texts and tables of headers: all that RabbitMQ takes is read, and written as the same bytes again."""

from __future__ import annotations

import math
import pickle
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.message import NO_HEADERS, Envelope, Timestamp, Undecoded
from runner.transports.amqp_limits import MAX_TABLE_DEPTH, normalize_envelope
from runner.transports.rabbitmq.field_tables import read_table, read_text, write_table, write_text


def sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def field(kind: bytes, value: bytes) -> bytes:
    return b"\x01k" + kind + value


RAW = st.recursive(
    st.one_of(
        st.sampled_from([b"t\x00", b"t\x01", b"V"]),
        st.integers(-(2**63), 2**63 - 1).map(lambda number: b"T" + struct.pack(">q", number)),
        st.integers(-(2**63), -(2**31) - 1).map(lambda number: b"l" + struct.pack(">q", number)),
        st.integers(-128, 127).map(lambda number: b"b" + struct.pack(">b", number)),
        st.floats(allow_nan=False).map(lambda number: b"d" + struct.pack(">d", number)),
        st.tuples(st.integers(0, 255), st.integers(-(2**31), 2**31 - 1)).map(lambda d: b"D" + struct.pack(">Bi", *d)),
        st.binary(max_size=30).map(lambda data: b"S" + sized(data)),
        st.binary(max_size=30).map(lambda data: b"x" + sized(data)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: b"A" + sized(b"".join(items))),
        st.dictionaries(st.binary(max_size=8), inner, max_size=4).map(lambda items: b"F" + table(items)),
    ),
    max_leaves=8,
)


def table(items: dict[bytes, bytes]) -> bytes:
    return sized(b"".join(bytes([len(name)]) + name + value for name, value in items.items()))


def sent(headers: Any) -> Any:
    """Return headers as the copy of a message has them."""
    return normalize_envelope(Envelope(b"", headers=headers), is_copy=True).headers


@given(st.dictionaries(st.binary(max_size=255), RAW, max_size=5))
@settings(deadline=None)
def test_what_was_read_is_written_as_the_same_bytes(items: dict[bytes, bytes]) -> None:
    """Also through what checks an envelope before it is published again. Times, decimals and odd texts included."""
    data = table(items)
    headers, end = read_table(b"before" + data + b"after", 6)
    assert end == 6 + len(data)
    assert write_table(sent(headers)) == data
    assert write_table(pickle.loads(pickle.dumps(dict(headers)))) == data  # ours, for a handler in another process


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        (b"t", b"\x02", True),
        (b"B", b"\xff", 255),
        (b"s", b"\xff\xfe", -2),
        (b"u", b"\xff\xfe", 65_534),
        (b"I", b"\xff\xff\xff\xff", -1),
        (b"i", b"\xff\xff\xff\xff", 2**32 - 1),
        (b"L", b"\xff" * 8, -1),
        (b"l", b"\x7f" + b"\xff" * 7, 2**63 - 1),
        (b"f", struct.pack(">f", 0.1), struct.unpack(">f", struct.pack(">f", 0.1))[0]),
        (b"d", struct.pack(">d", 0.1), 0.1),
        (b"D", b"\x02\x00\x00\x00\x6e", Decimal("1.10")),
        (b"D", b"\xff\xff\xff\xff\xff", Decimal("-1e-255")),
        (b"S", sized("ü".encode()), "ü"),
        (b"S", sized(b"\xfcnn"), "\udcfcnn"),
        (b"x", sized(b"\xfcnn"), b"\xfcnn"),
        (b"V", b"", None),
        (b"T", struct.pack(">q", 0), datetime(1970, 1, 1, tzinfo=UTC)),
        (b"T", struct.pack(">q", -157_766_400), datetime(1965, 1, 1, tzinfo=UTC)),
        (b"T", struct.pack(">q", -62_135_596_800), datetime(1, 1, 1, tzinfo=UTC)),
        (b"T", struct.pack(">q", -62_135_596_801), Timestamp(-62_135_596_801)),
        (b"T", struct.pack(">q", 1_727_000_000_000_000), Timestamp(1_727_000_000_000_000)),
        (b"T", b"\x80" + bytes(7), Timestamp(-(2**63))),
        (b"A", sized(b"t\x01" + b"V"), [True, None]),
        (b"F", sized(b"\x01at\x00"), {"a": False}),
        (b"F", sized(b""), {}),
    ],
)
def test_each_type_becomes_the_value_that_python_has_for_it(kind: bytes, data: bytes, value: Any) -> None:
    headers, _ = read_table(sized(field(kind, data)), 0)
    assert headers == {"k": value}
    assert type(headers["k"]) is type(value)
    assert read_table(write_table(sent(headers)), 0)[0] == headers


def test_not_a_number_stays_none() -> None:
    headers, _ = read_table(sized(field(b"d", struct.pack(">d", math.nan))), 0)
    assert math.isnan(headers["k"])


def test_an_empty_table_is_no_headers() -> None:
    assert read_table(sized(b""), 0) == (NO_HEADERS, 4)


@pytest.mark.parametrize("depth", [MAX_TABLE_DEPTH - 1, MAX_TABLE_DEPTH, 5000])
def test_what_is_nested_too_deeply_stays_bytes(depth: int) -> None:
    """It is no reason to refuse the message. A copy carries it on as it is."""
    made = sized(b"")
    for number in range(depth):
        made = sized(field(b"F", made) if number % 2 else field(b"A", sized(b"F" + made)))
    headers, _ = read_table(made, 0)
    assert write_table(sent(headers)) == made
    inner: Any = headers
    while isinstance(inner, dict | list) and inner:
        inner = inner["k"] if isinstance(inner, dict) else inner[0]
    assert isinstance(inner, Undecoded)


@pytest.mark.parametrize(
    "data",
    [
        field(b"z", b"\x00"),
        field(b"S", struct.pack(">I", 100) + b"x"),
        field(b"A", struct.pack(">I", 100) + b"x"),
        field(b"I", b"\x00"),
        field(b"", b""),
        b"\xff" + b"k",
    ],
)
def test_what_is_no_table_is_an_error_and_not_an_endless_loop(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError, struct.error)):
        read_table(sized(data), 0)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_text_and_the_same_bytes_again(data: bytes) -> None:
    assert write_text(read_text(data)) == data


@given(st.binary(max_size=100))
@settings(deadline=None)
def test_garbage_is_a_table_or_one_of_three_errors(data: bytes) -> None:
    try:
        headers, end = read_table(sized(data), 0)
    except (ValueError, IndexError, struct.error):
        return
    assert end == 4 + len(data)
    sent(headers)
