"""Promises 17 and 18: TTL, length limits, priorities, single active consumers and delivery limits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runner.errors import PublishFailed
from runner.message import Address
from runner.outcome import ACK, RELEASE, DeadLetter, Retry
from runner.pipeline.topology import Binding, Queue
from tests.conformance.harness import Harness, Inbox, bodies, text, to_queue


def dead_lettering_to(dead: Queue, **arguments: Any) -> dict[str, Any]:
    """Return the arguments of a queue whose dead letters go to this one."""
    return {"dead_letter_exchange": "", "dead_letter_routing_key": dead.name, **arguments}


def latest_death(inbox_delivery: Any) -> dict[str, Any]:
    """Return the first entry of `x-death`, which is the latest, without its time."""
    return {key: value for key, value in inbox_delivery.envelope.headers["x-death"][0].items() if key != "time"}


async def test_17_expired_messages_go_to_the_dead_letter_queue(harness: Harness) -> None:
    """A message that nobody takes in time is dead-lettered, and says when it died of what and where."""
    session, dead = await harness.session(), harness.queue("dead")
    queue = harness.queue("work", **dead_lettering_to(dead, message_ttl=300))
    exchange = harness.exchange("events")
    await harness.declare(session, dead, queue, exchange, Binding(exchange.name, queue.name, "#"))
    loop = asyncio.get_running_loop()
    began = loop.time()
    await session.publish(Address(exchange.name, "order.paid"), text("late", message_id="id-1", headers={"a": 1}))
    letter = await (await harness.collect(session, dead)).next()
    assert loop.time() - began >= 0.29
    assert (letter.envelope.body, letter.envelope.message_id, letter.envelope.headers["a"]) == (b"late", "id-1", 1)
    assert (letter.exchange, letter.routing_key, letter.attempt) == ("", dead.name, 1)
    assert latest_death(letter) == {
        "count": 1,
        "reason": "expired",
        "queue": queue.name,
        "exchange": exchange.name,
        "routing-keys": ["order.paid"],
    }


async def test_17_without_a_routing_key_a_dead_letter_keeps_its_own(harness: Harness) -> None:
    """That is how a wait queue brings a message back to the queue it is for."""
    session = await harness.session()
    exchange, wait = harness.exchange("in", "fanout"), harness.queue("wait", message_ttl=50, dead_letter_exchange="")
    home, other = harness.queue("home"), harness.queue("other")
    await harness.declare(session, exchange, wait, home, other, Binding(exchange.name, wait.name))
    await session.publish(Address(exchange.name, home.name), text("to home"))
    await session.publish(Address(exchange.name, other.name), text("to other"))
    assert bodies(await (await harness.collect(session, home)).take(1)) == ["to home"]
    assert bodies(await (await harness.collect(session, other)).take(1)) == ["to other"]


async def test_17_a_message_may_expire_by_its_own_time(harness: Harness) -> None:
    """A publisher can say how long one message is of use; in its dead letter that time is gone."""
    session, dead = await harness.session(), harness.queue("dead")
    queue = harness.queue("work", **dead_lettering_to(dead))
    await harness.declare(session, dead, queue)
    await session.publish(to_queue(queue), text("short", expiration_ms=50))
    letter = await (await harness.collect(session, dead)).next()
    assert (letter.envelope.body, letter.envelope.expiration_ms) == (b"short", None)
    assert latest_death(letter)["original-expiration"] == "50"


async def test_17_what_is_delivered_does_not_expire_any_more(harness: Harness) -> None:
    """A message in the hands of a handler is out of reach of its TTL, but not once it has been given back."""
    session, dead = await harness.session(), harness.queue("dead")
    queue = harness.queue("work", **dead_lettering_to(dead, message_ttl=150))
    await harness.declare(session, dead, queue)
    inbox, letters = await harness.collect(session, queue, prefetch=2), await harness.collect(session, dead)
    for body in ("kept", "given back", "never taken"):
        await session.publish(to_queue(queue), text(body))
    kept, given_back = await inbox.take(2)
    assert bodies(await letters.take(1)) == ["never taken"]
    await inbox.subscription.stop()
    assert await session.settle(given_back, RELEASE) is True
    assert bodies(await letters.take(1)) == ["given back"]
    assert await session.settle(kept, ACK) is True


async def test_17_a_full_queue_refuses(harness: Harness) -> None:
    """With reject-publish a full queue takes nothing more, says so, and keeps what it has."""
    session, queue = await harness.one_queue("work", max_length=5, overflow="reject-publish")
    taken = await publish_until_refused(harness, queue)
    assert 5 <= len(taken) <= 50  # a quorum queue notices a moment later
    inbox = await harness.collect(session, queue, prefetch=100)
    deliveries = await inbox.take(len(taken))
    assert bodies(deliveries) == taken
    await harness.settle_all(session, deliveries)

    async def is_taken() -> bool:
        try:
            await session.publish(to_queue(queue), text("again"))
        except PublishFailed:
            return False
        return True

    async with asyncio.timeout(10):
        while not await is_taken():
            await asyncio.sleep(0.02)
    assert bodies(await inbox.take(1)) == ["again"]


async def test_17_a_full_queue_does_not_keep_others_from_an_event(harness: Harness) -> None:
    """The publisher learns that one queue has refused; the other queues have the message all the same."""
    session, exchange = await harness.session(), harness.exchange("events", "fanout")
    small, large = harness.queue("small", max_length=1, overflow="reject-publish"), harness.queue("large")
    await harness.declare(
        session, exchange, small, large, Binding(exchange.name, small.name), Binding(exchange.name, large.name)
    )
    await publish_until_refused(harness, small)
    with pytest.raises(PublishFailed) as caught:
        await session.publish(Address(exchange.name, ""), text("half"))
    assert caught.value.reason == "refused"
    assert bodies(await (await harness.collect(session, large)).take(1)) == ["half"]


async def test_17_a_limit_in_bytes_refuses_too(harness: Harness) -> None:
    """The limit may be of bytes as well as of messages."""
    _, queue = await harness.one_queue("work", max_length_bytes=100, overflow="reject-publish")
    taken = await publish_until_refused(harness, queue, padding=b"x" * 30)
    assert 2 <= len(taken) <= 50  # quorum queues count more than the body, since 4.0 more than before


async def test_17_a_queue_that_drops_its_head_keeps_the_latest(harness: Harness) -> None:
    """With drop-head, which is RabbitMQ's default, the oldest make room, as dead letters."""
    session, dead = await harness.session(), harness.queue("dead")
    queue = harness.queue("work", **dead_lettering_to(dead, max_length=2))
    await harness.declare(session, dead, queue)
    for number in range(5):
        await session.publish(to_queue(queue), text(f"{number}"))
    letters = await (await harness.collect(session, dead)).take(3)
    assert bodies(letters) == ["0", "1", "2"]
    assert latest_death(letters[0])["reason"] == "maxlen"
    assert bodies(await (await harness.collect(session, queue)).take(2)) == ["3", "4"]


