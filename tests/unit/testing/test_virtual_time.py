"""The event loop whose clock jumps."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from runner.testing.virtual_time import INSTANT_S, Standstill, VirtualTimeLoop

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]


@pytest.fixture
def loop() -> Iterator[VirtualTimeLoop]:
    loop = VirtualTimeLoop()
    yield loop
    loop.run_until_complete(loop.close_threads())
    loop.close()


def _drive(loop: VirtualTimeLoop, work: Awaitable[T]) -> T:
    async def main() -> T:
        return await loop.drive(work)

    return loop.run_until_complete(main())


def test_hours_pass_in_no_time(loop: VirtualTimeLoop) -> None:
    async def work() -> list[float]:
        times = []
        for hours in (1, 10, 100):
            await asyncio.sleep(hours * 3600)
            times.append(loop.time())
        return times

    started = time.monotonic()
    assert _drive(loop, work()) == [3600.0, 11 * 3600.0, 111 * 3600.0]
    assert time.monotonic() - started < 1


def test_a_timeout_is_in_virtual_time(loop: VirtualTimeLoop) -> None:
    async def work() -> None:
        async with asyncio.timeout(5):
            await asyncio.sleep(6)

    with pytest.raises(TimeoutError):
        _drive(loop, work())
    assert loop.time() == 5.0


def test_work_in_a_thread_takes_no_virtual_time(loop: VirtualTimeLoop) -> None:
    """However busy the machine is; timers that are set meanwhile wait for it."""

    async def work() -> list[str]:
        order: list[str] = []
        loop.call_later(0.01, order.append, "timer")
        await asyncio.to_thread(time.sleep, 0.05)
        order.append(f"thread at {loop.time()}")
        await asyncio.sleep(1)
        return order

    assert _drive(loop, work()) == ["thread at 0.0", "timer"]


def test_long_work_in_a_thread_takes_as_long_as_it_takes(loop: VirtualTimeLoop) -> None:
    """So a handler in a thread exceeds its timeout as it would anywhere. It begins before the loop waits."""

    async def work() -> float:
        await asyncio.to_thread(time.sleep, INSTANT_S + 0.5)
        return loop.time()

    assert INSTANT_S < _drive(loop, work()) < 5


def test_a_thread_that_outlives_its_future_is_waited_for(loop: VirtualTimeLoop) -> None:
    ended = threading.Event()
    executor = ThreadPoolExecutor(1)

    def slow() -> None:
        time.sleep(0.1)
        ended.set()

    async def work() -> None:
        future = loop.run_in_executor(executor, slow)
        while not executor._work_queue.empty():
            await asyncio.to_thread(time.sleep, 0.001)
        future.cancel()

    _drive(loop, work())
    loop.run_until_complete(loop.close_threads())
    assert ended.is_set()


def test_a_coroutine_that_waits_for_a_thread_of_its_own_is_waited_for(loop: VirtualTimeLoop) -> None:
    """As with a database client that has a thread: the timeout of ten minutes does not come first."""

    async def work() -> float:
        answer: asyncio.Future[float] = loop.create_future()
        thread = threading.Timer(0.02, lambda: loop.call_soon_threadsafe(answer.set_result, 1.0))
        with loop.user_call():
            thread.start()
            async with asyncio.timeout(600):
                await answer
        thread.join()
        return loop.time()

    assert _drive(loop, work()) == 0.0


async def _answer_late(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.3)
    writer.write(b"late")
    writer.close()
    await writer.wait_closed()


def test_a_coroutine_that_waits_for_a_socket_is_waited_for(loop: VirtualTimeLoop) -> None:
    """A server in real time answers after 0.3 s."""
    started, port = threading.Event(), 0
    other = asyncio.new_event_loop()

    def serve() -> None:
        nonlocal port

        async def main() -> None:
            nonlocal port
            server = await asyncio.start_server(_answer_late, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            started.set()
            async with server:
                await asyncio.sleep(1)

        other.run_until_complete(main())
        other.close()

    async def ask() -> bytes:
        with loop.user_call():
            async with asyncio.timeout(60):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                answer = await reader.read()
                writer.close()
        return answer

    thread = threading.Thread(target=serve)
    thread.start()
    started.wait()
    assert _drive(loop, ask()) == b"late"
    assert loop.time() < 1
    thread.join()


def test_a_coroutine_that_sleeps_is_not_waited_for(loop: VirtualTimeLoop) -> None:
    async def work() -> None:
        with loop.user_call():
            for _ in range(1000):
                await asyncio.sleep(60)

    started = time.monotonic()
    _drive(loop, work())
    assert time.monotonic() - started < 2


def test_what_never_comes_is_a_standstill(loop: VirtualTimeLoop) -> None:
    with pytest.raises(Standstill):
        _drive(loop, asyncio.Event().wait())


def test_a_driver_that_failed_fails_until_the_loop_recovers(loop: VirtualTimeLoop) -> None:
    async def fail() -> None:
        loop.call_soon(loop.fail, ValueError("endless"))
        await loop.drive(asyncio.sleep(1))

    with pytest.raises(ValueError, match="endless"):
        loop.run_until_complete(fail())
    with pytest.raises(ValueError, match="endless"):
        _drive(loop, asyncio.sleep(1))
    loop.recover()
    _drive(loop, asyncio.sleep(1))
    assert loop.time() == 1.0
