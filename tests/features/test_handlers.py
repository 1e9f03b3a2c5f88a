"""Where handlers run and what they are given: threads, processes of their own, resources, arguments."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections import Counter

import pytest

from tests.foreign import Foreign
from tests.project import Project, lines, until
from tests.unit.operations.examples import yaml_blocks
from tools.reference.language import language_reference

WORK = """
    version: 1
    queues: {UNIQUE.work: {}, UNIQUE.out: {}}
    producers:
      send: {handler: work:send, to: UNIQUE.work}
    subscribers:
      work: {from: UNIQUE.work, handler: work:work, to: UNIQUE.out, OPTIONS}
      hear: {from: UNIQUE.out, handler: work:hear}
"""
HEAR = """
    def hear(payload) -> None: note(payload)
"""


async def test_a_handler_in_a_process_gets_its_message_and_its_results_are_published(project: Project) -> None:
    """`run_in: process`: another process id, the envelope, arguments and annotations as everywhere, each result."""
    project.pipeline(WORK.replace("OPTIONS", "run_in: process, concurrency: 2, with: {factor: 10}"))
    project.handlers(
        HEAR
        + """
    import os
    from pydantic import BaseModel
    from runner import Message, Publish

    class Order(BaseModel):
        n: int

    def send(): return [Publish({"n": n}, headers={"tenant": "north"}) for n in range(20)]

    def work(order: Order, message: Message, factor: int):
        assert message.payload == order and message.headers["tenant"] == "north"
        note("in")
        yield Publish(order.n * factor, to="UNIQUE.out", headers={"n": str(order.n)})
        yield f"parent {os.getppid()}"
    """
    )
    runner = await project.up_until_idle()
    counts = project.ledger.counts()
    assert counts == Counter([*(str(n * 10) for n in range(20)), *["in"] * 20, *[f"parent {runner.pid}"] * 20])
    processes = {entry.pid for entry in project.ledger.entries() if entry.payload == "in"}
    assert len(processes) in (1, 2)
    assert runner.pid not in processes


async def test_a_message_without_headers_reaches_a_process_too(rabbit_project: Project, foreign: Foreign) -> None:
    """What another program published with no properties at all, for a handler that wants the envelope."""
    rabbit_project.pipeline(WORK.replace("OPTIONS", "run_in: process, retry: none"))
    rabbit_project.handlers(
        HEAR
        + """
    from runner import Message
    def send(): return []
    def work(order: str, message: Message): return f"{order} {dict(message.headers)} {message.id}"
    """
    )
    async with rabbit_project.running():
        foreign.publish(rabbit_project.name("work"), b"plain")
        await rabbit_project.ledger.wait_for(1)
    assert rabbit_project.ledger.payloads() == ["plain {} None"]


async def test_what_goes_wrong_in_a_process_is_told_like_anywhere_else(project: Project) -> None:
    """The exception's type, words and line; a process that dies or hangs costs its own message's attempt only."""
    project.pipeline(
        WORK.replace("OPTIONS", "run_in: process, concurrency: 2, timeout: 1s, retry: {attempts: 2, delay: 50ms}")
    )
    project.handlers(
        HEAR
        + """
    import os, threading, time
    from runner import Message, Reject

    class Odd(Exception):
        def __init__(self, a, b):  # cannot be unpickled: it stays in its process
            super().__init__("odd")

    def send(): return ["raise", "abort", "exit", "hang", "odd", "reject", "lock", "fine", "fine", "fine"]

    def work(kind: str, message: Message):
        note(f"try {kind}", message.attempt)
        if message.attempt == 2 and kind != "raise":
            return f"done {kind}"
        match kind:
            case "raise": raise LookupError("no such order")
            case "abort": os.abort()
            case "exit": raise SystemExit(3)
            case "hang": time.sleep(3600)
            case "odd": raise Odd(1, 2)
            case "reject": raise Reject("not for us")
            case "lock": return threading.Lock()
        return f"done {kind}"
    """
    )
    runner = await project.up_until_idle()
    counts = project.ledger.counts()
    done = {payload: count for payload, count in counts.items() if payload.startswith("done")}
    assert done == {"done abort": 1, "done exit": 1, "done hang": 1, "done odd": 1, "done lock": 1, "done fine": 3}
    assert counts["try fine"] == 3
    retries = {(line["error_type"], line["error"]) for line in lines(runner, "message.retry")}
    assert retries == {
        ("LookupError", "no such order"),
        ("WorkerDied", f"the handler's process ended with exit code {-signal.SIGABRT}"),
        ("SystemExit", "3"),
        ("TimeoutError", "the handler took longer than its timeout of 1 s"),
        ("Odd", "odd"),
        ("TypeError", "cannot pickle '_thread.lock' object"),
    }
    raised = next(line for line in lines(runner, "message.retry") if line["error_type"] == "LookupError")
    text = (project.folder / "work.py").read_text().splitlines()
    number = int(raised["at"].removeprefix("work.py:"))
    assert 'raise LookupError("no such order")' in text[number - 1]
    dead = {line["error_type"]: line for line in lines(runner, "message.dead_lettered")}
    assert dead.keys() == {"LookupError", "Reject"}
    assert dead["LookupError"]["exception"].endswith("LookupError: no such order")
    assert "runner/runtime" not in dead["LookupError"]["exception"]
    assert dead["Reject"]["reason"] == "rejected"


EVERYWHERE = """
    version: 1
    queues: {UNIQUE.loop: {}, UNIQUE.thread: {}, UNIQUE.process: {}}
    producers: {send: {handler: work:send, to: [UNIQUE.loop, UNIQUE.thread, UNIQUE.process]}}
    defaults: {subscriber: {retry: {attempts: 3, delay: 50ms, on: ["work:BankDown", "work:errors.Busy"]}}}
    subscribers:
      loop: {from: UNIQUE.loop, handler: work:on_loop}
      thread: {from: UNIQUE.thread, handler: work:service.work}
      process: {from: UNIQUE.process, handler: work:service.work, run_in: process}
