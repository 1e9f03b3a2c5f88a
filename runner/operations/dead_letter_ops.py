"""Finds dead letters, sends them back to the queue they failed in, or drops them.

Messages are sent back one at a time: the broker confirms the copy before the dead letter is removed. Whatever happens,
at most one message is in both queues, and none is in neither.

A quorum queue counts each delivery, and drops a message that was delivered too often: RabbitMQ 4 after 20 times by
default. So a message that was delivered often is replaced by a confirmed copy at the end of the queue.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown
from runner.message import UNREADABLE, Address, Envelope
from runner.operations.dead_letters import (
    DeadLetterFilter,
    DeadLetterMessage,
    DeadLetterQueue,
    SelectedQueue,
    parse_dead_letter,
    preserved_copy,
    replay_envelope,
)
from runner.operations.queue_access import Browsed, Browser, QueueAccess
from runner.pipeline.model import Destination
from runner.runtime.rate_limit import RateLimiter

if TYPE_CHECKING:
    from runner.runtime.tracing import Tracer


@dataclass
class Summary:
    """Progress and result. `total` messages were there at the start; `looked` of them were inspected so far."""

    total: int = 0
    looked: int = 0
    matched: int = 0
    moved: int = 0
    stayed: Counter[str] = field(default_factory=Counter)
    """Why matching messages were not moved, and how many."""
    missing: list[str] = field(default_factory=list)
    """Dead-letter queues that do not exist."""
    unseen: int = 0
    """How many were not inspected, because too many in front of them stay in the queue."""
    is_interrupted: bool = False


@dataclass(frozen=True)
class DeadLetterOps:
    """Operations on the dead letters that match the filters, at most `limit`.

    `now` is the wall clock, `stop` ends an operation after the current message, and `on_step` is called after each
    message. Methods raise BrokerUnavailable.
    """

    browser: QueueAccess
    filters: DeadLetterFilter
    limit: int | None
    now: Callable[[], datetime]
    stop: asyncio.Event
    on_step: Callable[[Summary], None] = lambda _: None
    tracer: Tracer | None = None
    """Makes the spans of what is sent back."""

    async def find(self, selected: Sequence[SelectedQueue], on_found: Callable[[DeadLetterMessage], None]) -> Summary:
        """Call `on_found` with each match. No message is removed."""

        async def show(letter: DeadLetterMessage, _: Browsed) -> str:
            on_found(letter)
            return ""

        return await self._for_each_match(selected, show)

    async def drop(
        self, selected: Sequence[SelectedQueue], on_moved: Callable[[DeadLetterMessage], None] = lambda _: None
    ) -> Summary:
        """Delete all matches."""

        async def drop(letter: DeadLetterMessage, message: Browsed) -> str:
            await message.take()
            on_moved(letter)
            return ""

        return await self._for_each_match(selected, drop)

    async def replay(
        self,
        selected: Sequence[SelectedQueue],
        on_moved: Callable[[DeadLetterMessage], None] = lambda _: None,
        per_second: float | None = None,
        *,
        to: Destination | None = None,
        edit: Callable[[DeadLetterMessage], bytes | str] | None = None,
    ) -> Summary:
        """Send all matches back, each to the one queue it failed in, or to `to`.

        `edit` returns a new body, or a sentence why the message has to stay. It runs in a thread, because an editor may
        be open for minutes.
        """
        dlqs = {each.dlq.name: each.dlq for each in selected}
        closed: dict[str, str] = {}
        limiter = RateLimiter(per_second) if per_second else None

        async def send_back(letter: DeadLetterMessage, message: Browsed) -> str:
            if refusal := replay_obstacle(letter, is_redirected=to is not None):
                return refusal
            if to is None and dlqs[letter.queue].subscriber:
                return (
                    f'"{letter.origin}" is a stream, and each of its subscribers would get it: name a queue with --to'
                )
            where = partial(dlqs[letter.queue].address_of, letter.origin or "") if to is None else to.address_of
            if refusal := closed.get(str(where(letter.envelope)), ""):
                return refusal
            body = await asyncio.to_thread(edit, letter) if edit is not None else None
            if isinstance(body, str):
                return body
            if limiter is not None:
                await limiter.wait(self.stop)
            if self.stop.is_set():
                raise ScanStopped
            envelope = replay_envelope(letter, self.now(), is_redirected=to is not None, edited=body)
            refusal = await self._send(where(envelope), envelope, closed)
            if not refusal:
                await message.take()
                on_moved(letter)
            return refusal

        return await self._for_each_match(selected, send_back)

    async def _send(self, address: Address, envelope: Envelope, closed: dict[str, str]) -> str:
        """Publish a message. Return why that is impossible, or an empty string."""
        where = f'exchange "{address.exchange}"' if address.exchange else f'queue "{address.key}"'
        span: AbstractContextManager[None] = (
            nullcontext() if self.tracer is None else self.tracer.replay(str(address), envelope)
        )
        try:
            with span:
                await self.browser.publish(address, envelope)
        except PublishUnknown as error:
            text = f"{error}; one message may be in both queues"
            raise BrokerUnavailable(text, "run this again when the broker is back") from error
        except PublishFailed as failure:
            if failure.reason in ("invalid", "unavailable"):
                return f"it cannot be published: {failure}"
            gone = (
                f'no queue is bound to {where} for "{address.key}"' if address.exchange else f"{where} no longer exists"
            )
            closed[str(address)] = f"{where} is full" if failure.reason == "refused" else gone
            return closed[str(address)]
        return ""

    async def _for_each_match(
        self, selected: Sequence[SelectedQueue], act: Callable[[DeadLetterMessage, Browsed], Awaitable[str]]
    ) -> Summary:
        """Call `act` with all matches; it returns why a message has to stay, or an empty string."""
        summary = Summary()
        try:
            async for scan, filters in self._scans(selected, summary):
                async with aclosing(scan.read()) as letters:
                    async for letter, message in letters:
                        if filters.matches(letter, self.now()):
                            refusal = await act(letter, message)
                            summary.moved += message.is_taken
                            if refusal:
                                summary.stayed[refusal] += 1
                            summary.matched += 1
                        summary.looked += 1
                        self.on_step(summary)
                        if self._is_limit_reached(summary):
                            break
                summary.unseen += 0 if self._is_limit_reached(summary) else scan.unseen
        except ScanStopped:
            summary.is_interrupted = True
        return summary

    async def _scans(
        self, selected: Sequence[SelectedQueue], summary: Summary
    ) -> AsyncIterator[tuple[QueueScan, DeadLetterFilter]]:
        """Yield a scan of each queue that exists, until the limit is reached."""
        scans: list[tuple[QueueScan, DeadLetterFilter]] = []
        for dlq, origin in selected:
            scan = QueueScan(self.browser, dlq, self.stop)
            if not await scan.begin():
                summary.missing.append(dlq.name)
                continue
            summary.total += scan.total
            scans.append((scan, replace(self.filters, origin=origin)))
        for scan, filters in scans:
            if not self._is_limit_reached(summary):
                yield scan, filters

    def _is_limit_reached(self, summary: Summary) -> bool:
        return self.limit is not None and summary.matched >= self.limit


def replay_obstacle(letter: DeadLetterMessage, *, is_redirected: bool = False) -> str:
    """Return why a dead letter cannot be sent back, or to another place; empty if it can."""
    if UNREADABLE in letter.envelope.headers:
        return "it cannot be decoded: it would lose its properties and headers"
    if letter.origin is not None or is_redirected:
        return ""
    if not letter.claimed:
        return "it does not say which queue it failed in"
    return f'it claims to have failed in "{letter.claimed}", which does not dead-letter to this queue'


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
