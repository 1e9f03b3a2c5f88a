"""Helpers for asyncio tasks: cancelling them reliably, running several at a time, and contexts without tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from contextvars import copy_context
from types import coroutine
from typing import Any, TypeVar
from weakref import WeakSet

R = TypeVar("R")
T = TypeVar("T")

_cancelled_by_us: WeakSet[asyncio.Future[Any]] = WeakSet()
_loop_watches: WeakSet[asyncio.Task[Any]] = WeakSet()


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


def watch_loop() -> asyncio.Task[Any]:
    """Return a task that shows whether a loop ends, until it is given to `cancel`. Keep a reference to it.

    `asyncio.run` cancels each task of its loop once at the end, and waits for them without a limit. Handlers have no
    reason to cancel this one.
    """
    watch = asyncio.create_task(asyncio.Event().wait(), name="watch-loop")  # nothing sets it
    _loop_watches.add(watch)
    return watch


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


class InProgress:
    """How much work is in progress. A context manager for each piece of it; `none` is set while there is none."""

    def __init__(self) -> None:
        self.count = 0
        self.none = asyncio.Event()
        self.none.set()

    def __enter__(self) -> None:
        self.count += 1
        self.none.clear()

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if not self.count:
            self.none.set()


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


def start_in_context(coroutine: Coroutine[Any, Any, T]) -> tuple[T, Awaitable[T] | None]:
    """Run a coroutine up to its first wait, in a copy of the current context, without the cost of a task.

    Return its result if it has ended, else the rest, for the same task to await. Context variables that it sets are
    gone afterwards: one message must not see the tenant of another.
    """
    return start_coroutine(coroutine, copy_context().run)


def start_coroutine(
    coroutine: Coroutine[Any, Any, T], run: Callable[..., Any] = lambda step, value: step(value)
) -> tuple[T, Awaitable[T] | None]:
    """Run a coroutine up to its first wait, as `start_in_context` does, each step of it by `run`."""
    try:
        awaited = run(coroutine.send, None)
    except StopIteration as stopped:
        return stopped.value, None
    return None, _run_rest(run, coroutine, awaited)  # type: ignore[return-value]  # its result is that of the rest


async def run_in_context(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine in a copy of the current context, as a task does."""
    result, rest = start_in_context(coroutine)
    return await rest if rest is not None else result


@coroutine
def _run_rest(run: Callable[..., Any], started: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """Await what a coroutine awaits, and go on with it in its context."""
    try:
        while True:
            try:
                result = yield awaited
            except BaseException as error:  # also GeneratorExit, which closes the coroutine
                awaited = run(started.throw, error)
            else:
                awaited = run(started.send, result)
    except StopIteration as stopped:
        value: T = stopped.value
        return value