"""


async def test_what_is_raised_means_the_same_in_the_loop_in_a_thread_and_in_a_process(project: Project) -> None:
    """Decided by the classes of the exceptions, whether they can be pickled or not, also in groups."""
    project.pipeline(EVERYWHERE)
    project.handlers(
        """
    from runner import Reject, RetryLater

    class BankDown(Exception):
        def __init__(self, bank, code):
            super().__init__(f"{bank} answered {code}")

    class VeryBusy(Exception): ...
    class errors:
        class Busy(Exception): ...
    class StillBusy(errors.Busy): ...

    class NoSuchArticle(Reject):
        def __init__(self, article, warehouse):
            super().__init__(f"no {article} in {warehouse}")

    class Holiday(RetryLater):
        def __init__(self, day, /):
            super().__init__("70ms", f"{day} is a holiday")

    class Holding(errors.Busy):
        def __init__(self, lock):
            super().__init__("holding")
            self.lock = open("/dev/null")  # cannot be pickled

    def fail(kind):
        match kind:
            case "down": raise BankDown("acme", 503)
            case "busy": raise StillBusy("still")
            case "holding": raise Holding(1)
            case "article": raise NoSuchArticle("a1", "w2")
            case "holiday": raise Holiday("Sunday")
            case "other": raise VeryBusy("very")
            case "group": raise ExceptionGroup("many", [BankDown("b", 1), ExceptionGroup("more", [StillBusy("s")])])
            case "mixed": raise ExceptionGroup("many", [BankDown("b", 1), VeryBusy("v")])
            case "no": raise ExceptionGroup("many", [BankDown("b", 1), NoSuchArticle("a2", "w1")])

    KINDS = ["down", "busy", "holding", "article", "holiday", "other", "group", "mixed", "no"]
    def send(): return KINDS
    class Service:
        def work(self, kind): fail(kind)
    service = Service()
    async def on_loop(kind): fail(kind)
    """
    )
    runner = await project.up_until_idle()
    for subscriber in ("loop", "thread", "process"):
        dead = lines(runner, "message.dead_lettered", subscriber=subscriber)
        ends = {(line["error_type"], line["error"], line["reason"], line["attempt"]) for line in dead}
        assert ends == {
            ("BankDown", "acme answered 503", "exhausted", 3),
            ("StillBusy", "still", "exhausted", 3),
            ("Holding", "holding", "exhausted", 3),
            ("NoSuchArticle", "no a1 in w2", "rejected", 1),
            ("Holiday", "Sunday is a holiday", "exhausted", 3),
            ("VeryBusy", "very", "rejected", 1),
            ("BankDown, StillBusy", "BankDown: b answered 1; StillBusy: s", "exhausted", 3),
            ("BankDown, VeryBusy", "BankDown: b answered 1; VeryBusy: v", "rejected", 1),
            ("BankDown, NoSuchArticle", "BankDown: b answered 1; NoSuchArticle: no a2 in w1", "rejected", 1),
        }
        waits = lines(runner, "message.retry", subscriber=subscriber, error_type="Holiday")
        assert [line["delay_ms"] for line in waits] == [70, 70]
        assert all(line["at"].startswith("work.py:") for line in dead)


async def test_a_group_shows_the_traceback_of_what_it_holds(memory_project: Project) -> None:
    """And `at` is where it was raised, not where the TaskGroup ended."""
    memory_project.pipeline(WORK.replace("OPTIONS", "retry: none"))
    memory_project.handlers(
        HEAR
        + """
    import asyncio
    def send(): return "order"
    async def ask(bank):
        raise TimeoutError(f"{bank} does not answer")
    async def work(order: str):
        async with asyncio.TaskGroup() as group:
            group.create_task(ask("acme"))
    """
    )
    runner = await memory_project.up_until_idle()
    (dead,) = lines(runner, "message.dead_lettered")
    text = (memory_project.folder / "work.py").read_text().splitlines()
    assert "raise TimeoutError" in text[int(dead["at"].removeprefix("work.py:")) - 1]
    assert dead["exception"].endswith("TimeoutError: acme does not answer")


async def test_processes_are_there_before_the_first_message(project: Project) -> None:
    """One for each core that may be used; their start counts neither in the duration nor in the timeout."""
    project.pipeline(WORK.replace("OPTIONS", "run_in: process, timeout: 4s, retry: none"))
    project.handlers(
        HEAR
        + """
    import os, time
    time.sleep(1.5)  # an import that takes long
    def send(): return list(range(8))
    def work(n: int):
        note(f"cores {len(os.sched_getaffinity(0))}")
        time.sleep(0.1)
    """
    )
    runner = await project.up_until_idle()
    entries = [entry for entry in project.ledger.entries() if entry.payload.startswith("cores")]
    assert len(entries) == 8
    assert len({entry.pid for entry in entries}) <= min(10, len(os.sched_getaffinity(0)))
    handled = lines(runner, "message.handled", subscriber="work")
    assert len(handled) == 8
    assert max(line["duration_ms"] for line in handled) < 1000


async def test_values_of_with_are_what_the_handler_annotates(project: Project) -> None:
    """Also from variables, also in a process, in a producer and in a factory."""
    project.pipeline(
        """
    version: 1
    queues: {UNIQUE.thread: {}, UNIQUE.process: {}}
    resources: {pool: {factory: work:pool, with: {size: "${SIZE:-3}"}}}
    producers: {send: {handler: work:send, to: [UNIQUE.thread, UNIQUE.process], with: {count: "${COUNT:-1}"}}}
    subscribers:
      thread:
        from: UNIQUE.thread
        handler: work:work
        with: {dry_run: "${DRY_RUN:-false}", limits: {most: "${MOST:-7}"}}
      process:
        from: UNIQUE.process
        handler: work:work_alone
        run_in: process
        with: {dry_run: "${DRY_RUN:-false}", limits: {most: "${MOST:-7}"}}
    """
    )
    project.handlers(
        """
    from dataclasses import dataclass
    from pathlib import Path

    @dataclass
    class Limits:
        most: int

    def pool(size: int): return [size] * 2
    def send(count: int): return ["order"] * count
    def work(pool, limits: Limits, order: str, *, dry_run: bool): note(f"{pool} {limits} {order} {dry_run}")
    def work_alone(limits: Limits, order: str, *, dry_run: bool): note(f"{limits} {order} {dry_run}")
    """
    )
    await project.up_until_idle()
    assert sorted(project.ledger.payloads()) == [
        "Limits(most=7) order False",
        "[3, 3] Limits(most=7) order False",
    ]


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_process_that_takes_too_long_is_killed(project: Project) -> None:
    """A timeout in a process really ends the work, which it cannot do in a thread."""
    project.pipeline(WORK.replace("OPTIONS", "run_in: process, timeout: 500ms, retry: none"))
    project.handlers(
        HEAR
        + """
    def send(): return "order"
    def work(order: str):
        note("begun")
        while True: pass
    """
    )
    async with project.running() as runner:
        ((_, _, pid),) = await project.ledger.wait_for(1)
        dead = await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
        assert dead["error_type"] == "TimeoutError"
        await until(lambda: not is_alive(pid), "the process has ended")


async def test_what_a_process_says_carries_its_message(project: Project) -> None:
    """Lines of structlog and logging in a child have the message's context; nothing that it prints is lost."""
    project.pipeline(WORK.replace("OPTIONS", "run_in: process"))
    project.handlers(
        HEAR
        + """
    import logging, structlog
    def send(): return "order"
    def work(order: str):
        structlog.get_logger().info("from structlog", order=order)
        logging.getLogger("work").warning("from logging %s", order)
        print("from print")
    """
    )
    runner = await project.up_until_idle()
    (handled,) = lines(runner, "message.handled", subscriber="work")
    place = {name: handled[name] for name in ("pipeline", "subscriber", "queue", "message_id", "attempt")}
    assert len(lines(runner, "from structlog", level="info", order="order", **place)) == 1
    assert len(lines(runner, "from logging order", level="warning", logger="work", **place)) == 1
    assert len(lines(runner, "stdout", text="from print", **place)) == 1


