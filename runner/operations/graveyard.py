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
from runner.operations.dead_letters import Choice, DeadLetter, Filters, sent_back
from runner.operations.rabbitmq.queue_browser import BrowseSession
from runner.operations.walking import Grip, Stopped, Walk


@dataclass
class Tally:
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
class Digger:
    """Works on the dead letters that fit, at most `limit`.

    `now` is the wall clock, `stop` ends it after the message at hand, `on_step` is told of each message it comes to.
    Methods raise BrokerUnavailable.
    """

    browser: BrowseSession
    filters: Filters
    limit: int | None
    now: Callable[[], datetime]
    stop: asyncio.Event
    on_step: Callable[[Tally], None] = lambda _: None

    async def find(self, choices: Sequence[Choice], meet: Callable[[DeadLetter], None]) -> Tally:
        """Show all that fit to `meet`, and leave everything where it is."""
        tally = Tally()
        try:
            async for walk, filters in self._walks(choices, tally):
                async with aclosing(walk.look()) as letters:
                    async for letter in letters:
                        if filters.fit(letter, self.now()):
                            tally.matched += 1
                            meet(letter)
                        self._note(tally)
                        if self._is_enough(tally):
                            break
                tally.unseen += 0 if self._is_enough(tally) else walk.unseen
        except Stopped:
            tally.is_interrupted = True
        return tally

    async def drop(self, choices: Sequence[Choice], met: Callable[[DeadLetter], None]) -> Tally:
        """Remove all that fit, for good."""

        async def drop(letter: DeadLetter, grip: Grip) -> str:
            await grip.take()
            met(letter)
            return ""

        return await self._move(choices, drop)

    async def replay(
        self, choices: Sequence[Choice], met: Callable[[DeadLetter], None], per_second: float | None = None
    ) -> Tally:
        """Send all that fit back, each to the one queue that it failed in."""
        closed: dict[str, str] = {}
        pace = _Pace(per_second, self.stop)

        async def send_back(letter: DeadLetter, grip: Grip) -> str:
            refusal = why_not(letter) or closed.get(letter.origin or "", "")
            if refusal:
                return refusal
            await pace.wait()
            refusal = await self._send(letter, closed)
            if not refusal:
                await grip.take()
                met(letter)
            return refusal

        return await self._move(choices, send_back)

    async def _send(self, letter: DeadLetter, closed: dict[str, str]) -> str:
        """Publish to the queue it came from, and return why that is not possible, if it is not."""
        queue = letter.origin or ""
        try:
            await self.browser.publish(Address("", queue), sent_back(letter, self.now()))
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

    async def _move(self, choices: Sequence[Choice], act: Callable[[DeadLetter, Grip], Awaitable[str]]) -> Tally:
        """Act on all that fit; `act` returns why a message has to stay."""
        tally = Tally()
        try:
            async for walk, filters in self._walks(choices, tally):
                async with aclosing(walk.take()) as letters:
                    async for letter, grip in letters:
                        if filters.fit(letter, self.now()):
                            refusal = await act(letter, grip)
                            tally.moved += grip.is_taken
                            if refusal:
                                tally.stayed[refusal] += 1
                            tally.matched += 1
                        self._note(tally)
                        if self._is_enough(tally):
                            break
                tally.unseen += 0 if self._is_enough(tally) else walk.unseen
        except Stopped:
            tally.is_interrupted = True
        return tally

    async def _walks(self, choices: Sequence[Choice], tally: Tally) -> AsyncIterator[tuple[Walk, Filters]]:
        """Yield a walk along each queue that exists, until there is enough."""
        walks: list[tuple[Walk, Filters]] = []
        for grave, origin in choices:
            walk = Walk(self.browser, grave, self.stop)
            if not await walk.begin():
                tally.missing.append(grave.name)
                continue
            tally.total += walk.total
            walks.append((walk, replace(self.filters, origin=origin)))
        for walk, filters in walks:
            if not self._is_enough(tally):
                yield walk, filters

    def _note(self, tally: Tally) -> None:
        tally.looked += 1
        self.on_step(tally)

    def _is_enough(self, tally: Tally) -> bool:
        return self.limit is not None and tally.matched >= self.limit


def why_not(letter: DeadLetter) -> str:
    """Return why a dead letter cannot be sent back, nothing where it can."""
    if UNREADABLE in letter.envelope.headers:
        return "it cannot be decoded: it would be without its properties and headers"
    if letter.origin is not None:
        return ""
    if not letter.claimed:
        return "it does not say which queue it failed in"
    return f'it says that it failed in "{letter.claimed}", whose dead letters do not come here'


class _Pace:
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
            raise Stopped
        self._next_at = max(self._next_at, loop.time()) + self._gap_s
