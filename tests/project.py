"""A user's project in a folder of its own: pipelines, handlers, a ledger of what the handlers did, and runs of it.

project.pipeline("version: 1\nqueues: {UNIQUE.work: {}}\n…")      # UNIQUE becomes a word that no other test has
project.handlers("def handle(order: str) -> None: note(order)")   # the module `work`; `note` writes to the ledger
async with project.running():                                     # up when the block begins, stopped when it ends
    await project.ledger.wait_for(1)
assert project.ledger.counts() == {"order 1": 1}
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from tests.process import LogLine, RunnerProcess

LEDGER_MODULE = '''
"""Where handlers write what they did: one line each, on the disk before the handler goes on."""

import os


def note(payload, attempt=0):
    descriptor = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{payload} {attempt} {os.getpid()}\\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
'''


async def until(condition: Callable[[], object], what: str, timeout: float = 20.0) -> None:
    """Return when the condition holds; AssertionError with `what` where it never does."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.02)


async def stop(runner: RunnerProcess) -> None:
    """Stop a runner as an operator does, and check that it ends well."""
    runner.signal(signal.SIGTERM)
    assert await runner.wait() == 0, runner.stderr
    assert "Traceback" not in runner.stderr


def lines(runner: RunnerProcess, event: str, **fields: object) -> list[LogLine]:
    """Return the log lines so far of this event that have these fields."""
    return [line for line in runner.logs if line["event"] == event and fields.items() <= line.items()]


async def started(*runners: RunnerProcess) -> None:
    """Return when all of these are up."""
    for runner in runners:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")


class Entry(NamedTuple):
    """One line of the ledger."""

    payload: str
    attempt: int
    pid: int


class Ledger:
    """What the handlers wrote, by their own hand: neither our counts nor our log lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[Entry]:
        """Return the complete lines so far."""
        text = self.path.read_text() if self.path.exists() else ""
        lines = (line.rsplit(" ", 2) for line in text.split("\n")[:-1])
        return [Entry(payload, int(attempt), int(pid)) for payload, attempt, pid in lines]

    def payloads(self) -> list[str]:
        """Return what was written, in order."""
        return [entry.payload for entry in self.entries()]

    def counts(self) -> Counter[str]:
        """Return how often each was written."""
        return Counter(self.payloads())

    async def wait_for(self, count: int, timeout: float = 20.0) -> list[Entry]:
        """Return the lines as soon as there are at least so many."""
        await until(lambda: len(self.entries()) >= count, f"{count} lines in the ledger: {self.entries()}", timeout)
        return self.entries()


@dataclass(frozen=True)
class Place:
    """The broker that a project runs on."""

    arguments: tuple[str, ...]
    """What goes on the command line."""
    url: str | None = None
    """None: the embedded broker."""

    @staticmethod
    def at(url: str, *options: str) -> Place:
        """Return the broker at a URL, with other options of the command line."""
        return Place(("--broker", url, *options), url)

    @property
    def is_memory(self) -> bool:
        return self.url is None


MEMORY = Place(("--broker", "memory"))


class Project:
    """Files in a folder, and `runner` processes that run there."""

    def __init__(self, folder: Path, unique: str, place: Place) -> None:
        self.folder = folder
        self.unique = unique
        self.place = place
        self.ledger = Ledger(folder / "ledger")
        (folder / "ledger_of_handlers.py").write_text(LEDGER_MODULE)

    @property
    def file(self) -> Path:
        """The pipeline's file; its stem is unique, and so are the names of queues that derive from it."""
        return Path(f"{self.unique}.yaml")

    def name(self, name: str) -> str:
        """Return the name behind `UNIQUE.name` in a pipeline."""
        return f"{self.unique}.{name}"

    def pipeline(self, text: str, file: str | Path = "") -> None:
        """Write a pipeline, the project's own if no other file is named."""
        path = self.folder / (file or self.file)
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(text).replace("UNIQUE", self.unique))

    def handlers(self, text: str, module: str = "work") -> None:
        """Write a module of handlers, which may call `note(payload, attempt)`."""
        code = "from ledger_of_handlers import note\n" + dedent(text).replace("UNIQUE", self.unique)
        (self.folder / f"{module}.py").write_text(code)

    def write(self, pipeline: str, handlers: str) -> None:
        """Write the project's pipeline and the module `work` of its handlers."""
        self.pipeline(pipeline)
        self.handlers(handlers)

    def one_queue(
        self, handlers: str, subscriber: str = "", *, producer: str = "", queue: str = "", more: str = ""
    ) -> None:
        """Write a pipeline of one queue, `UNIQUE.work`, and the module of its handlers.

        A function `send` of the module is a producer to the queue, a function `handle` its subscriber. The other
        arguments are their options, as in `"retry: none, concurrency: 3"`; `more` are other top-level keys.
        """
        names = set(re.findall(r"^ *(?:async )?def (send|handle)\(", handlers, re.MULTILINE))
        text = f"version: 1\n{dedent(more)}\nqueues: {{UNIQUE.work: {{{queue}}}}}\n"
        if "send" in names:
            text += f"producers: {{send: {{handler: work:send, to: UNIQUE.work, {producer}}}}}\n"
        if "handle" in names:
            text += f"subscribers: {{handle: {{from: UNIQUE.work, handler: work:handle, {subscriber}}}}}\n"
        self.write(text, handlers)

    def heard(self) -> list[str]:
        """Return what handlers noted, sorted, without the word that no other test has in front."""
        return sorted(payload.removeprefix(f"{self.unique}.") for payload in self.ledger.payloads())

    def run(self, *arguments: str | Path, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> RunnerProcess:
        """Return a `runner` process with these arguments, in the project's folder."""
        environ = {"LEDGER": str(self.ledger.path), **(env or {})}
        return RunnerProcess(*arguments, cwd=self.folder, env=environ, stdin=stdin)

    def command(
        self, command: str, *options: str | Path, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> RunnerProcess:
        """Return a command, such as `"dead replay"`, for the project's pipeline on its broker."""
        return self.run(*self._arguments(command, *options), env=env, stdin=stdin)

    def _arguments(self, command: str, *options: str | Path) -> tuple[str | Path, ...]:
        return (*command.split(), self.file, *options, *self.place.arguments)

    def up(self, *options: str | Path, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> RunnerProcess:
        """Return `runner up` of the project's pipeline on its broker."""
        return self.command("up", *options, env=env, stdin=stdin)

    @asynccontextmanager
    async def running(
        self, *options: str | Path, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> AsyncIterator[RunnerProcess]:
        """Run the project's pipeline: it is up when the block begins, and is stopped as `stop` does when it ends."""
        async with self.up(*options, env=env, stdin=stdin) as runner:
            await started(runner)
            yield runner
            await stop(runner)

    async def run_to_end(
        self, *arguments: str | Path, code: int = 0, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> RunnerProcess:
        """Run `runner` with these arguments to its end, and check its exit code and that it prints no traceback."""
        async with self.run(*arguments, env=env, stdin=stdin) as runner:
            assert await runner.wait(50) == code, runner.stderr + runner.stdout
        assert "Traceback" not in runner.stderr
        return runner

    async def do(
        self,
        command: str,
        *options: str | Path,
        code: int = 0,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> RunnerProcess:
        """Do the same with a command for the project's pipeline on its broker."""
        return await self.run_to_end(*self._arguments(command, *options), code=code, env=env, stdin=stdin)

    async def up_until_idle(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> RunnerProcess:
        """Run the project's pipeline until there is nothing more to do, and check that it ended well."""
        return await self.do("up", "--until-idle", *arguments, env=env)
