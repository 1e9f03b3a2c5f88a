"""A rate limiter: spaces starts evenly, without bursts."""

from __future__ import annotations

import asyncio

from runner.tasks import wait_set


class RateLimiter:
    """Grants starts `1 / per_second` seconds apart, in the order of the callers.

    The limit holds for this process: every process that runs the pipeline has its own.
    """

    def __init__(self, per_second: float) -> None:
        self._interval_s = 1.0 / per_second
        self._next = 0.0

    async def wait(self, stop: asyncio.Event | None = None) -> None:
        """Wait for the caller's turn, or until `stop` is set. A caller that is cancelled leaves its turn unused."""
        now = asyncio.get_running_loop().time()
        turn = max(now, self._next)
        self._next = turn + self._interval_s
        if turn <= now:
            return
        if stop is None:
            await asyncio.sleep(turn - now)
        else:
            await wait_set(stop, turn - now)
