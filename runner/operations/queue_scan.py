"""Walks along a dead-letter queue: over what was there at the start, once, in order; what is not taken stays.

A quorum queue counts every look, and gives a message up when it has been looked at too often: RabbitMQ 4 after 20 times
where nothing else is said. So a message that has been looked at often is replaced by a confirmed copy, at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown
from runner.message import Address
from runner.operations.dead_letters import DeadLetterMessage, DeadLetterQueue, parse_dead_letter, preserved_copy
from runner.operations.queue_access import Browsed, Browser, QueueAccess

MAX_EXTRA_MESSAGES = 10_000
MAX_EXTRA_BYTES = 64 * 1024 * 1024
"""How much is read at the end for the sake of the order alone."""

EMPTY_CHECK_S = 0.25
"""When nothing has come for so long, we ask whether there is anything left."""

STALLED_S = 10.0
"""When nothing has come for so long, though there is something left, somebody else has the queue to himself."""

RABBITMQ_4_DELIVERY_LIMIT = 20
"""The delivery limit that RabbitMQ 4 gives a quorum queue without one: then it drops the message."""

MAX_DELIVERIES = 10
"""After so many looks at the latest a message is replaced by its copy."""


class ScanStopped(Exception):
    """The user asked to stop."""


class MessageHandle:
    """What can be done with the message that a walk has come to."""

    def __init__(self, reading: Browser, looked: Browsed) -> None:
        self._reading = reading
        self._looked = looked
        self.is_taken = False

    async def take(self) -> None:
        """Remove it from its queue for good."""
        await self._reading.take(self._looked)
        self.is_taken = True


class QueueScan:
    """One walk along one dead-letter queue.

    `stop` ends it with Stopped between two messages. Close its iterators: then everything has gone back.
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
        """How many messages there were at the start."""
        self.unseen = 0
        """How many of those have not been come to."""

    async def begin(self) -> bool:
        """Find out how many there are; False where there is no such queue."""
        depth = await self._browser.depth(self._dlq.name)
        self.total = self.unseen = depth.messages if depth is not None else 0
        return depth is not None

    async def look(self) -> AsyncGenerator[DeadLetterMessage, None]:
        """Yield all, and take none."""
        async with aclosing(self.take()) as found:
            async for letter, _ in found:
                yield letter

    async def take(self) -> AsyncGenerator[tuple[DeadLetterMessage, MessageHandle], None]:
        """Yield all, with what can be done to each."""
        if not self.total:
            return
        async with self._browser.read(self._dlq.name) as reading:
            current: tuple[Browsed, DeadLetterMessage, MessageHandle] | None = None
            looked: Browsed | None = None
            try:
                while self.unseen and (looked := await self._next(reading)) is not None:
                    self.unseen -= 1
                    letter, handle = parse_dead_letter(looked.envelope, self._dlq), MessageHandle(reading, looked)
                    current = looked, letter, handle
                    yield letter, handle
                    await self._leave(*current)
                    current = None
            finally:
                if not reading.is_over:
                    if current is not None:
                        await self._leave(*current)
                    await self._read_on(reading, looked)

    async def _read_on(self, reading: Browser, looked: Browsed | None) -> None:
        """Read up to the first message that nobody has looked at before: so all that goes back, goes back in order."""
        unseen, size = min(self.unseen, MAX_EXTRA_MESSAGES), 0
        while unseen and looked is not None and looked.delivery_count and size < MAX_EXTRA_BYTES:
            looked = await reading.next(EMPTY_CHECK_S)
            if looked is not None:
                unseen -= 1
                size += len(looked.envelope.body)
                await self._leave(looked, parse_dead_letter(looked.envelope, self._dlq), MessageHandle(reading, looked))

    async def _next(self, reading: Browser) -> Browsed | None:
        """Return the next message, None where there is none any more or nothing comes before something is taken."""
        waited = 0.0
        while True:
            if self._stop.is_set():
                raise ScanStopped
            looked = await reading.next(EMPTY_CHECK_S)
            if looked is not None or reading.is_at_its_end:
                return looked
            depth = await self._browser.depth(self._dlq.name)
            if depth is None or not depth.messages:
                self.unseen = 0  # somebody else has taken them
                return None
            waited += EMPTY_CHECK_S
            if waited >= STALLED_S:
                text = f'queue "{self._dlq.name}" has {depth.messages} messages and hands out none'
                raise BrokerUnavailable(text, "is there a consumer that has it to itself?")

    async def _leave(self, looked: Browsed, letter: DeadLetterMessage, handle: MessageHandle) -> None:
        """Go on from a message: it was taken, or it stays, or it has been looked at too often to stay as it is."""
        if not handle.is_taken and self._needs_copy(looked):
            await self._replace_by_copy(letter, handle)

    def _needs_copy(self, looked: Browsed) -> bool:
        return self._safe_looks is not None and looked.delivery_count >= self._safe_looks

    async def _replace_by_copy(self, letter: DeadLetterMessage, handle: MessageHandle) -> None:
        try:
            await self._browser.publish(Address("", self._dlq.name), preserved_copy(letter))
        except (PublishFailed, PublishUnknown) as error:
            text = f'a message of "{self._dlq.name}" was looked at so often that the queue may drop it: {error}'
            raise BrokerUnavailable(text, "look no further before there is room for a copy of it") from error
        await handle.take()
