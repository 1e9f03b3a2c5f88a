"""Producers: rates, schedules, and changes of the wall clock, with virtual time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from runner import Message
from runner.transports.memory import MemoryBroker
from tests.unit.runtime.running import START, Run, numbers, one_queue, run


def test_a_producers_rate_spaces_out_its_messages() -> None:
    """One a second."""
    record = Run()

    async def handle(order: dict[str, int]) -> None:
        record.note(order["n"])

    text = one_queue(producer="rate: 1/s")
    run(text, {"produce": numbers(5), "handle": handle}, record)
    assert [at for at, _ in record.notes] == pytest.approx([0, 1, 2, 3, 4], abs=0.01)


def test_an_interval_producer_ticks_at_once_and_then_regularly() -> None:
    """A slow round does not shift the rhythm; ticks it has passed over are left out."""
    record = Run()
    rounds = 0

    async def produce() -> str:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            await asyncio.sleep(25)
        return "tick"

    async def handle(text: str) -> None:
        record.note(text)

    text = one_queue(producer="every: 10s")
    run(text, {"produce": produce, "handle": handle}, record, for_s=65)
    assert [round(at) for at, _ in record.notes] == [0, 35, 35, 40, 50, 60]


def test_a_cron_producer_fires_at_its_times_in_its_zone() -> None:
    """06:00 in Berlin is 05:00 UTC in winter and 04:00 after the clocks have changed."""
    record = Run()

    async def produce() -> str:
        return "report"

    async def handle(text: str, message: Message) -> None:
        assert message.timestamp is not None
        record.note(message.timestamp.isoformat())

    text = one_queue(producer="cron: '0 6 * * *', timezone: Europe/Berlin")
    start = datetime(2026, 3, 28, 0, 0, tzinfo=UTC)
    run(text, {"produce": produce, "handle": handle}, record, for_s=2.5 * 86_400, clock_start=start)
    assert record.things == ["2026-03-28T05:00:00+00:00", "2026-03-29T04:00:00+00:00", "2026-03-30T04:00:00+00:00"]


def test_a_producer_that_is_stopped_waits_for_the_confirms_of_what_it_gave() -> None:
    """Also of those that the broker is slow to take: here a full queue keeps them for a second."""
    record = Run()

    async def produce() -> list[str]:
        return ["a", "b", "c"]

    async def handle(text: str) -> None:
        record.note(text)
        await asyncio.sleep(1)

    text = one_queue("concurrency: 1, prefetch: 1", queue="max_length: 1, overflow: reject-publish")
    run(text, {"produce": produce, "handle": handle}, record, for_s=0.5)
    assert record.report is not None
    published = len(record.events("message.published"))
    (interrupted,) = record.events("producer.interrupted")
    assert published + interrupted["unconfirmed"] == 3


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("every: 10s", [10, 20, 30]),
        # Put back by a day: the noon of the new day comes, though one has been.
        ("cron: '0 12 * * *'", [43_200]),
    ],
)
def test_a_schedule_does_not_wait_until_a_clock_that_was_ahead_has_come_true(when: str, expected: list[float]) -> None:
    record = Run()

    async def produce() -> str:
        return "tick"

    async def handle(text: str) -> None:
        record.note(text)

    text = one_queue(producer=when)
    broker = MemoryBroker()
    handlers = {"produce": produce, "handle": handle}
    ahead = START + timedelta(days=30)
    # Noon comes once in this time, and not in its last moment: what is published then may be left for the next run.
    run(text, handlers, Run(), for_s=90_000 if "cron" in when else 5, broker=broker, clock_start=ahead)
    record.notes.clear()
    midnight = START.replace(hour=0)
    run(text, handlers, record, for_s=expected[-1] + 5, broker=broker, clock_start=midnight)
    assert [round(at) for at, _ in record.notes] == expected


def test_a_cron_producer_does_not_repeat_itself_after_a_small_correction_of_the_clock() -> None:
    """Two hours back: the noon that has been is not due again."""
    record = Run()

    async def produce() -> str:
        return "tick"

    async def handle(text: str) -> None:
        record.note(text)

    text = one_queue(producer="cron: '0 12 * * *'")
    broker = MemoryBroker()
    handlers = {"produce": produce, "handle": handle}
    run(text, handlers, Run(), for_s=7200, broker=broker, clock_start=START.replace(hour=11))
    assert record.things == ["tick"]
    record.notes.clear()
    run(text, handlers, record, for_s=7200, broker=broker, clock_start=START.replace(hour=11))
    assert record.things == []
