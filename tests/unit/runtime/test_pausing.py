"""A paused subscriber: what it does with what it holds, and how it goes on. With virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from runner import Message
from runner.errors import BrokerUnavailable
from runner.message import Envelope
from runner.runtime.supervisor import Supervisor
from runner.transports.base import SubscriptionOptions
from runner.transports.memory import MemoryBroker, MemoryTransport
from runner.transports.pauses import Pause
from tests.unit.runtime.running import START, Run, one_queue, run

AWAY = Pause(START, "carrier is down")


def run_with_operator(
    options: str,
    handle: Callable[..., Any],
    operate: Callable[[MemoryTransport, Run], Awaitable[None]],
    record: Run,
    *,
    messages: int = 10,
    for_s: float = 60.0,
) -> Run:
    """Run a subscriber of `q` that finds messages there, while another session pauses and resumes it."""
    broker = MemoryBroker()
    operator = MemoryTransport(broker=broker)

    async def produce() -> None:
        await operator.connect()
        await operate(operator, record)

    bodies = tuple(Envelope(b"%d" % n, message_id=str(n)) for n in range(messages))
    text = one_queue(options, producer="")
    return run(text, {"produce": produce, "handle": handle}, record, for_s=for_s, broker=broker, preload=bodies)


@pytest.mark.parametrize(
    "options",
    [
        "concurrency: 2",
        "concurrency: 2, order_by: key",
        "concurrency: 2, rate: 100/s",
        "concurrency: 1, batch: {size: 2, wait: 1s}",
    ],
)
def test_a_paused_subscriber_finishes_what_runs_and_holds_nothing(options: str) -> None:
    """What has not started goes back, and is there for others; after the pause everything is handled once."""
    record = Run()

    async def handle(payload: Any) -> None:
        record.note("begun")
        await asyncio.sleep(3)
        record.note("done")

    async def operate(operator: MemoryTransport, record: Run) -> None:
        await asyncio.sleep(1.5)
        await operator.set_pause("shop", "s", AWAY)
        await asyncio.sleep(10)
        queue = operator.queue("q")
        assert queue is not None
        record.note(("ready", len(queue.buffer), "consumers", len(queue.subscriptions)))
        await operator.set_pause("shop", "s", None)

    run_with_operator(options, handle, operate, record)
    index, waiting = next((i, thing) for i, thing in enumerate(record.things) if isinstance(thing, tuple))
    before = record.things[:index]
    assert before.count("begun") == before.count("done") >= 1
    assert waiting[3] == 0
    assert len(record.events("message.handled")) == 10
    assert len({line["message_id"] for line in record.events("message.handled")}) == 10
    assert record.report is not None
    assert record.report.left_in_memory == 0
    (paused,), (resumed,) = record.events("subscriber.paused"), record.events("subscriber.resumed")
    assert (paused["reason"], paused["since"], paused["queue"]) == ("carrier is down", START.isoformat(), "q")
    assert resumed["paused_s"] == 11.5


def test_a_subscriber_that_is_paused_before_the_start_takes_nothing() -> None:
    """And is ready: its pause is no fault."""
    record, broker = Run(), MemoryBroker()

    async def prepare() -> None:
        first = MemoryTransport(broker=broker)
        await first.connect()
        await first.set_pause("shop", "s", AWAY)

    async def handle(payload: Any) -> None:
        record.note("handled")

    reasons: list[list[str]] = []
    wait = Supervisor.wait

    async def note_reasons(supervisor: Supervisor, stop: asyncio.Event) -> None:
        reasons.append(supervisor.unready_reasons())
        await wait(supervisor, stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Supervisor, "wait", note_reasons)
        asyncio.run(prepare())
        run(one_queue(producer=None), {"handle": handle}, record, for_s=5, broker=broker, preload=(Envelope(b"1"),))
    assert record.things == []
    assert reasons == [[]]
    assert record.report is not None
    assert record.report.left_in_memory == 1


def test_until_idle_does_not_wait_for_a_paused_subscriber() -> None:
    """Its messages stay in the queue; without that the process would never end."""
    record, broker = Run(), MemoryBroker()

    async def prepare() -> None:
        first = MemoryTransport(broker=broker)
        await first.connect()
        await first.set_pause("shop", "s", AWAY)

    asyncio.run(prepare())
    run(one_queue(producer=None), {"handle": lambda _: None}, record, broker=broker, preload=(Envelope(b"1"),))
    assert record.seconds < 5
    assert record.report is not None
    assert record.report.left_in_memory == 1


def test_the_last_word_counts_when_it_is_paused_and_resumed_at_once() -> None:
    """Also while a handler of the first pause is still running."""
    record = Run()

    async def handle(payload: Any) -> None:
        await asyncio.sleep(5)

    async def operate(operator: MemoryTransport, record: Run) -> None:
        await asyncio.sleep(1)
        for pause in (AWAY, None, AWAY, None):
            await operator.set_pause("shop", "s", pause)
            await asyncio.sleep(0.1)

    run_with_operator("concurrency: 2", handle, operate, record)
    assert len(record.events("message.handled")) == 10


def test_it_is_subscribed_again_as_soon_as_the_broker_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is gone for a while after the pause does not end the subscriber."""
    record = Run()
    subscribe, refusals = MemoryTransport.subscribe, iter([False, True, True])

    async def refuse_twice(transport: MemoryTransport, options: SubscriptionOptions, on_delivery: Any) -> Any:
        if next(refusals, False):
            raise BrokerUnavailable("not now")
        return await subscribe(transport, options, on_delivery)

    monkeypatch.setattr(MemoryTransport, "subscribe", refuse_twice)

    async def handle(payload: Any, message: Message) -> None:
        await asyncio.sleep(1)

    async def operate(operator: MemoryTransport, record: Run) -> None:
        await asyncio.sleep(1.5)
        await operator.set_pause("shop", "s", AWAY)
        await asyncio.sleep(5)
        await operator.set_pause("shop", "s", None)

    run_with_operator("concurrency: 1", handle, operate, record)
    assert [line["error"] for line in record.events("consumer.lost")] == ["not now"] * 2
    assert len(record.events("message.handled")) == 10


@pytest.mark.parametrize("trip", ["", ", trip: {least: 1, pause: 1s}"])
def test_a_process_that_stops_is_neither_resumed_nor_paused(trip: str) -> None:
    """Whatever an operator says while it waits for its handlers, and however they end: nothing is taken any more."""
    record = Run()

    async def handle(payload: Any) -> None:
        record.note("begun")
        await asyncio.sleep(5)
        raise ValueError

    tasks: list[asyncio.Task[None]] = []

    async def pause_and_resume(operator: MemoryTransport) -> None:
        await asyncio.sleep(2)
        await operator.set_pause("shop", "s", AWAY)
        await asyncio.sleep(1)
        await operator.set_pause("shop", "s", None)

    async def operate(operator: MemoryTransport, record: Run) -> None:
        tasks.append(asyncio.create_task(pause_and_resume(operator)))  # the producer itself ends with the process

    options = f"concurrency: 2, retry: {{attempts: 9, delay: 5m}}{trip}"
    run_with_operator(options, handle, operate, record, for_s=1)
    assert record.things == ["begun", "begun"]
    assert record.events("subscriber.paused") == record.events("subscriber.resumed") == []
    assert tasks[0].done()
