"""The fast path past aiormq's queues: who goes by it, and what is said when nobody does."""

from __future__ import annotations

import asyncio
import gc

import aio_pika
import pytest

from runner.pipeline.model import BrokerSettings
from runner.transports.base import TransportEvent
from runner.transports.rabbitmq import RabbitTransport
from runner.transports.rabbitmq.amqp_fast_path import SWITCH, FrameReader
from tests.node import Broker


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