async def test_17_quorum_queues_have_priorities(harness: Harness) -> None:
    """From 4.3 on they need not be asked for: 32, and a message without one has the priority 4."""
    if harness.kind.name not in ("memory", "file", "rabbitmq-quorum") or harness.line < (4, 3):
        pytest.skip("priorities of quorum queues came with RabbitMQ 4.3")
    session, queue = await harness.one_queue("work", queue_type="quorum")
    priorities = (0, 3, None, 4, 31, 9, 255, 1)
    for priority in priorities:
        await session.publish(to_queue(queue), text(f"{priority}", priority=priority))
    inbox = await harness.collect(session, queue, prefetch=1)
    taken = []
    for _ in priorities:
        delivery = await inbox.next()
        taken += bodies([delivery])
        await session.settle(delivery, ACK)
    assert taken == ["31", "255", "9", "None", "4", "3", "1", "0"]


async def test_17_higher_priorities_come_first(harness: Harness) -> None:
    """Among waiting messages the higher priority is first; equals keep their order; too high counts as the highest."""
    harness.needs("priority")
    session, queue = await harness.one_queue("work", max_priority=5)
    for body, priority in (("low", 1), ("none", None), ("high", 5), ("also low", 1), ("beyond", 9), ("zero", 0)):
        await session.publish(to_queue(queue), text(body, priority=priority))
    inbox = await harness.collect(session, queue, prefetch=1)
    arrived = []
    for _ in range(6):
        delivery = await inbox.next()
        arrived.append(delivery.envelope.body.decode())
        await session.settle(delivery, ACK)
    assert arrived == ["high", "beyond", "low", "also low", "none", "zero"]


