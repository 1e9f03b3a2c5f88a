"""Entries that bring messages in and handle them in one process: ours in several ways, and a queue of asyncio's."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.entries.job import body
from benchmarks.entries.runline import write
from benchmarks.ledger import from_environment
from benchmarks.measuring import ROOT

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


@dataclass(frozen=True, slots=True)
class InProcess:
    """One way to do it; `share` of the usual number of messages is enough where it is slow."""

    name: str
    produce: str = "produce"
    consume: str = "consume"
    logs: bool = False
    share: float = 1.0

    def command(self, folder: Path, size: int) -> list[str]:
        """Return the command that handles `size` messages and keeps a ledger of it."""
        if self.name == PLAIN:
            return [sys.executable, "-m", __spec__.name]
        return write(
            folder,
            _PIPELINE.format(
                root=ROOT,
                messages=str(self.logs).lower(),
                produce=self.produce,
                consume=self.consume,
                workers=WORKERS,
            ),
        )


PLAIN = "asyncio.Queue + json"

IN_PROCESS = (
    InProcess(PLAIN),
    InProcess("runline: async producer → async handler"),
    InProcess("runline: the same, with log lines", logs=True, share=0.25),
    InProcess("runline: generator → async handler", produce="produce_in_thread", share=0.25),
    InProcess("runline: async producer → def handler", consume="consume_in_thread", share=0.25),
)


async def _main(size: int) -> None:
    """Encode, pass through a bounded queue to ten workers, decode, count: the least that an in-process broker does."""
    ledger = from_environment()
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


if __name__ == "__main__":
    asyncio.run(_main(int(os.environ["BENCH_COUNT"])))
