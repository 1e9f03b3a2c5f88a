"""Spaces out work in time: at most so many starts a second, evenly, without bursts."""

from __future__ import annotations

import asyncio


class RateLimiter:
    """Hands out moments to start, `1 / per_second` seconds apart, in the order in which they are asked for.

    One process's limit: every process that runs the pipeline has its own.
    """

    def __init__(self, per_second: float) -> None:
        self._interval_s = 1.0 / per_second
        self._next = 0.0

    async def wait(self) -> None:
        """Return when it is the caller's turn. A caller that is cancelled leaves its moment unused."""
        now = asyncio.get_running_loop().time()
        turn = max(now, self._next)
        self._next = turn + self._interval_s
        if turn > now:
            await asyncio.sleep(turn - now)
