"""Iterates a producer's generator on the loop or in a thread. What the generator raises becomes HandlerFailed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Executor
from typing import Any

from runner.runtime.invocation import HandlerFailed, await_handler, is_handler_error, run_in_executor, undo_cancellation


async def iterate_generator(generator: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, None]:
    """Yield the items of an async generator."""
    task = asyncio.current_task()
    try:
        while True:
            try:
                item = await generator.__anext__()
            except StopAsyncIteration:
                return
            except BaseException as error:  # see the docstring of `invocation`
                if not is_handler_error(error, task):
                    raise
                await undo_cancellation(task)
                raise HandlerFailed(error) from error
            if task is not None and task.cancelling():
                await undo_cancellation(task)
            yield item
    finally:
        await await_handler(generator.aclose())


async def iterate_in_thread(
    iterator: Iterator[Any], executor: Executor, *, prefetch: int = 1
) -> AsyncGenerator[Any, None]:
    """Yield the items of a plain generator that runs in a thread, each as soon as it is available.

    The generator is asked for up to `prefetch` items at a time, so it may be that far ahead of the reader. When this
    iterator is closed, the generator stops after its current item.
    """
    exchange = _ThreadBuffer(iterator, prefetch)
    try:
        while not exchange.has_ended:
            fetching = asyncio.ensure_future(run_in_executor(executor, exchange.fetch))
            fetching.add_done_callback(exchange.note_fetched)
            while exchange.items or not fetching.done():
                if exchange.items:
                    yield exchange.items.popleft()
                else:
                    await exchange.wait()
            await fetching
    finally:
        exchange.is_abandoned = True


class _ThreadBuffer:
    """Passes items from a thread to the loop.

    The thread wakes the loop only if the loop is waiting: waking costs a system call.
    """

    def __init__(self, iterator: Iterator[Any], prefetch: int) -> None:
        self._iterator = iterator
        self._prefetch = prefetch
        self._loop = asyncio.get_running_loop()
        self._has_changed = asyncio.Event()
        self._is_awaited = False
        self.items: deque[Any] = deque()
        self.has_ended = False
        self.is_abandoned = False
        """Whether the reader has stopped reading."""

    def fetch(self) -> None:
        """Fetch the next items. Runs in the thread."""
        for _ in range(self._prefetch):
            try:
                item = next(self._iterator)
            except StopIteration:
                self.has_ended = True
                return
            self.items.append(item)
            if self.is_abandoned:
                return
            if self._is_awaited:
                self._is_awaited = False
                self._loop.call_soon_threadsafe(self._has_changed.set)

    async def wait(self) -> None:
        """Wait until an item may be available. Runs on the loop."""
        self._has_changed.clear()
        self._is_awaited = True
        if not self.items:  # else the thread may have added it before `_is_awaited` was set
            await self._has_changed.wait()
        self._is_awaited = False

    def note_fetched(self, fetching: asyncio.Future[None]) -> None:
        """Wake the reader: the thread has fetched its items or has failed."""
        if not fetching.cancelled():
            fetching.exception()  # mark as retrieved; the reader raises it if it still reads
        self._has_changed.set()
