"""What must not grow with every message that passes, and what is not to be taken for something else."""

from __future__ import annotations

import asyncio
from typing import Any

from runner import message as names
from runner.message import Envelope
from runner.outcome import ACK, DeadLetter, Retry
from runner.transports.base import Delivery
from runner.transports.memory import MemoryBroker
from runner.transports.rabbitmq.ack_batcher import AckBatcher
from runner.transports.rabbitmq.possibly_lost_acks import message_key
from tests.deliveries import delivery_of
from tests.unit.transports.memory.memory_sessions import bodies, connected, declared, drained, options, put, queue
from tests.unit.transports.virtual_time import run_virtually

COUNT = 20_000


def test_what_passes_a_slow_delivery_leaves_nothing_behind() -> None:
    """A handler may take hours; its acknowledgement and those after it are right all the same."""
    unsettled: set[int] = set()

    def write(tag: int, multiple: bool) -> None:
        assert tag in unsettled
        for each in [each for each in unsettled if each == tag or (multiple and each < tag)]:
            unsettled.remove(each)

    acks = AckBatcher(5)

    def ack(tag: int) -> None:
        if acks.ack(tag):
            write_all()

    def write_all() -> None:
        for tag, multiple in acks.take():
            write(tag, multiple)

    for tag in range(1, COUNT):
        acks.note(tag)
        unsettled.add(tag)
        if tag > 1 and tag % 1000:
            ack(tag)
    write_all()
    assert len(acks._order) + len(acks._alone) <= COUNT // 5
    assert unsettled == {1, *range(1000, COUNT, 1000)}
    for tag in sorted(unsettled):
        ack(tag)
    write_all()
    assert unsettled == set()


def test_another_attempt_of_a_message_is_not_the_one_that_was_acknowledged() -> None:
    """Nor is one that was replayed: they carry the same id and the same body."""
    headers: list[dict[str, Any]] = [
        {},
        {names.ATTEMPT: 2},
        {names.ATTEMPT: 3},
        {names.REPLAYS: 1},
        {names.REPLAYS: 1, names.ATTEMPT: 2},
        {names.REASON: "exhausted", names.ATTEMPT: 2},
        {names.REASON: "exhausted", names.ATTEMPT: 2, names.FIRST_FAILED_AT: "2026-11-30T12:00:00+00:00"},
    ]
    keys = set()
    for each in headers:
        envelope = Envelope(b"order", message_id="one", headers=each)
        keys.add(message_key(delivery_of(envelope, options("q"), is_redelivered=True, failed_deliveries=1)))
    assert len(keys) == len(headers)


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


async def test_the_oldest_dead_letters_are_forgotten_where_there_are_too_many() -> None:
    """Nobody takes them out, and the next start forgets them all."""
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
