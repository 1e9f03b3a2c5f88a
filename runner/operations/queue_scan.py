"""Reads through a dead-letter queue once, in order, over the messages that were there at the start.

A quorum queue counts each delivery, and drops a message that was delivered too often: RabbitMQ 4 after 20 times by
default. So a message that was delivered often is replaced by a confirmed copy at the end of the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown
from runner.message import Address
from runner.operations.dead_letters import DeadLetterMessage, DeadLetterQueue, parse_dead_letter, preserved_copy
from runner.operations.queue_access import Browsed, Browser, QueueAccess

MAX_EXTRA_MESSAGES = 10_000
MAX_EXTRA_BYTES = 64 * 1024 * 1024
"""Maximum that is read beyond the end of a scan, only to return messages in order."""

EMPTY_CHECK_S = 0.25
"""Time without a message after which the queue's depth is checked."""

STALLED_S = 10.0
"""Time without a message, although the queue has some, after which the scan fails."""

RABBITMQ_4_DELIVERY_LIMIT = 20
"""RabbitMQ 4's delivery limit of a quorum queue that sets none; beyond it, the message is dropped."""

MAX_DELIVERIES = 10
"""Maximum number of deliveries before a message is replaced by a copy."""


class ScanStopped(Exception):
    """The user asked to stop the scan."""


class QueueScan:
    """One pass over one dead-letter queue.

    `stop` makes it raise ScanStopped between two messages. Close its iterators, so that the messages return.
    """

    def __init__(self, browser: QueueAccess, dlq: DeadLetterQueue, stop: asyncio.Event) -> None:
        self._browser = browser
        self._dlq = dlq
        self._stop = stop
        limit = dlq.delivery_limit
        if limit is None and browser.major_version >= 4:
            limit = RABBITMQ_4_DELIVERY_LIMIT
        self._safe_looks = None if limit is None else min(MAX_DELIVERIES, max(0, limit // 2))
        self.total = 0
        """Number of messages at the start."""
        self.unseen = 0
        """How many of those were not reached."""

    async def begin(self) -> bool:
        """Count the messages; return False if the queue does not exist."""
        depth = await self._browser.depth(self._dlq.name)
        self.total = self.unseen = depth.messages if depth is not None else 0
        return depth is not None

    async def read(self) -> AsyncGenerator[tuple[DeadLetterMessage, Browsed], None]:
        """Yield all messages, each with what can remove it."""
        if not self.total:
            return
        async with self._browser.read(self._dlq.name) as reading:
            current: Browsed | None = None
            looked: Browsed | None = None
            try:
                while self.unseen and (looked := await self._next(reading)) is not None:
                    self.unseen -= 1
                    current = looked
                    yield parse_dead_letter(looked.envelope, self._dlq), looked
                    await self._leave(looked)
                    current = None
            finally:
                if not reading.is_over:
                    if current is not None:
                        await self._leave(current)
                    await self._read_on(reading, looked)

    async def _read_on(self, reading: Browser, looked: Browsed | None) -> None:
        """Read on to the first message that was never delivered before, so that the messages return in order.

        A quorum queue puts returned messages behind those that were returned before.
        """
        unseen, size = min(self.unseen, MAX_EXTRA_MESSAGES), 0
        while unseen and looked is not None and looked.delivery_count and size < MAX_EXTRA_BYTES:
            looked = await reading.next(EMPTY_CHECK_S)
            if looked is not None:
                unseen -= 1
                size += len(looked.envelope.body)
                await self._leave(looked)

    async def _next(self, reading: Browser) -> Browsed | None:
        """Return the next message; None at the end, or if none arrives until one is removed."""
        waited = 0.0
        while True:
            if self._stop.is_set():
                raise ScanStopped
            looked = await reading.next(EMPTY_CHECK_S)
            if looked is not None or reading.is_at_its_end:
                return looked
            depth = await self._browser.depth(self._dlq.name)
            if depth is None or not depth.messages:
                self.unseen = 0  # another consumer took them
                return None
            waited += EMPTY_CHECK_S
            if waited >= STALLED_S:
                text = f'queue "{self._dlq.name}" has {depth.messages} messages but delivers none'
                raise BrokerUnavailable(
                    text,
                    "look for another consumer: it may be exclusive, or the queue may have a single active consumer",
                )

    async def _leave(self, message: Browsed) -> None:
        """Leave a message behind; if it stays and was delivered too often, replace it by a copy."""
        if message.is_taken or self._safe_looks is None or message.delivery_count < self._safe_looks:
            return
        copy = preserved_copy(parse_dead_letter(message.envelope, self._dlq))
        try:
            await self._browser.publish(Address("", self._dlq.name), copy)
        except (PublishFailed, PublishUnknown) as error:
            text = f'a message of "{self._dlq.name}" was read so often that the queue may drop it: {error}'
            raise BrokerUnavailable(text, "make room for a copy before you read the queue again") from error
        await message.take()
