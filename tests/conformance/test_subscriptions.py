"""Promises 3, 9, 10, 14, 15 and 21: how messages flow to subscribers, and when they stop."""

from __future__ import annotations

import asyncio

import pytest

from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown
from runner.outcome import ACK, RELEASE, Retry
from tests.conformance.harness import Harness, bodies, text, to_queue, until


async def test_03_subscribers_of_one_queue_share_its_messages(harness: Harness) -> None:
    """Each message goes to one subscriber, whichever process it runs in, and everybody gets a share."""
    (one, queue), two = await harness.one_queue("work"), await harness.session()
    inboxes = [
        await harness.collect(one, queue, prefetch=4),
        await harness.collect(one, queue, prefetch=4),
        await harness.collect(two, queue, prefetch=4),
    ]
    for number in range(12):
        await one.publish(to_queue(queue), text(f"{number}"))
    shares = [bodies(await inbox.take(4)) for inbox in inboxes]
    assert sorted((body for share in shares for body in share), key=int) == [f"{number}" for number in range(12)]


async def test_03_a_subscriber_that_stops_leaves_the_rest_to_the_others(harness: Harness) -> None:
    """When one of two subscribers stops, the other gets everything from then on."""
    session, queue = await harness.one_queue("work")
    stopping, staying = await harness.collect(session, queue), await harness.collect(session, queue)
    await stopping.subscription.stop()
    for body in ("a", "b", "c"):
        await session.publish(to_queue(queue), text(body))
    assert bodies(await staying.take(3)) == ["a", "b", "c"]
    assert stopping.seen == []


@pytest.mark.parametrize("prefetch", [1, 3])
async def test_09_at_most_prefetch_deliveries_are_unsettled(harness: Harness, prefetch: int) -> None:
    """A subscriber never holds more than it asked for; each settlement brings one more, whatever the outcome."""
    session, queue = await harness.one_queue("work")
    options = harness.options(queue)
    for number in range(8):
        await session.publish(to_queue(queue), text(f"{number}"))
    inbox = await harness.collect(session, queue, prefetch=prefetch)
    held = await inbox.take(prefetch)
    await harness.until_pending(session, options, 8 - prefetch)
    assert len(inbox.seen) == prefetch
    await session.settle(held[0], ACK)
    await inbox.take(1)
    await harness.until_pending(session, options, 7 - prefetch)
    assert len(inbox.seen) == prefetch + 1


async def test_09_each_feed_of_a_session_has_its_own_limit(harness: Harness) -> None:
    """A subscriber that is busy does not take from what another may hold."""
    session, one, two = await harness.session(), harness.queue("one"), harness.queue("two")
    await harness.declare(session, one, two)
    busy = await harness.collect(session, one, prefetch=1)
    free = await harness.collect(session, two, prefetch=2)
    for queue in (one, one, two, two):
        await session.publish(to_queue(queue), text(queue.name))
    await busy.take(1)
    await free.take(2)
    await harness.until_pending(session, harness.options(one), 1)
    assert (len(busy.seen), len(free.seen)) == (1, 2)


async def test_10_one_at_a_time_means_in_order(harness: Harness) -> None:
    """With one delivery at a time, messages come in the order in which they were published."""
    session, queue, inbox = await harness.one_inbox("work", prefetch=1)
    arrived = []
    for number in range(50):
        await session.publish(to_queue(queue), text(f"{number}"))
    for _ in range(50):
        delivery = await inbox.next()
        arrived.append(delivery.envelope.body.decode())
        await session.settle(delivery, ACK)
    assert arrived == [f"{number}" for number in range(50)]


async def test_14_stop_ends_delivery_and_settling_still_works(harness: Harness) -> None:
    """A subscriber that has stopped gets nothing new, and may finish what it holds."""
    session, queue, inbox = await harness.one_inbox("work")
    assert inbox.subscription.is_live
    for body in ("acked", "released", "retried"):
        await session.publish(to_queue(queue), text(body))
    acked, released, retried = await inbox.take(3)
    await inbox.subscription.stop()
    await inbox.subscription.stop()
    assert not inbox.subscription.is_live
    await session.publish(to_queue(queue), text("later"))
    assert await session.settle(acked, ACK) is True
    assert await session.settle(released, RELEASE) is True
    assert await session.settle(retried, Retry(harness.delay(0.05))) is True
    again = await harness.collect(session, queue)
    assert sorted(bodies(await again.take(3))) == ["later", "released", "retried"]
    assert len(inbox.seen) == 3


async def test_14_a_single_active_feed_hands_over_when_it_is_closed(harness: Harness) -> None:
    """Who stops still works on what it has; the next gets the rest, in order, when nothing of it is being worked on."""
    (one, queue), two = await harness.one_queue("w", single_active_consumer=True), await harness.session()
    active = await harness.collect(one, queue, prefetch=3)
    standby = await harness.collect(two, queue, prefetch=1)
    for body in ("a", "b", "c", "d", "e"):
        await one.publish(to_queue(queue), text(body))
    a, b, c = await active.take(3)
    await active.subscription.stop()
    assert await one.settle(c, RELEASE) is True
    assert await one.settle(a, ACK) is True
    await two.count_pending([harness.options(queue)])  # answered after the broker has read the settlements
    assert standby.seen == []
    assert await one.settle(b, ACK) is True
    await active.subscription.close()
    await active.subscription.close()
    taken = []
    for _ in range(3):
        (delivery,) = await standby.take(1)
        taken.append(delivery)
        await two.settle(delivery, ACK)
    assert bodies(taken) == ["c", "d", "e"]
    assert bodies(active.seen) == ["a", "b", "c"]


