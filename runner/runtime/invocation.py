"""Calls functions of the user, on the loop or in a thread, and turns whatever they raise into HandlerFailed.

A handler may raise anything. `SystemExit` and `KeyboardInterrupt` from a handler are failures of the handler and do not
end the process. So is a `CancelledError`, unless we cancelled the task (`tasks.cancel`): a handler may cancel the task
that it runs in, but that task is a worker and has other messages to handle.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Executor
from functools import partial
from types import CoroutineType
from typing import Any, TypeVar

from runner.errors import BatchFailed
from runner.message import Publish
from runner.pipeline.model import Handler
from runner.runtime.thread_pool import ThreadPool
from runner.runtime.watchdog import ThreadWatchdog
from runner.tasks import is_cancelled_by_us, start_coroutine

T = TypeVar("T")

MAX_CHUNK_ITEMS = 1000
"""The results of a generator are published in chunks of at most this many."""


_VALUES = frozenset({dict, str, bytes, list, tuple, int, Publish})
"""Types of results that are neither awaited nor iterated. For others that takes a microsecond to find out."""

Results = list[Any] | AsyncGenerator[list[Any], None]
"""The results of a call: a list with the return value, or for a generator lists of at most `MAX_CHUNK_ITEMS` as they
come.
"""


class HandlerFailed(Exception):
    """The handler raised `error`. It may be a BaseException, which must not propagate through a task."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__qualname__)  # not its text: a foreign __str__ may fail
        self.error = error


async def call_on_loop(
    handler: Handler, positional: tuple[Any, ...], arguments: Mapping[str, Any], timeout_s: float | None
) -> Results:
    """Call an async handler. The timeout covers the whole call. Raises HandlerFailed."""
    started = 0.0 if timeout_s is None else asyncio.get_running_loop().time()
    made = handler.call(*positional, **arguments)
    if type(made) is not CoroutineType and inspect.isasyncgen(made):
        return _iterate_chunks(made, timeout_s, started)
    result = await await_handler(made, timeout_s)
    if result is None or type(result) in _VALUES:
        return [result]
    if inspect.isasyncgen(result):
        return _iterate_chunks(result, timeout_s, started)
    if is_iterator(result):
        return _iterate_chunks(_iterate_on_loop(result), timeout_s, started)
    return [result]


async def call_in_thread(
    handler: Handler,
    positional: tuple[Any, ...],
    arguments: Mapping[str, Any],
    executor: ThreadPool,
    timeout_s: float | None,
    watchdog: ThreadWatchdog,
) -> Results:
    """Call a plain function in a thread. Raises HandlerFailed.

    If it returns an awaitable or an async generator, that runs on the loop. A thread cannot be stopped, so a call that
    takes too long counts as timed out when it returns.
    """
    started = asyncio.get_running_loop().time()
    result = await _run_watched(watchdog, executor, lambda: handler.call(*positional, **arguments), timeout_s)
    if result is None or type(result) in _VALUES:
        _check_timeout(started, timeout_s)
        return [result]
    if inspect.isasyncgen(result):
        return _iterate_chunks(result, timeout_s, started)
    if inspect.isawaitable(result):
        result = await await_handler(result, timeout_s, left_s=_time_left(started, timeout_s))
        if inspect.isasyncgen(result):
            return _iterate_chunks(result, timeout_s, started)
    if is_iterator(result):
        return _iterate_chunks_in_thread(result, executor, timeout_s, started, watchdog)
    _check_timeout(started, timeout_s)
    return [result]


def is_iterator(result: Any) -> bool:
    """Return whether a function has returned its results one by one: a generator or another iterator."""
    return isinstance(result, Iterator)


def take_results(iterator: Iterator[Any]) -> tuple[list[Any], BatchFailed | None]:
    """Return the results of an iterator. After a BatchFailed, those before it count, with the error."""
    results: list[Any] = []
    try:
        results.extend(iterator)
    except BatchFailed as error:
        return results, error
    return results, None


async def _iterate_chunks(made: Any, timeout_s: float | None, started: float) -> AsyncGenerator[list[Any], None]:
    """Yield lists of the items of an async generator. `started` is the loop time at which the call began."""
    chunk: list[Any] = []
    failed_in_part: HandlerFailed | None = None
    try:
        while True:
            try:
                chunk.append(await await_handler(anext(made), timeout_s, left_s=_time_left(started, timeout_s)))
            except HandlerFailed as failure:
                if isinstance(failure.error, StopAsyncIteration):
                    break
                if isinstance(failure.error, BatchFailed):
                    failed_in_part = failure
                    break
                raise
            if len(chunk) >= MAX_CHUNK_ITEMS:
                asked = asyncio.get_running_loop().time()
                yield chunk
                started += asyncio.get_running_loop().time() - asked  # the timeout does not include publishing
                chunk = []
    finally:
        await await_handler(made.aclose())
    yield chunk
    if failed_in_part is not None:
        raise failed_in_part


