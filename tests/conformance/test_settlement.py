"""Promises 4 to 8: what each outcome does to a message, and that it does it once."""

from __future__ import annotations

import asyncio
import socket

import pytest

from runner import message as names
from runner.errors import AlreadySettled
from runner.message import Address
from runner.outcome import ACK, RELEASE, DeadLetter, Outcome, Retry
from runner.pipeline.topology import Binding, wait_topology
from tests.conformance.harness import Harness, bodies, text, to_queue


async def test_04_an_acknowledged_message_never_comes_back(harness: Harness) -> None:
    """A message that was handled is gone for good, whoever reads the queue next."""
    session, queue = await harness.one_queue("work")
    await session.publish(to_queue(queue), text("done"))
    delivery = await (await harness.collect(session, queue)).next()
    assert await session.settle(delivery, ACK) is True
    await session.close()
    other = await harness.session()
    inbox = await harness.collect(other, queue)
    await other.publish(to_queue(queue), text("marker"))
    marker = await inbox.next()
    assert (marker.envelope.body, marker.is_redelivered) == (b"marker", False)
    assert await other.count_pending([harness.options(queue)]) == 0


async def test_05_retry_returns_after_its_delay_to_that_queue_alone(harness: Harness) -> None:
    """A failed message comes back, not too early, with the attempt counted up; other subscribers see nothing of it."""
    session, exchange = await harness.session(), harness.exchange("events")
    mine, other, dead = harness.queue("mine"), harness.queue("other"), harness.queue("dead")
    await harness.declare(
        session,
        *(exchange, mine, other, dead),
        Binding(exchange.name, mine.name, "order.*"),
        Binding(exchange.name, other.name, "order.*"),
    )
    my_inbox = await harness.collect(session, mine, dead_letter=dead)
    other_inbox = await harness.collect(session, other)
    sent = text("hello", message_id="id-1", correlation_id="c-1", type="order.paid", headers={"tenant": "x"})
    await session.publish(Address(exchange.name, "order.paid"), sent)
    first = await my_inbox.next()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await session.settle(first, Retry(harness.delay(0.4), "ValueError", "it broke")) is True
    second = await my_inbox.next()
    assert loop.time() - began >= 0.39
    assert (first.attempt, second.attempt) == (1, 2)
    assert second.envelope._replace(headers={}) == sent._replace(headers={})
    headers = second.envelope.headers
    assert headers["tenant"] == "x"
    assert (headers[names.ERROR_TYPE], headers[names.ERROR]) == ("ValueError", "it broke")
    assert (headers[names.ORIGIN_EXCHANGE], headers[names.ORIGIN_KEY]) == (exchange.name, "order.paid")
    await session.publish(Address(exchange.name, "order.marker"), text("marker"))
    assert bodies(await other_inbox.take(2)) == ["hello", "marker"]
    assert bodies(await my_inbox.take(1)) == ["marker"]


async def test_05_others_do_not_wait_for_a_message_that_waits(harness: Harness) -> None:
    """While one message waits for its retry the next ones are delivered, and a short wait overtakes a long one."""
    session, queue, inbox = await harness.one_inbox("work", prefetch=1)
    for body in ("slow", "quick", "next"):
        await session.publish(to_queue(queue), text(body))
    await session.settle(await inbox.next(), Retry(harness.delay(1.5)))
    await session.settle(await inbox.next(), Retry(harness.delay(0.1)))
    arrived = []
    for _ in range(3):
        delivery = await inbox.next()
        arrived.append((delivery.envelope.body, delivery.attempt))
        await session.settle(delivery, ACK)
    assert arrived == [(b"next", 1), (b"quick", 2), (b"slow", 2)]


async def test_05_a_message_may_be_retried_again_and_again(harness: Harness) -> None:
    """Every retry counts one attempt, and what the message was first published to stays known."""
    session, queue, inbox = await harness.one_inbox("work")
    await session.publish(to_queue(queue), text("stubborn"))
    failed_at = set()
    for attempt in (1, 2, 3, 4):
        delivery = await inbox.next()
        assert (delivery.attempt, delivery.envelope.body) == (attempt, b"stubborn")
        if attempt > 1:
            failed_at.add(delivery.envelope.headers[names.FIRST_FAILED_AT])
        await session.settle(delivery, Retry(harness.delay(0.05)) if attempt < 4 else ACK)
    assert len(failed_at) == 1
    await session.publish(to_queue(queue), text("marker"))
    assert bodies(await inbox.take(1)) == ["marker"]


