"""Batches, order by key, and rates: what a subscriber's options do, with virtual time."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from runner import Message, Publish
from runner.message import Address, Envelope
from runner.runtime.supervisor import Supervisor
from runner.transports.memory import MemoryTransport
from tests.unit.runtime.running import Run, numbers, one_queue, pipeline, run


def test_a_batch_is_full_or_what_came_in_time() -> None:
    """Ten messages in batches of four: two full ones at once, the rest when the first of it has waited."""
    record = Run()

    async def handle(orders: list[dict[str, int]]) -> None:
        record.note([order["n"] for order in orders])

    run(one_queue("batch: {size: 4, wait: 2s}, concurrency: 1"), {"produce": numbers(10), "handle": handle}, record)
    assert record.things == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert record.notes[2][0] >= 2.0
    assert len(record.events("message.handled")) == 10


def test_many_workers_are_awake_after_a_few_iterations_of_the_loop() -> None:
    """Then what they publish is written together. One at a time, 64 workers would take 64 iterations."""
    iterations = 0
    begun: list[asyncio.Task[None] | None] = []

    async def count() -> None:
        nonlocal iterations
        while len(begun) < 64:
            iterations += 1
            await asyncio.sleep(0)

    async def handle(_: int) -> None:
        if not begun:
            begun.append(asyncio.ensure_future(count()))
        else:
            begun.append(None)
        while len(begun) < 64:
            await asyncio.sleep(0)

    text = "queues: {q: }\nsubscribers: {s: {from: q, handler: 'h:handle', concurrency: 64, prefetch: 64}}\n"
    run(text, {"handle": handle}, Run(), preload=tuple(Envelope(b"1") for _ in range(64)))
    assert len(begun) == 64
    assert iterations <= 20


def test_a_batch_gets_a_message_for_each_payload() -> None:
    """In the same order."""
    record = Run()

    async def handle(orders: list[dict[str, int]], messages: list[Message]) -> None:
        assert [message.payload for message in messages] == orders
        record.note(len({message.id for message in messages}))

    run(one_queue("batch: 5"), {"produce": numbers(5), "handle": handle}, record)
    assert record.things == [5]


def test_only_the_message_that_is_to_blame_is_dead_lettered() -> None:
    """A batch that fails is tried again as a batch; on the last attempt each of its messages is alone."""
    record = Run()

    async def handle(orders: list[dict[str, int]]) -> None:
        record.note([order["n"] for order in orders])
        if any(order["n"] == 2 for order in orders):
            raise ValueError("two")

    run(
        one_queue("batch: {size: 4, wait: 1s}, concurrency: 1, retry: {attempts: 3, delay: 1s}"),
        {"produce": numbers(4), "handle": handle},
        record,
    )
    assert record.things[:2] == [[0, 1, 2, 3]] * 2
    assert sorted(record.things[2:]) == [[0], [1], [2], [3]]
    assert record.notes[-1][0] < 3.5  # two delays, and no time waited for company
    dead = record.events("message.dead_lettered")
    assert [line["attempt"] for line in dead] == [3]
    assert len(record.events("message.handled")) == 3


def test_what_is_left_of_a_batch_is_handled_while_that_one_takes_long() -> None:
    """By another worker, when it has waited."""
    record = Run()

    async def handle(orders: list[dict[str, int]]) -> None:
        record.note(len(orders))
        await asyncio.sleep(100)

    run(one_queue("batch: {size: 4, wait: 2s}, concurrency: 2"), {"produce": numbers(5), "handle": handle}, record)
    assert record.things == [4, 1]
    assert 2 <= record.notes[1][0] < 2.5


@pytest.mark.parametrize("concurrency", [1, 10])
def test_one_hiccup_of_a_batch_costs_one_delay(concurrency: int) -> None:
    """All its messages come again together, and a full batch waits for nothing."""
    record = Run()

    async def handle(orders: list[dict[str, int]]) -> None:
        record.note(len(orders))
        if len(record.notes) == 1:
            raise ConnectionError("the database restarts")

    options = f"batch: {{size: 50, wait: 1s}}, concurrency: {concurrency}, retry: {{attempts: 3, delay: 100ms}}"
    run(one_queue(options), {"produce": numbers(50), "handle": handle}, record)
    assert record.things == [50, 50]
    assert record.notes[1][0] < 0.5
    assert len(record.events("message.retry")) == 50


@pytest.mark.parametrize("concurrency", [1, 10])
def test_messages_that_are_tried_alone_do_not_wait_for_newcomers(concurrency: int) -> None:
    """While others keep coming, and wait for company, the last attempts of fifty are made at once."""
    record = Run()

    async def handle(orders: list[dict[str, int]], messages: list[Message]) -> None:
        if len(orders) == 50:
            raise ConnectionError("the database restarts")
        record.note([message.attempt for message in messages])

    async def later() -> list[dict[str, int]]:
        return [{"n": -1}]

    text = f"""
queues: {{q: }}
producers:
  make: {{handler: h:produce, to: q}}
  later: {{handler: h:later, every: 200ms, to: q}}
subscribers:
  s:
    from: q
    handler: h:handle
    concurrency: {concurrency}
    batch: {{size: 50, wait: 2s}}
    retry: {{attempts: 2, delay: 1s}}
