"""Slots and turns of publications: first come, first served, whatever is cancelled."""

from __future__ import annotations

import asyncio
import random

from runner.transports.rabbitmq.in_flight import InFlightIds, InFlightLimit


async def test_nobody_overtakes_who_was_let_in_and_has_not_run_yet() -> None:
    limit, entered = InFlightLimit(2), []

    async def enter(name: str) -> None:
        await limit.acquire()
        entered.append(name)

    await enter("a")
    await enter("b")
    waiting = asyncio.create_task(enter("c"))
    await asyncio.sleep(0)
    limit.release()
    limit.release()
    assert limit.is_full  # a slot is free, but c has not run
    await waiting
    assert not limit.is_full
    assert entered == ["a", "b", "c"]


async def test_a_slot_of_one_who_is_cancelled_goes_to_the_next() -> None:
    limit = InFlightLimit(1)
    await limit.acquire()
    first, second = (asyncio.create_task(limit.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    limit.release()  # let first in
    first.cancel()
    await second
    assert limit.count == 1
    limit.release()
    assert limit.count == 0
    assert not limit.is_full


async def test_slots_come_out_even_whatever_happens() -> None:
    chance = random.Random(11)
    limit, inside, most = InFlightLimit(3), 0, 0

    async def visit() -> None:
        nonlocal inside, most
        await limit.acquire()
        inside += 1
        most = max(most, inside)
        try:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        finally:
            inside -= 1
            limit.release()

    tasks = []
    for _ in range(300):
        tasks.append(asyncio.create_task(visit()))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.wait(tasks)
    assert most == 3
    assert limit.count == 0
    assert not limit.is_full


async def test_a_message_waits_for_the_other_with_its_id() -> None:
    ids, order = InFlightIds(), []

    async def publish(name: str) -> None:
        await ids.acquire("same")
        order.append(name)

    await publish("one")
    two, three = asyncio.create_task(publish("two")), asyncio.create_task(publish("three"))
    await asyncio.sleep(0)
    assert ids.is_taken("same")
    assert order == ["one"]
    ids.release("same")
    await two
    await asyncio.sleep(0)
    assert order == ["one", "two"]
    ids.release("same")
    await three
    ids.release("same")
    assert not ids.is_taken("same")
    await ids.acquire(None)
    ids.release(None)