async def test_05_a_retry_keeps_headers_of_every_kind(harness: Harness) -> None:
    """Whatever a foreign publisher put into its headers, the message can be retried and keeps them."""
    session, queue, inbox = await harness.one_inbox("work")
    headers = {"bytes": b"\xff", "none": None, "nested": {"list": [1, {"deep": True}]}, "时间": "值", "big": 2**40}
    await session.publish(to_queue(queue), text("x", headers=headers))
    for _ in range(2):
        await session.settle(await inbox.next(), Retry(harness.delay(0.05)))
    arrived = (await inbox.next()).envelope.headers
    assert {name: arrived[name] for name in headers} == headers


async def test_05_the_wait_queue_may_be_declared_before(harness: Harness) -> None:
    """The wait queue that the pipeline declares at the start is the one that a retry uses."""
    session, queue = await harness.session(), harness.queue("work")
    topology = wait_topology(harness.wait_prefix, 100)
    await harness.declare(session, queue, *topology.exchanges, *topology.queues, *topology.bindings)
    inbox = await harness.collect(session, queue)
    await session.publish(to_queue(queue), text("x"))
    await session.settle(await inbox.next(), Retry(0.1))
    assert (await inbox.next()).attempt == 2
    assert (await session.declare(topology)).new == 0


async def test_05_the_backlog_counts_what_is_ready_and_what_waits_for_a_retry(harness: Harness) -> None:
    """`--until-idle` must see messages that wait for a retry, and not those in the hands of a handler."""
    session, queue, idle = await harness.session(), harness.queue("work"), harness.queue("idle")
    await harness.declare(session, queue, idle)
    options = harness.options(queue)
    for body in ("one", "two", "three"):
        await session.publish(to_queue(queue), text(body))
    await harness.until_pending(session, options, 3)
    inbox = await harness.collect(session, queue, prefetch=1)
    first = await inbox.next()
    await harness.until_pending(session, options, 2)
    await session.settle(first, Retry(harness.delay(60.0)))
    await inbox.next()
    await harness.until_pending(session, options, 2)
    await inbox.subscription.stop()
    assert await session.count_pending([]) == 0


async def test_06_a_dead_letter_lands_in_its_queue_with_its_reason(harness: Harness) -> None:
    """A message given up on is kept, with what went wrong and where it came from."""
    session, exchange = await harness.session(), harness.exchange("events")
    queue, dead = harness.queue("work"), harness.queue("dead")
    await harness.declare(session, exchange, queue, dead, Binding(exchange.name, queue.name, "#"))
    inbox = await harness.collect(session, queue, dead_letter=dead)
    sent = text("poison", message_id="id-1", type="order.paid", headers={"tenant": "x"})
    await session.publish(Address(exchange.name, "order.paid"), sent)
    await session.settle(await inbox.next(), Retry(harness.delay(0.05), "ValueError", "first"))
    assert await session.settle(await inbox.next(), DeadLetter("exhausted", "KeyError", "last\nline")) is True
    letter = await (await harness.collect(session, dead)).next()
    assert letter.envelope._replace(headers={}) == sent._replace(headers={})
    headers = letter.envelope.headers
    assert {name: headers[name] for name in headers if name.startswith("x-runner-")} == {
        names.ATTEMPT: 2,
        names.ERROR: "last\\nline",
        names.ERROR_TYPE: "KeyError",
        names.FIRST_FAILED_AT: headers[names.FIRST_FAILED_AT],
        names.HOST: socket.gethostname(),
        names.ORIGIN: queue.name,
        names.ORIGIN_EXCHANGE: exchange.name,
        names.ORIGIN_KEY: "order.paid",
        names.REASON: "exhausted",
        names.SUBSCRIBER: "watcher",
    }
    await harness.until_pending(session, harness.options(queue), 0)


async def test_06_without_a_dead_letter_queue_the_message_is_dropped(harness: Harness) -> None:
    """`dead_letter: false` means what it says."""
    session, queue = await harness.one_queue("work")
    await session.publish(to_queue(queue), text("unwanted"))
    delivery = await (await harness.collect(session, queue, dead_letter=None)).next()
    assert await session.settle(delivery, DeadLetter("rejected")) is True
    await session.close()
    other = await harness.session()
    await other.publish(to_queue(queue), text("marker"))
    assert bodies(await (await harness.collect(other, queue)).take(1)) == ["marker"]


