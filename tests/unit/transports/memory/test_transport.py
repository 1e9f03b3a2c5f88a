"""What must not grow with every message in the in-process broker: there is no disk to put messages on."""

from __future__ import annotations

import asyncio

from runner.outcome import ACK, DeadLetter, Retry
from runner.transports.base import Delivery
from runner.transports.memory import MemoryBroker
from tests.unit.transports.memory.memory_sessions import bodies, connected, declared, drained, options, put, queue
from tests.unit.transports.virtual_time import run_virtually


def test_retries_wait_for_room_among_those_that_wait() -> None:
    """In memory there is no disk to wait on: a handler that always fails must hold up who feeds it."""

    async def main() -> None:
        session = await connected(MemoryBroker(capacity=2))
        await declared(session, queue("q"))
        await put(session, "q", "0", "1")
        first, second = await drained(session, "q")
        await put(session, "q", "2")
        (third,) = await drained(session, "q")
        retry = Retry(after_s=60.0, error_type="Error", error="")
        assert await session.settle(first, retry)
        assert await session.settle(second, retry)
        waiting = asyncio.create_task(session.settle(third, retry))
        await asyncio.sleep(30)
        assert not waiting.done()
        assert await session.count_pending([options("q")]) == 2
        await asyncio.sleep(40)
        assert await waiting
        await asyncio.sleep(70)
        again = await drained(session, "q")
        assert bodies(again) == ["0", "1", "2"]
        for delivery in again:
            await session.settle(delivery, ACK)
        await session.close()

    run_virtually(main)


async def test_the_oldest_dead_letters_are_dropped_if_there_are_too_many() -> None:
    """No subscriber takes them out, and the next start begins without messages."""
    session = await connected(MemoryBroker(capacity=3))
    await declared(session, queue("q"), queue("q.dead"))
    for number in range(10):
        await put(session, "q", f"{number}")
        feed_seen: list[Delivery] = []
        subscription = await session.subscribe(options("q", dead_letter="q.dead"), feed_seen.append)
        while not feed_seen:
            await asyncio.sleep(0)
        await session.settle(feed_seen[0], DeadLetter(reason="rejected", error_type="Error", error=""))
        await subscription.stop()
    assert bodies(await drained(session, "q.dead")) == ["7", "8", "9"]
    await session.close()
