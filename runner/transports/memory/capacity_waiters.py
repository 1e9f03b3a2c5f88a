"""Engine: the publishers that wait while a queue is full: back-pressure, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class CapacityWaiters:
    """The publishers that wait for room in one queue. `count` includes those that were admitted and have not run."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._entering = 0

    async def wait(self, is_moving: Callable[[], bool], patience_s: float, closed: asyncio.Future[None]) -> bool:
        """Wait for room; return whether there is room now.

        False when `closed` is done, or when `is_moving` is false after `patience_s`. When the caller is cancelled, its
        turn passes to the next publisher.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self.count += 1
        try:
            while not waiter.done() and not closed.done():
                done, _ = await asyncio.wait((waiter, closed), timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                if not done and not is_moving():
                    break
        finally:
            self.count -= 1
            if waiter.done():
                self._entering -= 1
            else:
                self._waiting.remove(waiter)
        return waiter.done() and not closed.done()

    def admit(self, room: int) -> None:
        """Admit as many as there is room for, less those that were admitted and have not run since."""
        while self._waiting and self._entering < room:
            self._waiting.popleft().set_result(None)
            self._entering += 1
