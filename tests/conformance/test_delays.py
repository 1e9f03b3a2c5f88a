"""Delays, expiry, priority and ids of publications, through the publisher of a pipeline, on both brokers."""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import uuid4

import pytest

from runner import Publish
from runner.clock import utc_now
from runner.errors import PublishFailed
from runner.message import EXPIRES_AT, Address, attempt_of
from runner.outcome import DeadLetter
from runner.pipeline.codec import encode
from runner.pipeline.delays import delay_topology, step_name
from runner.pipeline.delivery_rules import ReceivingQueue, check_options
from runner.pipeline.model import Destination, delay_prefix
from runner.pipeline.topology import Binding, Queue
from runner.runtime.publisher import PipelinePublisher
from runner.transports.base import Transport
from tests.conformance.harness import Harness

EXACT_S = 0.1
"""What a delay may be late, beside what a loaded machine adds."""

LOADED_S = 1.0


def publisher(harness: Harness, session: Transport, *destinations: Destination) -> PipelinePublisher:
    """Return the publisher of a pipeline with the test's own name; what it declares is deleted after the test."""
    harness.declared.append(delay_topology(harness.unique, *destinations))
    return PipelinePublisher(
        session,
        app_id=harness.unique,
        destinations={each.name: each for each in destinations},
        new_id=lambda: uuid4().hex,
        now=utc_now,
    )


async def publish(publishing: PipelinePublisher, target: Destination, *results: Publish) -> None:
    for outgoing in publishing.prepare(results, (target,)):
        await publishing.publish(outgoing)


def to_queue(queue: Queue) -> Destination:
    return Destination(queue.name, Address("", queue.name), is_event=False, encode=encode)


async def test_a_delayed_message_arrives_as_it_was_published(harness: Harness) -> None:
    """It has its id, headers and routing key, on its first attempt; a shorter delay does not wait for a longer one."""
    session, q = await harness.one_queue("q")
    target = to_queue(q)
    inbox = await harness.collect(session, q)
    publishing = publisher(harness, session, target)
    await publish(publishing, target, Publish("slow", delay="950ms", id="r-2", headers={"tenant": "a"}))
    began = asyncio.get_running_loop().time()  # what holds delayed messages is declared by now
    await publish(publishing, target, Publish("quick", delay="250ms", id="r-1"), Publish("now", delay="0s"))
    now, quick, slow = await inbox.take(3)
    spent = asyncio.get_running_loop().time() - began
    assert [each.envelope.body for each in (now, quick, slow)] == [b"now", b"quick", b"slow"]
    assert spent <= 0.95 + EXACT_S + LOADED_S
    assert (slow.envelope.message_id, quick.envelope.message_id) == ("r-2", "r-1")
    assert slow.envelope.headers["tenant"] == "a"
    assert (slow.exchange, slow.routing_key) == ("", q.name)
    assert slow.attempt == attempt_of(slow.envelope.headers) == 1
    await harness.settle_all(session, [now, quick, slow])


async def test_a_delayed_event_reaches_each_queue_that_is_bound_when_it_arrives(harness: Harness) -> None:
    session, exchange = await harness.session(), harness.exchange("events")
    first, second, other = harness.queue("first"), harness.queue("second"), harness.queue("other")
    bindings = [Binding(exchange.name, first.name, "order.*"), Binding(exchange.name, second.name, "order.paid")]
    await harness.declare(session, exchange, first, second, other, *bindings, Binding(exchange.name, other.name, "x"))
    target = Destination("order.paid", Address(exchange.name, "order.paid"), is_event=True, encode=encode)
    await publish(publisher(harness, session, target), target, Publish(1, delay="100ms"))
    for queue in (first, second):
        (delivery,) = await (await harness.collect(session, queue)).take(1)
        assert (delivery.exchange, delivery.routing_key) == (exchange.name, "order.paid")
        await harness.settle_all(session, [delivery])
    assert await session.count_pending([harness.options(other)]) == 0


