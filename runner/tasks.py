"""Helpers for asyncio tasks: cancelling them reliably, running several at a time, and contexts without tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from contextvars import copy_context
from typing import Any, Generic, TypeVar
from weakref import WeakSet

R = TypeVar("R")
T = TypeVar("T")

_cancelled_by_us: WeakSet[asyncio.Future[Any]] = WeakSet()
_loop_watches: WeakSet[asyncio.Task[None]] = WeakSet()


def cancel(task: asyncio.Future[Any]) -> None:
    """Cancel a task, and remember that we did.

    A handler may cancel the task that it runs in, which means something else.
    """
    _cancelled_by_us.add(task)
    task.cancel()


def is_cancelled_by_us(task: asyncio.Future[Any] | None) -> bool:
    """Return whether `cancel` was called for a task, or its loop ends: see `watch_loop`."""
    if task is None:
        return False
    ended = {watch.get_loop() for watch in _loop_watches if watch.cancelling() and watch not in _cancelled_by_us}
    return task in _cancelled_by_us or task.get_loop() in ended


def watch_loop() -> asyncio.Task[None]:
    """Return a task that shows whether a loop ends, until it is given to `cancel`. Keep a reference to it.

    `asyncio.run` cancels each task of its loop once at the end, and waits for them without a limit. Handlers have no
    reason to cancel this one.
    """
    watch = asyncio.create_task(_forever(), name="watch-loop")
    _loop_watches.add(watch)
    return watch


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


async def cancel_and_wait(*tasks: asyncio.Future[Any] | None, repeat_s: float = 1.0) -> None:
    """Cancel tasks until they have ended, again every `repeat_s` seconds: a cancellation can get lost.

    aiormq may raise an error of its own instead, and `asyncio.wait_for` before Python 3.12 drops a cancellation that
    comes together with the result.
    """
    waiting = {task for task in tasks if task is not None}
    while running := {task for task in waiting if not task.done()}:
        for task in running:
            cancel(task)
        await asyncio.wait(running, timeout=repeat_s)
    for task in waiting:
        if not task.cancelled():
            task.exception()  # mark as retrieved, else asyncio logs it as never retrieved


async def wait_set(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, but not longer than this; return whether it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def finished_before(work: Coroutine[None, None, None], stop: asyncio.Event) -> bool:
    """Await some work, and cancel it when `stop` is set first. Return whether it finished."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
            return True
        return False
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


async def gather_or_cancel(*work: Coroutine[Any, Any, object]) -> None:
    """Run coroutines concurrently. The first error cancels the others, and is raised when they have ended."""
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
    """Do something for each item, up to `limit` at the same time, started in order. Errors as in `gather_or_cancel`.

    Each of the concurrent workers opens a context manager once, and passes what it opened to `do` with each of its
    items.
    """
    left = iter(items)

    async def work_through() -> None:
        async with open_one() as opened:
            for item in left:
                await do(opened, item)

    await gather_or_cancel(*(work_through() for _ in range(limit)))


async def for_each(items: Iterable[T], do: Callable[[T], Awaitable[object]], *, limit: int) -> None:
    """Like `map_concurrently`, without something to open."""
    await map_concurrently(items, nullcontext, lambda _, item: do(item), limit=limit)


class RunInContext(Generic[T]):
    """Awaits a coroutine in a copy of the current context, as a task does, without the cost of a task.

    Context variables that it sets are gone afterwards: one message must not see the tenant of another.
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
                except BaseException as error:  # also GeneratorExit, which closes the coroutine
                    awaited = run(throw, error)
                else:
                    awaited = run(send, result)
        except StopIteration as stopped:
            value: T = stopped.value
            return value
