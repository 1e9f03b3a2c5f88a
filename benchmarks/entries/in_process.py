"""Entries that bring messages in and handle them in one process: ours in several ways, and what else does that.

Only ours and the queue of asyncio's encode and decode JSON; only ours bounds what waits by itself. The others pass
objects: pyee and Taskiq start a task for each, so the producer waits for every thousand of them.

- Taskiq: `InMemoryBroker`, which its guide offers for tests and development; `kiq` and `wait_all`.
- FastStream: `TestRabbitBroker`, its only broker without a server, for tests: `publish` returns when handled.
- pyee: `AsyncIOEventEmitter`; `emit` and `wait_for_complete`.

IN_A_FILE has those with a file of SQLite, in two scenarios: messages are published, on the disk (`synchronous = FULL`);
messages that wait in the file are handled. The runner writes in groups, the libraries write each call by itself.

- litequeue: `put`, `pop`, `done`; its own setting is NORMAL, which a loss of power may take back.
- huey: `SqliteHuey(fsync=True, results=False)`; `dequeue` and `execute`, which is what its consumer does. It deletes a
  message before the work.
- persist-queue: `SQLiteAckQueue` with its JSON serializer; `put`, `get`, `ack`.
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
from typing import Any, Literal

from benchmarks.entries.job import body
from benchmarks.entries.mqrunner import end_of_publishing, write
from benchmarks.harness import ROOT
from benchmarks.ledger import Ledger, from_environment

WORKERS = 10
CAPACITY = 1000

Part = Literal["both", "publish", "handle"]

_PIPELINE = """\
version: 1
name: bench
python_path: ["{root}"]
logging: {{messages: {messages}}}
queues:
  work: {{type: classic}}
"""
_PRODUCER = """\
producers:
  produce:
    handler: benchmarks.entries.handlers:{produce}
    to: work
"""
_SUBSCRIBER = """\
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
    part: Part = "both"
    """`publish` leaves the messages in the folder, and `handle` finds them there."""

    def missing(self) -> list[str]:
        """Return the modules that it needs and that are not installed."""
        return [self.requires] if self.requires and importlib.util.find_spec(self.requires) is None else []

    def read_end(self, folder: Path) -> float | None:
        """Return when ours had published everything; None where the process itself knows the end."""
        return end_of_publishing(folder) if self.part == "publish" and not self.peer else None

    def command(self, folder: Path) -> list[str]:
        """Return the command that handles BENCH_COUNT messages and keeps a ledger of it."""
        if self.peer:
            return [sys.executable, "-m", __spec__.name, self.peer, self.part]
        text = _PIPELINE.format(root=ROOT, messages=str(self.logs).lower())
        if self.part != "handle":
            text += _PRODUCER.format(produce=self.produce if self.part == "both" else "produce_and_note")
        if self.part != "publish":
            text += _SUBSCRIBER.format(consume=self.consume, workers=WORKERS)
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
    InProcess(name="mqrunner, metrics", has_metrics=True),
    InProcess(name="mqrunner, a log line for each", logs=True, share=0.25),
    InProcess(name="mqrunner, from a generator", produce="produce_in_thread", share=0.25),
    InProcess(name="mqrunner, to a def handler", consume="consume_in_thread", share=0.25),
)

IN_A_FILE = (
    InProcess(name="litequeue", peer="litequeue", requires="litequeue", share=0.01),
    InProcess(name="huey, SqliteHuey", peer="huey", requires="huey", share=0.01),
    InProcess(name="persist-queue, SQLiteAckQueue", peer="persistqueue", requires="persistqueue", share=0.01),
    InProcess(name="mqrunner, broker in a file", broker="file:bench.queue", share=0.5),
)


Put = Callable[[dict[str, object]], object]
Handle = Callable[[], object]


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


def _litequeue(ledger: Ledger) -> tuple[Put, Handle]:
    from litequeue import LiteQueue

    queue = LiteQueue("bench.sqlite")
    queue.conn.execute("PRAGMA synchronous = FULL")

    def handle() -> None:
        message = queue.pop()
        assert message is not None
        ledger.note(json.loads(message.data)["number"])
        queue.done(message.message_id)

    return lambda payload: queue.put(json.dumps(payload)), handle


def _huey(ledger: Ledger) -> tuple[Put, Handle]:
    from huey import SqliteHuey

    huey = SqliteHuey("bench", filename="bench.sqlite", fsync=True, results=False)

    @huey.task()
    def consume(payload: dict[str, Any]) -> None:
        ledger.note(payload["number"])

    return consume, lambda: huey.execute(huey.dequeue())


def _persistqueue(ledger: Ledger) -> tuple[Put, Handle]:
    from persistqueue import SQLiteAckQueue
    from persistqueue.serializers import json as as_json

    queue = SQLiteAckQueue("bench", serializer=as_json)

    def handle() -> None:
        message = queue.get(block=False, raw=True)
        ledger.note(message["data"]["number"])
        queue.ack(id=message["pqid"])

    return queue.put, handle


_FILES: dict[str, Callable[[Ledger], tuple[Put, Handle]]] = {
    "litequeue": _litequeue,
    "huey": _huey,
    "persistqueue": _persistqueue,
}


def _in_a_file(peer: str, part: str, size: int, ledger: Ledger) -> None:
    put, handle = _FILES[peer](ledger)
    ledger.begin()
    for number in range(size):
        if part == "publish":
            put(body(number))
            ledger.note(number)
        else:
            handle()


_PEERS: dict[str, Callable[[int, Ledger], Awaitable[None]]] = {
    "queue": _queue,
    "pyee": _pyee,
    "taskiq": _taskiq,
    "faststream": _faststream,
}


def _main(peer: str, part: str) -> None:
    size, ledger = int(os.environ["BENCH_COUNT"]), from_environment()
    if peer in _FILES:
        _in_a_file(peer, part, size, ledger)
    else:
        asyncio.run(_run(peer, size, ledger))


async def _run(peer: str, size: int, ledger: Ledger) -> None:
    await _PEERS[peer](size, ledger)


if __name__ == "__main__":
    _main(*sys.argv[1:])
