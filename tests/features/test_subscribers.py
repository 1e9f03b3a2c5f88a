"""What a subscriber's options promise about several messages: batches, and an order for each key."""

from __future__ import annotations

import json
import signal
import time
from collections import defaultdict
from itertools import pairwise

import pytest

from tests.foreign import Foreign
from tests.project import Entry, Project, lines, started, stop, until

BATCHES = """
    version: 1
    queues: {UNIQUE.work: {}, UNIQUE.work.dead: {}}
    producers:
      send: {handler: work:send, to: UNIQUE.work}
    subscribers:
      store: {from: UNIQUE.work, handler: work:store, concurrency: 1, batch: BATCH, retry: {attempts: 3, delay: 50ms}}
      dead: {from: UNIQUE.work.dead, handler: work:dead}
"""
BATCH_HANDLERS = """
    import json
    from runner import Message, Publish

    def dead(payload, message: Message) -> None: note(json.dumps({"dead": payload}), message.attempt)
"""


def batches(project: Project) -> list[list[int]]:
    return [numbers for numbers in map(json.loads, project.ledger.payloads()) if isinstance(numbers, list)]


async def test_a_batch_is_full_or_what_came_while_its_first_message_waited(project: Project) -> None:
    """Ten messages and `batch: {size: 4}`: two calls with four, one with the two that are left."""
    project.pipeline(BATCHES.replace("BATCH", "{size: 4, wait: 2s}"))
    project.handlers(
        BATCH_HANDLERS
        + """
    def send(): return [{"n": n} for n in range(10)]
    async def store(orders: list[dict], messages: list[Message]) -> None:
        assert [message.payload for message in messages] == orders
        note(json.dumps([order["n"] for order in orders]))
    """
    )
    runner = await project.up_until_idle()
    assert batches(project) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len({line["message_id"] for line in lines(runner, "message.handled", subscriber="store")}) == 10


async def test_an_item_that_cannot_be_read_is_taken_out_of_its_batch(project: Project) -> None:
    """It alone is dead-lettered, at once and without an attempt; the others are handled together."""
    project.pipeline(BATCHES.replace("BATCH", "{size: 4, wait: 2s}"))
    project.handlers(
        BATCH_HANDLERS
        + """
    def send(): return [{"n": 0}, Publish("no json"), {"n": 2}, Publish({"n": "two"})]
    def store(orders: list[dict[str, int]]) -> None: note(json.dumps([order["n"] for order in orders]))
    """
    )
    runner = await project.up_until_idle()
    assert batches(project) == [[0, 2]]
    assert sorted(project.ledger.payloads())[1:] == ['{"dead": "no json"}', '{"dead": {"n": "two"}}']
    dead = lines(runner, "message.dead_lettered")
    assert [(line["reason"], line["attempt"]) for line in dead] == [("invalid", 1)] * 2


async def test_one_bad_message_does_not_take_its_batch_with_it(project: Project) -> None:
    """A batch that failed is tried again as a batch, at last message by message: only the guilty one is given up."""
    project.pipeline(BATCHES.replace("BATCH", "{size: 4, wait: 2s}"))
    project.handlers(
        BATCH_HANDLERS
        + """
    def send(): return [{"n": n} for n in range(4)]
    def store(orders: list[dict]) -> None:
        note(json.dumps([order["n"] for order in orders]))
        if any(order["n"] == 2 for order in orders):
            raise ValueError("two")
    """
    )
    runner = await project.up_until_idle()
    first, second, *others = batches(project)
    assert (first, sorted(second)) == ([0, 1, 2, 3], [0, 1, 2, 3])
    assert sorted(others) == [[0], [1], [2], [3]]
    (dead,) = lines(runner, "message.dead_lettered")
    assert (dead["attempt"], dead["reason"], dead["error"]) == (3, "exhausted", "two")
    assert '{"dead": {"n": 2}}' in project.ledger.payloads()


