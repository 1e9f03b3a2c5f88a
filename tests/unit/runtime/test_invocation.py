"""Whatever a handler raises is its own failure; only our own cancellation and the end of its task go through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest

from runner.runtime.invocation import HandlerFailed, await_handler, run_in_executor
from runner.tasks import cancel, cancel_and_wait
from tests.unit.transports.virtual_time import virtual_time

tenant: ContextVar[str] = ContextVar("tenant", default="none")


async def failing(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()]
)
async def test_an_error_of_the_handler_is_its_failure(error: BaseException) -> None:
    with pytest.raises(HandlerFailed) as failed:
        await await_handler(failing(error))
    assert failed.value.error is error


async def test_our_own_cancellation_is_no_failure() -> None:
    async def work() -> None:
        await await_handler(asyncio.sleep(60))

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert task.cancelled()


@pytest.mark.parametrize("times", [1, 3])
async def test_a_handler_that_cancels_its_own_task_leaves_no_cancellation_behind(times: int) -> None:
    async def handle() -> str:
        task = asyncio.current_task()
        assert task is not None
        for _ in range(times):
            task.cancel()
        return "done"

    assert await await_handler(handle()) == "done"
    await asyncio.sleep(0)  # here it would be cancelled


async def test_a_cancellation_that_the_handler_waits_for_is_its_failure() -> None:
    async def handle() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    with pytest.raises(HandlerFailed) as failed:
        await await_handler(handle())
    assert isinstance(failed.value.error, asyncio.CancelledError)
    await asyncio.sleep(0)


@virtual_time
async def test_what_takes_longer_than_the_timeout_has_timed_out_however_it_ends() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "too late"
        return "in time"

    with pytest.raises(HandlerFailed) as failed:
        await await_handler(stubborn(), 2.0)
    assert str(failed.value.error) == "the handler took longer than its timeout of 2 s"
    assert await await_handler(stubborn(), 11.0) == "in time"


async def test_the_timeout_begins_with_the_call_and_not_with_its_first_wait() -> None:
    async def handle() -> None:
        time.sleep(0.05)  # noqa: ASYNC251  # a handler that blocks the loop
        await asyncio.sleep(0.05)

    with pytest.raises(HandlerFailed) as failed:
        await await_handler(handle(), 0.08)
    assert isinstance(failed.value.error, TimeoutError)


async def test_a_handler_that_does_not_wait_has_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), list[float]()
    call_at = loop.call_at

    def note_and_call(when: float, *arguments: Any, **named: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *arguments, **named)

    monkeypatch.setattr(loop, "call_at", note_and_call)

    async def handle(pause_s: float | None) -> str:
        if pause_s is not None:
            await asyncio.sleep(pause_s)
        return "done"

    assert await await_handler(handle(None), 60.0) == "done"
    assert not timers
    assert await await_handler(handle(0.0), 60.0) == "done"
    assert len(timers) == 1


async def test_a_task_that_is_cancelled_by_us_is_not_brought_back_by_its_handler() -> None:
    """`tasks.cancel` says that we mean it."""
    handled: list[str] = []

    async def handle() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            handled.append("cleaned up")

    async def work() -> None:
        await await_handler(handle())
        handled.append("went on")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    cancel(task)
    await asyncio.wait([task])
    assert (handled, task.cancelled()) == (["cleaned up"], True)


@pytest.mark.parametrize("error", [StopIteration("x"), SystemExit(3), KeyError("x")])
async def test_an_error_in_a_thread_is_the_handlers_failure(error: BaseException) -> None:
    def work() -> None:
        raise error

    with ThreadPoolExecutor(1) as executor, pytest.raises(HandlerFailed) as failed:
        await run_in_executor(executor, work)
    assert failed.value.error is error


async def test_a_thread_sees_the_context_and_cannot_change_it() -> None:
    def work() -> str:
        seen = tenant.get()
        tenant.set("thread")
        return seen

    tenant.set("task")
    with ThreadPoolExecutor(1) as executor:
        assert await run_in_executor(executor, work) == "task"
    assert tenant.get() == "task"


async def test_an_iterator_is_closed_with_its_reader() -> None:
    closed: list[bool] = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.append(True)

    generator = items()
    first: Awaitable[int] = anext(generator)
    assert await await_handler(first) == 1
    await await_handler(generator.aclose())  # type: ignore[attr-defined]  # of generators only
    assert closed == [True]
