"""Engine: where publishers wait while a queue is full: back-pressure, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class CapacityWaiters:
    """The entrance of one queue. While there is a crowd, waiting or about to enter, who comes now waits as well."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._entering = 0

    async def wait(self, is_moving: Callable[[], bool], patience_s: float, closed: asyncio.Future[None]) -> bool:
        """Wait for one's turn; True when one may enter, False when one may not.

        One may not once `closed` is done, or when nothing has moved for as long as the patience lasts. Cancelling
        gives the turn to the next.
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
        """Call as many as there is room for, less those who were called and have not come yet."""
        while self._waiting and self._entering < room:
            self._waiting.popleft().set_result(None)
            self._entering += 1
