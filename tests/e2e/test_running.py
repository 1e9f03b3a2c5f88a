"""What runs: chosen parts, whole folders, several processes on one queue, producers that tick or fail."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from collections import Counter

import pytest

from tests.foreign import Foreign
from tests.process import ROOT
from tests.project import Project, lines, stop

TWO = """
    version: 1
    queues: {UNIQUE.a: {}, UNIQUE.b: {}}
    producers:
      send_a: {handler: work:send_a, to: UNIQUE.a}
      send_b: {handler: work:send_b, to: UNIQUE.b}
    subscribers:
      hear_a: {from: UNIQUE.a, handler: work:hear}
      hear_b: {from: UNIQUE.b, handler: work:hear}
"""
TWO_HANDLERS = """
    def send_a(): return "a"
    def send_b(): return "b"
    def hear(payload: str) -> None: note(payload)
"""


async def test_only_what_is_named_runs(project: Project) -> None:
    """--only, repeated: one producer and one subscriber of several."""
    project.write(TWO, TWO_HANDLERS)
    runner = await project.up_until_idle("--only", "send_a", "--only", "hear_a")
    assert project.ledger.payloads() == ["a"]
    assert "1 subscriber · 1 producer" in runner.stderr


async def test_what_is_left_out_is_declared_all_the_same(rabbit_project: Project, foreign: Foreign) -> None:
    """Messages for subscribers that run elsewhere wait in their queues."""
    rabbit_project.write(TWO, TWO_HANDLERS)
    await rabbit_project.up_until_idle("--only", "send_a", "--only", "send_b", "--only", "hear_a")
    assert rabbit_project.ledger.payloads() == ["a"]
    assert [got.body for got in foreign.take(rabbit_project.name("b"))] == [b"b"]


async def test_a_name_that_nothing_has_is_wrong_usage(memory_project: Project) -> None:
    """--only with a misspelt name: exit 2 and a guess."""
    memory_project.write(TWO, TWO_HANDLERS)
    runner = await memory_project.do("up", "--only", "hear_aa", code=2)
    assert 'did you mean "hear_a"?' in runner.stderr
    assert memory_project.ledger.entries() == []


async def test_all_pipelines_of_a_folder_run_together(project: Project) -> None:
    """Two pipelines in one process, one hears the other's event; files without `version:` are no pipelines."""
    project.pipeline(
        """
        version: 1
        name: UNIQUE-shop
        events: {UNIQUE.paid: }
        producers:
          pay: {handler: work:pay, to: UNIQUE.paid}
        """,
        file="all/shop.yaml",
    )
    project.pipeline(
        """
        version: 1
        name: UNIQUE-books
        events: {UNIQUE.paid: }
        subscribers:
          book: {from: UNIQUE.paid, handler: work:book}
        """,
        file="all/books.yaml",
    )
    project.pipeline("something: else\n", file="all/values.yaml")
    project.handlers(
        """
        def pay(): return "order"
        def book(order: str) -> None: note(order)
        """
    )
    runner = await project.run_to_end("up", "all", *project.place.arguments, "--until-idle")
    assert project.ledger.payloads() == ["order"]
    started = {line["pipeline"] for line in runner.logs if line["event"] == "pipeline.started"}
    assert started == {f"{project.unique}-shop", f"{project.unique}-books"}
    assert "1 subscriber · 1 producer" in runner.stderr


async def test_processes_share_the_work_of_a_queue(rabbit_project: Project, foreign: Foreign) -> None:
    """Two runners on one queue: each message is handled once, by one of them, and both have some."""
    rabbit_project.one_queue(
        """
        import asyncio
        async def handle(order: str) -> None:
            await asyncio.sleep(0.01)
            note(order)
        """,
        "concurrency: 2, prefetch: 2",
    )
    orders = [f"order-{number}" for number in range(200)]
    async with rabbit_project.up() as first, rabbit_project.up() as second:
        for runner in (first, second):
            await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        foreign.publish(rabbit_project.name("work"), *(order.encode() for order in orders))
        await rabbit_project.ledger.wait_for(200)
        for runner in (first, second):
            await stop(runner)
    assert rabbit_project.ledger.counts() == Counter(orders)
    assert {entry.pid for entry in rabbit_project.ledger.entries()} == {first.pid, second.pid}


