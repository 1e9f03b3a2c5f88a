"""The application of the Taskiq entry: a broker and a task. Run as a program, it sends the messages."""

from __future__ import annotations

import asyncio
from typing import Any

from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType

from benchmarks.entries.job import WINDOW, Job, body
from benchmarks.ledger import from_environment

JOB = Job.from_environment()

broker = AioPikaBroker(
    JOB.url,
    qos=JOB.prefetch,
    exchange=Exchange(name=f"{JOB.source}-exchange"),
    task_queues=[Queue(name=JOB.source, type=QueueType(JOB.kind))],
)
ledger = from_environment()


@broker.task(task_name="consume")
async def consume(payload: dict[str, Any]) -> None:
    """Count one message."""
    ledger.note(payload["number"])


async def _send() -> None:
    await broker.startup()
    for first in range(0, JOB.count, WINDOW):
        numbers = range(first, min(first + WINDOW, JOB.count))
        await asyncio.gather(*(consume.kiq(body(number, JOB.body_bytes)) for number in numbers))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(_send())