@pytest.mark.parametrize("run_in", ["thread", "process"])
async def test_a_batch_may_fail_in_part(project: Project, run_in: str) -> None:
    """BatchFailed names positions: one is given up, one is tried again alone, and the others are done once."""
    project.pipeline(BATCHES.replace("BATCH", f"{{size: 4, wait: 300ms}}, run_in: {run_in}"))
    project.handlers(
        BATCH_HANDLERS
        + """
    import os
    from runner import BatchFailed, Reject

    def send(): return [{"n": n} for n in range(4)]
    def store(orders: list[dict], messages: list[Message]):
        note(json.dumps([order["n"] for order in orders]))
        at = {order["n"]: position for position, order in enumerate(orders)}
        errors = {at[n]: error for n, error in ((1, ValueError("busy")), (3, Reject("why"))) if n in at}
        for order, message in zip(orders, messages):
            if order["n"] in (0, 2):
                yield Publish({"done": order["n"]}, to="UNIQUE.work.dead", of=message)
        if errors:
            raise BatchFailed(errors)
    """
    )
    runner = await project.up_until_idle()
    assert batches(project) == [[0, 1, 2, 3], [1], [1]]
    assert len(lines(runner, "message.handled", subscriber="store")) == 2
    assert [line["error"] for line in lines(runner, "message.retry")] == ["busy", "busy"]
    dead = {line["error"]: line["reason"] for line in lines(runner, "message.dead_lettered")}
    assert dead == {"why": "rejected", "busy": "exhausted"}
    stored = lines(runner, "message.handled", subscriber="store")
    heard = lines(runner, "message.handled", subscriber="dead")
    assert {line["correlation_id"] for line in heard} >= {line["correlation_id"] for line in stored}
    assert [payload for payload in project.ledger.payloads() if "done" in payload] == [
        '{"dead": {"done": 0}}',
        '{"dead": {"done": 2}}',
    ]


async def test_one_hiccup_of_a_batch_is_over_after_its_delay(project: Project) -> None:
    """All its messages come again together; none waits for company that it has already, or may not have."""
    project.pipeline(BATCHES.replace("BATCH", "{size: 50, wait: 10s}"))
    project.handlers(
        BATCH_HANDLERS
        + """
    calls = 0

    def send(): return [{"n": n} for n in range(50)]
    def store(orders: list[dict]) -> None:
        global calls
        calls += 1
        if calls == 1: raise ConnectionError("the database restarts")
        note(json.dumps([order["n"] for order in orders]))
    """
    )
    since = time.monotonic()
    await project.up_until_idle()
    assert time.monotonic() - since < 10
    assert [sorted(numbers) for numbers in batches(project)] == [list(range(50))]


async def test_a_batch_that_is_not_full_yet_is_given_back_on_a_stop(rabbit_project: Project, foreign: Foreign) -> None:
    """SIGTERM does not wait for the batch to fill, and does not call the handler either."""
    rabbit_project.pipeline(BATCHES.replace("BATCH", "{size: 100, wait: 1h}"))
    rabbit_project.handlers(
        BATCH_HANDLERS + "\n    def send(): return [1, 2, 3]\n    def store(orders: list) -> None: note('[]')\n"
    )
    queue = rabbit_project.name("work")
    async with rabbit_project.running() as runner:
        await runner.wait_for(lambda line: line["event"] == "producer.finished")
        await until(lambda: foreign.count(queue) == 0, "the messages are held")
    assert len(lines(runner, "message.released")) == 3
    assert batches(rabbit_project) == []
    assert sorted(got.body for got in foreign.take(queue)) == [b"1", b"2", b"3"]


ORDERED = """
    version: 1
    queues: {UNIQUE.work: {}}
    subscribers:
      move:
        from: UNIQUE.work
        handler: work:move
        order_by: account.id
        concurrency: 8
        retry: {attempts: 4, backoff: fixed, delay: DELAY}
"""
SENDING = """
    producers:
      send: {handler: work:send, to: UNIQUE.work}
"""


