"""Publications in flight: admitted in the order in which they came, whatever is cancelled."""

from __future__ import annotations

import asyncio
import random

from runner.transports.rabbitmq.in_flight import InFlight


async def test_none_overtakes_one_that_was_admitted_and_has_not_run_yet() -> None:
    in_flight, entered = InFlight(2), []

    async def enter(name: str) -> None:
        await in_flight.acquire(None)
        entered.append(name)

    await enter("a")
    await enter("b")
    waiting = asyncio.create_task(enter("c"))
    await asyncio.sleep(0)
    in_flight.release(None)
    in_flight.release(None)
    assert in_flight.is_full  # a slot is free, but c has not run
    await waiting
    assert not in_flight.is_full
    assert entered == ["a", "b", "c"]


async def test_the_slot_of_a_cancelled_one_goes_to_the_next() -> None:
    in_flight = InFlight(1)
    await in_flight.acquire(None)
    first, second = (asyncio.create_task(in_flight.acquire(None)) for _ in range(2))
    await asyncio.sleep(0)
    in_flight.release(None)  # let first in
    first.cancel()
    await second
    assert in_flight.count == 1
    in_flight.release(None)
    assert in_flight.count == 0
    assert not in_flight.is_full


async def test_slots_come_out_even_whatever_happens() -> None:
    chance = random.Random(11)
    in_flight, inside, most = InFlight(3), 0, 0

    async def visit() -> None:
        nonlocal inside, most
        await in_flight.acquire(None)
        inside += 1
        most = max(most, inside)
        try:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        finally:
            inside -= 1
            in_flight.release(None)

    tasks = []
    for _ in range(300):
        tasks.append(asyncio.create_task(visit()))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.wait(tasks)
    assert most == 3
    assert in_flight.count == 0
    assert not in_flight.is_full


async def test_a_message_waits_for_the_other_with_its_id() -> None:
    in_flight, order = InFlight(10), []

    async def publish(name: str) -> None:
        await in_flight.acquire("same")
        order.append(name)

    await publish("one")
    two, three = asyncio.create_task(publish("two")), asyncio.create_task(publish("three"))
    await asyncio.sleep(0)
    assert not in_flight.try_acquire("same")
    assert order == ["one"]
    in_flight.release("same")
    await two
    await asyncio.sleep(0)
    assert order == ["one", "two"]
    in_flight.release("same")
    await three
    in_flight.release("same")
    assert in_flight.count == 0
    assert in_flight.try_acquire("same")
    assert in_flight.try_acquire(None)


async def test_one_that_is_cancelled_while_it_waits_for_an_id_leaves_its_slot() -> None:
    in_flight = InFlight(2)
    await in_flight.acquire("same")
    waiting = asyncio.create_task(in_flight.acquire("same"))
    await asyncio.sleep(0)
    assert in_flight.is_full
    waiting.cancel()
    await asyncio.wait([waiting])
    assert in_flight.count == 1
    assert in_flight.try_acquire("other")
