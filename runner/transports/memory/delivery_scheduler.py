"""Engine: when things happen in the broker: queues that have something to hand out, once in each turn of the loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import Protocol


class Schedulable(Protocol):
    """Something that has work for the next turn of the loop."""

    is_scheduled: bool

    def run_once(self) -> bool:
        """Do a bounded piece of work; return whether there is more to do."""
        ...


class DeliveryScheduler:
    """One scheduled call for all queues, instead of a task for each message.

    Everything runs in the context of whoever connected first, not of whoever happened to publish: tasks that feeds
    start must not inherit a publisher's log context.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.Context()
        self._scheduled: deque[Schedulable] = deque()
        self._call: asyncio.Handle | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a loop to run on."""
        return self._loop is not None

    def start(self) -> None:
        """Run on the current loop from now on."""
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()

    def stop(self) -> None:
        """Do nothing any more, until started again."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        for queue in self._scheduled:
            queue.is_scheduled = False
        self._scheduled.clear()
        self._loop = None

    def now(self) -> float:
        """Return the loop's time; 0 while stopped."""
        return self._loop.time() if self._loop is not None else 0.0

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle | None:
        """Schedule a call; None while stopped."""
        return self._loop.call_at(when, callback, context=self._context) if self._loop is not None else None

    def schedule(self, queue: Schedulable) -> None:
        """Let a queue work in the next turn of the loop. Not to be called for one that is awake already."""
        if self._loop is None:
            return
        queue.is_scheduled = True
        self._scheduled.append(queue)
        if self._call is None:
            self._call = self._loop.call_soon(self._run_tick, context=self._context)

    def _run_tick(self) -> None:
        """Let each queue that was awake work once; who has more to do comes again in the next turn.

        A feed's callback that raises ends this turn, is reported by the loop, and stops nobody: the rest comes next.
        """
        self._call = None
        for _ in range(len(self._scheduled)):
            if not self._scheduled:
                break
            queue = self._scheduled.popleft()
            has_more = True
            try:
                has_more = queue.run_once()
            finally:
                queue.is_scheduled = False
                if has_more:
                    self.schedule(queue)
