"""Entries that bring messages in and handle them in one process: ours in several ways, and what else does that.

Only ours and the queue of asyncio's encode and decode JSON; only ours bounds what waits by itself. The others pass
objects: pyee and Taskiq start a task for each, so the producer waits for every thousand of them.

- Taskiq: `InMemoryBroker`, which its guide offers for tests and development; `kiq` and `wait_all`.
- FastStream: `TestRabbitBroker`, its only broker without a server, for tests: `publish` returns when handled.
- pyee: `AsyncIOEventEmitter`; `emit` and `wait_for_complete`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.entries.job import body
from benchmarks.entries.mqrunner import write
from benchmarks.harness import ROOT
from benchmarks.ledger import Ledger, from_environment

WORKERS = 10
CAPACITY = 1000

_PIPELINE = """\
version: 1
name: bench
python_path: ["{root}"]
logging: {{messages: {messages}}}
queues:
  work: {{type: classic}}
producers:
  produce:
    handler: benchmarks.entries.handlers:{produce}
    to: work
subscribers:
  consume:
    from: work
    handler: benchmarks.entries.handlers:{consume}
    concurrency: {workers}
    prefetch: 100
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcess:
    """One way to do it; `share` of the usual number of messages is enough where it is slow."""

    name: str
    peer: str = ""
    """The argument of this module that runs it; ours has a pipeline instead."""
    requires: str = ""
    produce: str = "produce"
    consume: str = "consume"
    logs: bool = False
    has_metrics: bool = False
    share: float = 1.0
    broker: str = "memory"

    def missing(self) -> list[str]:
        """Return the modules that it needs and that are not installed."""
        return [self.requires] if self.requires and importlib.util.find_spec(self.requires) is None else []

    def command(self, folder: Path) -> list[str]:
        """Return the command that handles BENCH_COUNT messages and keeps a ledger of it."""
        if self.peer:
            return [sys.executable, "-m", __spec__.name, self.peer]
        text = _PIPELINE.format(
            root=ROOT, messages=str(self.logs).lower(), produce=self.produce, consume=self.consume, workers=WORKERS
        )
        return write(
            folder,
            text,
            "--until-idle",
            "--broker",
            self.broker,
            *(["--http", "127.0.0.1:0"] if self.has_metrics else []),
        )


IN_PROCESS = (
    InProcess(name="asyncio.Queue + json", peer="queue"),
    InProcess(name="pyee, AsyncIOEventEmitter", peer="pyee", requires="pyee"),
    InProcess(name="Taskiq, InMemoryBroker", peer="taskiq", requires="taskiq", share=0.4),
    InProcess(name="FastStream, TestRabbitBroker", peer="faststream", requires="faststream", share=0.01),
    InProcess(name="mqrunner"),
    InProcess(name="mqrunner, broker in a file", broker="file:bench.queue"),
    InProcess(name="mqrunner, metrics", has_metrics=True),
    InProcess(name="mqrunner, a log line for each", logs=True, share=0.25),
    InProcess(name="mqrunner, from a generator", produce="produce_in_thread", share=0.25),
    InProcess(name="mqrunner, to a def handler", consume="consume_in_thread", share=0.25),
)


async def _queue(size: int, ledger: Ledger) -> None:
    """Encode, pass through a bounded queue to ten workers, decode, count: the least that an in-process broker does."""
    queue: asyncio.Queue[bytes] = asyncio.Queue(CAPACITY)

    async def work() -> None:
        while True:
            encoded = await queue.get()
            ledger.note(json.loads(encoded)["number"])
            queue.task_done()

    workers = [asyncio.create_task(work()) for _ in range(WORKERS)]
    ledger.begin()
    for number in range(size):
        await queue.put(json.dumps(body(number)).encode())
    await queue.join()
    for worker in workers:
        worker.cancel()


async def _pyee(size: int, ledger: Ledger) -> None:
    from pyee.asyncio import AsyncIOEventEmitter

    emitter = AsyncIOEventEmitter()

    @emitter.on("work")
    async def consume(payload: dict[str, Any]) -> None:
        ledger.note(payload["number"])

    ledger.begin()
    for number in range(size):
        emitter.emit("work", body(number))
        if number % CAPACITY == CAPACITY - 1:
            await emitter.wait_for_complete()
    await emitter.wait_for_complete()


async def _taskiq(size: int, ledger: Ledger) -> None:
    from taskiq import InMemoryBroker

    broker = InMemoryBroker(max_async_tasks=CAPACITY, cast_types=False)

    @broker.task
    async def consume(payload: dict[str, Any]) -> None:
        ledger.note(payload["number"])

    await broker.startup()
    ledger.begin()
    for number in range(size):
        await consume.kiq(body(number))
        if number % CAPACITY == CAPACITY - 1:
            await broker.wait_all()
    await broker.wait_all()
    await broker.shutdown()


async def _faststream(size: int, ledger: Ledger) -> None:
    from faststream.rabbit import RabbitBroker, TestRabbitBroker

    broker = RabbitBroker(logger=None, apply_types=False)

    @broker.subscriber("work")
    async def consume(payload: dict[str, Any]) -> None:
        ledger.note(payload["number"])

    async with TestRabbitBroker(broker):
        ledger.begin()
        for number in range(size):
            await broker.publish(body(number), "work")


_PEERS: dict[str, Callable[[int, Ledger], Awaitable[None]]] = {
    "queue": _queue,
    "pyee": _pyee,
    "taskiq": _taskiq,
    "faststream": _faststream,
}


async def _main() -> None:
    await _PEERS[sys.argv[1]](int(os.environ["BENCH_COUNT"]), from_environment())


if __name__ == "__main__":
    asyncio.run(_main())
