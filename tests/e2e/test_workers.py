"""`runner up --workers N`: several processes that share the work, told as one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_probes import ask
from tests.e2e.test_unreachable import errors
from tests.foreign import Foreign
from tests.node import Broker, free_port
from tests.process import RunnerProcess
from tests.project import Project, lines, stop, until

PIPELINE = """
    version: 1
    queues: {UNIQUE.work: {}}
    subscribers:
      handle: {from: UNIQUE.work, handler: work:handle, concurrency: 2, prefetch: 2}
"""
HANDLERS = """
    import asyncio

    async def handle(order: str) -> None:
        await asyncio.sleep(0.02)
        note(order)
"""
WAITING = """
    import asyncio, os

    async def handle(order: str) -> None:
        note(f"begun-{order}")
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
        note(f"ended-{order}")
"""

BLOCKING = """
    import time

    async def handle(order: str) -> None:
        note(order)
        time.sleep(3600)
"""


def prepare(project: Project, handlers: str = HANDLERS, pipeline: str = PIPELINE) -> None:
    project.write(pipeline, handlers)


def workers(runner: RunnerProcess) -> dict[int, int]:
    """Return the process ids of those who run, by their number, as the log has them."""
    running: dict[int, int] = {}
    for line in runner.logs:
        if line["event"] == "worker.started":
            running[line["worker"]] = line["pid"]
        elif line["event"] == "worker.exited":
            running.pop(line["worker"], None)
    return running


async def all_run(runner: RunnerProcess, count: int) -> dict[int, int]:
    await runner.wait_for(lambda _: len(workers(runner)) == count, timeout=40)
    return workers(runner)


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def gone(pids: list[int]) -> None:
    await until(lambda: not any(map(exists, pids)), "no worker is left")


async def test_workers_share_the_work_and_one_that_is_killed_is_replaced(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """Each line says whose it is; what the dead one held comes to the others; one goodbye has the sums."""
    prepare(rabbit_project)
    work = rabbit_project.name("work")
    orders = [f"order-{number}" for number in range(300)]
    async with rabbit_project.up("--workers", "3") as runner:
        before = await all_run(runner, 3)
        foreign.publish(work, *(order.encode() for order in orders))
        await until(
            lambda: {entry.pid for entry in rabbit_project.ledger.entries()} == set(before.values()), "all three work"
        )
        os.kill(before[2], signal.SIGKILL)
        exited = await runner.wait_for(lambda line: line["event"] == "worker.exited")
        assert (exited["worker"], exited["pid"], exited["signal"]) == (2, before[2], "SIGKILL")
        assert exited["level"] == "error"
        assert 500 <= exited["restart_in_ms"] <= 1000
        after = await all_run(runner, 3)
        assert (after[1], after[3]) == (before[1], before[3])
        assert after[2] != before[2]
        await until(lambda: rabbit_project.ledger.counts().keys() >= set(orders), "everything is handled")
        foreign.publish(work, *[b"more"] * 100)
        await until(lambda: after[2] in {entry.pid for entry in rabbit_project.ledger.entries()}, "the new one works")
        await until(lambda: rabbit_project.ledger.counts()["more"] >= 100, "nothing is left to give back")
        await stop(runner)
    handled = lines(runner, "message.handled")
    assert {line["worker"] for line in handled} == {1, 2, 3}
    stopped = lines(runner, "pipeline.stopped")
    assert {line["worker"] for line in stopped} == {1, 2, 3}
    total = sum(line["handled"] for line in stopped)
    (whole,) = lines(runner, "workers.stopped")
    assert whole["handled"] == total
    shown = [line for line in runner.stderr.splitlines() if line.split()[0] != "with"]  # features of RabbitMQ 4
    assert [line.split()[0] for line in shown[:4]] == ["pipeline", "broker", "topology", "running"]
    assert "3 workers · 1 subscriber" in shown[3]
    assert shown[4:] == [
        "draining (once more to stop now)",
        f"stopped: 0 published · {total} handled · 0 retried · 0 dead-lettered",
        "1 worker ended without a report: the totals do not include their work",
    ]
    await gone(list(after.values()))


async def test_a_worker_that_is_stopped_alone_drains_and_is_started_again(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker
) -> None:
    """So that one can be renewed after the other; the broker's list of connections says which is whose."""
    prepare(rabbit_project, WAITING)
    async with rabbit_project.up("--workers", "2") as runner:
        before = await all_run(runner, 2)
        foreign.publish(rabbit_project.name("work"), b"a", b"b", b"c", b"d")
        await rabbit_project.ledger.wait_for(4)
        connections = await asyncio.to_thread(rabbitmq.ctl, "list_connections", "client_properties")
        ours = [line for line in connections.splitlines() if rabbit_project.unique in line]
        assert [sum(f"worker {number}/2" in line for line in ours) for number in (1, 2)] == [2, 2]
        os.kill(before[2], signal.SIGTERM)
        await runner.wait_for(lambda line: line["event"] == "pipeline.draining" and line["worker"] == 2)
        (rabbit_project.folder / "go").touch()
        exited = await runner.wait_for(lambda line: line["event"] == "worker.exited")
        assert (exited["worker"], exited["exit_code"], exited["level"]) == (2, 0, "info")
        await all_run(runner, 2)
        await stop(runner)
    assert "stopped: 0 published · 4 handled" in runner.stderr
    assert rabbit_project.ledger.counts()["ended-a"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_all_and_a_second_one_ends_all(
    rabbit_project: Project, foreign: Foreign, number: signal.Signals
) -> None:
    """All take nothing more and finish; a handler that hangs is left by the second signal, and no process stays."""
    prepare(rabbit_project, WAITING)
    async with rabbit_project.up("--workers", "2") as runner:
        pids = await all_run(runner, 2)
        foreign.publish(rabbit_project.name("work"), *(f"{index}".encode() for index in range(4)))
        await rabbit_project.ledger.wait_for(4)
        runner.signal(number)
        await until(lambda: len(lines(runner, "pipeline.draining")) == 2, "both drain")
        await asyncio.sleep(0.4)  # within a moment it would be the same signal once more
        runner.signal(number)
        assert await runner.wait() == 130
    assert "forced to stop" in runner.stderr
    await gone(list(pids.values()))


async def test_a_crash_while_draining_is_no_success(rabbit_project: Project, foreign: Foreign) -> None:
    """The others finish, what the dead one held is kept by the broker, and the exit code says that work is left."""
    prepare(rabbit_project, WAITING)
    async with rabbit_project.up("--workers", "2") as runner:
        pids = await all_run(runner, 2)
        foreign.publish(rabbit_project.name("work"), *(f"{index}".encode() for index in range(4)))
        await rabbit_project.ledger.wait_for(4)
        runner.signal(signal.SIGTERM)
        await until(lambda: len(lines(runner, "pipeline.draining")) == 2, "both drain")
        os.kill(pids[1], signal.SIGKILL)
        (rabbit_project.folder / "go").touch()
        assert await runner.wait() == 1
    assert errors(runner.stderr) == ["error: worker 1 crashed while it drained; its messages were given back"]
    assert "stopped: 0 published · 2 handled" in runner.stderr
    assert foreign.count(rabbit_project.name("work")) == 2
    assert not lines(runner, "worker.exited", worker=1)[0].get("restart_in_ms")


async def test_workers_end_by_themselves_when_their_master_is_killed(rabbit_project: Project, foreign: Foreign) -> None:
    """They drain: what was begun is finished, once."""
    prepare(rabbit_project, WAITING, PIPELINE + "    shutdown: {grace: 20s}\n")
    async with rabbit_project.up("--workers", "2") as runner:
        pids = await all_run(runner, 2)
        foreign.publish(rabbit_project.name("work"), *(f"{index}".encode() for index in range(4)))
        await rabbit_project.ledger.wait_for(4)
        runner.signal(signal.SIGKILL)
        await asyncio.sleep(0.1)
        (rabbit_project.folder / "go").touch()
        await gone(list(pids.values()))
    assert rabbit_project.heard() == sorted(f"{what}-{index}" for what in ("begun", "ended") for index in range(4))
    assert foreign.count(rabbit_project.name("work")) == 0


@pytest.mark.slow
async def test_a_blocked_worker_outlives_its_master_by_the_grace_only(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """Its loop does not notice anything any more; a thread does."""
    rabbit_project.write(PIPELINE + "    shutdown: {grace: 100ms}\n", BLOCKING)
    async with rabbit_project.up("--workers", "2") as runner:
        pids = await all_run(runner, 2)
        foreign.publish(rabbit_project.name("work"), b"one")
        await rabbit_project.ledger.wait_for(1)
        runner.signal(signal.SIGKILL)
        await gone(list(pids.values()))


async def test_a_worker_that_does_not_end_is_killed_and_named(rabbit_project: Project, foreign: Foreign) -> None:
    """A handler blocks the loop for ever: after the grace, and a bounded time, all is over."""
    rabbit_project.write(PIPELINE + "    shutdown: {grace: 100ms}\n", BLOCKING)
    async with rabbit_project.up("--workers", "2") as runner:
        pids = await all_run(runner, 2)
        foreign.publish(rabbit_project.name("work"), b"one")
        (entry,) = await rabbit_project.ledger.wait_for(1)
        runner.signal(signal.SIGTERM)
        assert await runner.wait() == 1
    (number,) = (number for number, pid in pids.items() if pid == entry.pid)
    assert errors(runner.stderr) == [
        f"error: worker {number} did not stop within the grace period and was killed; its messages were given back"
    ]
    await gone(list(pids.values()))


async def test_ctrl_c_on_a_terminal_reaches_the_workers_once(rabbit_project: Project, foreign: Foreign) -> None:
    """The terminal tells only the master, who tells the workers; lines are for people, in colour, with the number."""
    prepare(rabbit_project, WAITING)
    foreign_name = rabbit_project.name("work")

    def run() -> tuple[int, str]:
        return on_terminal(rabbit_project, lambda: foreign.publish(foreign_name, b"1", b"2", b"3"))

    code, shown = await asyncio.to_thread(run)
    assert code == 0, shown
    assert shown.count("draining (once more") == 1
    assert shown.count("pipeline.draining") == 2
    assert "\x1b[2m#1\x1b[0m" in shown
    assert "stopped: 0 published · 3 handled · 0 retried · 0 dead-lettered" in shown


def on_terminal(project: Project, publish: Callable[[], object]) -> tuple[int, str]:
    """Run two workers on a terminal; publish when they run, type Ctrl-C when they work, and let them finish."""
    import pty
    import sys

    from tests.process import ROOT

    arguments = ["up", str(project.file), *project.place.arguments, "--workers", "2"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(project.folder)
        basics = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "xterm", "PYTHONPATH": str(ROOT)}
        environ = basics | {"LEDGER": str(project.ledger.path)}
        os.execve(sys.executable, [sys.executable, "-P", "-m", "runner", *arguments], environ)
    shown = bytearray()
    done = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError):  # how Linux says that nobody is at the other end any more
            while piece := os.read(terminal, 65_536):
                shown.extend(piece)
        done.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        _until(lambda: b"Ctrl-C to stop" in shown, shown)
        publish()
        _until(lambda: len(project.ledger.entries()) == 3, shown)
        os.write(terminal, b"\x03")
        _until(lambda: shown.count(b"pipeline.draining") == 2, shown)
        (project.folder / "go").touch()
        assert done.wait(20), shown.decode()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode()


def _until(condition: Callable[[], bool], shown: bytearray) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline, shown.decode()
        time.sleep(0.02)


async def test_the_in_process_broker_has_one_process(memory_project: Project) -> None:
    prepare(memory_project)
    runner = await memory_project.do("up", "--workers", "2", code=2)
    assert errors(runner.stderr) == [
        "error: the in-process broker lives in one process: --workers 2 needs RabbitMQ",
    ]
    assert "= help:" in runner.stderr


async def test_what_is_wrong_is_said_once(rabbit_project: Project) -> None:
    """A handler that cannot be imported, a broker that is not there, a resource that fails: one error, its code."""
    project = rabbit_project
    prepare(project, "raise RuntimeError('no licence')\n")
    runner = await project.do("up", "--workers", "3", code=78)
    assert runner.stderr.count("error[module-failed]") == runner.stderr.count("RuntimeError: no licence") == 1

    port = free_port()
    url = f"amqp://user:S3CR3T@127.0.0.1:{port}/"
    prepare(project, pipeline=PIPELINE + f"    broker: {{url: '{url}', connect_timeout: 2s}}\n")
    runner = await project.run_to_end("up", project.file, "--workers", "3", code=69)
    (line,) = errors(runner.stderr)
    assert f"amqp://user:***@127.0.0.1:{port}/" in line
    assert len(lines(runner, "broker.unreachable")) == 1

    prepare(project, HANDLERS + "\n    def no_database(): raise OSError('no database')\n")
    project.pipeline(PIPELINE + "    resources: {db: {factory: work:no_database}}\n")
    runner = await project.do("up", "--workers", "2", code=1)
    (line,) = errors(runner.stderr)
    assert "no database" in line


async def test_a_worker_that_cannot_come_back_is_tried_again_and_the_others_go_on(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """Its file was broken meanwhile: that is said each time, and when it is mended all run again."""
    prepare(rabbit_project)
    async with rabbit_project.up("--workers", "2") as runner:
        pids = await all_run(runner, 2)
        (rabbit_project.folder / rabbit_project.file).write_text("version: 1\nqueus: {}\n")
        os.kill(pids[1], signal.SIGKILL)
        failed = await runner.wait_for(lambda line: line["event"] == "worker.exited" and "exit_code" in line)
        assert (failed["worker"], failed["exit_code"]) == (1, 78)
        assert "queus" in failed["error"]
        prepare(rabbit_project)
        await all_run(runner, 2)
        assert workers(runner)[2] == pids[2]
        await stop(runner)


HTTP = """
    version: 1
    queues: {UNIQUE.work: {}, UNIQUE.beats: {}}
    producers:
      web: {http: /orders, to: UNIQUE.work}
      beat: {handler: work:beat, every: 200ms, to: UNIQUE.beats}
    subscribers:
      handle: {from: UNIQUE.work, handler: work:handle}
      hear: {from: UNIQUE.beats, handler: work:handle}
"""
BEAT = """
    def beat() -> str:
        note("made")
        return "beat"
"""


async def test_one_worker_answers_for_all(rabbit_project: Project) -> None:
    """HTTP is the first worker's; /readyz knows of each; producers run in one, and go on in another."""
    prepare(rabbit_project, HANDLERS + BEAT, HTTP)
    port = free_port()
    async with rabbit_project.up("--workers", "2", "--http", f"127.0.0.1:{port}") as runner:
        pids = await all_run(runner, 2)
        assert ask(port, "/readyz") == (200, {"ready": True, "trouble": []})
        await until(lambda: rabbit_project.ledger.counts()["made"] >= 3, "it beats")
        makers = {entry.pid for entry in rabbit_project.ledger.entries() if entry.payload == "made"}
        assert len(makers) == 1
        os.kill(pids[2], signal.SIGSTOP)
        assert ask(port, "/readyz") == (503, {"ready": False, "trouble": ["worker 2: does not answer"]})
        assert ask(port, "/healthz")[0] == 200
        os.kill(pids[2], signal.SIGKILL)
        await runner.wait_for(lambda line: line["event"] == "worker.exited")
        status, answer = ask(port, "/readyz")
        assert status == 503
        assert answer["trouble"][0].startswith("worker 2: ")
        await all_run(runner, 2)
        await until(lambda: ask(port, "/readyz")[0] == 200, "ready again")
        os.kill(pids[1], signal.SIGKILL)
        await runner.wait_for(lambda line: line["event"] == "worker.exited" and line["worker"] == 1)
        assert ask(port, "/readyz") == (0, {})
        await until(lambda: ask(port, "/readyz")[0] == 200, "the new one listens")
        since = rabbit_project.ledger.counts()["made"]
        await until(lambda: rabbit_project.ledger.counts()["made"] >= since + 3, "it beats again")
        await stop(runner)


LONG = """
    async def handle(order: str) -> None:
        print(order * 100_000, flush=True)
        note(order)
"""


async def test_long_lines_of_several_workers_stay_whole(rabbit_project: Project, foreign: Foreign) -> None:
    """100 kB printed at once, faster than they are read: log lines that arrive whole; nothing piles up meanwhile."""
    prepare(rabbit_project, LONG)
    async with rabbit_project.up("--workers", "3") as runner:
        await all_run(runner, 3)
        runner.pause_reading()
        letters = "abcdefghijklmnopqrst"
        foreign.publish(rabbit_project.name("work"), *[letter.encode() for letter in letters * 5])
        await asyncio.sleep(0.5)
        begun = len(rabbit_project.ledger.entries())
        runner.resume_reading()
        assert begun < 30, "they wait"
        await rabbit_project.ledger.wait_for(100)
        await stop(runner)
    texts = [line["text"] for line in map(json.loads, runner.stdout.splitlines()) if line["event"] == "stdout"]
    assert Counter("".join(texts)) == dict.fromkeys(letters, 500_000)
    assert all(text == text[0] * len(text) for text in texts)


async def test_all_drain_when_nobody_reads_their_lines(rabbit_project: Project, foreign: Foreign) -> None:
    """As after `| head -1`."""
    prepare(rabbit_project)
    async with rabbit_project.up("--workers", "2") as runner:
        pids = await all_run(runner, 2)
        runner.stop_reading()
        await asyncio.sleep(0.1)  # our end is closed by the loop, which publishing stops
        foreign.publish(rabbit_project.name("work"), b"one", b"two")
        assert await runner.wait() == 0
    assert runner.stderr.count("log lines cannot be written (Broken pipe)") == 1
    assert "stopped: 0 published" in runner.stderr
    await gone(list(pids.values()))


FINITE = """
    version: 1
    queues: {UNIQUE.work: {}}
    producers:
      make: {handler: work:make, to: UNIQUE.work}
      slow: {handler: work:slow, to: UNIQUE.work}
    subscribers:
      handle: {from: UNIQUE.work, handler: work:handle, concurrency: 2, prefetch: 2, run_in: process}
"""
FINITE_HANDLERS = """
    import logging, time

    def make():
        for number in range(40):
            yield f"made-{number}"

    async def slow():
        return ["slow"]

    def handle(order: str) -> None:
        note(order)
        logging.warning("mine")
        time.sleep(0.02)
"""


async def test_workers_end_when_there_is_nothing_more_to_do(rabbit_project: Project) -> None:
    """`--until-idle`: each message once, producers in one worker, nobody started again, exit code 0."""
    prepare(rabbit_project, FINITE_HANDLERS, FINITE)
    async with rabbit_project.up("--workers", "2", "--until-idle") as runner:
        assert await runner.wait(50) == 0, runner.stderr
    assert rabbit_project.ledger.counts() == dict.fromkeys([*(f"made-{number}" for number in range(40)), "slow"], 1)
    assert "stopped: 41 published · 41 handled · 0 retried · 0 dead-lettered" in runner.stderr
    assert len(lines(runner, "worker.started")) == len(lines(runner, "worker.exited", exit_code=0)) == 2
    assert {line.get("worker") for line in lines(runner, "mine")} <= {1, 2}
    assert len(lines(runner, "mine")) == 41


async def test_sighup_drains_all(rabbit_project: Project, foreign: Foreign) -> None:
    """At the master, whose workers have no terminal; at one worker, which is started again."""
    prepare(rabbit_project)
    async with rabbit_project.up("--workers", "2") as runner:
        pids = await all_run(runner, 2)
        os.kill(pids[2], signal.SIGHUP)
        exited = await runner.wait_for(lambda line: line["event"] == "worker.exited")
        assert (exited["worker"], exited["exit_code"]) == (2, 0)
        await runner.wait_for(lambda _: workers(runner).get(2, pids[2]) != pids[2], timeout=40)
        pids = await all_run(runner, 2)
        runner.signal(signal.SIGHUP)
        assert await runner.wait() == 0
    assert len(lines(runner, "pipeline.stopped")) == 3
    await gone(list(pids.values()))


async def test_the_password_of_the_broker_is_on_no_workers_command_line(rabbit_project: Project) -> None:
    """Everybody on a machine can read the command line of a process; what `--broker` says works all the same."""
    prepare(rabbit_project)
    for arguments in (("--broker", str(rabbit_project.place.url)), (f"--broker={rabbit_project.place.url}",)):
        async with rabbit_project.run("up", rabbit_project.file, "--workers", "2", *arguments) as runner:
            for pid in (await all_run(runner, 2)).values():
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                assert b"--broker" not in command
                assert b"amqp" not in command
                assert str(rabbit_project.file).encode() in command
            await stop(runner)
