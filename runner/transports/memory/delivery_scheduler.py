"""Engine: runs the queues that have messages to deliver, once in each iteration of the event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import Protocol


class Schedulable(Protocol):
    """An object with work for the next iteration of the loop."""

    is_scheduled: bool

    def run_once(self) -> bool:
        """Do a bounded amount of work; return whether there is more."""


class DeliveryScheduler:
    """One scheduled call for all queues, instead of a task for each message.

    It runs in the context of the session that connected first, not in that of a publisher: tasks that a subscriber
    starts must not inherit a publisher's log context.
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
        """Start on the current loop."""
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()

    def stop(self) -> None:
        """Stop until the next `start`."""
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
        """Run a queue in the next iteration of the loop. Do not call it for one that is scheduled already."""
        if self._loop is None:
            return
        queue.is_scheduled = True
        self._scheduled.append(queue)
        if self._call is None:
            self._call = self._loop.call_soon(self._run_tick, context=self._context)

    def _run_tick(self) -> None:
        """Run each scheduled queue once. Those with more work run again in the next iteration.

        When a subscriber's callback raises, the loop reports it, and the other queues run in the next iteration.
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