async def test_at_most_concurrency_handlers_run_at_once(project: Project) -> None:
    """Sixteen messages, `concurrency: 3`: never more than three at a time, on the loop and in threads."""
    project.pipeline(
        """
        version: 1
        events: {UNIQUE.event: }
        producers:
          send: {handler: work:send, to: UNIQUE.event}
        subscribers:
          loop: {from: UNIQUE.event, handler: work:in_loop, concurrency: 3}
          thread: {from: UNIQUE.event, handler: work:in_thread, concurrency: 3}
        """
    )
    project.handlers(
        """
        import asyncio, time

        def send(): yield from range(16)

        async def in_loop(number: int) -> None:
            note("loop +")
            await asyncio.sleep(0.03)
            note("loop -")

        def in_thread(number: int) -> None:
            note("thread +")
            time.sleep(0.03)
            note("thread -")
        """
    )
    await project.up_until_idle()
    for kind in ("loop", "thread"):
        running, most = 0, 0
        for payload in project.ledger.payloads():
            running += (payload == f"{kind} +") - (payload == f"{kind} -")
            most = max(most, running)
        assert (running, most) == (0, 3)


async def test_a_producer_with_every_ticks(project: Project) -> None:
    """`every:` calls the handler at once and again at each tick, until the runner is stopped."""
    project.pipeline(
        """
        version: 1
        queues: {UNIQUE.ticks: {}}
        producers:
          tick: {handler: work:tick, every: 50ms, to: UNIQUE.ticks}
        subscribers:
          hear: {from: UNIQUE.ticks, handler: work:hear}
        """
    )
    project.handlers(
        """
        import itertools
        numbers = itertools.count()
        def tick(): return next(numbers)
        def hear(number: int) -> None: note(number)
        """
    )
    async with project.running():
        await project.ledger.wait_for(5)
    assert sorted(map(int, project.ledger.payloads()))[:5] == [0, 1, 2, 3, 4]


async def test_until_idle_does_not_wait_for_producers_that_never_end(memory_project: Project) -> None:
    """A producer with `every:` is not finite: `--until-idle` ends when the finite ones have, and all is handled."""
    memory_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.work: {}, UNIQUE.ticks: {}}
        producers:
          tick: {handler: work:tick, every: 1h, to: UNIQUE.ticks}
          send: {handler: work:send, to: UNIQUE.work}
        subscribers:
          hear: {from: UNIQUE.work, handler: work:hear}
          ticks: {from: UNIQUE.ticks, handler: work:hear}
        """
    )
    memory_project.handlers(
        """
        def tick(): return "tick"
        async def send():
            for number in range(5):
                yield f"order-{number}"
        def hear(payload: str) -> None: note(payload)
        """
    )
    await memory_project.up_until_idle()
    assert memory_project.ledger.counts() == Counter(["tick", *(f"order-{number}" for number in range(5))])


FAILING = """
    version: 1
    queues: {UNIQUE.work: {}}
    producers:
      read: {handler: work:KIND, to: UNIQUE.work}
    subscribers:
      hear: {from: UNIQUE.work, handler: work:hear}
"""
FAILING_HANDLERS = """
    import asyncio
    calls = []

    class Mute(Exception):
        def __str__(self): raise RuntimeError("no words")

    def generator():
        calls.append(1)
        yield f"order-{len(calls)}"
        if len(calls) == 1:
            raise ConnectionError("the file server is away")

    async def async_generator():
        calls.append(1)
        yield f"order-{len(calls)}"
        if len(calls) == 1:
            raise SystemExit(3)

    async def coroutine():
        calls.append(1)
        if len(calls) == 1:
            raise Mute
        return ["order-1", "order-2"]

    def always():
        raise GeneratorExit

    def hear(order: str) -> None: note(order)