@pytest.mark.parametrize("to", ["the runner", "the whole group"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_lets_a_process_finish_its_message(project: Project, to: str, number: signal.Signals) -> None:
    """Also where the signal reaches the children as well, as from a terminal (Ctrl-C) or from systemd (SIGTERM)."""
    project.pipeline(WORK.replace("OPTIONS", "run_in: process, concurrency: 1"))
    project.handlers(
        """
        import os, time
        def send(): return ["first", "second"]
        def hear(payload) -> None: ...
        def work(order: str):
            note(f"begun {order}")
            while not os.path.exists("go"):
                time.sleep(0.01)
            note(f"done {order}")
        """
    )
    async with project.up() as runner:
        ((_, _, pid),) = await project.ledger.wait_for(1)
        if to == "the runner":
            runner.signal(number)
        else:
            os.killpg(runner.pid, number)
        await runner.wait_for(lambda line: line["event"] == "message.released")
        (project.folder / "go").touch()
        assert await runner.wait() == (1 if project.place.is_memory else 0), runner.stderr  # the second is forgotten
    assert project.ledger.payloads() == ["begun first", "done first"], runner.stdout
    assert len(lines(runner, "message.handled")) == 1
    await until(lambda: not is_alive(pid), "no process is left")


async def test_a_handler_in_a_thread_leaves_the_loop_alone(project: Project) -> None:
    """`run_in: thread`, the default of a `def`: blocking calls run side by side, outside the main thread."""
    project.pipeline(WORK.replace("OPTIONS", "run_in: thread, concurrency: 3"))
    project.handlers(
        HEAR
        + """
    import threading
    together = threading.Barrier(3)
    def send(): return [1, 2, 3]
    def work(order: int):
        together.wait(10)
        return threading.current_thread() is threading.main_thread()
    """
    )
    await project.up_until_idle()
    assert project.ledger.payloads() == ["False"] * 3


RESOURCES = """
    version: 1
    queues: {UNIQUE.work: {}}
    resources:
      plain: {factory: work:plain, with: {name: p}}
      cor: work:cor
      ctx: work:ctx
      actx: work:actx
    producers:
      send: {handler: work:send, to: UNIQUE.work, with: {greeting: hello}}
    subscribers:
      work: {from: UNIQUE.work, handler: work:work, with: {mark: "!"}}
"""
RESOURCES_HANDLERS = """
    import asyncio
    from contextlib import asynccontextmanager, contextmanager

    def plain(name: str):
        note("open plain")
        return f"<{name}>"

    async def cor():
        note("open cor")
        return "<cor>"

    @contextmanager
    def ctx():
        note("open ctx")
        yield "<ctx>"
        note("close ctx")

    @asynccontextmanager
    async def actx():
        note("open actx")
        await asyncio.sleep(0)
        yield "<actx>"
        await asyncio.sleep(0)
        note("close actx")

    def send(plain: str, greeting: str):
        yield f"{greeting} {plain}"

    async def work(text: str, mark: str, cor: str, ctx: str, actx: str) -> None:
        note(f"begun {text}{mark} {cor} {ctx} {actx}")
        await asyncio.sleep(0.3)
        note("done")
"""


async def test_resources_are_open_before_the_first_message_and_closed_after_the_last(project: Project) -> None:
    """Every kind of factory, in the order of the file and back; `with` gives arguments to each kind of function."""
    project.write(RESOURCES, RESOURCES_HANDLERS)
    async with project.running():
        await project.ledger.wait_for(5)  # it is stopped in the middle of the handler
    assert project.ledger.payloads() == [
        *(f"open {name}" for name in ("plain", "cor", "ctx", "actx")),
        "begun hello <p>! <cor> <ctx> <actx>",
        "done",
        "close actx",
        "close ctx",
    ]


async def test_a_resource_that_cannot_be_opened_stops_the_start(rabbit_project: Project, foreign: Foreign) -> None:
    """Exit 1 with the factory's own error and line; nothing is consumed, and what was open is closed."""
    rabbit_project.pipeline(RESOURCES)
    rabbit_project.handlers(
        RESOURCES_HANDLERS
        + """
    @asynccontextmanager
    async def actx():
        raise ConnectionError("no database")
        yield
    """
    )
    foreign.channel.queue_declare(rabbit_project.name("work.dead"), durable=True, arguments={"x-queue-type": "quorum"})
    runner = await rabbit_project.do("up", code=1)
    assert 'error: resource "actx" cannot be opened: ConnectionError: no database' in runner.stderr
    assert "= help: see work.py:" in runner.stderr
    assert rabbit_project.ledger.payloads() == ["open plain", "open cor", "open ctx", "close ctx"]
    assert lines(runner, "pipeline.started") == []
    assert foreign.count(rabbit_project.name("work")) == 0


async def test_a_resource_that_cannot_be_closed_is_told_and_stops_nothing(project: Project) -> None:
    """The drain is complete, the others are closed, and a line says which one it was, and where."""
    project.pipeline(RESOURCES)
    project.handlers(
        RESOURCES_HANDLERS
        + """
    @asynccontextmanager
    async def actx():
        yield "<actx>"
        raise ConnectionError("already gone")
    """
    )
    runner = await project.up_until_idle()
    assert project.ledger.payloads()[-2:] == ["done", "close ctx"]
    (failed,) = lines(runner, "resource.failed", level="error")
    assert (failed["resource"], failed["error_type"], failed["error"]) == ("actx", "ConnectionError", "already gone")
    assert failed["at"].startswith("work.py:")
    assert runner.logs[-1]["event"] == "pipeline.stopped"


async def test_the_resource_of_the_documents_works_with_a_plain_handler(project: Project) -> None:
    """Its factory is of another language, and its connection is used from several threads."""
    (block,) = (text for text in yaml_blocks(language_reference()) if "sqlite3" in text)
    project.pipeline(
        block
        + """
queues: {UNIQUE.orders: {}}
producers: {place: {handler: work:place, to: UNIQUE.orders}}
subscribers: {book: {from: UNIQUE.orders, handler: work:book, retry: none}}
"""
    )
    project.handlers(
        """
    def place(db):
        db.execute("create table orders (id integer)")
        return list(range(100))
    def book(order: int, db) -> None:
        db.execute("insert into orders values (?)", (order,))
        db.commit()
    """
    )
    runner = await project.run_to_end("validate", project.file, "--strict")
    runner = await project.up_until_idle()
    assert len(lines(runner, "message.handled")) == 100
    with contextlib.closing(sqlite3.connect(project.folder / "orders.db")) as database:
        assert database.execute("select count(*), sum(id) from orders").fetchone() == (100, 4950)
