"""Handlers that block the event loop, hang, or ignore their timeout are named while they do it."""

from __future__ import annotations

import asyncio

from tests.foreign import Foreign
from tests.project import Project, lines, started, stop

PIPELINE = """
    version: 1
    name: UNIQUE
    queues: {UNIQUE.work: {}}
    producers: {make: {handler: work:make, to: UNIQUE.work}}
    subscribers: {work: {from: UNIQUE.work, handler: work:handle, OPTIONS}}
"""


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
    async with memory_project.up() as runner:
        line = await runner.wait_for(lambda line: line["event"] == "handler.slow")
        (memory_project.folder / "go").touch()
        await memory_project.ledger.wait_for(1)
        await stop(runner)
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
    async with rabbit_project.up() as runner:
        await rabbit_project.ledger.wait_for(1)
        await stop(runner)
    assert lines(runner, "handler.slow") == lines(runner, "broker.lost") == []


async def test_a_handler_that_ignores_its_timeout_is_named(memory_project: Project) -> None:
    """A thread cannot be stopped: its slot stays taken, and the log says by what."""
    memory_project.pipeline(PIPELINE.replace("OPTIONS", "timeout: 100ms, concurrency: 1, retry: {attempts: 1}"))
    memory_project.handlers(
        """
        import os, time

        def make(): return ["one"]

        def handle(order: str) -> None:
            while not os.path.exists("go"):
                time.sleep(0.01)
        """
    )
    async with memory_project.up() as runner:
        await started(runner)
        line = await runner.wait_for(lambda line: line["event"] == "handler.slow", timeout=40)
        (memory_project.folder / "go").touch()
        await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
        await asyncio.sleep(0)
        await stop(runner)
    assert (line["subscriber"], line["attempt"]) == ("work", 1)
    assert line["running_s"] > 5