"""


@pytest.mark.parametrize(
    ("kind", "error_type"),
    [("generator", "ConnectionError"), ("async_generator", "SystemExit"), ("coroutine", "Mute")],
)
async def test_a_producer_that_fails_is_logged_and_begun_again(project: Project, kind: str, error_type: str) -> None:
    """Whatever it raises: `producer.failed` says what and where, what it had sent is handled, and it starts again."""
    project.write(FAILING.replace("KIND", kind), FAILING_HANDLERS)
    runner = await project.up_until_idle()
    (failed,) = [line for line in runner.logs if line["event"] == "producer.failed"]
    assert (failed["level"], failed["producer"], failed["error_type"]) == ("error", "read", error_type)
    assert failed["at"].startswith("work.py:")
    assert project.ledger.counts() == {"order-1": 1, "order-2": 1}


async def test_messages_of_one_producer_keep_their_order(rabbit_project: Project, foreign: Foreign) -> None:
    """They are published many at a time, and arrive as they were yielded."""
    rabbit_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.sync: {}, UNIQUE.async: {}}
        producers:
          sync: {handler: work:numbers, to: UNIQUE.sync}
          async: {handler: work:async_numbers, to: UNIQUE.async}
        """
    )
    rabbit_project.handlers(
        """
        def numbers(): return list(range(500))

        async def async_numbers():
            for number in range(500):
                yield number
        """
    )
    await rabbit_project.up_until_idle("--log-level", "warning")
    for queue in ("sync", "async"):
        got = foreign.take(rabbit_project.name(queue))
        assert [int(each.body) for each in got] == list(range(500))


async def test_until_idle_gives_a_producer_up_that_always_fails(project: Project) -> None:
    """After three failures in a row it is given up: exit 1, and stderr names it."""
    project.write(FAILING.replace("KIND", "always"), FAILING_HANDLERS)
    runner = await project.do("up", "--until-idle", code=1)
    assert sum(line["event"] == "producer.failed" for line in runner.logs) == 3
    assert "error: producer read failed" in runner.stderr


async def test_a_ticking_producer_that_fails_waits_for_its_next_tick(memory_project: Project) -> None:
    """One bad tick is logged, the next ones go on."""
    memory_project.pipeline(
        FAILING.replace("to: UNIQUE.work}", "to: UNIQUE.work, every: 30ms}").replace("KIND", "coroutine")
    )
    memory_project.handlers(FAILING_HANDLERS)
    async with memory_project.running() as runner:
        await memory_project.ledger.wait_for(4)
    assert sum(line["event"] == "producer.failed" for line in runner.logs) == 1


async def test_a_producer_that_publishes_to_nobody_fails_loudly(project: Project) -> None:
    """An event that no queue hears is not silence: the producer fails, naming it."""
    project.pipeline(
        """
        version: 1
        events: {UNIQUE.unheard: }
        producers:
          send: {handler: work:send, to: UNIQUE.unheard}
        """
    )
    project.handlers("def send(): return 1")
    async with project.up() as runner:
        failed = await runner.wait_for(lambda line: line["event"] == "producer.failed")
    assert failed["error_type"] == "PublishFailed"
    assert project.name("unheard") in failed["error"]


async def test_until_idle_waits_for_retries(project: Project) -> None:
    """An empty queue is not idle while a retry is on its way."""
    project.one_queue(
        """
        from runner import Message
        def send(): return "order"
        def handle(order: str, message: Message) -> None:
            note(order, message.attempt)
            if message.attempt == 1:
                raise ValueError
        """,
        "retry: {attempts: 2, delay: 1500ms}",
    )
    await project.up_until_idle()
    assert [entry.attempt for entry in project.ledger.entries()] == [1, 2]


