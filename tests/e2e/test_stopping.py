"""SIGTERM, SIGINT and SIGHUP: what runs is finished, what waits is given back, and nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from tests.foreign import Foreign
from tests.process import ROOT
from tests.project import Project, lines, until

STEADY = """
    version: 1
    name: UNIQUE
    queues: {UNIQUE.work: {}}
    subscribers:
      handle: {from: UNIQUE.work, handler: work:handle, concurrency: 10}
"""

SLOW = """
    version: 1
    queues: {UNIQUE.work: {}}
    shutdown: {grace: 300ms}
    subscribers:
      slow_one: {from: UNIQUE.work, handler: work:handle}
"""

FINITE = """
    version: 1
    queues: {UNIQUE.work: {}}
    producers: {send: {handler: work:send, to: UNIQUE.work}}
    subscribers: {handle: {from: UNIQUE.work, handler: work:handle}}
"""

WAITING_FOR_GO = FINITE
GO_HANDLERS = """
    import asyncio, os

    def send(): return "order"

    async def handle(order: str) -> None:
        note(order)
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
"""

# Handlers that do not end by themselves. With GO in the environment they return at once.
ENDLESS = {
    "async": """
        import asyncio, os
        from runner import Message

        async def handle(order: str, message: Message) -> None:
            note(order, message.attempt)
            if "GO" not in os.environ:
                await asyncio.sleep(3600)
        """,
    "thread": """
        import os, time
        from runner import Message

        def handle(order: str, message: Message) -> None:
            note(order, message.attempt)
            if "GO" not in os.environ:
                time.sleep(3600)
        """,
    "async that tidies up and returns": """
        import asyncio, os
        from runner import Message

        async def handle(order: str, message: Message) -> None:
            note(order, message.attempt)
            try:
                if "GO" not in os.environ:
                    await asyncio.sleep(3600)
            except asyncio.CancelledError:
                note("tidied up")
        """,
    "async that cannot be cancelled": """
        import asyncio, os
        from runner import Message

        async def handle(order: str, message: Message) -> None:
            note(order, message.attempt)
            while "GO" not in os.environ:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass
        """,
}
BLOCKING = """
    import time
    from runner import Message

    async def handle(order: str, message: Message) -> None:
        note(order, message.attempt)
        time.sleep(3600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_under_load_loses_nothing_and_does_nothing_twice(
    rabbit_project: Project, foreign: Foreign, number: signal.Signals
) -> None:
    """Stopped in the middle of 2,000 messages, and run again: each was handled exactly once."""
    rabbit_project.pipeline(STEADY)
    rabbit_project.handlers(
        """
        import asyncio

        async def handle(order: str) -> None:
            await asyncio.sleep(0.003)
            note(order)
        """
    )
    await rabbit_project.up_until_idle()  # declares
    orders = [f"order-{index}" for index in range(2000)]
    foreign.publish(rabbit_project.name("work"), *(order.encode() for order in orders))

    async with rabbit_project.up("--log-level", "warning") as runner:
        await rabbit_project.ledger.wait_for(300)
        runner.signal(number)
        assert await runner.wait() == 0
    handled = len(rabbit_project.ledger.entries())
    assert 300 <= handled < 2000
    assert f" {handled} handled" in runner.stderr
    # The broker gives back what an ended connection had in hand a moment after it is gone.
    await until(lambda: foreign.count(rabbit_project.name("work")) == 2000 - handled, "the rest waits")

    await rabbit_project.up_until_idle("--log-level", "warning")
    assert rabbit_project.ledger.counts() == Counter(orders)


async def test_a_stop_lets_running_handlers_finish(project: Project) -> None:
    """A producer that never ends, handlers half-way: after SIGTERM whatever was begun is finished."""
    project.pipeline(
        """
        version: 1
        defaults: {subscriber: {concurrency: 4}}
        queues: {UNIQUE.work: {}}
        producers:
          send: {handler: work:send, to: UNIQUE.work}
        subscribers:
          in_loop: {from: UNIQUE.work, handler: work:in_loop}
          in_thread: {from: UNIQUE.work, handler: work:in_thread}
        """
    )
    project.handlers(
        """
        import asyncio, itertools, os, time

        async def send():
            for number in itertools.count():
                yield number
                await asyncio.sleep(0.005)

        async def in_loop(number: int) -> None:
            note(f"begun-{number}")
            while not os.path.exists("go-on"):
                await asyncio.sleep(0.01)
            note(f"ended-{number}")

        def in_thread(number: int) -> None:
            note(f"begun-{number}")
            while not os.path.exists("go-on"):
                time.sleep(0.01)
            note(f"ended-{number}")
        """
    )
    async with project.up() as runner:
        await project.ledger.wait_for(8)
        runner.signal(signal.SIGTERM)
        draining = await runner.wait_for(lambda line: line["event"] == "pipeline.draining")
        (project.folder / "go-on").touch()
        code = await runner.wait()
    (stopped,) = lines(runner, "pipeline.stopped")
    forgets = project.place.is_memory and stopped["handled"] < stopped["published"]  # those that were not begun
    assert code == (1 if forgets else 0)
    assert ("lost with the in-process broker" in runner.stderr) is forgets

    counts = project.ledger.counts()
    begun = {name.removeprefix("begun-") for name in counts if name.startswith("begun-")}
    ended = {name.removeprefix("ended-") for name in counts if name.startswith("ended-")}
    assert begun == ended
    assert set(counts.values()) == {1}
    assert draining["running"] == 8
    assert "draining" in runner.stderr


async def test_a_signal_before_there_is_work_ends_at_once(project: Project) -> None:
    """Idle subscribers have nothing to finish."""
    project.write(STEADY, "def handle(order: str) -> None: note(order)")
    async with project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        runner.signal(signal.SIGTERM)
        assert await runner.wait(10) == 0
    assert "stopped: 0 published · 0 handled" in runner.stderr


@pytest.mark.parametrize("kind", [*ENDLESS, "async that blocks the loop"])
async def test_a_second_signal_ends_at_once(rabbit_project: Project, foreign: Foreign, kind: str) -> None:
    """Whatever the handlers do, even where one blocks the event loop: exit 130, and the broker has the message."""
    rabbit_project.write(STEADY, ENDLESS.get(kind, BLOCKING))
    async with rabbit_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        foreign.publish(rabbit_project.name("work"), b"order")
        await rabbit_project.ledger.wait_for(1)
        runner.signal(signal.SIGTERM)
        await until(lambda: "draining" in runner.stderr, "the first signal is answered")
        runner.signal(signal.SIGINT)
        assert await runner.wait(10) == 130
    assert "forced" in runner.stderr
    await until(lambda: foreign.count(rabbit_project.name("work")) == 1, "the message is back")


async def test_a_signal_that_comes_twice_at_once_is_one(rabbit_project: Project, foreign: Foreign) -> None:
    """`timeout` signals its child, and then its whole group: that forces nothing, and what runs is finished."""
    rabbit_project.pipeline(STEADY)
    rabbit_project.handlers("""
        import asyncio

        async def handle(order: str) -> None:
            note(order)
            await asyncio.sleep(1)
    """)
    async with rabbit_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        foreign.publish(rabbit_project.name("work"), b"order")
        await rabbit_project.ledger.wait_for(1)
        runner.signal(signal.SIGTERM)
        await asyncio.sleep(0.02)  # or the two would be delivered as one
        runner.signal(signal.SIGTERM)
        assert await runner.wait(10) == 0
    assert "· 1 handled ·" in runner.stderr


@pytest.mark.parametrize("kind", ENDLESS)
async def test_a_handler_that_outlasts_the_grace_is_named_and_its_message_given_back(
    rabbit_project: Project, foreign: Foreign, kind: str
) -> None:
    """Exit 1 after `shutdown.grace`; the next process gets the message, and no attempt was used up."""
    rabbit_project.write(SLOW, ENDLESS[kind])
    async with rabbit_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        foreign.publish(rabbit_project.name("work"), b"order")
        await rabbit_project.ledger.wait_for(1)
        runner.signal(signal.SIGTERM)
        assert await runner.wait(15) == 1
    assert "error: 1 handler of slow_one" in runner.stderr
    assert "Traceback" not in runner.stderr
    assert [line["attempt"] for line in runner.logs if line["event"] == "message.released"] == [1]

    next_one = await rabbit_project.up_until_idle(env={"GO": "1"})
    entries = [entry for entry in rabbit_project.ledger.entries() if entry.payload == "order"]
    assert [entry.attempt for entry in entries] == [1, 1]
    assert entries[0].pid != entries[1].pid
    assert " 1 handled" in next_one.stderr


@pytest.mark.parametrize("kind", ENDLESS)
async def test_the_embedded_broker_does_not_wait_longer_than_the_grace(memory_project: Project, kind: str) -> None:
    """On the embedded broker a slow handler's message is lost with the process, and the exit code says so."""
    memory_project.pipeline(SLOW + "    producers: {send: {handler: work:send, to: UNIQUE.work}}\n")
    memory_project.handlers(ENDLESS[kind] + "\n        def send(): return 'order'\n")
    async with memory_project.up() as runner:
        await memory_project.ledger.wait_for(1)
        runner.signal(signal.SIGTERM)
        assert await runner.wait(15) == 1
    assert "1 handler of slow_one" in runner.stderr


async def test_a_closed_terminal_drains_as_sigterm_does(project: Project) -> None:
    """SIGHUP: what runs is finished, and the exit code is 0."""
    project.write(WAITING_FOR_GO, GO_HANDLERS)
    async with project.up() as runner:
        await project.ledger.wait_for(1)
        runner.signal(signal.SIGHUP)
        await runner.wait_for(lambda line: line["event"] == "pipeline.draining")
        (project.folder / "go").touch()
        assert await runner.wait(10) == 0
    assert "draining" in runner.stderr
    assert "· 1 handled ·" in runner.stderr


@pytest.mark.parametrize("order", [(signal.SIGTERM, signal.SIGHUP), (signal.SIGHUP, signal.SIGTERM)])
async def test_sighup_beside_another_signal_forces_nothing(
    project: Project, order: tuple[signal.Signals, signal.Signals]
) -> None:
    """Service managers may send both, and shells as well."""
    project.write(WAITING_FOR_GO, GO_HANDLERS)
    async with project.up() as runner:
        await project.ledger.wait_for(1)
        for number in order:
            runner.signal(number)
            await runner.wait_for(lambda line: line["event"] == "pipeline.draining")
        (project.folder / "go").touch()
        assert await runner.wait(10) == 0
    assert "· 1 handled ·" in runner.stderr


async def test_under_nohup_sighup_means_nothing(memory_project: Project) -> None:
    """It is ignored when the process starts, and stays so."""
    memory_project.one_queue(
        "def send(): return 1\ndef handle(order) -> None: note(order)",
        producer="every: 50ms",
    )
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with memory_project.up() as runner:
            await memory_project.ledger.wait_for(1)
            runner.signal(signal.SIGHUP)
            await memory_project.ledger.wait_for(len(memory_project.ledger.entries()) + 10)
            runner.signal(signal.SIGTERM)
            assert await runner.wait(10) == 0
    finally:
        signal.signal(signal.SIGHUP, old)
    assert runner.stderr.count("draining") == 1


async def test_a_forced_stop_of_the_in_process_broker_says_what_is_lost(memory_project: Project) -> None:
    """No broker is left to give anything back."""
    memory_project.write(WAITING_FOR_GO, GO_HANDLERS)
    async with memory_project.up() as runner:
        await memory_project.ledger.wait_for(1)
        runner.signal(signal.SIGTERM)
        await until(lambda: "draining" in runner.stderr, "the first signal is answered")
        runner.signal(signal.SIGINT)
        assert await runner.wait(10) == 130
    assert "forced to stop: what was running or waiting in the in-process broker is lost" in runner.stderr
    assert "given back" not in runner.stderr


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&- 1>&- 2>&-", "1>/dev/full", "2>/dev/full", "1>/dev/full 2>&1"])
@pytest.mark.parametrize("arguments", [(), ("--log-format", "console")])
async def test_work_goes_on_without_anybody_to_hear_of_it(
    memory_project: Project, closed: str, arguments: tuple[str, ...]
) -> None:
    """Closed streams and full disks: no traceback, no message lost; files never get the numbers of closed streams."""
    memory_project.pipeline(FINITE)
    memory_project.handlers(
        """
        import os, sys

        def send(): yield from range(20)

        def handle(order: int) -> None:
            print("printed", order)
            print("said", order, file=sys.stderr)
            with open("file", "a") as file:
                assert file.fileno() > 2
                file.write(f"{order}\\n")
            note(order)
        """
    )
    assert shell(memory_project, f"up {memory_project.file} --until-idle {' '.join(arguments)} {closed}") == (0, "")
    assert sorted(map(int, memory_project.ledger.payloads())) == list(range(20))
    assert sorted(map(int, (memory_project.folder / "file").read_text().split())) == list(range(20))


@pytest.mark.parametrize("verb", ["config", "graph", "schema", "explain", "--help", "export compose"])
async def test_a_verb_that_cannot_write_says_so(memory_project: Project, verb: str) -> None:
    """One line and exit code 1 for a full disk; a stderr that cannot be written changes nothing."""
    memory_project.write(FINITE, "def send(): ...\ndef handle(order) -> None: ...")
    file = memory_project.file if verb in ("config", "graph", "export compose") else ""
    code, said = shell(memory_project, f"{verb} {file} 2>&1 >/dev/full")
    assert (code, said.splitlines()[-1]) == (1, "error: standard output cannot be written: no space left on device")
    assert "Traceback" not in said
    assert shell(memory_project, f"{verb} {file} 2>/dev/full >/dev/null") == (0, "")
    assert shell(memory_project, f"{verb} {file} >&- 2>&-") == (0, "")


def shell(project: Project, line: str) -> tuple[int, str]:
    """Run a command line of ours with a shell's redirections; return its exit code, and what it said all the same."""
    ran = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -P -m runner {line}"],
        cwd=project.folder,
        env={"PATH": os.environ["PATH"], "LEDGER": str(project.ledger.path), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=40,
        check=False,
    )
    text = ran.stdout.decode()
    return ran.returncode, text if "2>&1 >" in line else "".join(
        line for line in text.splitlines(keepends=True) if "Traceback" in line
    )