async def test_17_a_single_active_consumer_gets_everything_until_it_stops(harness: Harness) -> None:
    """Only the first subscriber works; when it stops, the next one takes over."""
    (one, queue), two = await harness.one_queue("w", single_active_consumer=True), await harness.session()
    active = await harness.collect(one, queue, prefetch=2)
    standby = await harness.collect(two, queue, prefetch=2)
    for body in ("a", "b", "c"):
        await one.publish(to_queue(queue), text(body))
    held = await active.take(2)
    await harness.until_pending(one, harness.options(queue), 1)
    assert standby.seen == []
    await harness.settle_all(one, held)
    await harness.settle_all(one, await active.take(1))
    await one.close()
    await two.publish(to_queue(queue), text("d"))
    assert bodies(await standby.take(1)) == ["d"]
    assert bodies(active.seen) == ["a", "b", "c"]


async def test_18_a_delivery_that_crashes_too_often_is_dead_lettered(harness: Harness) -> None:
    """A message that takes its process down each time does not do so for ever."""
    harness.needs("delivery-limit")
    watcher, dead = await harness.session(), harness.queue("dead")
    queue = harness.queue("work", **dead_lettering_to(dead, delivery_limit=2))
    await harness.declare(watcher, dead, queue)
    await watcher.publish(to_queue(queue), text("poison", message_id="id-1"))
    crashes = []
    for _ in range(3):
        victim = await harness.session()
        delivery = await (await harness.collect(victim, queue, dead_letter=dead)).next()
        crashes.append((delivery.failed_deliveries, delivery.attempt))
        await victim.close()
    assert crashes == [(0, 1), (1, 1), (2, 1)]
    letter = await (await harness.collect(watcher, dead)).next()
    assert (letter.envelope.body, letter.envelope.message_id) == (b"poison", "id-1")
    assert latest_death(letter)["reason"] == "delivery_limit"
    await watcher.publish(to_queue(queue), text("marker"))
    assert bodies(await (await harness.collect(watcher, queue)).take(1)) == ["marker"]


async def test_18_a_retry_begins_anew(harness: Harness) -> None:
    """Crashes are counted for each attempt: a retry or a dead letter carries none of them along."""
    harness.needs("delivery-limit")
    session, dead = await harness.session(), harness.queue("dead")
    queue = harness.queue("work", **dead_lettering_to(dead, delivery_limit=5))
    await harness.declare(session, dead, queue)
    await session.publish(to_queue(queue), text("x"))
    victim = await harness.session()
    await (await harness.collect(victim, queue)).next()
    await victim.close()
    inbox: Inbox = await harness.collect(session, queue, dead_letter=dead)
    crashed = await inbox.next()
    assert crashed.failed_deliveries == 1
    await session.settle(crashed, Retry(harness.delay(0.05)))
    retried = await inbox.next()
    assert (retried.failed_deliveries, retried.attempt) == (0, 2)
    await session.settle(retried, DeadLetter("exhausted"))
    letter = await (await harness.collect(session, dead)).next()
    assert (letter.failed_deliveries, letter.attempt) == (0, 2)


async def publish_until_refused(harness: Harness, queue: Queue, padding: bytes = b"") -> list[str]:
    """Publish until the queue refuses; return what it has taken."""
    session = await harness.session()
    taken: list[str] = []
    for number in range(200):
        try:
            envelope = text(f"{number}")
            await session.publish(to_queue(queue), envelope._replace(body=envelope.body + padding))
        except PublishFailed as failure:
            if failure.reason != "refused":
                raise
            return taken
        taken.append(f"{number}")
    pytest.fail("200 messages were taken by a queue that should be full")


async def test_17_a_message_without_a_lifetime_follows_one_with(harness: Harness) -> None:
    session, queue = await harness.one_queue("work")
    await session.publish(to_queue(queue), text("with", expiration_ms=60_000))
    await session.publish(to_queue(queue), text("without"))
    assert bodies(await (await harness.collect(session, queue)).take(2)) == ["with", "without"]