async def test_07_released_messages_come_back_untouched_and_in_order(harness: Harness) -> None:
    """What is given back because we are stopping uses up no attempt, and keeps its place at the front."""
    session, queue = await harness.one_queue("work")
    for number in range(5):
        await session.publish(to_queue(queue), text(f"{number}", message_id=f"id-{number}"))
    inbox = await harness.collect(session, queue, prefetch=3)
    taken = await inbox.take(3)
    await inbox.subscription.stop()
    for delivery in taken:
        assert await session.settle(delivery, RELEASE) is True
    await harness.until_pending(session, harness.options(queue), 5)
    again = await (await harness.collect(session, queue)).take(5)
    assert bodies(again) == ["0", "1", "2", "3", "4"]
    assert [delivery.attempt for delivery in again] == [1] * 5
    assert [delivery.is_redelivered for delivery in again] == [True, True, True, False, False]


async def test_07_a_release_keeps_the_attempt_of_a_retry(harness: Harness) -> None:
    """The second attempt that is given back is still the second attempt."""
    session, queue, inbox = await harness.one_inbox("work")
    await session.publish(to_queue(queue), text("x"))
    await session.settle(await inbox.next(), Retry(harness.delay(0.05)))
    await session.settle(await inbox.next(), RELEASE)
    released = await inbox.next()
    assert (released.attempt, released.is_redelivered) == (2, True)


async def test_07_a_process_that_ends_gives_back_what_it_has_not_settled(harness: Harness) -> None:
    """Nothing is lost with a process; what others hold stays with them."""
    (one, queue), two = await harness.one_queue("work"), await harness.session()
    first = await harness.collect(one, queue, prefetch=2)
    for body in ("a", "b"):
        await one.publish(to_queue(queue), text(body, message_id=body))
    await first.take(2)
    second = await harness.collect(two, queue, prefetch=10)
    await two.publish(to_queue(queue), text("c"))
    kept = await second.next()
    await one.close()
    again = await second.take(2)
    assert bodies([kept, *again]) == ["c", "a", "b"]
    assert [(delivery.attempt, delivery.is_redelivered) for delivery in again] == [(1, True), (1, True)]
    assert await two.settle(kept, ACK) is True


async def test_08_settling_twice_is_an_error_without_effect(harness: Harness) -> None:
    """Only the first settlement of a delivery counts."""
    session, queue, inbox = await harness.one_inbox("work")
    await session.publish(to_queue(queue), text("released"))
    released = await inbox.next()
    await session.settle(released, RELEASE)
    for outcome in (ACK, RELEASE, Retry(0.01), DeadLetter("rejected")):
        with pytest.raises(AlreadySettled):
            await session.settle(released, outcome)
    again = await inbox.next()
    assert (again.envelope.body, again.attempt) == (b"released", 1)
    await session.settle(again, ACK)
    with pytest.raises(AlreadySettled):
        await session.settle(again, RELEASE)
    await session.publish(to_queue(queue), text("marker"))
    assert bodies(await inbox.take(1)) == ["marker"]


@pytest.mark.parametrize("outcome", [Retry(60.0), DeadLetter("rejected")], ids=["retry", "dead letter"])
async def test_16_a_settlement_that_is_cancelled_can_be_made_again(harness: Harness, outcome: Outcome) -> None:
    """Something that a handler has left behind may cancel it: the message does not wait for the end of the session."""
    session, queue, inbox = await harness.one_inbox("work")
    await session.publish(to_queue(queue), text("x"))
    delivery = await inbox.next()
    settling = asyncio.create_task(session.settle(delivery, outcome))
    await asyncio.sleep(0)
    settling.cancel()
    await asyncio.wait((settling,))
    assert delivery.is_settled is not settling.cancelled()  # the in-process broker has settled it by then
    if settling.cancelled():
        await session.settle(delivery, RELEASE)
        again = await inbox.next()
        assert (again.envelope.body, again.attempt) == (b"x", 1)
        await session.settle(again, ACK)


async def test_08_only_one_of_two_settlements_at_once_counts(harness: Harness) -> None:
    """Two settlements that race have one winner."""
    session, queue, inbox = await harness.one_inbox("work")
    await session.publish(to_queue(queue), text("x"))
    delivery = await inbox.next()
    results = await asyncio.gather(
        session.settle(delivery, Retry(harness.delay(0.05))), session.settle(delivery, ACK), return_exceptions=True
    )
    assert [type(result) for result in results] == [bool, AlreadySettled]
    assert (await inbox.next()).attempt == 2
