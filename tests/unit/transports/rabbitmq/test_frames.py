"""Our reader and writer of AMQP's bytes against pamqp, the client's generic one: the same bytes, the same values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import pamqp.frame
from aiormq.connection import FrameReceiver
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from runner.message import NO_HEADERS, UNREADABLE, Address, Envelope
from runner.transports.rabbitmq.amqp_fast_path import ChannelRoute, FrameReader
from runner.transports.rabbitmq.frames import (
    DELIVER,
    METHOD,
    DeliverFrame,
    PublicationWriter,
    read_confirm,
    read_deliver,
    write_ack,
    write_content,
    write_publish,
)
from runner.transports.rabbitmq.message_decoder import decode_message

MAX_FRAME = 4096
SHORT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
MAYBE = st.none() | SHORT
MOMENTS = st.integers(0, 2**32 - 1).map(lambda seconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))
NAMES = SHORT.filter(lambda name: 0 < len(name.encode()) <= 128)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | SHORT | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
ENVELOPES = st.builds(
    Envelope,
    st.binary(max_size=3 * MAX_FRAME),
    MAYBE,
    MAYBE,
    MAYBE,
    MAYBE,
    st.none() | MOMENTS,
    MAYBE,
    MAYBE,
    MAYBE,
    st.none() | st.integers(0, 255),
    st.none() | st.integers(0, 2**32 - 1),
    st.dictionaries(NAMES, VALUES, max_size=4).map(lambda headers: headers or NO_HEADERS),
)


class Received(NamedTuple):
    """A delivery as the fast path has read it."""

    deliver: DeliverFrame
    envelope: Envelope
    unreadable: str


def in_order(value: Any) -> Any:
    """Return tables as pamqp writes them: sorted by their names."""
    match value:
        case dict():
            return {name: in_order(item) for name, item in sorted(value.items())}
        case list():
            return [in_order(item) for item in value]
    return value


def as_pamqp_has_it(value: Any) -> Any:
    match value:
        case bytes():
            return bytearray(value)
        case dict():
            return {name: as_pamqp_has_it(item) for name, item in value.items()}
        case list():
            return [as_pamqp_has_it(item) for item in value]
    return value


def properties_of(envelope: Envelope) -> commands.Basic.Properties:
    return commands.Basic.Properties(
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        headers=as_pamqp_has_it(dict(envelope.headers)) or None,
        delivery_mode=2,
        priority=envelope.priority,
        correlation_id=envelope.correlation_id,
        reply_to=envelope.reply_to,
        expiration=None if envelope.expiration_ms is None else str(envelope.expiration_ms),
        message_id=envelope.message_id,
        timestamp=envelope.timestamp,  # type: ignore[arg-type]  # it encodes numbers, too
        message_type=envelope.type,
        app_id=envelope.app_id,
    )


def as_pamqp_writes(channel: int, address: Address, envelope: Envelope) -> bytes:
    room = MAX_FRAME - 8
    pieces = [envelope.body[start : start + room] for start in range(0, len(envelope.body), room)]
    frames: list[Any] = [
        commands.Basic.Publish(exchange=address.exchange, routing_key=address.key, mandatory=True),
        ContentHeader(body_size=len(envelope.body), properties=properties_of(envelope)),
        *map(ContentBody, pieces),
    ]
    return b"".join(pamqp.frame.marshal(frame, channel) for frame in frames)


@given(ENVELOPES, st.integers(1, 2047), SHORT)
@settings(deadline=None)
def test_publications_are_written_as_pamqp_writes_them(envelope: Envelope, channel: int, key: str) -> None:
    """But for what pamqp leaves out (an empty text counts as none there), and for the order of the headers."""
    names = ("message_id", "correlation_id", "type", "app_id", "content_type", "content_encoding")
    empty_as_none: dict[str, Any] = {name: getattr(envelope, name) or None for name in names}
    some = envelope._replace(
        **empty_as_none,
        reply_to=envelope.reply_to or None,
        priority=envelope.priority or None,
        headers=in_order(dict(envelope.headers)),
    )
    address = Address("shop", key)
    ours = write_publish(channel, address) + write_content(channel, some, MAX_FRAME)
    assert PublicationWriter(channel, MAX_FRAME).write(address, some) == ours
    assert ours == as_pamqp_writes(channel, address, some)


SMALL_FRAME = 64
USUAL = st.builds(
    Envelope,
    st.binary(max_size=SMALL_FRAME),
    SHORT | st.just("i" * 256),
    SHORT | st.just("c" * 256),
    MAYBE,
    MAYBE,
    MOMENTS,
    MAYBE,
    *[st.none()] * 4,
    st.just(NO_HEADERS),
)
"""Envelopes of which most take the short way, and some are just too long for it."""


def written(write: Callable[[Address, Envelope], bytes], address: Address, envelope: Envelope) -> bytes | str:
    try:
        return write(address, envelope)
    except ValueError as error:
        return str(error)


@given(USUAL, USUAL | ENVELOPES, st.sampled_from(["a", "b"]))
@settings(deadline=None)
def test_the_short_way_of_a_publication_writes_the_same_bytes(first: Envelope, second: Envelope, key: str) -> None:
    """One writer writes both, and the second with what it has kept of the first."""
    writer = PublicationWriter(7, SMALL_FRAME)

    def generally(address: Address, envelope: Envelope) -> bytes:
        return write_publish(7, address) + write_content(7, envelope, SMALL_FRAME)

    for address, envelope in ((Address("shop", "a"), first), (Address("shop", key), second)):
        assert written(writer.write, address, envelope) == written(generally, address, envelope)


@given(st.integers(1, 65_535), st.integers(1, 2**63 - 1), st.booleans())
def test_acknowledgements_are_written_as_pamqp_writes_them(channel: int, tag: int, multiple: bool) -> None:
    frame = pamqp.frame.marshal(commands.Basic.Ack(delivery_tag=tag, multiple=multiple), channel)
    assert write_ack(channel, tag, multiple=multiple) == frame
    assert read_confirm(frame[7:-1]) == (tag, multiple)


def delivered(tag: int, envelope: Envelope, *, channel: int = 1, is_redelivered: bool = False) -> bytes:
    """Return what the broker sends."""
    deliver = commands.Basic.Deliver(
        consumer_tag="ctag", delivery_tag=tag, redelivered=is_redelivered, exchange="shop", routing_key="a.b"
    )
    return pamqp.frame.marshal(deliver, channel) + write_content(channel, envelope, MAX_FRAME)


async def read(pieces: list[bytes], *, channel: int = 1) -> tuple[list[Received], list[Any], BaseException]:
    """Feed bytes to a reader, piece by piece; return the deliveries of one channel, other frames, and the end."""
    reader = asyncio.StreamReader()
    frames = FrameReader(reader)
    seen: list[Received] = []

    def receive(method: bytes, header: bytes, body: bytes) -> None:
        seen.append(Received(read_deliver(method), *decode_message(header, body)))

    frames.routes[channel] = ChannelRoute(channel, frozenset({DELIVER}), receive)
    others: list[Any] = []

    async def feed() -> None:
        for piece in pieces:
            reader.feed_data(piece)
            await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.create_task(feed())
    try:
        async for _, number, frame in FrameReceiver(frames):  # type: ignore[arg-type]
            if not isinstance(frame, Heartbeat):
                others.append((number, frame.name))
    except Exception as error:
        return seen, others, error
    finally:
        await feeding
    raise AssertionError("it ended without an error")


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


@given(st.lists(ENVELOPES, min_size=1, max_size=4), st.lists(st.integers(0, 100_000), max_size=6))
@settings(deadline=None)
def test_deliveries_are_read_however_their_bytes_are_cut(envelopes: list[Envelope], places: list[int]) -> None:
    """Between them the frames of others: they go their usual way, in order."""
    data = b""
    for tag, envelope in enumerate(envelopes, 1):
        data += delivered(tag, envelope, is_redelivered=tag % 2 == 0)
        data += pamqp.frame.marshal(commands.Channel.CloseOk(), 2)
        data += delivered(tag, envelope, channel=3)
    seen, others, error = asyncio.run(read(cut(data, places)))
    assert [delivery.envelope for delivery in seen] == envelopes
    tags = range(1, len(envelopes) + 1)
    assert [each.deliver for each in seen] == [DeliverFrame(tag, tag % 2 == 0, "shop", "a.b") for tag in tags]
    assert [name for number, name in others if number == 2] == ["Channel.CloseOk"] * len(envelopes)
    assert [name for number, name in others if number == 3][:2] == ["Basic.Deliver", "ContentHeader"]
    assert isinstance(error, AMQPConnectionError)


@given(st.binary(min_size=1, max_size=200), st.lists(st.integers(0, 300), max_size=3))
@settings(deadline=None)
def test_garbage_ends_the_connection_and_nothing_else(garbage: bytes, places: list[int]) -> None:
    """Behind a good delivery: what cannot be read is an error of the connection, never a message."""
    envelope = Envelope(b"{}", message_id="1")
    seen, _, error = asyncio.run(read(cut(delivered(1, envelope) + b"\x09" + garbage, places)))
    assert [delivery.envelope for delivery in seen] == [envelope]
    assert isinstance(error, AMQPConnectionError | InvalidFrameError)


FLAGS = b"\x10\x80"  # a delivery mode, and a message id


def test_what_cannot_be_read_is_one_message_and_not_the_connection() -> None:
    """It has more flags than AMQP has properties. It is handed on as bytes, and its neighbours as they are."""
    good, poison = Envelope(b"{}", message_id="1"), Envelope(b"x" * 5000, message_id="abc")
    data = delivered(1, good) + delivered(2, poison).replace(FLAGS, b"\x10\x81") + delivered(3, good)
    seen, others, error = asyncio.run(read([data]))
    first, odd, last = seen
    assert [(each.deliver.tag, each.envelope, each.unreadable) for each in (first, last)] == [
        (1, good, ""),
        (3, good, ""),
    ]
    assert (odd.deliver.tag, odd.unreadable) == (2, "ValueError: more property flags than AMQP 0-9-1 has")
    assert odd.envelope == Envelope(poison.body, headers={UNREADABLE: b"\x10\x81\x02\x03abc"})
    assert not others
    assert isinstance(error, AMQPConnectionError)


def test_a_reply_that_the_broker_has_cut_in_the_middle_of_a_letter_is_readable() -> None:
    """pamqp would end the connection over it."""
    close = pamqp.frame.marshal(
        commands.Channel.Close(reply_code=404, reply_text="no queue 'ü", class_id=50, method_id=10), 5
    )
    data = close.replace("ü".encode(), b"\xc3.")
    _, others, error = asyncio.run(read([data]))
    assert others == [(5, "Channel.Close")]
    assert isinstance(error, AMQPConnectionError)


def test_the_channels_end_is_seen_before_anything_is_written_to_it() -> None:
    route = ChannelRoute(1, frozenset({DELIVER}), lambda *_: None)
    close = pamqp.frame.marshal(commands.Channel.Close(reply_code=404, reply_text="gone", class_id=60, method_id=40), 1)
    assert route.take(METHOD, close[7:-1]) is False
    assert route.is_open is False
