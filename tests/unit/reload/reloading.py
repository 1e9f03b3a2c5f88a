"""A project whose pipelines are reloaded in this process, on the in-process broker. Handlers write to `ledger`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent

from runner import app
from runner.app import StartupStep
from runner.errors import PipelineInvalid, RunnerError
from runner.page.access import Access
from runner.reload.reloader import Reloader
from runner.reload.version import Loader
from runner.runtime.supervisor import RunReport
from runner.system import System, load

PIPELINE = """
    version: 1
    queues: {orders: {}}
    subscribers:
      ship: {from: orders, handler: work:ship}
"""


class Reloads:
    """A reloader, what it has shown, and the project's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.failures: list[RunnerError] = []
        self.stop = asyncio.Event()
        self.report: RunReport | None = None
        self.has_shown = asyncio.Event()
        self._queue: asyncio.Queue[set[Path]] = asyncio.Queue()
        self.loader = Loader(self._load, lambda: [folder / "env"])
        self.reloader = Reloader(
            self.loader,
            [folder],
            self.stop,
            address=lambda _: None,
            access=Access(),
            on_step=self._note,
            on_failure=self.failures.append,
        )

    def write(self, name: str, text: str) -> None:
        """Write a file; `note` of a module writes to the ledger."""
        if name.endswith(".py"):
            text = f"LEDGER = {str(self.folder / 'ledger')!r}\n" + dedent(NOTE) + dedent(text)
        (self.folder / name).write_text(dedent(text))
        os.utime(self.folder / name, (0, 0))  # long before it is read

    async def save(self, name: str, text: str) -> None:
        """Write a file as `write` does, and report the change."""
        self.write(name, text)
        os.utime(self.folder / name)
        self.report_change(self.folder / name)

    def report_change(self, *paths: Path) -> None:
        """Report a change as the watch of the files does."""
        relevant = {path for path in paths if self.reloader.changes.is_relevant(path)}
        if relevant:
            self._queue.put_nowait(relevant)

    def ledger(self) -> list[str]:
        """Return what handlers wrote."""
        path = self.folder / "ledger"
        return path.read_text().splitlines() if path.exists() else []

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition."""
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    async def reloaded(self, count: int) -> str:
        """Wait for this many reload lines, and return the last one."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [line for line in self.lines if line.startswith("reload ")]
            return len(found) >= count

        await self.until(is_there)
        return found[count - 1].removeprefix("reload ")

    async def draining(self) -> None:
        """Wait until the version that runs takes no more messages."""
        queue = self.reloader.memory.queue("orders")
        assert queue is not None
        await self.until(lambda: not queue.subscriptions)

    async def publish(self, *payloads: object, to: str = "orders") -> None:
        """Publish to a queue of the pipelines that run."""
        assert self.reloader.system is not None
        bodies = [json.dumps(payload).encode() for payload in payloads]
        await app.publish(self.reloader.system, to, bodies, memory=self.reloader.memory)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run the project inside the block."""
        task = asyncio.create_task(self.reloader.run(self._changes()))
        try:
            await self.until(lambda: task.done() or self.lines or self.failures)
            yield
        finally:
            self.stop.set()
            self.report = await task

    async def _changes(self) -> AsyncIterator[set[Path]]:
        while True:
            yield await self._queue.get()

    def _load(self) -> System:
        return load([self.folder], {})

    def _note(self, step: StartupStep) -> None:
        if step.name in ("running", "reload"):
            self.lines.append(f"{step.name} {step.text}")


NOTE = """
    def note(text):
        with open(LEDGER, "a") as file:
            file.write(f"{text}\\n")
"""


def codes(error: RunnerError) -> list[str]:
    """Return the codes of the problems of an invalid pipeline."""
    assert isinstance(error, PipelineInvalid)
    return [problem.code for problem in error.problems]
