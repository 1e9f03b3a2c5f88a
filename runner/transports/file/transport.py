"""Engine: one session with a broker in a file, as a `Transport`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from runner.errors import BrokerUnavailable, PublishUnknown
from runner.message import Address, Envelope
from runner.pipeline.topology import Topology
from runner.transports.base import (
    Capabilities,
    DeclareResult,
    OnDelivery,
    OnPublished,
    OnTransportEvent,
    PublishStarted,
    SubscriptionOptions,
)
from runner.transports.file.broker import POLL_S, FileBroker
from runner.transports.file.queue import FileQueue, TemporaryQueue
from runner.transports.memory.subscription import MemorySubscription
from runner.transports.memory.transport import MemoryTransport
from runner.transports.pauses import Pause

BLOCKED_S = 0.05
"""How often a publisher looks whether a full disk takes messages again."""


class FileTransport(MemoryTransport):
    """A session with a broker in a file. Publications are confirmed when they are in the file."""

    def __init__(self, broker: FileBroker, *, on_transport_event: OnTransportEvent | None = None) -> None:
        super().__init__(broker=broker, on_transport_event=on_transport_event)
        self.file = broker
        self._answering: asyncio.Task[None] | None = None

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("file", is_persistent=True)

    @property
    def unready_reasons(self) -> Sequence[str]:
        return (str(self.file.failure),) if self.file.failure else super().unready_reasons

    async def connect(self) -> str:
        """See `Transport.connect`. Raises BrokerUnavailable where the file cannot be used, or belongs to another."""
        if not self._is_open:
            self.file.enter(self, self._on_event)
            self._open()
        return "broker in a file"

    async def declare(self, topology: Topology) -> DeclareResult:
        result = await super().declare(topology)
        await self.written()
        return result

    async def publish(self, address: Address, envelope: Envelope, *, is_answer: bool = False) -> None:
        """See `Transport.publish`. Waits until the message is in the file, also while the disk is full."""
        self._check()
        while self.file.store.is_blocked and self._is_open:
            await asyncio.sleep(BLOCKED_S)
            self._check()
        await super().publish(address, envelope, is_answer=is_answer)
        await self.file.store.written()

    def publish_nowait(self, address: Address, envelope: Envelope, on_published: OnPublished) -> PublishStarted:
        if not self._is_open or self.file.store.is_blocked or self.file.failure is not None:
            return "busy"
        started = super().publish_nowait(address, envelope, on_published)
        if started != "confirmed":
            return started
        return "started" if self.file.store.call_when_written(on_published) else "confirmed"

    async def subscribe(self, options: SubscriptionOptions, on_delivery: OnDelivery) -> MemorySubscription:
        """See `Transport.subscribe`. First it is written down how many messages it may hold, should it be killed."""
        queue = self.file.queue(options.queue)
        if isinstance(queue, FileQueue):
            queue.note_consumers(options.prefetch)
            await self.written()
        return await super().subscribe(options, on_delivery)

    async def set_pause(self, pipeline: str, subscriber: str, pause: Pause | None) -> None:
        """See `Transport.set_pause`. The pause is in the file."""
        await super().set_pause(pipeline, subscriber, pause)
        await self.written()

    async def _open_answer_queue(self, name: str) -> None:
        if self.file.is_owner:
            await super()._open_answer_queue(name)
        else:
            queue = await self.file.open_temporary(name, (), self)
            self._answering = asyncio.create_task(self._read_answers(queue))

    async def _read_answers(self, queue: TemporaryQueue) -> None:
        while True:
            for message in queue.take():
                self._answers.take(message.envelope)
            await asyncio.sleep(POLL_S)

    async def _leave(self) -> None:
        if self._answering is not None:
            self._answering.cancel()
        await self.file.exit(self)

    async def written(self) -> None:
        """Wait until all changes so far are in the file. Raises BrokerUnavailable."""
        try:
            await self.file.store.written()
        except PublishUnknown as error:
            raise self.file.failure or BrokerUnavailable(str(error)) from error

    def _check(self) -> None:
        if self.file.failure is not None and not self.file.is_owner:
            raise self.file.failure  # nothing stops this process, and trying again does not help
        if self.file.failure is not None:
            raise PublishUnknown(str(self.file.failure), self.file.failure.hint)