async def _iterate_chunks_in_thread(
    iterator: Iterator[Any], executor: ThreadPool, timeout_s: float | None, started: float, watchdog: ThreadWatchdog
) -> AsyncGenerator[list[Any], None]:
    """Yield lists of the items of a plain generator. Each list takes one round trip to the thread."""
    while True:
        left_s = _time_left(started, timeout_s)
        chunk, failed_in_part = await _run_watched(
            watchdog, executor, lambda: take_results(itertools.islice(iterator, MAX_CHUNK_ITEMS)), left_s
        )
        _check_timeout(started, timeout_s)
        asked = asyncio.get_running_loop().time()
        yield chunk
        started += asyncio.get_running_loop().time() - asked  # as in _chunks
        if failed_in_part is not None:
            raise HandlerFailed(failed_in_part)
        if len(chunk) < MAX_CHUNK_ITEMS:
            return


async def _iterate_on_loop(iterator: Iterator[Any]) -> AsyncGenerator[Any, None]:
    """Yield the items of an iterator that an `async def` returned. It runs on the loop, as its author chose."""
    for item in iterator:
        yield item


def _check_timeout(started: float, timeout_s: float | None) -> None:
    if timeout_s is not None and asyncio.get_running_loop().time() - started > timeout_s:
        raise HandlerFailed(timeout_error(timeout_s))


def _time_left(started: float, timeout_s: float | None) -> float | None:
    return None if timeout_s is None else timeout_s - (asyncio.get_running_loop().time() - started)


async def await_handler(awaitable: Awaitable[T], timeout_s: float | None = None, *, left_s: float | None = None) -> T:
    """Await the handler's work. Whatever it raises becomes HandlerFailed, except our own cancellation.

    `left_s` is the time left of the timeout, all of it by default. What takes longer counts as timed out however it
    ends.
    """
    task = asyncio.current_task()
    limit: asyncio.Timeout | None = None
    try:
        if timeout_s is None:
            result = await awaitable
        else:
            due = asyncio.get_running_loop().time() + (timeout_s if left_s is None else left_s)
            rest: Awaitable[T] | None = awaitable
            if isinstance(awaitable, CoroutineType):  # where it does not wait, nothing could end it: it needs no timer
                result, rest = start_coroutine(awaitable)
            if rest is not None:
                async with asyncio.timeout_at(due) as limit:
                    result = await rest
    except BaseException as error:  # including SystemExit and KeyboardInterrupt: see the module's docstring
        if not is_handler_error(error, task):
            raise
        await undo_cancellation(task)
        if limit is not None and limit.expired() and timeout_s is not None:
            raise HandlerFailed(timeout_error(timeout_s)) from error
        raise HandlerFailed(error) from error
    if task is not None and task.cancelling():
        await undo_cancellation(task)
    if limit is not None and limit.expired() and timeout_s is not None:
        raise HandlerFailed(timeout_error(timeout_s))
    return result


def is_handler_error(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Return whether an error is the handler's failure: not if we cancel its task or close its coroutine."""
    if isinstance(error, GeneratorExit):
        return _is_current_task(task)
    return not (isinstance(error, asyncio.CancelledError) and is_cancelled_by_us(task))


async def undo_cancellation(task: asyncio.Task[Any] | None) -> None:
    """Undo a handler's cancellations of the task that it ran in, including one that is not delivered yet."""
    if task is None or not task.cancelling() or is_cancelled_by_us(task):
        return
    while task.uncancel():
        pass
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        if is_cancelled_by_us(task):
            raise


def _is_current_task(task: asyncio.Task[Any] | None) -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:  # no loop is running
        return False


async def _run_watched(watchdog: ThreadWatchdog, threads: ThreadPool, work: Callable[[], T], left_s: float | None) -> T:
    """Run a call in a thread as `run_in_executor` does, and report it if it takes too long."""
    call, context = watchdog.begin(left_s), contextvars.copy_context()

    def run() -> tuple[T | None, BaseException | None]:
        call.thread_id = threading.get_ident()
        return _result_of(context, work)

    try:
        # By the loop, not by `threads.submit`: a loop in virtual time counts the threads that work.
        result, error = await asyncio.get_running_loop().run_in_executor(threads, run)
    finally:
        watchdog.end(call)
    if error is not None:
        raise HandlerFailed(error) from error
    return result  # type: ignore[return-value]  # it is None only together with an error


async def run_in_executor(executor: Executor, work: Callable[[], T]) -> T:
    """Run a call in a thread, with the context variables of this task. Raises HandlerFailed.

    Cancelling does not stop the thread.
    """
    context = contextvars.copy_context()
    result, error = await asyncio.get_running_loop().run_in_executor(executor, partial(_result_of, context, work))
    if error is not None:
        raise HandlerFailed(error) from error
    return result  # type: ignore[return-value]  # it is None only together with an error


def _result_of(context: contextvars.Context, work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """Return what a call returns or raises. A future cannot carry StopIteration, and must not carry SystemExit."""
    try:
        return context.run(work), None
    except BaseException as error:
        return None, error


def timeout_error(timeout_s: float) -> TimeoutError:
    """Return the error of an attempt that exceeded its subscriber's timeout."""
    return TimeoutError(f"the handler took longer than its timeout of {timeout_s:g} s")
