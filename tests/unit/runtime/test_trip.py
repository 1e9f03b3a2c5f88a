"""The kill switch: when it pauses a subscriber, what it lets through, and when it goes on. With virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from runner import Reject
from runner.message import Envelope
from runner.transports.memory import MemoryBroker, MemoryTransport
from runner.transports.pauses import Pause
from tests.unit.runtime.running import START, Run, one_queue, run

TRIP = "trip: {failures: 50%, over: 1m, least: 10, pause: 30s}, retry: {attempts: 9, delay: 1s, backoff: fixed}"


class Provider:
    """A service that is down between two moments. It notes each call, with the time."""

    def __init__(self, record: Run, down: tuple[float, float], error: Callable[[], Exception] = TimeoutError) -> None:
        self.record, self.down, self.error = record, down, error

    async def handle(self, payload: Any) -> None:
        is_down = self.down[0] <= asyncio.get_running_loop().time() < self.down[1]
        self.record.note((payload, not is_down))
        await asyncio.sleep(0.1)
        if is_down:
            raise self.error()


def calls_with(provider: Provider, options: str = TRIP, *, messages: int = 200, for_s: float = 600.0) -> Run:
    bodies = tuple(Envelope(b"%d" % n, message_id=str(n)) for n in range(messages))
    text = one_queue(f"concurrency: 2, {options}", producer=None)
    return run(text, {"handle": provider.handle}, provider.record, for_s=for_s, preload=bodies)


def test_a_service_that_is_down_is_left_alone_and_tried_with_one_message() -> None:
    """After 30 s, then 60 s, then 120 s, each time with one; everything is handled when it is back."""
    record = Run()
    calls_with(Provider(record, (0, 100)))
    failed = [at for at, (_, is_well) in record.notes if not is_well]
    assert 10 <= len([at for at in failed if at < 20]) <= 12  # some were running when it tripped
    assert [round(at - failed[-2]) for at in failed[-1:]] == [60]
    assert len([at for at in failed if at > 20]) == 2
    first, second, third = (line["reason"] for line in record.events("subscriber.paused"))
    assert first == "10 of 10 attempts failed in 1m, the last one with TimeoutError; tries again after 30s"
    assert (second[-2:], third[-2:]) == ("1m", "2m"), (second, third)
    assert len(record.events("subscriber.resumed")) == 1
    lines = record.events("subscriber.paused") + record.events("subscriber.resumed")
    assert not any("message_id" in line for line in lines), "a pause is not about the message that failed last"
    assert len(record.events("message.handled")) == 200
    assert record.events("message.dead_lettered") == []


def test_few_failures_and_rare_ones_do_not_trip() -> None:
    """Less than `least` attempts, or less than the share."""
    record = Run()
    calls_with(Provider(record, (0, 0.35)), messages=200, for_s=100)
    assert record.events("subscriber.paused") == []
    record = Run()
    few = Provider(record, (0, 1000))
    calls_with(few, TRIP.replace("least: 10", "least: 100"), messages=4, for_s=20)
    assert record.events("subscriber.paused") == []


def test_a_long_good_time_before_does_not_hide_a_failure() -> None:
    """Only the attempts of the last minute count."""
    record = Run()
    calls_with(Provider(record, (300, 380)), f"{TRIP}, rate: 1/s", messages=400, for_s=900)
    first = record.events("subscriber.paused")[0]["reason"]
    failed, attempts = (int(word) for word in first.split() if word.isdecimal())
    assert 25 <= failed <= 31, first
    assert 50 <= attempts <= 61, first
    assert len(record.events("subscriber.resumed")) == 1
    assert len(record.events("message.handled")) == 400


@pytest.mark.parametrize(
    ("error", "options", "trips"),
    [
        (Reject, TRIP, False),
        (ValueError, TRIP, True),
        (ValueError, TRIP.replace("trip: {", "trip: {on: [TimeoutError, OSError], "), False),
        (ConnectionResetError, TRIP.replace("trip: {", "trip: {on: [TimeoutError, OSError], "), True),
    ],
)
def test_only_errors_that_count_trip(error: Callable[[], Exception], options: str, trips: bool) -> None:
    """Without `on` all but Reject, which says that the message is wrong; with `on` those and their subclasses."""
    record = Run()
    calls_with(Provider(record, (0, 1000), error), options, messages=30, for_s=20)
    assert bool(record.events("subscriber.paused")) is trips


def test_messages_that_say_nothing_about_the_service_do_not_end_the_pause() -> None:
    """One that cannot be decoded is dead-lettered, and the next one is let through."""
    record = Run()
    broken = [Envelope(b"no JSON {", message_id=f"broken-{n}", content_type="application/json") for n in range(3)]
    good = [Envelope(b"%d" % n, message_id=str(n), content_type="application/json") for n in range(20)]

    async def handle(payload: int) -> None:
        at = asyncio.get_running_loop().time()
        record.note(payload)
        if at < 20:
            raise TimeoutError

    options = TRIP.replace("delay: 1s", "delay: 25s")
    text = one_queue(f"concurrency: 10, {options}", producer=None)
    run(text, {"handle": handle}, record, for_s=300, preload=[*good[:10], *broken, *good[10:]])
    assert len(record.events("subscriber.paused")) == 1
    assert len(record.events("message.dead_lettered", reason="invalid")) == 3
    assert len(record.events("message.handled")) == 20


def test_an_operator_has_the_last_word() -> None:
    """Their pause replaces that of the trip, and its end resumes the subscriber at once, also while one is awaited."""
    record, broker = Run(), MemoryBroker()
    operator = MemoryTransport(broker=broker)
    provider = Provider(record, (0, 50))

    async def produce() -> None:
        await operator.connect()
        await asyncio.sleep(40)
        await operator.set_pause("shop", "s", Pause(START, "operator"))
        await asyncio.sleep(200)
        record.note("resumed")
        await operator.set_pause("shop", "s", None)

    bodies = tuple(Envelope(b"%d" % n, message_id=str(n)) for n in range(50))
    text = one_queue(f"concurrency: 2, {TRIP}", producer="")
    run(text, {"handle": provider.handle, "produce": produce}, record, for_s=500, broker=broker, preload=bodies)
    reasons = [line["reason"] for line in record.events("subscriber.paused")]
    assert reasons[-1] == "operator"
    at = next(at for at, thing in record.notes if thing == "resumed")
    assert not [each for each in record.notes if 45 < each[0] < at]
    assert len(record.events("message.handled")) == 50


def test_an_operator_ends_the_pause_of_a_trip() -> None:
    """`resume` alone is enough: no pause of an operator has to come before it."""
    record, broker = Run(), MemoryBroker()
    operator = MemoryTransport(broker=broker)
    provider = Provider(record, (0, 50))

    async def produce() -> None:
        await operator.connect()
        await asyncio.sleep(60)
        await operator.set_pause("shop", "other", None)
        await asyncio.sleep(60)
        record.note("resumed")
        await operator.set_pause("shop", "s", None)

    bodies = tuple(Envelope(b"%d" % n, message_id=str(n)) for n in range(50))
    text = one_queue(f"concurrency: 2, {TRIP.replace('pause: 30s', 'pause: 5m')}", producer="")
    run(text, {"handle": provider.handle, "produce": produce}, record, for_s=250, broker=broker, preload=bodies)
    at = next(at for at, thing in record.notes if thing == "resumed")
    assert not [each for each in record.notes if 20 < each[0] < at]
    assert len(record.events("message.handled")) == 50


@pytest.mark.parametrize("options", ["batch: {size: 5, wait: 1s}", "order_by: key"])
def test_a_batch_and_an_order_trip_as_well(options: str) -> None:
    """One message is let through as a batch of its own; with `order_by` it is the next one of some key."""
    record = Run()

    async def handle(payload: Any) -> None:
        record.note(len(payload) if isinstance(payload, list) else 1)
        if asyncio.get_running_loop().time() < 20:
            raise TimeoutError

    bodies = tuple(Envelope(b'{"key": %d}' % (n % 3), message_id=str(n)) for n in range(60))
    text = one_queue(f"concurrency: 1, {options}, {TRIP}", producer=None)
    run(text, {"handle": handle}, record, for_s=400, preload=bodies)
    assert len(record.events("subscriber.paused")) == 1
    assert len(record.events("subscriber.resumed")) == 1
    assert len(record.events("message.handled")) == 60
    let_through = next(thing for at, thing in record.notes if at > 25)
    assert let_through == 1
