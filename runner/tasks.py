"""Vocabulary: ending tasks for good."""

from __future__ import annotations

import asyncio
from typing import Any


async def end(*tasks: asyncio.Future[Any] | None, again_s: float = 1.0) -> None:
    """Cancel tasks until they have ended, again after so many seconds: a cancellation can be swallowed.

    aiormq may raise an error of its own instead, and `asyncio.wait_for`, before Python 3.12, drops one that comes
    together with the result.
    """
    waiting = {task for task in tasks if task is not None}
    while running := {task for task in waiting if not task.done()}:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=again_s)
    for task in waiting:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as forgotten