async def test_what_another_process_left_waiting_for_a_retry_is_handled(rabbit_project: Project) -> None:
    """A retry outlives the process that asked for it."""
    rabbit_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.work: {}}
        producers:
          send: {handler: work:send, to: UNIQUE.work}
        subscribers:
          hear: {from: UNIQUE.work, handler: work:hear, retry: {attempts: 2, delay: 1500ms}}
        """
    )
    rabbit_project.handlers(
        """
        from runner import Message
        def send(): return "order"
        def hear(order: str, message: Message) -> None:
            note(order, message.attempt)
            if message.attempt == 1:
                raise ValueError
        """
    )
    async with rabbit_project.running() as runner:
        await runner.wait_for(lambda line: line["event"] == "message.retry")
    await rabbit_project.up_until_idle("--only", "hear")
    assert [entry.attempt for entry in rabbit_project.ledger.entries()] == [1, 2]


async def test_a_log_reader_that_goes_away_costs_no_message(rabbit_project: Project, foreign: Foreign) -> None:
    """`runner up … | head -1`: the runner ends by itself, and what it had not finished is handled by the next one."""
    rabbit_project.write(TWO, TWO_HANDLERS)
    await rabbit_project.up_until_idle("--only", "hear_a")  # declares
    orders = [f"order-{number}" for number in range(200)]
    foreign.publish(rabbit_project.name("a"), *(order.encode() for order in orders))
    command = shlex.join(
        [sys.executable, "-P", "-m", "runner", "up", str(rabbit_project.file), *rabbit_project.place.arguments]
    )
    environ = {"LEDGER": str(rabbit_project.ledger.path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    shell = await asyncio.create_subprocess_shell(
        f"{command} --only hear_a | head -1 >first", cwd=rabbit_project.folder, env=environ
    )
    async with asyncio.timeout(20):
        assert await shell.wait() == 0
    assert "broker.connected" in (rabbit_project.folder / "first").read_text()
    await rabbit_project.up_until_idle("--only", "hear_a")
    assert rabbit_project.ledger.counts().keys() == set(orders)


async def test_each_pipeline_counts_its_own(memory_project: Project) -> None:
    """Whoever sums the lines `pipeline.stopped` gets the totals; a subscriber's name may be in both."""
    memory_project.handlers('def make(): yield from ("1", "2", "3")\ndef work(payload: str): note(payload)\n')
    subscriber = "subscribers: {work: {from: UNIQUE.NAME, handler: work:work}}"
    producer = "producers: {make: {handler: work:make, to: UNIQUE.NAME}}"
    for name, more in (("a", producer), ("b", "")):
        text = f"version: 1\nname: NAME\nqueues: {{UNIQUE.NAME: }}\n{subscriber}\n{more}\n"
        memory_project.pipeline(text.replace("NAME", name), f"p/{name}.yaml")
    runner = await memory_project.run_to_end("up", "p", "--until-idle", "--log-format", "json")
    stopped = {line["pipeline"]: (line["handled"], line["published"]) for line in lines(runner, "pipeline.stopped")}
    assert stopped == {"a": (3, 3), "b": (0, 0)}
    assert "stopped: 3 published · 3 handled" in runner.stderr


async def test_what_still_runs_is_told_of_each_pipeline(memory_project: Project) -> None:
    """In the line that begins the drain, and where the grace is over: one name in two pipelines is two subscribers."""
    memory_project.handlers(
        "import time\ndef make(): yield 1\ndef work(payload: str):\n    note(payload)\n    time.sleep(60)\n"
    )
    for name in "ab":
        text = """
            version: 1
            name: NAME
            queues: {UNIQUE.NAME: }
            producers: {make: {handler: work:make, to: UNIQUE.NAME}}
            subscribers: {work: {from: UNIQUE.NAME, handler: work:work}}
            shutdown: {grace: 100ms}
        """
        memory_project.pipeline(text.replace("NAME", name), f"p/{name}.yaml")
    async with memory_project.run("up", "p", "--log-format", "json") as runner:
        await memory_project.ledger.wait_for(2)
        runner.signal(signal.SIGTERM)
        assert await runner.wait() == 1
    assert [line["running"] for line in lines(runner, "pipeline.draining")] == [1, 1]
    for name in ("a.work", "b.work"):
        assert f"1 handler of {name} still ran" in runner.stderr
