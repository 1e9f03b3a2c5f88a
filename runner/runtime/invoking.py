"""Turns a payload into results by calling the user's function: on the loop, or in a thread; and nothing escapes it.

A handler may raise anything. `SystemExit` and `KeyboardInterrupt` raised by one are its failure, not the end of the
process; a `CancelledError` is one too, unless we cancelled it.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor
from typing import Any, TypeVar

from runner.message import Message
from runner.pipeline.model import Handler

T = TypeVar("T")

CHUNK = 1000
"""How many results of a generator are held back at most, to be published together after it has ended."""


class HandlerFailed(Exception):
    """The handler raised `error`, which may be a BaseException that must not travel through a task as itself."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


async def call(
    handler: Handler, payload: Any, message: Message | None, executor: Executor, timeout_s: float | None
) -> AsyncIterator[list[Any]]:
    """Call a handler and yield its results in lists of at most 1,000: one list of one for a plain return value.

    Raises HandlerFailed with what it raised. The timeout covers the whole call; a thread cannot be stopped, so there
    the call counts as timed out when it returns too late.
    """
    arguments = dict(handler.arguments)
    if handler.message_parameter is not None:
        arguments[handler.message_parameter] = message
    positional = (payload,) if handler.takes_payload else ()
    if handler.is_async:
        results = _on_loop(handler, positional, arguments, timeout_s)
    else:
        results = _in_thread(handler, positional, arguments, executor, timeout_s)
    async for chunk in results:
        yield chunk


async def _on_loop(
    handler: Handler, positional: tuple[Any, ...], arguments: dict[str, Any], timeout_s: float | None
) -> AsyncIterator[list[Any]]:
    if handler.kind == "coroutine":
        yield [await guarded(handler.call(*positional, **arguments), timeout_s)]
        return
    generator = handler.call(*positional, **arguments)
    deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
    chunk: list[Any] = []
    try:
        while True:
            left = None if deadline is None else deadline - asyncio.get_running_loop().time()
            try:
                chunk.append(await guarded(anext(generator), left))
            except HandlerFailed as failure:
                if isinstance(failure.error, StopAsyncIteration):
                    break
                raise
            if len(chunk) >= CHUNK:
                yield chunk
                chunk = []
    finally:
        await generator.aclose()
    yield chunk


async def _in_thread(
    handler: Handler,
    positional: tuple[Any, ...],
    arguments: dict[str, Any],
    executor: Executor,
    timeout_s: float | None,
) -> AsyncIterator[list[Any]]:
    loop = asyncio.get_running_loop()
    started = loop.time()
    result = await in_executor(executor, lambda: handler.call(*positional, **arguments))
    if handler.kind != "generator":
        _check_time(started, timeout_s)
        yield [result]
        return
    iterator: Iterator[Any] = iter(result)
    while True:
        chunk = await in_executor(executor, lambda: list(itertools.islice(iterator, CHUNK)))
        _check_time(started, timeout_s)
        yield chunk
        if len(chunk) < CHUNK:
            return


def _check_time(started: float, timeout_s: float | None) -> None:
    if timeout_s is not None and asyncio.get_running_loop().time() - started > timeout_s:
        raise HandlerFailed(_timed_out(timeout_s))


async def guarded(awaitable: Awaitable[T], timeout_s: float | None = None) -> T:
    """Await a handler's work; whatever it raises, except our own cancellation, becomes HandlerFailed."""
    task = asyncio.current_task()
    try:
        if timeout_s is None:
            return await awaitable
        async with asyncio.timeout(timeout_s) as limit:
            return await awaitable
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling():
            raise
        raise HandlerFailed(error) from error
    except TimeoutError as error:
        if timeout_s is not None and limit.expired():
            raise HandlerFailed(_timed_out(timeout_s)) from error
        raise HandlerFailed(error) from error
    except BaseException as error:  # SystemExit and KeyboardInterrupt included: see the module's docstring
        if isinstance(error, GeneratorExit):
            raise
        raise HandlerFailed(error) from error


async def in_executor(executor: Executor, work: Callable[[], T]) -> T:
    """Run a handler's work in a thread, with the context variables of this task. Raises HandlerFailed.

    When this is cancelled the thread goes on: nothing can stop it.
    """
    context = contextvars.copy_context()

    def run() -> tuple[T | None, BaseException | None]:
        try:
            return context.run(work), None
        except BaseException as error:  # a future cannot carry StopIteration, and must not carry SystemExit
            return None, error

    result, error = await asyncio.get_running_loop().run_in_executor(executor, run)
    if error is not None:
        raise HandlerFailed(error) from error
    return result  # type: ignore[return-value]  # None stands for an error only


def _timed_out(timeout_s: float) -> TimeoutError:
    return TimeoutError(f"the handler took longer than its timeout of {timeout_s:g} s")
