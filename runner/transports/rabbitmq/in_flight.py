"""Limits the publications in flight, in the order in which they were asked for, and never two with one message id."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque


class InFlight:
    """The publications in flight: at most `limit`, each with another message id.

    Like a semaphore, but taken without a coroutine where there is room (`try_acquire`). The message ids matter because
    the broker returns an unroutable message without saying which publication it was: only its id tells.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._entering = 0
        """How many were admitted whose tasks have not run since. No other may overtake them."""
        self._ids: dict[str, asyncio.Future[None] | None] = {}
        """The ids in flight, each with what others with the same id wait for."""
        self.count = 0

    @property
    def is_full(self) -> bool:
        """Whether a publication has to wait, perhaps only because others wait already."""
        return self.count >= self._limit or self._entering > 0 or bool(self._waiting)

    def try_acquire(self, message_id: str | None) -> bool:
        """Count a publication if it need not wait."""
        if self.count >= self._limit or self._entering or self._waiting or message_id in self._ids:
            return False
        self.count += 1
        if message_id is not None:
            self._ids[message_id] = None
        return True

    async def acquire(self, message_id: str | None) -> None:
        """Count a publication as soon as there is room and no other one with its id."""
        if not self.try_acquire(message_id):
            await self._acquire_slot()
            try:
                await self._acquire_id(message_id)
            except BaseException:
                self._release_slot()
                raise

    def release(self, message_id: str | None) -> None:
        """Note the end of a publication. The one that has waited longest may begin."""
        if message_id is not None and (waited := self._ids.pop(message_id)) is not None:
            waited.set_result(None)
        self._release_slot()

    async def _acquire_slot(self) -> None:
        if not self.is_full:
            self.count += 1
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(admitted)
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self.count -= 1  # the slot was ours already
            raise
        finally:
            if admitted.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(admitted)
            else:
                self._entering -= 1
            self._admit()

    async def _acquire_id(self, message_id: str | None) -> None:
        while message_id is not None and message_id in self._ids:
            other = self._ids[message_id]
            if other is None:
                other = self._ids[message_id] = asyncio.get_running_loop().create_future()
            await asyncio.shield(other)
        if message_id is not None:
            self._ids[message_id] = None

    def _release_slot(self) -> None:
        self.count -= 1
        if self._waiting:
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self.count < self._limit:
            admitted = self._waiting.popleft()
            if not admitted.done():
                admitted.set_result(None)
                self.count += 1
                self._entering += 1
