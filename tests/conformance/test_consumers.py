"""What only RabbitMQ can do to a consumer: forget it, send it nothing, or hand it what ends processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runner.outcome import ACK
from runner.pipeline.model import BrokerSettings
from runner.transports.base import POISON_SUSPECT_AFTER, Delivery
from runner.transports.rabbitmq import RabbitTransport
from runner.transports.rabbitmq.amqp_fast_path import FrameReader
from runner.transports.rabbitmq.consumer import MAX_STALLED_CHECKS, RESTORE_PREFETCH_AFTER
from runner.transports.rabbitmq.consumer_channel import ConsumerChannel
from tests.conformance.harness import KINDS, Harness, bodies, text, to_queue, until

CONSUME_OK = b"\0\x3c\0\x15"
"""The class and the method of `basic.consume-ok`, which begin its frame's payload."""

QUORUM = [kind for kind in KINDS if kind.name == "rabbitmq-quorum"]
on_quorum_queues = pytest.mark.parametrize("harness", QUORUM, indirect=True, ids=lambda kind: kind.name)
on_rabbitmq = pytest.mark.parametrize(
    "harness", [kind for kind in KINDS if kind.is_rabbitmq], indirect=True, ids=lambda kind: kind.name
)


on_the_fast_path = pytest.mark.parametrize(
    "harness",
    [kind for kind in KINDS if kind.is_rabbitmq and not kind.environment],
    indirect=True,
    ids=lambda kind: kind.name,
)


def prefetch_of(delivery: Delivery) -> int:
    assert isinstance(delivery.subscription, ConsumerChannel)
    return delivery.subscription.prefetch


@contextlib.asynccontextmanager
async def watching(harness: Harness, broker: Any) -> AsyncIterator[RabbitTransport]:
    """A session that looks after its consumers without pause."""
    settings = BrokerSettings(urls=(broker.url,))
    transport = RabbitTransport(
        settings, name=harness.unique, on_transport_event=harness.changes.append, watchdog_s=0.05
    )
    await transport.connect()
    try:
        yield transport
    finally:
        await transport.close()


def said(harness: Harness, event: str) -> list[Any]:
    return [change.fields.get("error") for change in harness.changes if change.event == event]


async def until_said(harness: Harness, event: str, count: int = 1) -> None:
    async def times() -> bool:
        return len(said(harness, event)) >= count

    await until(times, True)


@on_rabbitmq
async def test_a_consumer_that_the_broker_has_forgotten_is_registered_again(harness: Harness, rabbitmq: Any) -> None:
    """It is cancelled behind its back: no word comes, the connection stands, and nothing would ever come again."""
    async with watching(harness, rabbitmq) as session:
        queue = harness.queue("work")
        await harness.declare(session, queue)
        inbox = await harness.collect(session, queue)
        consumer_channel = inbox.subscription.consumer_channel  # type: ignore[attr-defined]
        await consumer_channel.channel.basic_cancel(consumer_channel.tag)
        await until_said(harness, "consumer.resumed")
        assert inbox.subscription.is_live
        await session.publish(to_queue(queue), text("after"))
        assert bodies(await inbox.take(1)) == ["after"]
    assert said(harness, "consumer.lost") == ["the broker has no consumer of the queue"]


@on_rabbitmq
async def test_a_consumer_to_which_nothing_comes_is_registered_again(harness: Harness, rabbitmq: Any) -> None:
    """The broker counts a delivery against the prefetch that never reached us: it sends no more, and we wait."""
    async with watching(harness, rabbitmq) as session:
        queue = harness.queue("work")
        await harness.declare(session, queue)
        inbox = await harness.collect(session, queue, prefetch=1)
        await session.publish(to_queue(queue), text("kept"))
        await inbox.take(1)
        inbox.subscription.consumer_channel.count_settled()  # type: ignore[attr-defined]  # as if it had been lost on the way
        await session.publish(to_queue(queue), text("waits"))
        await until_said(harness, "consumer.resumed")
        (again,) = await inbox.take(1)
        assert (again.envelope.body, again.is_redelivered) == (b"kept", True)
    assert said(harness, "consumer.lost") == ["nothing arrives, although 1 messages wait"]
    assert MAX_STALLED_CHECKS > 1


