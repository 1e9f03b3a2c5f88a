"""Where the in-process broker's dead letters go: the rules of RabbitMQ that the conformance suite does not reach."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import PublishFailed
from runner.message import Address, Envelope
from runner.outcome import ACK, RELEASE, DeadLetter, Outcome, Retry
from runner.pipeline.topology import Binding, Exchange
from runner.transports.base import Delivery
from runner.transports.memory import MemoryBroker, MemoryTransport
from tests.unit.transports.memory.memory_sessions import (
    bodies,
    connected,
    declared,
    drained,
    opened,
    options,
    put,
    queue,
    subscribed,
    turns,
)
from tests.unit.transports.virtual_time import virtual_time


def deaths(delivery: Delivery) -> list[tuple[Any, ...]]:
    """Return queue, reason and count of each death, the latest first."""
    entries = delivery.envelope.headers["x-death"]
    return [(death["queue"], death["reason"], death["count"]) for death in entries]


@virtual_time
async def test_each_death_is_kept_and_equal_ones_are_counted() -> None:
    """`x-death` has one entry for each queue and reason; the latest comes first."""
    async with opened(
        queue("a", message_ttl=1000, dead_letter_exchange="", dead_letter_routing_key="b"),
        queue("b", message_ttl=1000, dead_letter_exchange="", dead_letter_routing_key="c"),
        queue("c"),
    ) as session:
        await put(session, "a", "x")
        await asyncio.sleep(3)
        [delivery] = await drained(session, "c")
        assert deaths(delivery) == [("b", "expired", 1), ("a", "expired", 1)]
        assert delivery.envelope.headers["x-first-death-queue"] == "a"


@virtual_time
async def test_equal_deaths_are_counted() -> None:
    """A message that dies of the same in the same queue again has one entry for it, with a count."""
    async with opened(
        queue("a", message_ttl=1000, dead_letter_exchange="", dead_letter_routing_key="c"), queue("c")
    ) as session:
        await put(session, "a", "x")
        for count in (1, 2, 3):
            await asyncio.sleep(2)
            [delivery] = await drained(session, "c")
            assert deaths(delivery) == [("a", "expired", count)]
            await session.publish(Address("", "a"), delivery.envelope)


@virtual_time
async def test_a_cycle_of_expiries_ends() -> None:
    """A message that would return to a queue in which it expired, without a rejection since then, is dropped."""
    async with opened(
        queue("a", message_ttl=1000, dead_letter_exchange="", dead_letter_routing_key="b"),
        queue("b", message_ttl=1000, dead_letter_exchange="", dead_letter_routing_key="a"),
    ) as session:
        await put(session, "a", "round")
        await asyncio.sleep(1.5)
        assert await session.count_pending([options("b")]) == 1
        await asyncio.sleep(10)
        assert await session.count_pending([options("a"), options("b")]) == 0


@virtual_time
async def test_with_at_least_once_a_dead_letter_waits_until_its_queue_takes_it() -> None:
    """Wait queues promise this: a message is not lost when its queue is full or gone as it is due."""
    small = queue("small", max_length=1, overflow="reject-publish")
    strategy = {"dead_letter_exchange": "", "dead_letter_strategy": "at-least-once", "overflow": "reject-publish"}
    wait = queue("wait", message_ttl=1000, **strategy)
    async with opened(small, wait, Exchange("e", "fanout"), Binding("e", "wait")) as session:
        await put(session, "small", "old")
        for key in ("small", "later"):
            await session.publish(Address("e", key), Envelope(key.encode()))
        await asyncio.sleep(30)
        assert await session.count_pending([options("small"), options("later")]) == 3
        assert bodies(await drained(session, "small")) == ["old"]
        await declared(session, queue("later"))
        await asyncio.sleep(2)
        assert bodies(await drained(session, "small")) == ["small"]
        assert bodies(await drained(session, "later")) == ["later"]


@virtual_time
async def test_by_default_a_dead_letter_that_no_queue_takes_is_lost() -> None:
    """RabbitMQ's default strategy is at-most-once."""
    async with opened(queue("q", message_ttl=1000, dead_letter_exchange="nowhere")) as session:
        await put(session, "q", "x")
        await asyncio.sleep(2)
        assert await session.count_pending([options("q")]) == 0


