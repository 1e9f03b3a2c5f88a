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
from functools import partial
from typing import TYPE_CHECKING

from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown
from runner.message import UNREADABLE, Address, Envelope
from runner.operations.dead_letters import DeadLetterFilter, DeadLetterMessage, SelectedQueue, replay_envelope
from runner.operations.queue_access import Browsed, QueueAccess
from runner.operations.queue_scan import QueueScan, ScanStopped
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

    async def drop(self, selected: Sequence[SelectedQueue], on_moved: Callable[[DeadLetterMessage], None]) -> Summary:
        """Delete all matches."""

        async def drop(letter: DeadLetterMessage, message: Browsed) -> str:
            await message.take()
            on_moved(letter)
            return ""

        return await self._for_each_match(selected, drop)

    async def replay(
        self,
        selected: Sequence[SelectedQueue],
        on_moved: Callable[[DeadLetterMessage], None],
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


def replay_obstacle(letter: DeadLetterMessage, *, is_redirected: bool = False) -> str:
    """Return why a dead letter cannot be sent back, or to another place; empty if it can."""
    if UNREADABLE in letter.envelope.headers:
        return "it cannot be decoded: it would lose its properties and headers"
    if letter.origin is not None or is_redirected:
        return ""
    if not letter.claimed:
        return "it does not say which queue it failed in"
    return f'it claims to have failed in "{letter.claimed}", which does not dead-letter to this queue'
