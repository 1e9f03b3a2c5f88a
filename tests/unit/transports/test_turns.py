"""Slots and turns of publications: first come, first served, whatever is cancelled."""

from __future__ import annotations

import asyncio
import random

from runner.transports.rabbitmq.turns import Slots, Turns


async def test_nobody_overtakes_who_was_let_in_and_has_not_run_yet() -> None:
    slots, entered = Slots(2), []

    async def enter(name: str) -> None:
        await slots.take()
        entered.append(name)

    await enter("a")
    await enter("b")
    waiting = asyncio.create_task(enter("c"))
    await asyncio.sleep(0)
    slots.give()
    slots.give()
    assert slots.is_full  # a slot is free, but c has not run
    await waiting
    assert not slots.is_full
    assert entered == ["a", "b", "c"]


async def test_a_slot_of_one_who_is_cancelled_goes_to_the_next() -> None:
    slots = Slots(1)
    await slots.take()
    first, second = (asyncio.create_task(slots.take()) for _ in range(2))
    await asyncio.sleep(0)
    slots.give()  # let first in
    first.cancel()
    await second
    assert slots.count == 1
    slots.give()
    assert slots.count == 0
    assert not slots.is_full


async def test_slots_come_out_even_whatever_happens() -> None:
    chance = random.Random(11)
    slots, inside, most = Slots(3), 0, 0

    async def visit() -> None:
        nonlocal inside, most
        await slots.take()
        inside += 1
        most = max(most, inside)
        try:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        finally:
            inside -= 1
            slots.give()

    tasks = []
    for _ in range(300):
        tasks.append(asyncio.create_task(visit()))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.wait(tasks)
    assert most == 3
    assert slots.count == 0
    assert not slots.is_full


async def test_a_message_waits_for_the_other_with_its_id() -> None:
    turns, order = Turns(), []

    async def publish(name: str) -> None:
        await turns.take("same")
        order.append(name)

    await publish("one")
    two, three = asyncio.create_task(publish("two")), asyncio.create_task(publish("three"))
    await asyncio.sleep(0)
    assert turns.is_taken("same")
    assert order == ["one"]
    turns.give("same")
    await two
    await asyncio.sleep(0)
    assert order == ["one", "two"]
    turns.give("same")
    await three
    turns.give("same")
    assert not turns.is_taken("same")
    await turns.take(None)
    turns.give(None)
