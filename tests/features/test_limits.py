"""How often a subscriber's handler is called: at a rate, and once for each message that comes twice."""

from __future__ import annotations

from collections import Counter

from tests.foreign import Foreign
from tests.project import Project, lines, until


async def test_rate_spaces_out_the_calls(project: Project) -> None:
    """`rate: 10/s`: calls begin a tenth of a second apart, however many workers are free."""
    project.one_queue(
        """
        import time
        def send(): return list(range(15))
        async def handle(number: int) -> None: note(time.monotonic())
        """,
        "rate: 10/s",
    )
    await project.up_until_idle()
    times = sorted(map(float, project.ledger.payloads()))
    assert len(times) == 15
    assert times[-1] - times[0] >= 1.2
    assert times[7] - times[0] >= 0.5  # and not all at the end


DEDUPE = """
    version: 1
    queues: {UNIQUE.work: {}, UNIQUE.out: {}}
    subscribers:
      pay: {from: UNIQUE.work, handler: work:pay, dedupe: 1h, OPTIONS}
"""


async def test_the_same_message_id_twice_is_one_call(rabbit_project: Project, foreign: Foreign) -> None:
    """At once or later; another body under the same id, and messages without an id, are messages of their own."""
    rabbit_project.pipeline(DEDUPE.replace("OPTIONS", "concurrency: 4"))
    rabbit_project.handlers(
        """
        import asyncio
        async def pay(order: str) -> None:
            note(order)
            await asyncio.sleep(0.1)
        """
    )
    queue = rabbit_project.name("work")
    async with rabbit_project.running() as runner:
        foreign.publish(queue, b"one", b"one", b"other", message_id="id-1")
        await until(lambda: len(lines(runner, "message.handled")) == 3, "three are done")
        foreign.publish(queue, b"one", message_id="id-1")
        foreign.publish(queue, b"nameless", b"nameless")
        await until(lambda: len(lines(runner, "message.handled")) == 6, "all are done")
    assert rabbit_project.ledger.counts() == Counter({"one": 1, "other": 1, "nameless": 2})
    assert [line["message_id"] for line in lines(runner, "message.handled", duplicate=True)] == ["id-1"] * 2
    assert foreign.count(queue) == 0


async def test_the_same_message_id_twice_in_one_batch_is_one_item(rabbit_project: Project, foreign: Foreign) -> None:
    """A batch gets each message once; both copies are acknowledged when it has worked."""
    rabbit_project.pipeline(DEDUPE.replace("OPTIONS", "batch: {size: 4, wait: 2s}"))
    rabbit_project.handlers("async def pay(orders: list[str]) -> None: note(','.join(orders))")
    queue = rabbit_project.name("work")
    async with rabbit_project.running() as runner:
        foreign.publish(queue, b"one", b"one", b"other", b"one", message_id="id-1")
        await until(lambda: len(lines(runner, "message.handled")) == 4, "all are done")
    assert rabbit_project.ledger.counts() == Counter(["one,other"])
    assert foreign.count(queue) == 0


async def test_results_published_again_by_a_retry_are_handled_once_with_dedupe(project: Project) -> None:
    """A handler that failed half-way publishes its results again under the same ids: the next step sees each once."""
    project.pipeline(
        DEDUPE.replace("OPTIONS", "to: UNIQUE.out, retry: {attempts: 2, delay: 50ms}")
        .replace("dedupe: 1h, ", "")
        .replace("UNIQUE.out: {}", "UNIQUE.out: {type: classic, durable: false}")  # confirms without the disk
        + """
      count: {from: UNIQUE.out, handler: work:count, dedupe: {window: 1h}}
    producers:
      send: {handler: work:send, to: UNIQUE.work}
        """
    )
    project.handlers(
        """
        from runner import Message
        def send(): return "order"
        def pay(order: str, message: Message):
            yield from range(1005)  # published by the thousand
            if message.attempt == 1:
                raise ConnectionError("half-way")
        counted = open("counted", "a", buffering=1)  # without the fsync of each line in the ledger
        async def count(number: int) -> None: print(number, file=counted)
        """
    )
    runner = await project.up_until_idle()
    assert Counter((project.folder / "counted").read_text().split()) == Counter(map(str, range(1005)))
    assert len(lines(runner, "message.handled", duplicate=True)) == 1000


async def test_retries_spread_and_some_errors_are_final(project: Project) -> None:
    """`jitter` makes five delays of one, and an error in `not_on` is dead-lettered at once."""
    project.one_queue(
        """
        def send(): return list(range(40))
        async def handle(number: int) -> None:
            if number == 7:
                raise KeyError("no such order")
            raise TimeoutError
        """,
        "retry: {attempts: 2, delay: 100ms, jitter: 20%, not_on: LookupError}",
    )
    runner = await project.up_until_idle()
    assert {line["delay_ms"] for line in lines(runner, "message.retry")} == {80, 90, 100, 110, 120}
    dead = lines(runner, "message.dead_lettered")
    assert [line["reason"] for line in dead if line["error_type"] == "KeyError"] == ["rejected"]
    assert [line["attempt"] for line in dead if line["error_type"] == "TimeoutError"] == [2] * 39
