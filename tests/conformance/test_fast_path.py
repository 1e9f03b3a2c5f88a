"""The fast path past aiormq's queues: who goes by it, and what is said when nobody does."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import aio_pika
import aiormq
import pytest

from runner.errors import PublishUnknown
from runner.message import NO_HEADERS, Address, Envelope
from runner.pipeline.codec import encode
from runner.pipeline.model import BrokerSettings, Destination
from runner.pipeline.topology import Queue, Topology
from runner.runtime.publisher import PipelinePublisher
from runner.transports.base import Delivery, SubscriptionOptions, TransportEvent
from runner.transports.rabbitmq import RabbitTransport, frames, publish_channel, publisher
from runner.transports.rabbitmq.amqp_fast_path import SWITCH, FrameReader
from tests.node import Broker
from tests.proxy import Proxy


def open_readers() -> int:
    gc.collect()
    return sum(isinstance(each, FrameReader) for each in gc.get_objects())


async def test_the_slow_way_is_a_warning_that_says_why(rabbitmq: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[TransportEvent] = []
    for value in ("", "1"):
        monkeypatch.setenv(SWITCH, value)
        transport = RabbitTransport(BrokerSettings(urls=(rabbitmq.url,)), on_transport_event=events.append)
        await transport.connect()
        await transport.close()
    (warning,) = [event for event in events if event.event == "broker.slow_path"]
    assert warning.level == "warning"
    assert warning.fields["reason"] == "RUNNER_PLAIN_AMQP is set"
    assert "unset RUNNER_PLAIN_AMQP" in warning.fields["hint"]


async def test_other_connections_in_the_process_do_not_go_through_ours(rabbitmq: Broker, unique: str) -> None:
    """Ours are made with a transport factory of their own, and nothing is replaced in aiormq."""
    before = open_readers()
    transport = RabbitTransport(BrokerSettings(urls=(rabbitmq.url,)))
    await transport.connect()
    assert open_readers() == before + 2  # one to publish, one to consume
    async with await aio_pika.connect(rabbitmq.url) as theirs, theirs.channel() as channel:
        assert open_readers() == before + 2
        queue = await channel.declare_queue(unique, exclusive=True)
        await channel.default_exchange.publish(aio_pika.Message(b"theirs"), routing_key=unique)
        async with asyncio.timeout(10), queue.iterator() as messages:
            async for message in messages:
                await message.ack()
                assert message.body == b"theirs"
                break
    await transport.close()


USUAL = Envelope(b'{"n": 1}', "id", "correlation", "order.placed", "shop", datetime(2026, 11, 30, tzinfo=UTC), "text/x")
SHORT_WAY = {"usual": USUAL, "one id": USUAL._replace(correlation_id="id"), "no id": USUAL._replace(message_id=None)}
"""Messages that are written by a template: what those of one destination share is encoded once."""

GENERAL_WAY = {
    "headers": USUAL._replace(headers={"tenant": "acme"}),
    "priority": USUAL._replace(priority=3),
    "expiration": USUAL._replace(expiration_ms=60_000),
    "answer wanted": USUAL._replace(reply_to="answers"),
    "compressed": USUAL._replace(content_encoding="gzip"),
    "no correlation id": USUAL._replace(correlation_id=None),
    "no time": USUAL._replace(timestamp=None),
    "empty": USUAL._replace(body=b""),
    "several frames": USUAL._replace(body=b"x" * 200_000),
}
"""All others. They take the fast path past aiormq all the same."""


async def passed_on(url: str, queue: str, messages: Mapping[str, Envelope]) -> dict[str, list[tuple[Any, ...]]]:
    """Publish each message twice, awaited and not, where the transport does that; return what arrives, by its name."""
    transport = RabbitTransport(BrokerSettings(urls=(url,)))
    await transport.connect()
    await transport.declare(Topology(queues=(Queue(queue),)))
    address, got = Address("", queue), asyncio.Queue[Delivery]()
    await transport.subscribe(
        SubscriptionOptions(queue=queue, prefetch=9, dead_letter=None, wait_prefix=queue), got.put_nowait
    )
    arrived: dict[str, list[tuple[Any, ...]]] = {}
    async with asyncio.timeout(20):
        for name, envelope in messages.items():
            ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
            await transport.publish(address, envelope)
            started = transport.publish_nowait(address, envelope, ended.set_result)
            assert started == "busy" or await ended is None
            for _ in range(1 if started == "busy" else 2):
                delivery = await got.get()
                arrived.setdefault(name, []).append(tuple(delivery.envelope))
                transport.ack(delivery)
    await transport.close()
    return arrived


async def test_every_message_takes_the_fast_path_and_arrives_as_by_the_general_way(
    rabbitmq: Broker, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is published, confirmed, delivered and acknowledged without aiormq; the usual ones by a template."""
    general, write = [], frames.write_content

    def noted(channel: int, envelope: Envelope, max_frame: int) -> bytes:
        general.append(envelope)
        return write(channel, envelope, max_frame)

    messages = {**SHORT_WAY, **GENERAL_WAY}
    monkeypatch.setenv(SWITCH, "1")
    expected = await passed_on(rabbitmq.url, unique, messages)
    monkeypatch.setenv(SWITCH, "")
    monkeypatch.setattr(frames, "write_content", noted)
    for method in ("basic_publish", "basic_ack"):
        monkeypatch.setattr(aiormq.Channel, method, lambda *_, **__: pytest.fail("aiormq's way"))
    arrived = await passed_on(rabbitmq.url, unique, messages)
    for name, envelope in messages.items():
        (one,), (first, second) = expected[name], arrived[name]
        if envelope.message_id is None:  # each publication gets one
            assert len({one[1], first[1], second[1]}) == 3
            one, first, second = ((body, None, *rest) for body, _, *rest in (one, first, second))
        assert one == first == second == tuple(envelope)
    assert general == [envelope for envelope in GENERAL_WAY.values() for _ in range(2)]


