"""Sessions with a broker in a file, each as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from runner.errors import BrokerUnavailable
from runner.message import Address, Envelope
from runner.pipeline.topology import Queue, Topology
from runner.transports.base import Delivery, SubscriptionOptions, TransportEvent
from runner.transports.file import FileBroker, FileTransport

WORK = Address("", "work")
QUORUM = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 2,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "dead",
}
OPTIONS = SubscriptionOptions(queue="work", prefetch=10, dead_letter="dead", wait_prefix="work.retry")


@contextlib.asynccontextmanager
async def session(path: Path, *, clock: Callable[[], datetime] | None = None, **options: Any) -> AsyncIterator[Session]:
    """Connect a process of its own, with a queue `work`."""
    opened = Session(FileBroker(path, clock=clock, **options))
    await opened.transport.connect()
    try:
        await opened.transport.declare(Topology(queues=(Queue("work", arguments=QUORUM), Queue("dead"))))
        yield opened
    finally:
        await opened.transport.close()


class Session:
    """A session, what it has reported, and what it was delivered."""

    def __init__(self, broker: FileBroker) -> None:
        self.broker = broker
        self.events: list[TransportEvent] = []
        self.transport = FileTransport(broker, on_transport_event=self.events.append)
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()

    async def publish(self, *bodies: str, **properties: Any) -> None:
        for body in bodies:
            await self.transport.publish(WORK, Envelope(body.encode(), **properties))

    async def publish_many(self, count: int, body: bytes = b"") -> None:
        await asyncio.gather(*(self.transport.publish(WORK, Envelope(b"%d" % each + body)) for each in range(count)))

    async def subscribe(self, prefetch: int = 10) -> None:
        await self.transport.subscribe(
            SubscriptionOptions(queue="work", prefetch=prefetch, dead_letter="dead", wait_prefix="work.retry"),
            self.deliveries.put_nowait,
        )

    async def next(self) -> Delivery:
        async with asyncio.timeout(20):
            return await self.deliveries.get()

    async def take(self, count: int) -> list[str]:
        """Acknowledge the next messages, and return their bodies."""
        return [self._ack(await self.next()) for _ in range(count)]

    def _ack(self, delivery: Delivery) -> str:
        self.transport.ack(delivery)
        return delivery.envelope.body.decode()

    def count(self, queue: str = "work") -> int:
        found = self.transport.queue(queue)
        assert found is not None
        return found.depth[0]


def crash(opened: Session) -> None:
    """Leave the file as a process that is killed does: nothing more is written, and its thread and locks are gone."""
    broker, file = opened.broker, opened.broker.store
    opened.transport.close = _nothing  # type: ignore[method-assign]
    file.failure = BrokerUnavailable("killed")
    broker.leave(opened.transport)
    if broker._poll_timer is not None:
        broker._poll_timer.cancel()
    file._jobs.put(None)
    file._thread.join()
    file.reader.close()
    file.writer.close()
    broker._lock.release()


async def _nothing() -> None:
    pass


def change(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
