"""Entry: FastStream's RabbitBroker, in its documented settings.

- `default_channel=Channel(prefetch_count=…)` (RabbitMQ guide, page on prefetch); callbacks then run as many at once.
- `AckPolicy.NACK_ON_ERROR` (page on acknowledgement): the message is acknowledged after the handler.
- `logger=None` (page on logging) where no log is wanted. Where one is, our JSON logger, by the same page. It has two
  records for each message, "Received" and "Processed"; a filter keeps the second: one line, as the others.
- `apply_types=False` where no model is wanted: the handler takes the decoded body as it comes, without
  FastDepends (page on subscribing).
- uvloop is what `faststream run` takes when it is installed; both loops are measured.
"""

# No `from __future__ import annotations`: FastStream reads those of the handlers, and Order is not a global here.

import asyncio
import logging
import sys
from dataclasses import replace
from typing import Any

from benchmarks.entries.job import WINDOW, Entry, Job, body, module
from benchmarks.entries.json_lines import logger
from benchmarks.ledger import Stopwatch, from_environment

FASTSTREAM = Entry(
    name="FastStream",
    command=module(__spec__.name),
    works=frozenset({"consume", "model", "log", "hop", "publish", "latency"}),
    requires=("faststream",),
    share=0.8,
)
FASTSTREAM_UVLOOP = replace(
    FASTSTREAM,
    name="FastStream + uvloop",
    command=module(__spec__.name, "uvloop"),
    requires=("faststream", "uvloop"),
)


def _json_logger() -> logging.Logger:
    found = logger("queue", "message_id")
    found.addFilter(lambda record: record.msg != "Received")
    return found


async def _main(job: Job) -> None:
    from faststream import AckPolicy, FastStream
    from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

    from benchmarks.entries.model import Order

    broker = RabbitBroker(
        job.url,
        default_channel=Channel(prefetch_count=job.prefetch),
        ack_policy=AckPolicy.NACK_ON_ERROR,
        logger=_json_logger() if job.work == "log" else None,
        apply_types=job.work == "model",
    )
    if job.work == "publish":
        async with broker:
            await _publish(job, broker)
        return
    ledger = from_environment()
    subscriber = broker.subscriber(RabbitQueue(job.source, declare=False))
    match job.work:
        case "model":

            @subscriber
            async def consume_model(order: Order) -> None:
                ledger.note(order.number)
        case "hop":

            @subscriber
            @broker.publisher(RabbitQueue(job.target, declare=False), persist=True)
            async def hop(payload: dict[str, Any]) -> dict[str, Any]:
                ledger.note(payload["number"])
                return payload
        case "latency":
            assert isinstance(ledger, Stopwatch)

            @subscriber
            async def clock(payload: dict[str, Any]) -> None:
                ledger.clock(payload["number"], payload["sent"])
        case _:

            @subscriber
            async def consume(payload: dict[str, Any]) -> None:
                ledger.note(payload["number"])

    await FastStream(broker, logger=None).run()


async def _publish(job: Job, broker: Any) -> None:
    """Publish through a publisher object, which FastStream's guide recommends for what is published often."""
    ledger, window = from_environment(), asyncio.Semaphore(WINDOW)
    publisher = broker.publisher(job.target, persist=True)
    await publisher.start()

    async def send(payload: dict[str, object]) -> None:
        try:
            await publisher.publish(payload)
        finally:
            window.release()

    ledger.begin()
    async with asyncio.TaskGroup() as group:
        for number in range(job.count):
            await window.acquire()
            group.create_task(send(body(number, job.body_bytes)))
            if number < job.count - 1:
                ledger.note(number)
    ledger.note(job.count - 1)


if __name__ == "__main__":
    if "uvloop" in sys.argv:
        import uvloop

        uvloop.run(_main(Job.from_environment()))
    else:
        asyncio.run(_main(Job.from_environment()))