def by_key(entries: list[Entry]) -> dict[str, list[int]]:
    """Return the numbers of what was done for each key: entries say `<key> <number>`."""
    found: dict[str, list[int]] = defaultdict(list)
    for entry in entries:
        key, number = entry.payload.split()
        found[key].append(int(number))
    return found


async def test_messages_with_the_same_key_are_handled_in_order_whatever_fails(project: Project) -> None:
    """`order_by` with concurrency: keys side by side, each in its own order, through retries."""
    project.pipeline(ORDERED.replace("DELAY", "20ms") + SENDING)
    project.handlers(
        """
        import asyncio
        from collections import Counter
        from runner import Message
        running = Counter()

        def send(): return [{"account": {"id": n % 6}, "n": n} for n in range(60)]

        async def move(order: dict, message: Message) -> None:
            key, n = order["account"]["id"], order["n"]
            running[key] += 1
            assert running[key] == 1, "two of one key at once"
            note(f"most {len(+running)}")
            await asyncio.sleep(0.001 * (n * 7 % 5))
            running[key] -= 1
            if (n * 31 + message.attempt) % 4 == 0 and message.attempt < 4:
                raise ConnectionError("again")
            note(f"{key} {n}", message.attempt)
        """
    )
    runner = await project.up_until_idle()
    entries = project.ledger.entries()
    done = by_key([entry for entry in entries if not entry.payload.startswith("most")])
    assert done == {str(key): list(range(key, 60, 6)) for key in range(6)}
    assert len(lines(runner, "message.retry")) >= 10
    assert max(int(entry.payload.split()[1]) for entry in entries if entry.payload.startswith("most")) > 2


async def test_a_retry_holds_back_only_its_own_key(project: Project) -> None:
    """While one message waits for its second attempt, the next of its key wait behind it, and no others."""
    project.pipeline(ORDERED.replace("DELAY", "2s") + SENDING)
    project.handlers(
        """
        from runner import Message

        def send(): return [{"account": {"id": "ab"[n % 2]}, "n": n} for n in range(10)]

        async def move(order: dict, message: Message) -> None:
            if order["n"] == 0 and message.attempt == 1:
                raise ConnectionError("once")
            note(f"{order['account']['id']} {order['n']}", message.attempt)
        """
    )
    await project.up_until_idle()
    assert project.ledger.payloads() == [f"b {n}" for n in (1, 3, 5, 7, 9)] + [f"a {n}" for n in (0, 2, 4, 6, 8)]
    assert [entry.attempt for entry in project.ledger.entries()] == [1] * 5 + [2] + [1] * 4


MOVING = """
    import asyncio

    async def move(order: dict) -> None:
        await asyncio.sleep(0.01)
        note(f"{order['account']['id']} {order['n']}")
"""


