"""What a subscriber's and a producer's options do, on the in-process broker and a clock that jumps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runner import Message, Publish
from runner.message import Envelope
from runner.runtime.resources import ResourceFailed
from runner.transports.memory import MemoryBroker
from tests.unit.runtime.running import START, Run, run


def numbers(count: int) -> Any:
    async def produce() -> list[dict[str, int]]:  # on the loop: the clock would jump while a thread is at work
        return [{"n": number, "key": number % 3} for number in range(count)]

    return produce


QUEUE = "queues: {q: }\nproducers: {p: {handler: 'h:produce', to: q}}\n"


def subscriber(options: str) -> str:
    return QUEUE + f"subscribers: {{s: {{from: q, handler: 'h:handle', {options}}}}}\n"


def test_a_batch_is_full_or_what_came_in_time() -> None:
    """Ten messages in batches of four: two full ones at once, the rest when the first of it has waited."""
    record = Run()

    async def handle(orders: list[dict[str, int]]) -> None:
        record.note([order["n"] for order in orders])

    run(subscriber("batch: {size: 4, wait: 2s}, concurrency: 1"), {"produce": numbers(10), "handle": handle}, record)
    assert record.things == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert record.notes[2][0] >= 2.0
    assert len(record.events("message.handled")) == 10


def test_a_batch_gets_a_message_for_each_payload() -> None:
    """In the same order."""
    record = Run()

    async def handle(orders: list[dict[str, int]], messages: list[Message]) -> None:
        assert [message.payload for message in messages] == orders
        record.note(len({message.id for message in messages}))

    run(subscriber("batch: 5"), {"produce": numbers(5), "handle": handle}, record)
    assert record.things == [5]


def test_only_the_message_that_is_to_blame_is_dead_lettered() -> None:
    """A batch that fails is tried again as a batch; on the last attempt each of its messages is alone."""
    record = Run()

    async def handle(orders: list[dict[str, int]]) -> None:
        record.note([order["n"] for order in orders])
        if any(order["n"] == 2 for order in orders):
            raise ValueError("two")

    run(
        subscriber("batch: {size: 4, wait: 1s}, concurrency: 1, retry: {attempts: 3, delay: 1s}"),
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

    run(subscriber("batch: {size: 4, wait: 2s}, concurrency: 2"), {"produce": numbers(5), "handle": handle}, record)
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
    run(subscriber(options), {"produce": numbers(50), "handle": handle}, record)
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
        subscriber("batch: {size: 5, wait: 1s}, concurrency: 2, retry: {attempts: 4, delay: 1s, backoff: fixed}"),
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
        subscriber("batch: {size: 2, wait: 1s}, concurrency: 5, rate: 1/s"),
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

    run(subscriber("batch: {size: 3, wait: 1s}"), {"produce": produce, "handle": handle}, record)
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
        subscriber("order_by: key, concurrency: 3, retry: {attempts: 20, backoff: fixed, delay: 5s}"),
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
        subscriber("order_by: key, concurrency: 1, retry: {attempts: 2, delay: 10s}"),
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
        subscriber("order_by: key, retry: {attempts: 3, delay: 1s}"),
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

    run(subscriber("rate: 2/s"), {"produce": numbers(10), "handle": handle}, record)
    assert [at for at, _ in record.notes] == pytest.approx([index * 0.5 for index in range(10)], abs=0.01)


def test_a_producers_rate_spaces_out_its_messages() -> None:
    """One a second."""
    record = Run()

    async def handle(order: dict[str, int]) -> None:
        record.note(order["n"])

    text = "queues: {q: }\nproducers: {p: {handler: 'h:produce', to: q, rate: 1/s}}\n"
    text += "subscribers: {s: {from: q, handler: 'h:handle'}}\n"
    run(text, {"produce": numbers(5), "handle": handle}, record)
    assert [at for at, _ in record.notes] == pytest.approx([0, 1, 2, 3, 4], abs=0.01)


def test_a_duplicate_is_acknowledged_without_a_second_call() -> None:
    """Within the window; the same id with another body is another message; failed work is not done work."""
    record = Run()

    has_failed = False

    async def handle(order: dict[str, int], message: Message) -> None:
        nonlocal has_failed
        record.note((order["n"], message.attempt))
        await asyncio.sleep(1)
        if order["n"] == 1 and not has_failed:
            has_failed = True
            raise ValueError("once")

    copies = [("a", 0), ("a", 0), ("b", 1), ("b", 1), ("a", 2), (None, 3), (None, 3)]
    text = "queues: {q: }\nsubscribers: {s: {from: q, handler: 'h:handle', dedupe: {window: 1h}, retry: 3}}\n"
    run(text, {"handle": handle}, record, preload=[Envelope(b'{"n":%d}' % n, message_id=i) for i, n in copies])
    assert [n for n, _ in record.things].count(0) == 1
    # The second copy of the failed one has waited, is called next, and makes the retry of the first a duplicate.
    assert [thing for thing in record.things if thing[0] == 1] == [(1, 1), (1, 1)]
    assert [n for n, _ in record.things].count(2) == 1
    assert [n for n, _ in record.things].count(3) == 2
    assert len(record.events("message.handled", duplicate=True)) == 2


def test_without_dedupe_every_copy_is_handled() -> None:
    """It is asked for, because remembering costs."""
    record = Run()

    async def handle(order: dict[str, int]) -> None:
        record.note(order["n"])

    text = "queues: {q: }\nsubscribers: {s: {from: q, handler: 'h:handle'}}\n"
    run(text, {"handle": handle}, record, preload=[Envelope(b'{"n":1}', message_id="a")] * 2)
    assert record.things == [1, 1]


def test_resources_are_opened_in_order_and_closed_in_reverse() -> None:
    """Of every kind that a factory can make; handlers and producers get them by name."""
    record = Run()

    @contextmanager
    def files(name: str) -> Iterator[str]:
        record.note(f"open {name}")
        yield f"<{name}>"
        record.note(f"close {name}")

    @asynccontextmanager
    async def pool() -> AsyncIterator[str]:
        record.note("open pool")
        yield "<pool>"
        record.note("close pool")

    async def client() -> str:
        record.note("open client")
        return "<client>"

    def produce(client: str) -> list[str]:
        return [client]

    async def handle(text: str, pool: str, files: str) -> None:
        record.note((text, pool, files))

    text = "resources: {files: {factory: 'h:files', with: {name: f}}, pool: 'h:pool', client: 'h:client'}\n"
    handlers = {"files": files, "pool": pool, "client": client, "produce": produce, "handle": handle}
    run(text + subscriber("retry: none"), handlers, record)
    assert record.things == [
        "open f",
        "open pool",
        "open client",
        ("<client>", "<pool>", "<f>"),
        "close pool",
        "close f",
    ]


def test_a_factory_that_fails_stops_the_start() -> None:
    """With its own error, before anything is consumed, and closes what was open."""
    record = Run()

    @contextmanager
    def good() -> Iterator[int]:
        yield 1
        record.note("closed")

    def bad() -> None:
        raise ConnectionError("no database")

    async def handle(text: str) -> None:
        record.note("handled")

    text = "resources: {good: 'h:good', bad: 'h:bad'}\n" + subscriber("retry: none")
    with pytest.raises(ResourceFailed, match='"bad" cannot be opened: ConnectionError: no database'):
        run(text, {"good": good, "bad": bad, "produce": numbers(1), "handle": handle}, record)


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

    text = "queues: {q: }\nproducers: {p: {handler: 'h:produce', every: 10s, to: q}}\n"
    text += "subscribers: {s: {from: q, handler: 'h:handle'}}\n"
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

    text = "queues: {q: }\nproducers: {p: {handler: 'h:produce', cron: '0 6 * * *', timezone: Europe/Berlin, to: q}}\n"
    text += "subscribers: {s: {from: q, handler: 'h:handle'}}\n"
    start = datetime(2026, 3, 28, 0, 0, tzinfo=UTC)
    run(text, {"produce": produce, "handle": handle}, record, for_s=2.5 * 86_400, clock_start=start)
    assert record.things == ["2026-03-28T05:00:00+00:00", "2026-03-29T04:00:00+00:00", "2026-03-30T04:00:00+00:00"]


def test_a_schedule_goes_on_where_another_process_left_it() -> None:
    """What has fired is remembered by the broker: a restart neither repeats a tick nor forgets the rhythm."""
    record = Run()

    async def produce() -> str:
        return "tick"

    async def handle(text: str, message: Message) -> None:
        assert message.timestamp is not None
        record.note(message.timestamp.strftime("%H:%M"))

    text = "queues: {q: }\nproducers: {p: {handler: 'h:produce', cron: '*/10 * * * *', to: q}}\n"
    text += "subscribers: {s: {from: q, handler: 'h:handle'}}\n"
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

    text = "queues: {q: }\nproducers: {p: {handler: 'h:produce', to: q}}\n"
    text += "subscribers: {s: {from: q, handler: 'h:handle'}}\n"
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

    text = "queues: {q: }\nproducers: {p: {handler: 'h:produce', to: q}}\n"
    text += "subscribers: {s: {from: q, handler: 'h:handle'}}\n"
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


def test_a_producer_that_is_stopped_waits_for_the_confirms_of_what_it_gave() -> None:
    """Also of those that the broker is slow to take: here a full queue keeps them for a second."""
    record = Run()

    async def produce() -> list[str]:
        return ["a", "b", "c"]

    async def handle(text: str) -> None:
        record.note(text)
        await asyncio.sleep(1)

    text = "queues: {q: {max_length: 1, overflow: reject-publish}}\nproducers: {p: {handler: 'h:produce', to: q}}\n"
    text += "subscribers: {s: {from: q, handler: 'h:handle', concurrency: 1, prefetch: 1}}\n"
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

    text = f"queues: {{q: }}\nproducers: {{p: {{handler: 'h:produce', {when}, to: q}}}}\n"
    text += "subscribers: {s: {from: q, handler: 'h:handle'}}\n"
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

    text = "queues: {q: }\nproducers: {p: {handler: 'h:produce', cron: '0 12 * * *', to: q}}\n"
    text += "subscribers: {s: {from: q, handler: 'h:handle'}}\n"
    broker = MemoryBroker()
    handlers = {"produce": produce, "handle": handle}
    run(text, handlers, Run(), for_s=7200, broker=broker, clock_start=START.replace(hour=11))
    assert record.things == ["tick"]
    record.notes.clear()
    run(text, handlers, record, for_s=7200, broker=broker, clock_start=START.replace(hour=11))
    assert record.things == []
