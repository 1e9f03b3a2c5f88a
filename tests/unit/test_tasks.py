"""Several things at the same time; work in a context of its own, which is else like a plain await."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from runner.tasks import for_each, gather_or_cancel, run_in_context, wait_set

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


async def test_what_it_sets_is_gone_and_what_was_set_is_seen() -> None:
    tenant.set("outside")
    seen = []

    async def work() -> str:
        seen.append(tenant.get())
        tenant.set("inside")
        await asyncio.sleep(0)
        seen.append(tenant.get())
        return "done"

    assert await run_in_context(work()) == "done"
    assert seen == ["outside", "inside"]
    assert tenant.get() == "outside"


async def test_tasks_and_callbacks_it_starts_have_its_context() -> None:
    async def child() -> str:
        return tenant.get()

    async def work() -> tuple[str, str]:
        tenant.set("inside")
        called: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: called.set_result(tenant.get()))
        return await asyncio.create_task(child()), await called

    assert await run_in_context(work()) == ("inside", "inside")


async def test_errors_come_out_as_they_are() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        await run_in_context(work())


async def test_a_timeout_and_a_cancellation_reach_it() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(tenant.get())

    async def own(limit: float | None) -> None:
        tenant.set("own")
        async with asyncio.timeout(limit):
            await run_in_context(work())

    with pytest.raises(TimeoutError):
        await own(0.01)
    task = asyncio.create_task(own(None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["own", "own"]


async def test_it_may_swallow_a_cancellation_as_a_plain_await_may() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "stayed"
        return "slept"

    async def outer() -> str:
        return await run_in_context(stubborn())

    task = asyncio.create_task(outer())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "stayed"


def test_it_is_closed_with_who_awaits_it() -> None:
    closed = []

    class Pause:
        def __await__(self):  # type: ignore[no-untyped-def]
            yield

    async def work() -> None:
        try:
            await Pause()
        finally:
            closed.append(True)

    async def outer() -> None:
        await run_in_context(work())

    coroutine = outer()
    coroutine.send(None)
    coroutine.close()
    assert closed == [True]


async def test_the_first_error_ends_the_others_before_it_is_raised() -> None:
    ended = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("first")

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(LookupError, match="first"):
        await gather_or_cancel(wait(), fail(), wait())
    assert ended == [True, True]


async def test_a_cancellation_ends_all() -> None:
    ended = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    task = asyncio.create_task(gather_or_cancel(wait(), wait()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True, True]


async def test_each_is_done_once_and_never_more_than_so_many_at_once() -> None:
    begun, running, most = [], 0, 0

    async def do(item: int) -> None:
        nonlocal running, most
        begun.append(item)
        running += 1
        most = max(most, running)
        for _ in range(item % 3):
            await asyncio.sleep(0)
        running -= 1

    await for_each(range(50), do, limit=4)
    assert begun == list(range(50))
    assert most == 4


async def test_an_event_is_waited_for_but_not_longer_than_said() -> None:
    event = asyncio.Event()
    assert not await wait_set(event, 0.0)
    asyncio.get_running_loop().call_soon(event.set)
    assert await wait_set(event, 60.0)
    assert await wait_set(event, 0.0)
