"""Who may publish now: so many at once, first come, first served, and never two messages with one id."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque


class InFlightLimit:
    """So many publications may be in flight. Like a semaphore, but taken without a coroutine where one is free."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._entering = 0
        """How many were let in and do not know it yet: nobody may overtake them."""
        self.count = 0

    @property
    def is_full(self) -> bool:
        """Whether who wants to publish has to wait, perhaps only because others wait already."""
        return self.count >= self._limit or self._entering > 0 or bool(self._waiting)

    async def acquire(self) -> None:
        """Take a slot; `release` it back."""
        if not self.is_full:
            self.count += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.count -= 1  # it was ours already
            raise
        finally:
            if waiter.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(waiter)
            else:
                self._entering -= 1
            self._admit()

    def release(self) -> None:
        """Give a slot back: to who has waited longest."""
        self.count -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.count < self._limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self.count += 1
                self._entering += 1


class InFlightIds:
    """Ids of messages in flight. aiormq, and the confirms of ours, know a returned message by its id alone."""

    def __init__(self) -> None:
        self._in_flight: dict[str, asyncio.Future[None] | None] = {}

    def is_taken(self, message_id: str | None) -> bool:
        """Whether a message with this id is in flight."""
        return message_id in self._in_flight

    def add(self, message_id: str | None) -> None:
        """Note that a message is in flight, where no other with its id is."""
        if message_id is not None:
            self._in_flight[message_id] = None

    async def acquire(self, message_id: str | None) -> None:
        """Note it, when no other with its id is in flight any more."""
        while message_id is not None and message_id in self._in_flight:
            other = self._in_flight[message_id]
            if other is None:
                other = self._in_flight[message_id] = asyncio.get_running_loop().create_future()
            await asyncio.shield(other)
        self.add(message_id)

    def release(self, message_id: str | None) -> None:
        """Note that it is in flight no more."""
        if message_id is not None and (waited := self._in_flight.pop(message_id)) is not None:
            waited.set_result(None)
