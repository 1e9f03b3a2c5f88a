"""The threads of a subscriber's handlers: what blocks runs beside others, what is short shares threads and wake-ups."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runner.runtime.invocation import HandlerFailed, run_in_executor
from runner.runtime.thread_pool import ThreadPool

SIZE = 3


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    made = ThreadPool(SIZE, "handler-test")
    yield made
    made.shutdown()


async def test_as_many_calls_as_there_are_threads_run_beside_each_other(pool: ThreadPool) -> None:
    together = threading.Barrier(SIZE)
    async with asyncio.timeout(10):
        await asyncio.gather(*(run_in_executor(pool, together.wait) for _ in range(2 * SIZE)))


async def test_no_more_calls_run_than_there_are_threads(pool: ThreadPool) -> None:
    lock, running, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.001)  # lets the other threads in
        with lock:
            running -= 1

    await asyncio.gather(*(run_in_executor(pool, work) for _ in range(20 * SIZE)))
    assert most == SIZE


async def test_a_call_that_blocks_holds_no_other_back(pool: ThreadPool) -> None:
    is_over = threading.Event()
    blocked = asyncio.create_task(run_in_executor(pool, is_over.wait))
    async with asyncio.timeout(10):
        for number in range(50):
            assert await run_in_executor(pool, lambda number=number: number) == number
    assert not blocked.done()
    is_over.set()
    assert await blocked


async def test_thousands_of_short_calls_all_end_and_wake_the_loop_less_often(
    pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wake_ups = 0
    loop = asyncio.get_running_loop()
    wake = loop.call_soon_threadsafe

    def counted(callback: Callable[..., Any], *arguments: Any, **named: Any) -> asyncio.Handle:
        nonlocal wake_ups
        wake_ups += 1
        return wake(callback, *arguments, **named)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    results = await asyncio.gather(*(run_in_executor(pool, lambda number=number: number) for number in range(5000)))
    assert results == list(range(5000))
    assert wake_ups < 5000


@pytest.mark.parametrize("error", [ValueError("v"), SystemExit(3), StopIteration(1), KeyboardInterrupt()], ids=repr)
async def test_a_thread_outlives_what_a_call_raises(pool: ThreadPool, error: BaseException) -> None:
    def work() -> None:
        raise error

    for _ in range(2 * SIZE):
        with pytest.raises(HandlerFailed) as failed:
            await run_in_executor(pool, work)
        assert failed.value.error is error
    assert await run_in_executor(pool, lambda: "still there") == "still there"


async def test_after_a_shutdown_nothing_begins_and_what_runs_goes_on(pool: ThreadPool) -> None:
    has_begun, may_end = threading.Barrier(SIZE + 1), threading.Event()

    def work() -> bool:
        has_begun.wait()
        return may_end.wait()

    running = [asyncio.ensure_future(run_in_executor(pool, work)) for _ in range(SIZE)]
    waiting = asyncio.ensure_future(run_in_executor(pool, lambda: pytest.fail("begun")))
    await asyncio.sleep(0)
    await asyncio.to_thread(has_begun.wait)
    pool.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(RuntimeError, match="have ended"):
        await run_in_executor(pool, lambda: None)
    may_end.set()
    assert await asyncio.gather(*running) == [True] * SIZE


async def test_a_cancelled_call_goes_on_and_its_result_is_dropped(pool: ThreadPool) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        has_begun.set()
        may_end.wait()

    task = asyncio.ensure_future(run_in_executor(pool, work))
    await asyncio.to_thread(has_begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_end.set()
    assert await run_in_executor(pool, lambda: 1) == 1


async def test_a_call_that_is_cancelled_before_it_begins_is_not_made(pool: ThreadPool) -> None:
    is_over, made = threading.Event(), []
    blocked = [asyncio.ensure_future(run_in_executor(pool, is_over.wait)) for _ in range(SIZE)]
    waiting = asyncio.ensure_future(run_in_executor(pool, lambda: made.append("cancelled")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    is_over.set()
    await asyncio.gather(*blocked)
    await run_in_executor(pool, lambda: made.append("later"))
    assert made == ["later"]


async def test_without_threads_the_call_fails_and_is_not_made_later(
    pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that has no more threads; later it has some again."""
    made: list[str] = []
    with monkeypatch.context() as no_threads:
        no_threads.setattr(threading.Thread, "start", _cannot_start)
        with pytest.raises(RuntimeError, match="new thread"):
            await run_in_executor(pool, lambda: made.append("failed"))
    await run_in_executor(pool, lambda: made.append("later"))
    assert made == ["later"]


def _cannot_start(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
