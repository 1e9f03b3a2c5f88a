"""Finds dead letters, sends them back to where they failed, or drops them.

A message that is sent back is confirmed where it goes before it is taken, one at a time: so whatever happens, at most
one is in both queues, and none in neither.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime

from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown
from runner.message import UNREADABLE, Address
from runner.operations.dead_letters import DeadLetterFilter, DeadLetterMessage, SelectedQueue, replay_envelope
from runner.operations.queue_access import QueueAccess
from runner.operations.queue_scan import MessageHandle, QueueScan, ScanStopped


@dataclass
class Summary:
    """How far it has come. `total` is what was there at the start, `looked` how many of those were come to."""

    total: int = 0
    looked: int = 0
    matched: int = 0
    moved: int = 0
    stayed: Counter[str] = field(default_factory=Counter)
    """Why messages that fit were not moved, and how many."""
    missing: list[str] = field(default_factory=list)
    """Dead-letter queues that do not exist."""
    unseen: int = 0
    """How many were not looked at, because too many in front of them are to stay."""
    is_interrupted: bool = False


@dataclass(frozen=True)
class DeadLetterOps:
    """Works on the dead letters that fit, at most `limit`.

    `now` is the wall clock, `stop` ends it after the message at hand, `on_step` is told of each message it comes to.
    Methods raise BrokerUnavailable.
    """

    browser: QueueAccess
    filters: DeadLetterFilter
    limit: int | None
    now: Callable[[], datetime]
    stop: asyncio.Event
    on_step: Callable[[Summary], None] = lambda _: None

    async def find(self, choices: Sequence[SelectedQueue], on_found: Callable[[DeadLetterMessage], None]) -> Summary:
        """Show all that fit to `meet`, and leave everything where it is."""
        summary = Summary()
        try:
            async for scan, filters in self._scans(choices, summary):
                async with aclosing(scan.look()) as letters:
                    async for letter in letters:
                        if filters.matches(letter, self.now()):
                            summary.matched += 1
                            on_found(letter)
                        self._note(summary)
                        if self._is_enough(summary):
                            break
                summary.unseen += 0 if self._is_enough(summary) else scan.unseen
        except ScanStopped:
            summary.is_interrupted = True
        return summary

    async def drop(self, choices: Sequence[SelectedQueue], on_moved: Callable[[DeadLetterMessage], None]) -> Summary:
        """Remove all that fit, for good."""

        async def drop(letter: DeadLetterMessage, handle: MessageHandle) -> str:
            await handle.take()
            on_moved(letter)
            return ""

        return await self._move(choices, drop)

    async def replay(
        self,
        choices: Sequence[SelectedQueue],
        on_moved: Callable[[DeadLetterMessage], None],
        per_second: float | None = None,
    ) -> Summary:
        """Send all that fit back, each to the one queue that it failed in."""
        closed: dict[str, str] = {}
        pace = _RateLimit(per_second, self.stop)

        async def send_back(letter: DeadLetterMessage, handle: MessageHandle) -> str:
            refusal = replay_obstacle(letter) or closed.get(letter.origin or "", "")
            if refusal:
                return refusal
            await pace.wait()
            refusal = await self._send(letter, closed)
            if not refusal:
                await handle.take()
                on_moved(letter)
            return refusal

        return await self._move(choices, send_back)

    async def _send(self, letter: DeadLetterMessage, closed: dict[str, str]) -> str:
        """Publish to the queue it came from, and return why that is not possible, if it is not."""
        queue = letter.origin or ""
        try:
            await self.browser.publish(Address("", queue), replay_envelope(letter, self.now()))
        except PublishUnknown as error:
            text = f"{error}; one message may be both sent back and still there"
            raise BrokerUnavailable(text, "run it again when the broker is back") from error
        except PublishFailed as failure:
            if failure.reason in ("invalid", "unavailable"):
                return f"it cannot be published: {failure}"
            closed[queue] = f'queue "{queue}" does not exist any more'
            if failure.reason == "refused":
                closed[queue] = f'queue "{queue}" is full'
            return closed[queue]
        return ""

    async def _move(
        self, choices: Sequence[SelectedQueue], act: Callable[[DeadLetterMessage, MessageHandle], Awaitable[str]]
    ) -> Summary:
        """Act on all that fit; `act` returns why a message has to stay."""
        summary = Summary()
        try:
            async for scan, filters in self._scans(choices, summary):
                async with aclosing(scan.take()) as letters:
                    async for letter, handle in letters:
                        if filters.matches(letter, self.now()):
                            refusal = await act(letter, handle)
                            summary.moved += handle.is_taken
                            if refusal:
                                summary.stayed[refusal] += 1
                            summary.matched += 1
                        self._note(summary)
                        if self._is_enough(summary):
                            break
                summary.unseen += 0 if self._is_enough(summary) else scan.unseen
        except ScanStopped:
            summary.is_interrupted = True
        return summary

    async def _scans(
        self, choices: Sequence[SelectedQueue], summary: Summary
    ) -> AsyncIterator[tuple[QueueScan, DeadLetterFilter]]:
        """Yield a walk along each queue that exists, until there is enough."""
        scans: list[tuple[QueueScan, DeadLetterFilter]] = []
        for dlq, origin in choices:
            scan = QueueScan(self.browser, dlq, self.stop)
            if not await scan.begin():
                summary.missing.append(dlq.name)
                continue
            summary.total += scan.total
            scans.append((scan, replace(self.filters, origin=origin)))
        for scan, filters in scans:
            if not self._is_enough(summary):
                yield scan, filters

    def _note(self, summary: Summary) -> None:
        summary.looked += 1
        self.on_step(summary)

    def _is_enough(self, summary: Summary) -> bool:
        return self.limit is not None and summary.matched >= self.limit


def replay_obstacle(letter: DeadLetterMessage) -> str:
    """Return why a dead letter cannot be sent back, nothing where it can."""
    if UNREADABLE in letter.envelope.headers:
        return "it cannot be decoded: it would be without its properties and headers"
    if letter.origin is not None:
        return ""
    if not letter.claimed:
        return "it does not say which queue it failed in"
    return f'it says that it failed in "{letter.claimed}", whose dead letters do not come here'


class _RateLimit:
    """At most so many a second, evenly; waiting ends with Stopped when the user wants to stop."""

    def __init__(self, per_second: float | None, stop: asyncio.Event) -> None:
        self._gap_s = 1 / per_second if per_second else 0.0
        self._stop = stop
        self._next_at = 0.0

    async def wait(self) -> None:
        """Return when the next one may go."""
        loop = asyncio.get_running_loop()
        pause = self._next_at - loop.time()
        if pause > 0:
            await asyncio.wait([asyncio.ensure_future(self._stop.wait())], timeout=pause)
        if self._stop.is_set():
            raise ScanStopped
        self._next_at = max(self._next_at, loop.time()) + self._gap_s