async def test_of_two_processes_one_keeps_the_order_and_the_other_takes_over_when_it_dies(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """kill -9 of the active one: what it had not acknowledged comes again, in order, and then the rest."""
    rabbit_project.write(ORDERED.replace("DELAY", "20ms"), MOVING)
    orders = [json.dumps({"account": {"id": n % 5}, "n": n}).encode() for n in range(1000)]
    async with rabbit_project.up() as first, rabbit_project.up() as second:
        await started(first, second)
        foreign.publish(rabbit_project.name("work"), *orders)
        entries = await rabbit_project.ledger.wait_for(200)
        (active,) = {entry.pid for entry in entries}
        dying, other = (first, second) if first.pid == active else (second, first)
        dying.signal(signal.SIGKILL)
        await dying.wait()
        before = [entry for entry in rabbit_project.ledger.entries() if entry.pid == active]
        assert len(before) < 900
        await until(
            lambda: len({entry.payload for entry in rabbit_project.ledger.entries()}) == 1000, "the other does the rest"
        )
        await stop(other)
    entries = rabbit_project.ledger.entries()
    for pid in (first.pid, second.pid):
        for numbers in by_key([entry for entry in entries if entry.pid == pid]).values():
            assert all(later == earlier + 5 for earlier, later in pairwise(numbers)), "in order, and none left out"
    twice = sum(rabbit_project.ledger.counts().values()) - 1000
    assert twice <= 100  # what may be unacknowledged: the prefetch
    taken_over = by_key([entry for entry in entries if entry.pid == other.pid])
    assert {numbers[-1] for numbers in taken_over.values()} == {995, 996, 997, 998, 999}


async def test_a_process_that_stops_hands_its_keys_over_in_order(rabbit_project: Project, foreign: Foreign) -> None:
    """A rolling restart: nothing is handled twice, and no message overtakes another of its key."""
    rabbit_project.write(ORDERED.replace("DELAY", "20ms"), MOVING)
    orders = [json.dumps({"account": {"id": n % 5}, "n": n}).encode() for n in range(1000)]
    async with rabbit_project.up() as first, rabbit_project.up() as second:
        await started(first, second)
        foreign.publish(rabbit_project.name("work"), *orders)
        (active,) = {entry.pid for entry in await rabbit_project.ledger.wait_for(200)}
        stopping, other = (first, second) if first.pid == active else (second, first)
        await stop(stopping)
        await rabbit_project.ledger.wait_for(1000)
        await stop(other)
    assert by_key(rabbit_project.ledger.entries()) == {str(key): list(range(key, 1000, 5)) for key in range(5)}


async def test_what_fails_while_stopping_is_given_back(rabbit_project: Project, foreign: Foreign) -> None:
    """Its retry would wait in this process, so another one gets it, at once and without a lost attempt."""
    rabbit_project.pipeline(ORDERED.replace("DELAY", "5m"))
    rabbit_project.handlers(
        """
        import asyncio, os
        from runner import Message

        async def move(order: dict, message: Message) -> None:
            note(order["n"], message.attempt)
            while not os.path.exists("go"):
                await asyncio.sleep(0.01)
            raise ConnectionError("again")
        """
    )
    queue = rabbit_project.name("work")
    async with rabbit_project.up() as runner:
        await started(runner)
        foreign.publish(queue, *(b'{"account": {"id": 1}, "n": %d}' % n for n in range(3)))
        await rabbit_project.ledger.wait_for(1)
        await until(lambda: foreign.count(queue) == 0, "the others are held")
        runner.signal(signal.SIGTERM)
        await until(lambda: len(lines(runner, "message.released")) == 2, "those that had not begun")
        (rabbit_project.folder / "go").touch()
        assert await runner.wait() == 0
    assert len(lines(runner, "message.retry")) == 1
    assert len(lines(runner, "message.released")) == 3
    assert sorted(got.body[-3:] for got in foreign.take(queue)) == [b" 0}", b" 1}", b" 2}"]


async def test_what_is_disabled_does_not_run_and_its_queue_gets_its_messages(project: Project) -> None:
    """Of a queue and of an event, which has its copy although no process reads it."""
    project.pipeline(
        """
        version: 1
        queues: {UNIQUE.work: , UNIQUE.later: }
        events: {UNIQUE.made: }
        producers:
          send: {handler: work:send, to: [UNIQUE.work, UNIQUE.later, UNIQUE.made]}
          never: {handler: work:never, to: UNIQUE.work, enabled: false}
        subscribers:
          now: {from: UNIQUE.work, handler: work:now}
          later: {from: UNIQUE.later, handler: work:never, enabled: false}
          hear: {from: UNIQUE.made, handler: work:never, enabled: "${HEAR:-false}"}
        """
    )
    project.handlers(
        """
        def send(): return ["one"]
        def now(order: str) -> None: note(order)
        def never(order: str = "") -> None: note("never")
        """
    )
    runner = await project.up_until_idle()  # publishing to an event without a queue would fail
    assert project.ledger.payloads() == ["one"]
    assert "disabled   never, later, hear\n" in runner.stderr
    (started_,) = lines(runner, "pipeline.started")
    assert (started_["subscribers"], started_["producers"]) == (1, 1)