async def test_a_refused_message_may_be_dead_lettered_as_well() -> None:
    """With reject-publish-dlx the publisher gets an error, and the message goes to the dead-letter queue."""
    limits = {"max_length": 1, "overflow": "reject-publish-dlx", "dead_letter_exchange": ""}
    async with opened(queue("q", **limits, dead_letter_routing_key="dead"), queue("dead")) as session:
        await put(session, "q", "1")
        with pytest.raises(PublishFailed):
            await put(session, "q", "2")
        assert bodies(await drained(session, "dead")) == ["2"]


async def test_a_delivery_limit_without_dead_letters_drops() -> None:
    """As on RabbitMQ: a limit alone makes a poison message go away."""
    broker = MemoryBroker()
    async with opened(queue("q", delivery_limit=0), broker=broker) as watcher:
        await put(watcher, "q", "poison", "fine")
        async with opened(broker=broker) as victim:
            await subscribed(victim, "q", prefetch=1)
        assert bodies(await drained(watcher, "q")) == ["fine"]


@virtual_time
async def test_only_the_head_expires() -> None:
    """A message with a short time behind one with a long time waits for it, as on RabbitMQ."""
    async with opened(queue("q")) as session:
        await put(session, "q", "long", expiration_ms=5000)
        await put(session, "q", "short", expiration_ms=1000)
        await asyncio.sleep(3)
        assert await session.count_pending([options("q")]) == 2
        await asyncio.sleep(3)
        assert await session.count_pending([options("q")]) == 0


async def test_a_time_to_live_of_zero_means_now_or_never() -> None:
    """A message that may not wait reaches only a subscriber that is free now."""
    async with opened(queue("q", message_ttl=0)) as session:
        await put(session, "q", "nobody there")
        assert await drained(session, "q") == []
        seen: list[Delivery] = []
        await session.subscribe(options("q", prefetch=1), seen.append)
        await put(session, "q", "in time")
        await turns()
        assert bodies(seen) == ["in time"]


OUTCOMES: list[Outcome] = [ACK, RELEASE, Retry(2.0), Retry(7.0), DeadLetter("rejected")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.integers(0, 5)),
            st.tuples(st.just("settle"), st.integers(0, 50)),
            st.tuples(st.just("crash"), st.integers(0, 2)),
            st.tuples(st.just("sleep"), st.integers(1, 5)),
        ),
        max_size=40,
    )
)
@virtual_time
async def test_nothing_is_lost_and_nothing_is_doubled_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """Each message that was taken over ends exactly once: acknowledged, or in the dead-letter queue."""
    broker = MemoryBroker()
    async with opened(queue("q", max_priority=3), queue("q.dead"), broker=broker) as publisher:
        held: dict[MemoryTransport, list[Delivery]] = {}
        acknowledged: list[str] = []
        published = 0

        async def join() -> None:
            session = await connected(broker)
            held[session] = []
            await session.subscribe(options("q", prefetch=3, dead_letter="q.dead"), held[session].append)

        for _ in range(3):
            await join()
        for step, number in steps:
            await turns()
            session = list(held)[number % 3]
            match step:
                case "publish":
                    await put(publisher, "q", f"{published}", priority=number)
                    published += 1
                case "settle" if held[session]:
                    delivery = held[session].pop(number % len(held[session]))
                    outcome = OUTCOMES[number % len(OUTCOMES)]
                    assert await session.settle(delivery, outcome) is True
                    acknowledged += bodies([delivery]) if outcome is ACK else []
                case "crash":
                    del held[session]
                    await session.close()
                    await join()
                case "sleep":
                    await asyncio.sleep(number)
        for session in held:
            await session.close()
        await asyncio.sleep(10)
        left = bodies(await drained(publisher, "q")) + bodies(await drained(publisher, "q.dead"))
        assert sorted(acknowledged + left, key=int) == [f"{number}" for number in range(published)]