async def test_a_delayed_message_is_retried_and_given_up_like_any_other(harness: Harness) -> None:
    """The steps of its delay are no retries and no dead letters."""
    session, q, dead = await harness.session(), harness.queue("q"), harness.queue("q.dead")
    await harness.declare(session, q, dead)
    target = to_queue(q)
    inbox = await harness.collect(session, q, dead_letter=dead)
    await publish(publisher(harness, session, target), target, Publish("late", delay="150ms", headers={"tenant": "a"}))
    (delivery,) = await inbox.take(1)
    await session.settle(delivery, DeadLetter("rejected"))
    (letter,) = await (await harness.collect(session, dead)).take(1)
    headers = letter.envelope.headers
    assert headers["x-runner-reason"] == "rejected"
    assert {name for name in headers if "death" in name or "delay" in name} == set()
    assert headers["tenant"] == "a"
    await harness.settle_all(session, [letter])


async def test_what_waits_for_its_delay_is_counted_apart(harness: Harness) -> None:
    """`up --until-idle` does not wait for it, and a metric has it."""
    session, q = await harness.one_queue("q")
    target = to_queue(q)
    await publish(publisher(harness, session, target), target, Publish(1, delay="1h"), Publish(2, delay="30d"))
    options = [harness.options(q)]
    assert await session.count_pending(options) == 0
    async with asyncio.timeout(10):
        while await session.count_pending(options, with_delayed=True) != 2:  # RabbitMQ counts some time later
            await asyncio.sleep(0.05)
    holding = [harness.options(each) for each in delay_topology(harness.unique, target).queues]
    assert await session.count_pending(holding) == 2


async def test_a_message_for_a_missing_queue_waits_for_it_alone(harness: Harness) -> None:
    """Nothing is lost at the end of a delay, and nothing else is held up: here by more than RabbitMQ has in hand."""
    session, q, late = await harness.session(), harness.queue("q"), harness.queue("late")
    await harness.declare(session, q)
    there, missing = to_queue(q), to_queue(late)
    publishing = publisher(harness, session, there, missing)
    await publish(publishing, missing, *(Publish(number, delay="50ms") for number in range(40)))
    await publish(publishing, there, Publish("ok", delay="100ms"))
    inbox = await harness.collect(session, q)
    await harness.settle_all(session, await inbox.take(1))
    queues = delay_topology(harness.unique, missing).queues
    arrival = queues[-1].name
    assert arrival.endswith(f".delay.to.{late.name}")
    if not harness.kind.is_rabbitmq:  # RabbitMQ tries again after three minutes only
        await harness.declare(session, late)
        await harness.settle_all(session, await (await harness.collect(session, late, prefetch=40)).take(40))


async def test_delays_outlive_a_lost_connection(harness: Harness) -> None:
    harness.needs("reconnect")
    session, q = await harness.one_queue("q")
    target = to_queue(q)
    inbox = await harness.collect(session, q)
    publishing = publisher(harness, session, target)
    await publish(publishing, target, Publish("a", delay="500ms"))
    harness.lose_connections()
    await publish(publishing, target, Publish("b", delay="500ms"))
    found = set[bytes]()
    while found != {b"a", b"b"}:  # one that was in hand when the connection was lost comes twice
        found.add((await inbox.next()).envelope.body)


async def test_what_expires_goes_to_the_dead_letter_queue(harness: Harness) -> None:
    session, dead = await harness.session(), harness.queue("q.dead")
    q = harness.queue("q", dead_letter_exchange="", dead_letter_routing_key=dead.name)
    await harness.declare(session, dead, q)
    target = to_queue(q)
    publishing = publisher(harness, session, target)
    await publish(publishing, target, Publish("gone", expires="50ms", id="r-1"), Publish("stays"))
    (letter,) = await (await harness.collect(session, dead)).take(1)
    assert (letter.envelope.body, letter.envelope.message_id) == (b"gone", "r-1")
    assert letter.envelope.headers["x-death"][0]["reason"] == "expired"
    assert letter.envelope.headers["x-death"][0]["queue"] == q.name
    (delivery,) = await (await harness.collect(session, q)).take(1)
    assert delivery.envelope.body == b"stays"
    await harness.settle_all(session, [letter, delivery])


