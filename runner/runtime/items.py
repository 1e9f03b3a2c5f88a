"""Turns a producer's generator into items: on the loop, or out of a thread; what it raises becomes HandlerFailed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Executor
from typing import Any

from runner.runtime.invoking import HandlerFailed, guarded, in_executor, is_theirs, take_back


async def guarded_items(generator: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, None]:
    """Yield what an async generator yields."""
    task = asyncio.current_task()
    try:
        while True:
            try:
                item = await generator.__anext__()
            except StopAsyncIteration:
                return
            except BaseException as error:  # see the docstring of `invoking`
                if not is_theirs(error, task):
                    raise
                await take_back(task)
                raise HandlerFailed(error) from error
            if task is not None and task.cancelling():
                await take_back(task)
            yield item
    finally:
        await guarded(generator.aclose())


async def items_of_thread(iterator: Iterator[Any], executor: Executor, *, ahead: int = 1) -> AsyncGenerator[Any, None]:
    """Yield what a plain generator yields, which runs in a thread; each item as soon as it is there.

    It is asked for `ahead` items at a time, so it may be that far ahead of who reads. Given up, it ends after the item
    that it is at.
    """
    exchange = _Exchange(iterator, ahead)
    try:
        while not exchange.has_ended:
            fetching = asyncio.ensure_future(in_executor(executor, exchange.fetch))
            fetching.add_done_callback(exchange.note_fetched)
            while exchange.items or not fetching.done():
                if exchange.items:
                    yield exchange.items.popleft()
                else:
                    await exchange.news()
            await fetching
    finally:
        exchange.is_over = True


class _Exchange:
    """Where a thread leaves items for the loop. A thread that finds nobody waiting wakes nobody."""

    def __init__(self, iterator: Iterator[Any], ahead: int) -> None:
        self._iterator = iterator
        self._ahead = ahead
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._is_awaited = False
        self.items: deque[Any] = deque()
        self.has_ended = False
        self.is_over = False
        """Whether nobody will read any more."""

    def fetch(self) -> None:
        """Fetch the next items; in the thread."""
        for _ in range(self._ahead):
            try:
                item = next(self._iterator)
            except StopIteration:
                self.has_ended = True
                return
            self.items.append(item)
            if self.is_over:
                return
            if self._is_awaited:
                self._is_awaited = False
                self._loop.call_soon_threadsafe(self._news.set)

    async def news(self) -> None:
        """Wait until there may be something; on the loop."""
        self._news.clear()
        self._is_awaited = True
        if not self.items:  # else the thread may have looked before it was awaited
            await self._news.wait()
        self._is_awaited = False

    def note_fetched(self, fetching: asyncio.Future[None]) -> None:
        """Take note that the thread has done what it was asked for, or has failed."""
        if not fetching.cancelled():
            fetching.exception()  # raised by whoever awaits it; nobody may
        self._news.set()
