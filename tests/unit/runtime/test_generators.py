"""Items of producers' generators: in order, each as soon as it is there, and never far ahead of who reads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import pytest

from runner.runtime.generators import iterate_generator, iterate_in_thread
from runner.runtime.invocation import HandlerFailed
from runner.tasks import cancel

WAIT_S = 10.0


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize("prefetch", [1, 7, 1000])
async def test_all_items_come_in_order(executor: ThreadPoolExecutor, prefetch: int) -> None:
    items = [item async for item in iterate_in_thread(iter(range(100)), executor, prefetch=prefetch)]
    assert items == list(range(100))


async def test_an_item_comes_before_the_next_one_is_made(executor: ThreadPoolExecutor) -> None:
    may_go_on = threading.Event()

    def make() -> Iterator[str]:
        yield "first"
        assert may_go_on.wait(WAIT_S)
        yield "second"

    items = iterate_in_thread(make(), executor, prefetch=10)
    async with asyncio.timeout(WAIT_S / 2):
        assert await anext(items) == "first"
    may_go_on.set()
    assert [item async for item in items] == ["second"]


async def test_the_thread_is_no_further_ahead_than_it_may(executor: ThreadPoolExecutor) -> None:
    made = []

    def make() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    items = iterate_in_thread(make(), executor, prefetch=5)
    for read in range(40):
        assert await anext(items) == read
        assert len(made) <= read + 5
    await items.aclose()


async def test_what_it_raises_comes_after_what_it_has_given(executor: ThreadPoolExecutor) -> None:
    def make() -> Iterator[int]:
        yield from (1, 2, 3)
        raise SystemExit("enough")

    items = iterate_in_thread(make(), executor, prefetch=10)
    assert [await anext(items) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(HandlerFailed) as failure:
        await anext(items)
    assert isinstance(failure.value.error, SystemExit)


async def test_given_up_it_ends_at_its_next_item(executor: ThreadPoolExecutor) -> None:
    may_go_on, made = threading.Event(), []

    def make() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number
            assert may_go_on.wait(WAIT_S)

    async with aclosing(iterate_in_thread(make(), executor, prefetch=50)) as items:
        assert await anext(items) == 0
    may_go_on.set()
    executor.shutdown()
    assert made == [0, 1]


async def test_an_async_generator_s_failure_is_its_own_and_our_cancellation_is_not() -> None:
    closed = []

    async def make() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(60)
            yield 2
        finally:
            closed.append(True)

    async def read() -> None:
        async with aclosing(iterate_generator(make())) as items:  # type: ignore[arg-type]
            async for _ in items:
                pass

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    cancel(reading)
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert closed == [True]

    async def fail() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError  # of something else that it awaited

    with pytest.raises(HandlerFailed):
        async for _ in iterate_generator(fail()):  # type: ignore[arg-type]
            pass