@on_rabbitmq
async def test_a_consumer_that_works_is_left_alone(harness: Harness, rabbitmq: Any) -> None:
    """Neither an empty queue nor a full inbox is a standstill."""
    async with watching(harness, rabbitmq) as session:
        queue = harness.queue("work")
        await harness.declare(session, queue)
        inbox = await harness.collect(session, queue, prefetch=2)
        for number in range(4):
            await session.publish(to_queue(queue), text(str(number)))
        first = await inbox.take(2)
        for _ in range(3):
            await _looks(session, rabbitmq, harness)
        await harness.settle_all(session, first)
        await harness.settle_all(session, await inbox.take(2))
        for _ in range(3):
            await _looks(session, rabbitmq, harness)
    assert said(harness, "consumer.lost") == []


async def _looks(session: RabbitTransport, broker: Any, harness: Harness) -> None:
    """Wait until the session has looked at its consumers once more: it opens a channel for that."""
    await session.count_pending([harness.options(harness.queue("work"))])
    await asyncio.sleep(0.1)


@on_quorum_queues
async def test_what_may_have_ended_processes_is_taken_one_at_a_time(harness: Harness, rabbitmq: Any) -> None:
    """Until enough others have come: then as many at once as before."""
    session, queue = await harness.one_queue("work")
    for number in range(RESTORE_PREFETCH_AFTER + 10):
        await session.publish(to_queue(queue), text(str(number)))
    inbox = await harness.collect(session, queue, prefetch=3)
    for crashes in range(POISON_SUSPECT_AFTER):
        taken = await inbox.take(3)
        assert [delivery.failed_deliveries for delivery in taken] == [crashes] * 3
        if crashes < POISON_SUSPECT_AFTER:
            await asyncio.to_thread(harness.lose_connections)
    seen: list[str] = []
    for _ in range(3):
        (delivery,) = await inbox.take(1)
        assert delivery.is_poison_suspect
        seen += bodies([delivery])
        assert prefetch_of(delivery) == 1
        await session.settle(delivery, ACK)
    while len(seen) < RESTORE_PREFETCH_AFTER + 10:
        (delivery,) = await inbox.take(1)
        seen += bodies([delivery])
        await session.settle(delivery, ACK)
    assert [int(body) for body in seen] == list(range(RESTORE_PREFETCH_AFTER + 10))
    assert len([change for change in harness.changes if change.event == "consumer.careful"]) == 1
    assert prefetch_of(delivery) == 3


@on_quorum_queues
async def test_a_suspect_waits_for_what_was_delivered_before(harness: Harness, rabbitmq: Any) -> None:
    """Handlers that run are not disturbed; their messages are settled, not given back."""
    session, queue, inbox = await harness.one_inbox("work", prefetch=3)
    await session.publish(to_queue(queue), text("poison"))
    for _ in range(POISON_SUSPECT_AFTER):
        await inbox.take(1)
        await asyncio.to_thread(harness.lose_connections)
    other = await harness.session()
    await until_said(harness, "consumer.careful")
    (poison,) = await inbox.take(1)
    assert poison.is_poison_suspect
    await session.settle(poison, ACK)
    await other.publish(to_queue(queue), text("healthy"))
    (healthy,) = await inbox.take(1)
    assert await session.settle(healthy, ACK) is True


@on_the_fast_path
async def test_a_message_that_comes_before_the_answer_to_consume_is_acknowledged(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ sends both at once, and the subscription may be stopped before the answer is read."""
    session, queue = await harness.one_queue("w", single_active_consumer=True)
    inbox, is_stopped = await harness.collect(session, queue), asyncio.Event()
    next_frame = FrameReader._next_frame

    async def answer_late(reader: FrameReader) -> bytes:
        frame = await next_frame(reader)
        if frame[7:11] == CONSUME_OK:
            while not inbox.seen:
                reader._heartbeat_at = 0.0  # so that the call returns after a delivery, with a heartbeat
                await next_frame(reader)
            await is_stopped.wait()
        return frame

    monkeypatch.setattr(FrameReader, "_next_frame", answer_late)
    inbox.subscription.step_back()
    await session.publish(to_queue(queue), text("a"))
    (held,) = await inbox.take(1)
    await inbox.subscription.stop()
    is_stopped.set()
    assert await session.settle(held, ACK) is True
    await inbox.subscription.close()
    await session.publish(to_queue(queue), text("b"))
    await harness.until_pending(session, harness.options(queue), 1)
    assert len(inbox.seen) == 1