"""
    run(text, {"produce": numbers(50), "handle": handle, "later": later}, record, for_s=10)
    alone = [at for at, attempts in record.notes if attempts == [2]]
    assert len(alone) == 50
    assert max(alone) - min(alone) < 0.5
    others = [attempts for _, attempts in record.notes if attempts != [2]]
    assert sum(map(len, others)) > 30
    assert all(set(attempts) == {1} for attempts in others)


def test_a_batch_that_fails_is_not_mixed_with_newcomers() -> None:
    """Their attempts are not spent on it."""
    record = Run()

    async def handle(orders: list[dict[str, int]], messages: list[Message]) -> None:
        record.note({message.attempt for message in messages})
        if any(order["n"] == 3 for order in orders):
            raise ValueError("three")

    run(
        one_queue("batch: {size: 5, wait: 1s}, concurrency: 2, retry: {attempts: 4, delay: 1s, backoff: fixed}"),
        {"produce": numbers(40), "handle": handle},
        record,
    )
    assert all(len(attempts) == 1 for attempts in record.things)
    assert len(record.events("message.handled")) == 39
    assert len(record.events("message.retry")) == 3 * 5


def test_a_batch_with_a_rate_takes_one_start_for_each_batch() -> None:
    """However many workers look for one."""
    record = Run()

    async def handle(orders: list[dict[str, int]]) -> None:
        record.note(len(orders))

    run(
        one_queue("batch: {size: 2, wait: 1s}, concurrency: 5, rate: 1/s"),
        {"produce": numbers(12), "handle": handle},
        record,
    )
    assert record.things == [2] * 6
    assert 4.5 <= record.notes[-1][0] <= 6.0


def test_what_cannot_be_decoded_is_taken_out_of_its_batch() -> None:
    """The others are handled without it."""
    record = Run()

    def produce() -> list[Any]:
        return [{"n": 1}, Publish("not json"), {"n": 3}]

    async def handle(orders: list[dict[str, int]]) -> None:
        record.note([order["n"] for order in orders])

    run(one_queue("batch: {size: 3, wait: 1s}"), {"produce": produce, "handle": handle}, record)
    assert record.things == [[1, 3]]
    assert [line["reason"] for line in record.events("message.dead_lettered")] == ["invalid"]


def test_order_by_keeps_each_keys_order_through_retries() -> None:
    """Strict order for one key, parallel across keys: whatever fails holds back its own key only."""
    record = Run()
    chance = random.Random(7)
    running: set[int] = set()
    most = 0

    async def handle(order: dict[str, int]) -> None:
        nonlocal most
        assert order["key"] not in running
        running.add(order["key"])
        most = max(most, len(running))
        await asyncio.sleep(chance.random())
        running.discard(order["key"])
        if chance.random() < 0.3:
            raise ValueError("again")
        record.note((order["key"], order["n"]))

    run(
        one_queue("order_by: key, concurrency: 3, retry: {attempts: 20, backoff: fixed, delay: 5s}"),
        {"produce": numbers(60), "handle": handle},
        record,
    )
    assert len(record.things) == 60
    assert most == 3
    for key in range(3):
        handled = [n for k, n in record.things if k == key]
        assert handled == sorted(handled)


def test_a_waiting_retry_does_not_hold_back_other_keys() -> None:
    """While one key waits ten seconds, the others are done."""
    record = Run()
    failed = False

    async def handle(order: dict[str, int]) -> None:
        nonlocal failed
        if order["n"] == 0 and not failed:
            failed = True
            raise ValueError("once")
        record.note(order["n"])

    run(
        one_queue("order_by: key, concurrency: 1, retry: {attempts: 2, delay: 10s}"),
        {"produce": numbers(6), "handle": handle},
        record,
    )
    times = {n: at for at, n in record.notes}
    assert max(times[n] for n in (1, 2, 4, 5)) < 1.0
    assert times[0] >= 10.0
    assert times[3] >= times[0]


def test_ordered_messages_that_never_work_are_dead_lettered_and_let_the_next_come() -> None:
    """With all their attempts counted."""
    record = Run()

    async def handle(order: dict[str, int], message: Message) -> None:
        record.note((order["n"], message.attempt))
        if order["n"] == 0:
            raise ValueError("never")

    run(
        one_queue("order_by: key, retry: {attempts: 3, delay: 1s}"),
        {"produce": numbers(4), "handle": handle},
        record,
    )
    assert [thing for thing in record.things if thing[0] == 0] == [(0, 1), (0, 2), (0, 3)]
    assert record.events("message.dead_lettered")[0]["attempt"] == 3
    assert (3, 1) in record.things


def test_rate_spaces_out_the_calls() -> None:
    """Ten messages at 2/s take four and a half seconds."""
    record = Run()

    async def handle(order: dict[str, int]) -> None:
        record.note(order["n"])

    run(one_queue("rate: 2/s"), {"produce": numbers(10), "handle": handle}, record)
    assert [at for at, _ in record.notes] == pytest.approx([index * 0.5 for index in range(10)], abs=0.01)


@pytest.mark.timeout(20)
def test_a_loop_that_ends_ends_its_handlers() -> None:
    """`asyncio.run` cancels each task once, and waits: that is not a handler's own cancellation, which is undone."""
    ended: list[int] = []

    async def handle(number: int) -> None:
        try:
            if number == 2:
                both.set()
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    async def main() -> None:
        transport = MemoryTransport()
        made = pipeline(one_queue("concurrency: 2", producer=None), {"handle": handle})
        await transport.connect()
        await transport.declare(made.topology)
        for body in (b"1", b"2"):
            await transport.publish(Address("", "q"), Envelope(body))
        await Supervisor([made], transport, until_idle=False).start()
        await both.wait()

    both = asyncio.Event()
    asyncio.run(main())
    assert sorted(ended) == [1, 2]
