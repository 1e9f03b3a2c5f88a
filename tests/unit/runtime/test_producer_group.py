"""Producers continue where another process left off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from runner import Message
from runner.transports.memory import MemoryBroker
from tests.unit.runtime.running import START, Run, one_queue, run


def test_a_schedule_goes_on_where_another_process_left_it() -> None:
    """What has fired is remembered by the broker: a restart neither repeats a tick nor forgets the rhythm."""
    record = Run()

    async def produce() -> str:
        return "tick"

    async def handle(text: str, message: Message) -> None:
        assert message.timestamp is not None
        record.note(message.timestamp.strftime("%H:%M"))

    text = one_queue(producer="cron: '*/10 * * * *'")
    broker = MemoryBroker()
    handlers = {"produce": produce, "handle": handle}
    first = datetime(2026, 1, 1, 12, 5, tzinfo=UTC)
    run(text, handlers, record, for_s=360, broker=broker, clock_start=first)
    run(text, handlers, record, for_s=60, broker=broker, clock_start=datetime(2026, 1, 1, 12, 12, tzinfo=UTC))
    run(text, handlers, record, for_s=60, broker=broker, clock_start=datetime(2026, 1, 1, 13, 5, tzinfo=UTC))
    assert record.things == ["12:10", "13:05"]  # the five missed at 12:20 to 13:00 make one run


def test_a_finite_producer_that_begins_again_gives_its_messages_the_same_ids() -> None:
    """A run keeps its id until it has ended, also in another process; what differs in its body has an id of its own."""
    record = Run()
    rounds = iter([("a", "b", "c"), ("a", "x", "c", "d")])

    async def produce() -> AsyncIterator[str]:
        for text in next(rounds):
            yield text
            await asyncio.sleep(10)

    async def handle(text: str, message: Message) -> None:
        record.note((text, message.id))

    text = one_queue()
    broker = MemoryBroker()
    handlers = {"produce": produce, "handle": handle}
    run(text, handlers, record, for_s=15, broker=broker)  # stopped after two of three
    run(text, handlers, record, broker=broker)
    (a, b), again = record.things[:2], record.things[2:]
    assert [name for name, _ in (a, b, *again)] == ["a", "b", "a", "x", "c", "d"]
    assert a == again[0]
    assert len({number for _, number in (a, b, *again)}) == 5


def test_a_finite_producer_that_has_ended_begins_a_new_run_with_the_next_start() -> None:
    record = Run()

    async def produce() -> str:
        return "same"

    async def handle(text: str, message: Message) -> None:
        record.note(message.id)

    text = one_queue()
    broker = MemoryBroker()
    for hours in (0, 1):
        run(
            text,
            {"produce": produce, "handle": handle},
            record,
            broker=broker,
            clock_start=START + timedelta(hours=hours),
        )
    assert len(set(record.things)) == 2
