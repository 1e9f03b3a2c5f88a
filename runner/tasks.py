"""Vocabulary: ending tasks for good, doing things at the same time, and work in a context of its own without a task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import copy_context
from typing import Any, Generic, TypeVar
from weakref import WeakSet

R = TypeVar("R")
T = TypeVar("T")

_cancelled_by_us: WeakSet[asyncio.Future[Any]] = WeakSet()


def cancel(task: asyncio.Future[Any]) -> None:
    """Cancel a task for good. A handler can cancel the task that it runs in, too: that is its failure, and no end."""
    _cancelled_by_us.add(task)
    task.cancel()


def is_cancelled_by_us(task: asyncio.Future[Any] | None) -> bool:
    """Whether it is we who have cancelled a task."""
    return task is not None and task in _cancelled_by_us


async def cancel_and_wait(*tasks: asyncio.Future[Any] | None, repeat_s: float = 1.0) -> None:
    """Cancel tasks until they have ended, again after so many seconds: a cancellation can be swallowed.

    aiormq may raise an error of its own instead, and `asyncio.wait_for`, before Python 3.12, drops one that comes
    together with the result.
    """
    waiting = {task for task in tasks if task is not None}
    while running := {task for task in waiting if not task.done()}:
        for task in running:
            cancel(task)
        await asyncio.wait(running, timeout=repeat_s)
    for task in waiting:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as forgotten


async def gather_or_cancel(*work: Coroutine[Any, Any, object]) -> None:
    """Do several things at the same time. The first error ends the others, and is raised when they have ended."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(*tasks)


async def map_concurrently(
    items: Iterable[T],
    open_one: Callable[[], AbstractAsyncContextManager[R]],
    do: Callable[[R, T], Awaitable[object]],
    *,
    limit: int,
) -> None:
    """Do something with each item, so many at the same time, begun in their order. Errors as in `gather_or_cancel`.

    Each gets something open, which the next item gets after it: there are as many of them as items at the same time.
    """
    left = iter(items)

    async def work_through() -> None:
        async with open_one() as opened:
            for item in left:
                await do(opened, item)

    await gather_or_cancel(*(work_through() for _ in range(limit)))


async def for_each(items: Iterable[T], do: Callable[[T], Awaitable[object]], *, limit: int) -> None:
    """The same for what needs nothing open."""
    await map_concurrently(items, nullcontext, lambda _, item: do(item), limit=limit)


class RunInContext(Generic[T]):
    """Awaits a coroutine in a copy of the current context, as a task would run it, without the cost of a task.

    What it sets of context variables is gone with it: one message's tenant must not be the next one's.
    """

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, T]:
        run = copy_context().run
        send, throw = self._coroutine.send, self._coroutine.throw
        try:
            awaited = run(send, None)
            while True:
                try:
                    result = yield awaited
                except BaseException as error:  # also GeneratorExit: the coroutine is closed with this
                    awaited = run(throw, error)
                else:
                    awaited = run(send, result)
        except StopIteration as stopped:
            value: T = stopped.value
            return value
