"""Looks into the queues of the in-process broker of this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from runner.errors import BrokerUnavailable
from runner.message import Address, Envelope
from runner.transports.memory import MemoryTransport
from runner.transports.memory.queue import MemoryQueue
from runner.transports.memory.queue_buffer import QueuedMessage
from runner.transports.rabbitmq.channels import QueueCounts


class BrowsedMessage(NamedTuple):
    """A message that was taken out of its queue for a look."""

    envelope: Envelope
    message: QueuedMessage
    delivery_count: int = 0


class MemoryBrowser:
    """The messages of one queue. Each that was handed out is held until the end, so that no subscriber gets it."""

    is_over = False

    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue
        self._held: dict[int, QueuedMessage] = {}

    @property
    def is_at_its_end(self) -> bool:
        """Whether nothing more comes."""
        return not self._queue.buffer

    async def next(self, _: float) -> BrowsedMessage | None:
        """Return the next message, None where there is none."""
        message = self._queue.take_head()
        if message is None:
            return None
        self._held[id(message)] = message
        return BrowsedMessage(message.envelope, message)

    async def take(self, browsed: BrowsedMessage) -> None:
        """Remove a message for good."""
        del self._held[id(browsed.message)]

    def close(self) -> None:
        """Put back what was not taken."""
        for message in self._held.values():
            self._queue.restore(message)
        self._held.clear()


class MemoryAccess:
    """See `QueueAccess`. `transport` is the process's own; it stays open."""

    major_version = 0

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    async def depth(self, queue: str) -> QueueCounts | None:
        """Return what a queue has, None where it does not exist."""
        found = self._transport.queue(queue)
        return None if found is None else QueueCounts(len(found.buffer), len(found.subscriptions))

    @asynccontextmanager
    async def read(self, queue: str) -> AsyncIterator[MemoryBrowser]:
        """Read a queue from its head; what is not taken goes back where it stood. Raises BrokerUnavailable."""
        found = self._transport.queue(queue)
        if found is None:
            raise BrokerUnavailable(f'there is no queue "{queue}"')
        browser = MemoryBrowser(found)
        try:
            yield browser
        finally:
            browser.close()

    async def publish(self, address: Address, envelope: Envelope) -> None:
        """Publish. Raises as `Transport.publish` does."""
        await self._transport.publish(address, envelope)

    async def close(self) -> None:
        """Do nothing: the session belongs to the process."""
