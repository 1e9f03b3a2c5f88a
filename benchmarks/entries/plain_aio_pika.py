"""Entry: the same work by hand with aio-pika, in the way its documentation shows."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

from benchmarks.entries.job import WINDOW, Entry, Job, body
from benchmarks.ledger import Ledger, from_environment

log = logging.getLogger("bench")


class _JsonLines(logging.Formatter):
    """A line like ours, by the standard library's means."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **record.fields,  # type: ignore[attr-defined]
        }
        return json.dumps(line, ensure_ascii=False)


async def _consume(job: Job, channel: AbstractChannel, ledger: Ledger, done: asyncio.Event) -> None:
    left = job.count

    async def on_message(message: AbstractIncomingMessage) -> None:
        nonlocal left
        async with message.process():
            ledger.note(json.loads(message.body)["number"])
        left -= 1
        if not left:
            done.set()

    async def on_message_with_log(message: AbstractIncomingMessage) -> None:
        started = time.perf_counter()
        await on_message(message)
        fields = {
            "queue": job.source,
            "message_id": message.message_id,
            "correlation_id": message.correlation_id,
            "duration_ms": round((time.perf_counter() - started) * 1000, 1),
        }
        log.info("message.handled", extra={"fields": fields})

    queue = await channel.get_queue(job.source, ensure=False)
    await queue.consume(on_message_with_log if job.logs else on_message)
    await done.wait()


async def _hop(
    job: Job, channel: AbstractChannel, exchange: AbstractExchange, ledger: Ledger, done: asyncio.Event
) -> None:
    left = job.count

    async def on_message(message: AbstractIncomingMessage) -> None:
        nonlocal left
        async with message.process():
            payload = json.loads(message.body)
            ledger.note(payload["number"])
            await exchange.publish(_message(payload), job.target)
        left -= 1
        if not left:
            done.set()

    queue = await channel.get_queue(job.source, ensure=False)
    await queue.consume(on_message)
    await done.wait()


async def _publish(job: Job, exchange: AbstractExchange, ledger: Ledger) -> None:
    window = asyncio.Semaphore(WINDOW)

    async def send(payload: dict[str, object]) -> None:
        try:
            await exchange.publish(_message(payload), job.target)
        finally:
            window.release()

    ledger.begin()
    async with asyncio.TaskGroup() as group:
        for number in range(job.count):
            await window.acquire()
            group.create_task(send(body(number)))
            if number < job.count - 1:
                ledger.note(number)
    ledger.note(job.count - 1)


def _message(payload: dict[str, object]) -> aio_pika.Message:
    return aio_pika.Message(
        json.dumps(payload).encode(),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=uuid4().hex,
        timestamp=datetime.now(UTC),
    )


async def _main(job: Job) -> None:
    ledger, done = from_environment(), asyncio.Event()
    connection = await aio_pika.connect(job.url)
    async with connection:
        consuming = await connection.channel(publisher_confirms=False)
        await consuming.set_qos(prefetch_count=job.prefetch)
        publishing = await connection.channel()
        match job.work:
            case "consume":
                await _consume(job, consuming, ledger, done)
            case "hop":
                await _hop(job, consuming, publishing.default_exchange, ledger, done)
            case "publish":
                await _publish(job, publishing.default_exchange, ledger)
        # A quorum queue may forget what was acknowledged just before the channel closes (RabbitMQ 3.10: 27 of 2,000
        # messages came back, once in 16 runs; never with a pause). Ours idles for 0.3 s before it ends.
        await asyncio.sleep(0.3)


def _command(job: Job, folder: Path) -> list[str]:
    (folder / "job.json").write_text(json.dumps(asdict(job)))
    return [sys.executable, "-m", __spec__.name, "job.json"]


PLAIN_AIO_PIKA = Entry("aio-pika", _command)

if __name__ == "__main__":
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLines())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    asyncio.run(_main(Job(**json.loads(Path(sys.argv[1]).read_text()))))
