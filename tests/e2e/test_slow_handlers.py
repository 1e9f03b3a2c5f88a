"""Handlers that block the event loop, hang, or ignore their timeout are named while they do it."""

from __future__ import annotations

import http.client
import json

from tests.foreign import Foreign
from tests.node import free_port
from tests.project import Project, lines, until

PIPELINE = """
    version: 1
    name: UNIQUE
    queues: {UNIQUE.work: {}}
    producers: {make: {handler: work:make, to: UNIQUE.work}}
    subscribers: {work: {from: UNIQUE.work, handler: work:handle, OPTIONS}}
"""


def trouble(port: int) -> tuple[int, list[str]]:
    """Return the status of /readyz, and what it says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status, json.loads(response.read())["trouble"]
    finally:
        connection.close()


async def test_a_handler_that_blocks_the_loop_is_named_with_its_stack(memory_project: Project) -> None:
    """An `async def` that does not await: everything else waits, and the log says for what."""
    memory_project.pipeline(PIPELINE.replace("OPTIONS", "concurrency: 1"))
    memory_project.handlers(
        """
        import os, time

        def make(): return ["one"]

        async def handle(order: str) -> None:
            wait_badly()
            note(order)

        def wait_badly() -> None:
            while not os.path.exists("go"):
                time.sleep(0.01)
        """
    )
    async with memory_project.running() as runner:
        line = await runner.wait_for(lambda line: line["event"] == "handler.slow")
        (memory_project.folder / "go").touch()
        await memory_project.ledger.wait_for(1)
    assert line["level"] == "warning"
    assert line["at"].startswith("work.py:")
    assert "in handle" in line["stack"]
    assert "in wait_badly" in line["stack"]
    assert "runner/runtime" not in line["stack"]
    assert len(lines(runner, "handler.slow")) == 1


async def test_a_plain_handler_does_not_block_the_loop(rabbit_project: Project, foreign: Foreign) -> None:
    """It runs in a thread: heartbeats go on, though it sleeps for several of their intervals."""
    rabbit_project.pipeline(
        PIPELINE.replace("version: 1", "version: 1\n    broker: {heartbeat: 1s}").replace("OPTIONS", "concurrency: 1")
    )
    rabbit_project.handlers(
        """
        import time

        def make(): return ["one"]

        def handle(order: str) -> None:
            time.sleep(4)
            note(order)
        """
    )
    async with rabbit_project.running() as runner:
        await rabbit_project.ledger.wait_for(1)
    assert lines(runner, "handler.slow") == lines(runner, "broker.lost") == []


async def test_a_handler_in_a_thread_that_outlasts_its_timeout_is_named_with_its_stack(memory_project: Project) -> None:
    """At the timeout itself, because a thread cannot be ended; and /readyz says when no place is left."""
    port = free_port()
    memory_project.pipeline(PIPELINE.replace("OPTIONS", "timeout: 300ms, concurrency: 2, retry: {attempts: 1}"))
    memory_project.handlers(
        """
        import os, time

        def make(): return ["one", "two", "three"]

        def handle(order: str) -> None:
            note(f"begun {order}")
            wait_for(f"go {order}")

        def wait_for(file: str) -> None:
            while not os.path.exists(file):
                time.sleep(0.01)
        """
    )
    async with memory_project.running("--http", f"127.0.0.1:{port}") as runner:
        await until(lambda: len(lines(runner, "handler.slow")) == 2, "both are named")
        assert trouble(port) == (503, ["all 2 slots of work have been busy beyond their timeout"])
        for name in ("three", "one"):
            (memory_project.folder / f"go {name}").touch()
        await memory_project.ledger.wait_for(3)
        await until(lambda: trouble(port) == (200, []), "one place is free")
        (memory_project.folder / "go two").touch()
        await until(lambda: len(lines(runner, "message.dead_lettered")) == 2, "both have ended")
    slow = lines(runner, "handler.slow", subscriber="work", attempt=1)
    assert len({line["message_id"] for line in slow}) == len(slow)
    for line in slow:
        assert line["at"].startswith("work.py:")
        assert "in handle" in line["stack"]
        assert "in wait_for" in line["stack"]
        assert "runner/runtime" not in line["stack"]
        assert line["running_s"] == 0.3
        assert "its timeout of 0.3 s" in line["error"]
    first, dead = slow[0], lines(runner, "message.dead_lettered")[0]
    assert first["timestamp"] < dead["timestamp"]
    assert (dead["error_type"], dead["error"]) == ("TimeoutError", "the handler took longer than its timeout of 0.3 s")


async def test_a_handler_that_is_done_in_time_is_not_named(memory_project: Project) -> None:
    """Nor one whose generator rests in time, nor one without a timeout; and nothing is left of their watch."""
    memory_project.pipeline(PIPELINE.replace("OPTIONS", "timeout: 5s, retry: {attempts: 1}"))
    memory_project.handlers(
        """
        def make(): return list(range(20))

        def handle(order: int):
            yield from ()
            note(order)
        """
    )
    runner = await memory_project.up_until_idle()
    assert len(memory_project.ledger.entries()) == 20
    assert lines(runner, "handler.slow") == []


async def test_an_async_handler_that_ignores_its_timeout_is_named(memory_project: Project) -> None:
    """A cancellation can be swallowed: its place stays taken, and the log says by what."""
    port = free_port()
    memory_project.pipeline(PIPELINE.replace("OPTIONS", "timeout: 100ms, concurrency: 1, retry: {attempts: 1}"))
    memory_project.handlers(
        """
        import asyncio, os

        def make(): return ["one"]

        async def handle(order: str) -> None:
            while not os.path.exists("go"):
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    pass
        """
    )
    async with memory_project.running("--http", f"127.0.0.1:{port}") as runner:
        line = await runner.wait_for(lambda line: line["event"] == "handler.slow", timeout=40)
        assert trouble(port) == (503, ["the one slot of work has been busy beyond its timeout"])
        (memory_project.folder / "go").touch()
        await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
    assert (line["subscriber"], line["attempt"]) == ("work", 1)
    assert line["running_s"] > 5