async def test_14_close_may_be_called_again_and_ends_everything(harness: Harness) -> None:
    """After `close` nothing is delivered or published, and closing again is harmless."""
    (session, queue), other = await harness.one_queue("work"), await harness.session()
    inbox = await harness.collect(session, queue)
    await session.publish(to_queue(queue), text("held"))
    held = await inbox.next()
    await session.close()
    await session.close()
    await inbox.subscription.stop()
    assert not inbox.subscription.is_live
    assert await session.settle(held, ACK) is False
    with pytest.raises((PublishFailed, PublishUnknown)):
        await session.publish(to_queue(queue), text("too late"))
    await other.publish(to_queue(queue), text("marker"))
    assert bodies(await (await harness.collect(other, queue)).take(2)) == ["held", "marker"]
    assert len(inbox.seen) == 1


async def test_14_a_queue_that_does_not_exist_cannot_be_fed_from(harness: Harness) -> None:
    """Subscribing to nothing is an error that says so."""
    session = await harness.session()
    with pytest.raises(BrokerUnavailable, match="nowhere"):
        await harness.collect(session, harness.queue("nowhere"))


async def test_15_messages_outlive_a_lost_connection_and_feeds_resume(harness: Harness) -> None:
    """When the connection is lost and comes back, everything is still there and flows again by itself."""
    harness.needs("reconnect")
    session, queue, inbox = await harness.one_inbox("work")
    for body in ("a", "b"):
        await session.publish(to_queue(queue), text(body))
    before = await inbox.take(2)
    assert await session.settle(before[0], ACK) is True
    await session.count_pending([harness.options(queue)])  # answered after the broker has read the Ack
    await asyncio.to_thread(harness.lose_connections)
    again = await inbox.next()
    assert (again.envelope.body, again.attempt, again.is_redelivered) == (b"b", 1, True)
    assert await session.settle(before[1], ACK) is False
    assert await session.settle(again, ACK) is True

    async def can_publish() -> bool:
        try:
            await session.publish(to_queue(queue), text("c"))
        except PublishUnknown:
            return False
        return True

    await until(can_publish, True)
    assert bodies(await inbox.take(1)) == ["c"]
    assert inbox.subscription.is_live


async def test_15_a_publish_that_is_cut_off_is_unknown_and_never_silent(harness: Harness) -> None:
    """Each publish during a loss either returns, and is delivered, or says that it is unknown."""
    harness.needs("reconnect")
    session, queue = await harness.one_queue("work")
    confirmed: set[str] = set()

    async def publish(number: int) -> None:
        for attempt in range(200):
            try:
                await session.publish(to_queue(queue), text(f"{number}", message_id=f"{number}"))
            except PublishUnknown:
                assert attempt < 199
                await asyncio.sleep(0.05)
            else:
                confirmed.add(f"{number}")
                return

    publishing = [asyncio.create_task(publish(number)) for number in range(300)]
    await asyncio.to_thread(harness.lose_connections)
    await asyncio.gather(*publishing)
    reader = await harness.session()
    inbox = await harness.collect(reader, queue, prefetch=1000)
    await inbox.wait_until_seen(300)
    await harness.until_pending(reader, harness.options(queue), 0)
    assert set(bodies(inbox.seen)) == confirmed == {f"{number}" for number in range(300)}


async def test_22_who_steps_back_settles_everything_before_the_next_gets_a_message(harness: Harness) -> None:
    """What it has not handled comes to the next in order, and it stands behind that one."""
    (one, queue), two = await harness.one_queue("w", single_active_consumer=True), await harness.session()
    first = await harness.collect(one, queue, prefetch=3)
    second = await harness.collect(two, queue, prefetch=3)
    for body in ("a", "b", "c", "d"):
        await one.publish(to_queue(queue), text(body))
    a, b, c = await first.take(3)
    first.subscription.step_back()
    assert await one.settle(c, RELEASE) is True
    assert await one.settle(b, RELEASE) is True
    await two.count_pending([harness.options(queue)])  # answered after the broker has read the settlements
    assert second.seen == []
    assert await one.settle(a, ACK) is True
    held = await second.take(3)
    assert bodies(held) == ["b", "c", "d"]
    await harness.settle_all(two, held)
    await until(lambda: _answer(first.subscription.is_live), True)
    second.subscription.step_back()
    await one.publish(to_queue(queue), text("e"))
    assert bodies(await first.take(1)) == ["e"]
    assert len(second.seen) == 3


async def test_22_who_steps_back_alone_gets_everything_again(harness: Harness) -> None:
    """Also with nothing in hand; stepping back twice is stepping back once."""
    session, queue, inbox = await harness.one_inbox("w", single_active_consumer=True)
    inbox.subscription.step_back()
    inbox.subscription.step_back()
    await session.publish(to_queue(queue), text("a"))
    (held,) = await inbox.take(1)
    inbox.subscription.step_back()
    await inbox.subscription.stop()
    assert await session.settle(held, ACK) is True
    await inbox.subscription.close()
    await session.publish(to_queue(queue), text("b"))
    await harness.until_pending(session, harness.options(queue), 1)
    assert len(inbox.seen) == 1


async def test_a_queue_counts_the_subscriptions_of_all_sessions(harness: Harness) -> None:
    """By this number the processes know how many they are."""
    (one, queue), two = await harness.one_queue("processes"), await harness.session()
    assert await one.count_consumers(queue.name) == 0
    await harness.collect(one, queue)
    subscription = (await harness.collect(two, queue)).subscription
    await until(lambda: one.count_consumers(queue.name), 2)
    await subscription.close()
    await until(lambda: two.count_consumers(queue.name), 1)
    assert await one.count_consumers("not-there") == 0


async def _answer(value: object) -> object:
    return value