async def test_an_expiry_counts_from_the_end_of_the_delay(harness: Harness) -> None:
    """A broker removes the property `expiration` on the way, so a header carries it."""
    session, q = await harness.one_queue("q")
    target = to_queue(q)
    began = utc_now().timestamp()
    await publish(publisher(harness, session, target), target, Publish(1, delay="100ms", expires="1h"))
    (delivery,) = await (await harness.collect(session, q)).take(1)
    assert delivery.envelope.expiration_ms is None
    assert began + 3600.1 <= delivery.envelope.headers[EXPIRES_AT] / 1000 <= began + 3602.1 + LOADED_S
    await harness.settle_all(session, [delivery])


async def test_a_higher_priority_comes_first(harness: Harness) -> None:
    session = await harness.session()
    is_quorum = "x-queue-type" in harness.kind.arguments
    q = harness.queue("q") if is_quorum else harness.queue("q", max_priority=10)
    await harness.declare(session, q)
    target = Destination(q.name, Address("", q.name), is_event=False, encode=encode, has_quorum_queues=is_quorum)
    publishing = publisher(harness, session, target)
    results = [Publish("low", priority=1), Publish("high", priority=9)]
    if is_quorum and not session.capabilities.quorum_priorities:
        with pytest.raises(PublishFailed, match="quorum queues of this broker have no priorities"):
            await publish(publishing, target, *results)
        return
    await publish(publishing, target, *results)
    found = await (await harness.collect(session, q)).take(2)
    assert [each.envelope.priority for each in found] == [9, 1]
    await harness.settle_all(session, found)


async def test_delays_with_priorities_are_exact_or_refused(harness: Harness) -> None:
    """On RabbitMQ 4.0 to 4.2 a quorum queue lets two priorities take turns, and only its next message can expire."""
    session, q = await harness.one_queue("q")
    target = to_queue(q)
    publishing = publisher(harness, session, target)
    results = [Publish("low", priority=1, delay="200ms"), Publish("high", priority=9, delay="400ms")]
    if session.capabilities.quorum_priorities == 2:
        with pytest.raises(PublishFailed, match="cannot delay messages with priorities exactly"):
            await publish(publishing, target, *results)
        return
    inbox = await harness.collect(session, q)
    await publish(publishing, target, *results)
    found = await inbox.take(2)
    assert [each.envelope.body for each in found] == [b"low", b"high"]
    await harness.settle_all(session, found)


async def test_publish_nowait_waits_for_what_holds_delayed_messages_only_once(harness: Harness) -> None:
    session, q = await harness.one_queue("q")
    target = to_queue(q)
    publishing = publisher(harness, session, target)
    first, second = publishing.prepare([Publish(1, delay="50ms"), Publish(2, delay="50ms")], (target,))
    assert publishing.publish_nowait(first, lambda _: None) == "busy"
    await publishing.publish(first)
    assert first.destination.address.exchange == step_name(delay_prefix(harness.unique), 50)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def note(error: Exception | None) -> None:
        ended.set_exception(error) if error else ended.set_result(None)

    match publishing.publish_nowait(second, note):
        case "started":
            await ended
        case "busy":  # this way never publishes without waiting
            assert harness.kind.environment
            await publishing.publish(second)
    await harness.settle_all(session, await (await harness.collect(session, q)).take(2))


async def test_the_rule_of_the_file_holds_for_publish(harness: Harness) -> None:
    """A queue without priorities takes none, and nothing is sent."""
    from runner.config.queue_spec import QueueSpec

    session, q = await harness.one_queue("q")
    queues = {q.name: ReceivingQueue(QueueSpec(type="classic"), expires_to_dead=False)}
    target = Destination(
        q.name, Address("", q.name), is_event=False, encode=encode, check_options=partial(check_options, queues)
    )
    publishing = publisher(harness, session, target)
    for result, text in (
        (Publish(1, priority=1), f'priority: queue "{q.name}" has no priorities'),
        (Publish(1, expires="1h"), "messages that expire would be dropped"),
    ):
        with pytest.raises(PublishFailed, match=text) as failure:
            publishing.prepare([result], (target,))
        assert failure.value.reason == "invalid"
