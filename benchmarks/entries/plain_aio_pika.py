"""Entry: the same work by hand with aio-pika, in the way its documentation shows."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

from benchmarks.entries.job import WINDOW, Entry, Job, body, module
from benchmarks.entries.json_lines import logger
from benchmarks.ledger import Ledger, Stopwatch, from_environment

OnMessage = Callable[[AbstractIncomingMessage], Awaitable[None]]


def _handler(job: Job, ledger: Ledger, exchange: AbstractExchange) -> OnMessage:
    """Return the callback that does the work."""

    async def consume(message: AbstractIncomingMessage) -> None:
        async with message.process():
            ledger.note(json.loads(message.body)["number"])

    async def hop(message: AbstractIncomingMessage) -> None:
        async with message.process():
            payload = json.loads(message.body)
            ledger.note(payload["number"])
            await exchange.publish(_message(payload), job.target)

    match job.work:
        case "hop":
            return hop
        case "log":
            return _with_log(job, consume)
        case "model":
            return _to_model(ledger)
        case "latency":
            assert isinstance(ledger, Stopwatch)
            return _clocked(ledger)
        case _:
            return consume


def _with_log(job: Job, consume: OnMessage) -> OnMessage:
    log = logger("queue", "message_id", "correlation_id", "duration_ms")

    async def consume_with_log(message: AbstractIncomingMessage) -> None:
        started = time.perf_counter()
        await consume(message)
        fields = {
            "queue": job.source,
            "message_id": message.message_id,
            "correlation_id": message.correlation_id,
            "duration_ms": round((time.perf_counter() - started) * 1000, 1),
        }
        log.info("message.handled", extra=fields)

    return consume_with_log


def _to_model(ledger: Ledger) -> OnMessage:
    from benchmarks.entries.model import Order

    async def consume_model(message: AbstractIncomingMessage) -> None:
        async with message.process():
            ledger.note(Order.model_validate_json(message.body).number)

    return consume_model


def _clocked(stopwatch: Stopwatch) -> OnMessage:
    async def clock(message: AbstractIncomingMessage) -> None:
        async with message.process():
            payload = json.loads(message.body)
            stopwatch.clock(payload["number"], payload["sent"])

    return clock


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
            group.create_task(send(body(number, job.body_bytes)))
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


async def _consume_until_told(job: Job, channel: AbstractChannel, on_message: OnMessage) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    queue = await channel.get_queue(job.source, ensure=False)
    await queue.consume(on_message)
    await told.wait()


async def _main(job: Job) -> None:
    ledger = from_environment()
    async with await aio_pika.connect(job.url) as connection:
        publishing = await connection.channel()
        if job.work == "publish":
            await _publish(job, publishing.default_exchange, ledger)
            return
        consuming = await connection.channel(publisher_confirms=False)
        await consuming.set_qos(prefetch_count=job.prefetch)
        await _consume_until_told(job, consuming, _handler(job, ledger, publishing.default_exchange))


PLAIN_AIO_PIKA = Entry(
    name="aio-pika",
    command=module(__spec__.name),
    works=frozenset({"consume", "model", "log", "hop", "publish", "latency"}),
)
PLAIN_AIO_PIKA_UVLOOP = replace(
    PLAIN_AIO_PIKA, name="aio-pika + uvloop", command=module(__spec__.name, "uvloop"), requires=("uvloop",)
)

if __name__ == "__main__":
    if "uvloop" in sys.argv:
        import uvloop

        uvloop.run(_main(Job.from_environment()))
    else:
        asyncio.run(_main(Job.from_environment()))
