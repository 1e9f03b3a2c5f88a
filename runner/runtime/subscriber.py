"""Runs one subscriber: takes deliveries as they come, at most `concurrency` at once, and drains."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from runner.pipeline.model import Subscriber
from runner.runtime.execution import Execution
from runner.transports.base import Delivery, Feed, Source, Transport


class SubscriberRuntime:
    """A subscriber at work. Its workers are tasks that live long: none is made for a message.

    Deliveries wait in `_inbox`, which the transport bounds by the prefetch.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        source: Source,
        execution: Execution,
        executor: ThreadPoolExecutor,
        on_bug: Callable[[BaseException], None],
    ) -> None:
        self.subscriber = subscriber
        self.source = source
        self._execution = execution
        self._executor = executor
        self._on_bug = on_bug
        self._inbox: deque[Delivery] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._running: set[Delivery] = set()
        self._feed: Feed | None = None
        self._is_draining = False
        self.taken = 0
        """How many deliveries were taken so far; unchanged numbers between two looks mean that nothing came."""

    @property
    def in_flight(self) -> int:
        """How many deliveries wait here or run."""
        return len(self._inbox) + len(self._running)

    @property
    def running(self) -> int:
        """How many handlers run now."""
        return len(self._running)

    @property
    def is_live(self) -> bool:
        """Whether messages of the queue reach us."""
        return self._feed is not None and self._feed.is_live

    async def start(self, transport: Transport) -> None:
        """Begin to take messages."""
        self._feed = await transport.feed(self.source, self._take)

    async def stop_taking(self) -> None:
        """Take no new message; give back those whose handler has not begun."""
        self._is_draining = True
        if self._feed is not None:
            await self._feed.stop()
        while self._inbox:
            await self._execution.release(self._inbox.popleft())

    async def finish(self, deadline: float) -> int:
        """Wait until the running handlers have finished; cancel them at `deadline` (loop time).

        Returns how many had not finished; their messages were given back.
        """
        loop = asyncio.get_running_loop()
        while self._running and loop.time() < deadline:
            busy = [worker for worker in self._workers if not worker.done()]
            await asyncio.wait(busy, timeout=min(0.1, max(0.0, deadline - loop.time())))
        late = len(self._running)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._executor.shutdown(wait=False, cancel_futures=True)
        return late

    def _take(self, delivery: Delivery) -> None:
        """Accept a delivery from the transport: wake a worker, or hire one while there are fewer than allowed."""
        self.taken += 1
        self._inbox.append(delivery)
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        if len(self._workers) < self.subscriber.concurrency and not self._is_draining:
            worker = asyncio.get_running_loop().create_task(self._work(), name=f"worker-{self.subscriber.name}")
            worker.add_done_callback(self._notice_end)
            self._workers.add(worker)

    def _notice_end(self, worker: asyncio.Task[None]) -> None:
        """Pass on what ended a worker, if it was not we: handlers' errors never do, so it is a bug of ours."""
        if not worker.cancelled() and (error := worker.exception()) is not None:
            self._on_bug(error)

    async def _work(self) -> None:
        """Handle one delivery after the other, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._inbox or self._is_draining:
                waiter = loop.create_future()
                self._idle.append(waiter)
                await waiter
            delivery = self._inbox.popleft()
            self._running.add(delivery)
            try:
                await self._execution.run(delivery)
            finally:
                self._running.discard(delivery)
