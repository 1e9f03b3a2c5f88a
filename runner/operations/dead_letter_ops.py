"""Finds dead letters, sends them back to the queue they failed in, or drops them.

Messages are sent back one at a time: the broker confirms the copy before the dead letter is removed. Whatever happens,
at most one message is in both queues, and none is in neither.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown
from runner.message import UNREADABLE, Address
from runner.operations.dead_letters import DeadLetterFilter, DeadLetterMessage, SelectedQueue, replay_envelope
from runner.operations.queue_access import QueueAccess
from runner.operations.queue_scan import MessageHandle, QueueScan, ScanStopped
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

        async def show(letter: DeadLetterMessage, _: MessageHandle) -> str:
            on_found(letter)
            return ""

        return await self._for_each_match(selected, show)

    async def drop(self, selected: Sequence[SelectedQueue], on_moved: Callable[[DeadLetterMessage], None]) -> Summary:
        """Delete all matches."""

        async def drop(letter: DeadLetterMessage, handle: MessageHandle) -> str:
            await handle.take()
            on_moved(letter)
            return ""

        return await self._for_each_match(selected, drop)

    async def replay(
        self,
        selected: Sequence[SelectedQueue],
        on_moved: Callable[[DeadLetterMessage], None],
        per_second: float | None = None,
    ) -> Summary:
        """Send all matches back, each to the one queue it failed in."""
        closed: dict[str, str] = {}
        limiter = RateLimiter(per_second) if per_second else None

        async def send_back(letter: DeadLetterMessage, handle: MessageHandle) -> str:
            refusal = replay_obstacle(letter) or closed.get(letter.origin or "", "")
            if refusal:
                return refusal
            if limiter is not None:
                await limiter.wait(self.stop)
            if self.stop.is_set():
                raise ScanStopped
            refusal = await self._send(letter, closed)
            if not refusal:
                await handle.take()
                on_moved(letter)
            return refusal

        return await self._for_each_match(selected, send_back)

    async def _send(self, letter: DeadLetterMessage, closed: dict[str, str]) -> str:
        """Publish to the queue it failed in. Return why that is impossible, or an empty string."""
        queue = letter.origin or ""
        span: AbstractContextManager[None] = (
            nullcontext() if self.tracer is None else self.tracer.replay(queue, letter.envelope)
        )
        try:
            with span:
                await self.browser.publish(Address("", queue), replay_envelope(letter, self.now()))
        except PublishUnknown as error:
            text = f"{error}; one message may be in both queues"
            raise BrokerUnavailable(text, "run this again when the broker is back") from error
        except PublishFailed as failure:
            if failure.reason in ("invalid", "unavailable"):
                return f"it cannot be published: {failure}"
            closed[queue] = f'queue "{queue}" no longer exists'
            if failure.reason == "refused":
                closed[queue] = f'queue "{queue}" is full'
            return closed[queue]
        return ""

    async def _for_each_match(
        self, selected: Sequence[SelectedQueue], act: Callable[[DeadLetterMessage, MessageHandle], Awaitable[str]]
    ) -> Summary:
        """Call `act` with all matches; it returns why a message has to stay, or an empty string."""
        summary = Summary()
        try:
            async for scan, filters in self._scans(selected, summary):
                async with aclosing(scan.read()) as letters:
                    async for letter, handle in letters:
                        if filters.matches(letter, self.now()):
                            refusal = await act(letter, handle)
                            summary.moved += handle.is_taken
                            if refusal:
                                summary.stayed[refusal] += 1
                            summary.matched += 1
                        self._note(summary)
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

    def _note(self, summary: Summary) -> None:
        summary.looked += 1
        self.on_step(summary)

    def _is_limit_reached(self, summary: Summary) -> bool:
        return self.limit is not None and summary.matched >= self.limit


def replay_obstacle(letter: DeadLetterMessage) -> str:
    """Return why a dead letter cannot be sent back; empty if it can."""
    if UNREADABLE in letter.envelope.headers:
        return "it cannot be decoded: it would lose its properties and headers"
    if letter.origin is not None:
        return ""
    if not letter.claimed:
        return "it does not say which queue it failed in"
    return f'it claims to have failed in "{letter.claimed}", which does not dead-letter to this queue'