@pytest.mark.parametrize("value", ["", "1"], ids=["direct", "public"])
async def test_a_publication_does_not_wait_for_a_broker_that_is_silent(
    rabbitmq: Broker, unique: str, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Neither its confirm nor the answer to the closing of its channel comes, while the connection stays up."""
    monkeypatch.setenv(SWITCH, value)
    monkeypatch.setattr(publisher, "CONFIRM_S", 0.2)
    monkeypatch.setattr(publish_channel, "CLOSE_S", 0.2)
    address, events = Address("", unique), list[TransportEvent]()
    async with Proxy(rabbitmq.port) as proxy:
        transport = RabbitTransport(
            BrokerSettings(urls=(proxy.url,), heartbeat_s=600), on_transport_event=events.append
        )
        await transport.connect()
        await transport.declare(Topology(queues=(Queue(unique),)))
        await transport.publish(address, Envelope(b"first"))
        proxy.half_open("down")
        with pytest.raises(PublishUnknown):
            async with asyncio.timeout(20):
                await transport.publish(address, Envelope(b"second"))
        assert "broker.stalled" in [event.event for event in events]
        proxy.pass_through()
        await transport.close()


async def test_results_and_items_begin_by_the_fast_path(
    rabbitmq: Broker, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for a slot, a connection or another attempt takes the general way; nothing else does."""
    transport = RabbitTransport(BrokerSettings(urls=(rabbitmq.url,)))
    await transport.connect()
    await transport.declare(Topology(queues=(Queue(unique),)))
    destination = Destination(unique, Address("", unique), is_event=False, encode=encode)
    publisher = PipelinePublisher(
        transport,
        app_id="shop",
        destinations={unique: destination},
        new_id=iter(map(str, range(100))).__next__,
        now=lambda: datetime.now(UTC),
    )
    first, *others = publisher.prepare([{"n": number} for number in range(50)], (destination,))
    await publisher.publish(first)  # opens the channel
    monkeypatch.setattr(transport, "publish", lambda *_: pytest.fail("the general way"))
    async with asyncio.timeout(10):
        await asyncio.gather(*(publisher.publish(each) for each in others))
    assert NO_HEADERS is others[0].envelope.headers
    await transport.close()
