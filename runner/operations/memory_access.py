"""Implements `QueueAccess` for the in-process broker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from runner.errors import BrokerUnavailable, TopologyMismatch
from runner.message import Address, Envelope
from runner.operations.queue_access import Browsed
from runner.operations.tap import TappedMessage
from runner.pipeline.model import BrokerSettings
from runner.pipeline.topology import Binding
from runner.transports.base import OnTransportEvent
from runner.transports.file import FileBroker, FileTransport
from runner.transports.file.broker import POLL_S
from runner.transports.file.queue import TemporaryQueue
from runner.transports.memory import MemoryTransport
from runner.transports.memory.queue import MemoryQueue
from runner.transports.memory.queue_buffer import QueuedMessage
from runner.transports.pauses import Pause, Pauses
from runner.transports.rabbitmq.channels import QueueCounts

if TYPE_CHECKING:
    from runner.operations.rabbitmq.queue_browser import BrowseSession


class MemoryBrowser:
    """Reads one queue. It holds the messages that it has read until `close`, so that no subscriber gets them."""

    is_over = False

    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue
        self._held: dict[int, QueuedMessage] = {}

    @property
    def is_at_its_end(self) -> bool:
        """Whether there are no more messages."""
        return not self._queue.buffer

    async def next(self, _: float) -> Browsed | None:
        """Return the next message; None at the end."""
        message = self._queue.take_head()
        if message is None:
            return None
        self._held[id(message)] = message
        expires_at = message.expires_at
        left_s = None if expires_at is None else expires_at - asyncio.get_running_loop().time()
        return Browsed(message.envelope, message.address, partial(self._take, message), left_s=left_s)

    async def _take(self, message: QueuedMessage) -> None:
        self._queue.forget(self._held.pop(id(message)))

    def close(self) -> None:
        """Put the messages that were not removed back into the queue."""
        for message in self._held.values():
            self._queue.restore(message)
        self._held.clear()


class MemoryAccess:
    """A `QueueAccess` over the process's own transport, which it does not close."""

    major_version = 0

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    async def depth(self, queue: str) -> QueueCounts | None:
        found = self._transport.queue(queue)
        return None if found is None else QueueCounts(*found.depth)

    @asynccontextmanager
    async def read(self, queue: str, window: int = 1) -> AsyncIterator[MemoryBrowser]:
        """See `QueueAccess.read`. Raises BrokerUnavailable if the queue does not exist."""
        found = self._transport.queue(queue)
        if found is None:
            raise BrokerUnavailable(f'there is no queue "{queue}"')
        browser = MemoryBrowser(found)
        try:
            yield browser
        finally:
            browser.close()

    async def publish(self, address: Address, envelope: Envelope) -> None:
        await self._transport.publish(address, envelope)

    async def pauses(self, pipeline: str) -> Pauses:
        return self._transport.pauses(pipeline)

    async def set_pause(self, pipeline: str, subscriber: str, pause: Pause | None) -> None:
        """See `QueueAccess.set_pause`. The pause lives as long as the process."""
        await self._transport.set_pause(pipeline, subscriber, pause)

    async def close(self) -> None:
        """Do nothing, because the process closes its transport itself."""


class FileAccess(MemoryAccess):
    """A session with a broker in a file, beside the process that owns it, or without one."""

    def __init__(self, file: Path, on_transport_event: OnTransportEvent) -> None:
        self._own = FileTransport(
            FileBroker(file, is_owner=False, creates=False), on_transport_event=on_transport_event
        )
        super().__init__(self._own)

    async def depth(self, queue: str) -> QueueCounts | None:
        """See `QueueAccess.depth`. What was removed is removed from the file by then."""
        await self._own.written()
        return await super().depth(queue)

    @asynccontextmanager
    async def read(self, queue: str, window: int = 1) -> AsyncIterator[MemoryBrowser]:
        """See `QueueAccess.read`. What was read and not removed is in the file, where the next reader finds it."""
        try:
            async with super().read(queue, window) as browser:
                yield browser
        finally:
            self._own.file.look_again()

    async def open(self) -> None:
        """Open the file. Raises BrokerUnavailable."""
        await self._own.connect()

    async def close(self) -> None:
        """Close the file, when everything is written."""
        await self._own.close()


class FileTap(FileAccess):
    """A temporary queue of a file, with the bindings of another queue, whether a process owns the file or not."""

    def __init__(self, file: Path, name: str, on_transport_event: OnTransportEvent) -> None:
        super().__init__(file, on_transport_event)
        self.name = f"{name}.tap.{token_hex(6)}"
        self._kept: deque[QueuedMessage] = deque()
        self._queue: TemporaryQueue | None = None
        self.missed = 0
        """How many messages were dropped because the reader was too slow, as `close` has counted them."""

    async def start(self, bindings: Sequence[Binding]) -> None:
        """Open the file, and tap what is published from now on. Raises BrokerUnavailable."""
        await self.open()
        try:
            self._queue = await self._own.file.open_temporary(self.name, bindings, self._own)
        except TopologyMismatch as error:
            raise BrokerUnavailable(str(error), "`runner up` declares it") from error
        await asyncio.sleep(2 * POLL_S)  # until then other processes have seen it

    async def next(self) -> TappedMessage:
        """Return the next message. Raises BrokerUnavailable when the file or the queue is lost."""
        assert self._queue is not None
        while not self._kept:
            self._kept.extend(self._queue.take())
            if self._own.file.failure is not None:
                raise self._own.file.failure
            if self._own.queue(self.name) is None:
                raise BrokerUnavailable("other processes have deleted the tap, because this one was silent")
            if not self._kept:
                await asyncio.sleep(POLL_S)
        message = self._kept.popleft()
        return TappedMessage(message.envelope, *message.address)

    async def close(self) -> None:
        """Close the file, which deletes the queue."""
        if self._queue is not None and self._own.file.failure is None:
            self.missed = self._queue.count_missed()
        self._queue = None
        await super().close()


def make_access(
    settings: BrokerSettings, *, name: str, on_transport_event: OnTransportEvent = lambda _: None
) -> FileAccess | BrowseSession:
    """Return a session with a broker that other processes run on, not opened."""
    if settings.file is not None:
        return FileAccess(settings.file, on_transport_event)
    from runner.operations.rabbitmq.queue_browser import BrowseSession

    return BrowseSession(settings, name=name, on_transport_event=on_transport_event)


@asynccontextmanager
async def open_access(
    settings: BrokerSettings, *, name: str, on_transport_event: OnTransportEvent
) -> AsyncIterator[FileAccess | BrowseSession]:
    """Open a session, and close it after the block. Raises BrokerUnavailable."""
    session = make_access(settings, name=name, on_transport_event=on_transport_event)
    try:
        await session.open()
        yield session
    finally:
        await session.close()
