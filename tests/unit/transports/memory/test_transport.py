"""What must not grow with every message in the in-process broker: there is no disk to put messages on."""

from __future__ import annotations

import asyncio

from runner.outcome import ACK, DeadLetter, Retry
from runner.transports.memory import MemoryBroker
from tests.unit.transports.memory.memory_sessions import bodies, drained, opened, options, put, queue
from tests.unit.transports.virtual_time import virtual_time


@virtual_time
async def test_retries_wait_for_room_among_those_that_wait() -> None:
    """In memory there is no disk to wait on: a handler that always fails must hold up who feeds it."""
    async with opened(queue("q"), broker=MemoryBroker(capacity=2)) as session:
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


async def test_the_oldest_dead_letters_are_dropped_if_there_are_too_many() -> None:
    """No subscriber takes them out, and the next start begins without messages."""
    async with opened(queue("q"), queue("q.dead"), broker=MemoryBroker(capacity=3)) as session:
        for number in range(10):
            await put(session, "q", f"{number}")
            feed_seen = await drained(session, "q", dead_letter="q.dead")
            await session.settle(feed_seen[0], DeadLetter(reason="rejected", error_type="Error", error=""))
        assert bodies(await drained(session, "q.dead")) == ["7", "8", "9"]
