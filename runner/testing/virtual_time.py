"""An event loop with virtual time: when nothing is left to do at this moment, its clock jumps to the next timer.

Only code on the loop can be in virtual time. Threads, processes and sockets take real time, so the loop waits for them
before it jumps: see `VirtualTimeLoop`.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar
from functools import partial
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Events = list[tuple[selectors.SelectorKey, int]]

INSTANT_S = 0.5
"""Work in threads that ends within this real time takes no virtual time. Longer work takes as long as it really does.

Without it, the load of the machine would decide at which virtual time a message is published.
"""

THREAD_PATIENCE_S = 60.0
"""How long the loop waits, in real time, for a thread while no timer is set."""

CLOSE_PATIENCE_S = 5.0
"""The same when the loop is about to be closed."""

SOCKET_PATIENCE_S = 2.0
"""How long the loop waits for an event of a socket while a user's coroutine awaits something other than `sleep`."""

OTHER_PATIENCE_S = 0.5
"""The same where no socket is open: a thread of the user's own may answer."""

STUCK_S = 3.0
"""The same where no timer is set either, so that nothing else can happen."""


DUE_TOLERANCE_S = 1e-6
"""Timers that are due this soon after a moment are due at it: times are sums of floats."""


class Standstill(Exception):
    """Something waits for what never comes: nothing is left to do, and no timer is set."""


class _ThreadCall:
    """A call in a thread."""

    __slots__ = ("is_running",)

    def __init__(self) -> None:
        self.is_running = False


class _UserCall:
    """A running coroutine of the user, the timers of its `asyncio.sleep`, and how long the loop has waited for it."""

    __slots__ = ("sleeps", "waited_s")

    def __init__(self) -> None:
        self.waited_s = 0.0
        self.sleeps: list[asyncio.TimerHandle] = []

    def is_asleep(self, now: float) -> bool:
        self.sleeps = [timer for timer in self.sleeps if timer.when() > now and not timer.cancelled()]
        return bool(self.sleeps)


_user_call: ContextVar[_UserCall | None] = ContextVar("runner_user_call", default=None)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time starts at 0 and stands still until a driver moves it.

    A driver awaits `quiet`, and then calls `jump`. While threads work (`run_in_executor`) or a coroutine of the user
    (`user_call`) awaits something other than `asyncio.sleep`, the loop first waits for them in real time.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._waiters: dict[asyncio.Future[float | None], bool] = {}
        self._user_calls: set[_UserCall] = set()
        self._in_threads: set[_ThreadCall] = set()
        self._thread_patience_s = THREAD_PATIENCE_S
        self._executors: set[Executor] = set()
        self._failure: Exception | None = None
        super().__init__(_Selector(self._pass_time))

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    async def quiet(self, *, is_bounded: bool = False) -> float | None:
        """Wait until nothing is left to do at this moment. Return the time of the next timer; None without one.

        `is_bounded` says that the driver has something else to do where no timer is set.
        """
        return await self._new_waiter(is_bounded=is_bounded)

    async def drive(self, work: Awaitable[T]) -> T:
        """Await some work while time passes as it needs it. Raises Standstill if it waits for nothing that comes."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                waiter = self._new_waiter()
                wake = partial(_set_result, waiter)
                task.add_done_callback(wake)
                due = await waiter
                task.remove_done_callback(wake)
                if due is not None:
                    self.jump(due)
                elif not task.done():
                    raise Standstill
            return task.result()
        finally:
            task.cancel()

    def recover(self) -> None:
        """Forget the error of `fail`."""
        self._failure = None

    def jump(self, to: float) -> None:
        """Set the clock forward."""
        self._now = max(self._now, to)

    def _new_waiter(self, *, is_bounded: bool = False) -> asyncio.Future[float | None]:
        if self._failure is not None:
            raise self._failure
        waiter: asyncio.Future[float | None] = self.create_future()
        self._waiters[waiter] = is_bounded
        return waiter

    def fail(self, failure: Exception) -> None:
        """End the waiting of all drivers with an error, now and from now on."""
        self._failure = self._failure or failure
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(failure)
        self._waiters.clear()

    @contextmanager
    def user_call(self) -> Iterator[None]:
        """Note that a coroutine of the user runs inside the block."""
        call = _UserCall()
        self._user_calls.add(call)
        _user_call.set(call)  # never reset: the block may end in another context, and a call that has ended is ignored
        try:
            yield
        finally:
            self._user_calls.discard(call)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `loop.call_at`. Notes the timers of `asyncio.sleep`, which pass a future its result."""
        timer = super().call_at(when, callback, *args, context=context)
        call = _user_call.get()
        given: tuple[object, ...] = args
        if call is not None and call in self._user_calls and len(given) == 2 and isinstance(given[0], asyncio.Future):
            call.sleeps.append(timer)
        return timer

    def run_in_executor(  # type: ignore[override]  # typeshed has a second form of the arguments
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """See `loop.run_in_executor`. Notes that a thread works, also after its future was cancelled."""
        call = _ThreadCall()

        def work() -> Any:
            call.is_running = True
            try:
                return func(*args)
            finally:
                with suppress(RuntimeError):  # the loop may be closed
                    self.call_soon_threadsafe(end)

        def end() -> None:
            call.is_running = False
            if future.done():
                self._in_threads.discard(call)

        def note_done(_: asyncio.Future[Any]) -> None:
            if not (future.cancelled() and call.is_running):
                self._in_threads.discard(call)

        future = super().run_in_executor(executor, work)
        self._in_threads.add(call)
        future.add_done_callback(note_done)
        if executor is not None:
            self._executors.add(executor)
        return future

    async def close_threads(self) -> None:
        """Wait until all threads have ended, if they do so soon."""
        self._thread_patience_s = CLOSE_PATIENCE_S
        deadline = time.monotonic() + CLOSE_PATIENCE_S
        while self._in_threads and time.monotonic() < deadline:
            await self.quiet()
        for executor in self._executors:
            executor.shutdown(wait=not self._in_threads, cancel_futures=True)
        if not self._in_threads:
            await self.shutdown_default_executor()

    def _pass_time(self, timeout: float | None, select: Callable[[float | None], Events], sockets: int) -> Events:
        """Wait for the outside world, if something waits for it. Without an answer, let the drivers go on.

        Called by the selector when nothing is ready; the next timer is due in `timeout`.
        """
        self._waiters = {waiter: bounded for waiter, bounded in self._waiters.items() if not waiter.done()}
        if not self._waiters:
            return select(None)  # until a driver comes
        limit = self._patience_s(timeout, sockets)
        if limit:
            started = time.monotonic()
            events = select(limit)
            if events:
                waited = time.monotonic() - started
                if self._in_threads and waited > INSTANT_S:
                    self.jump(self._now + (waited if timeout is None else min(waited, timeout)))
                for call in self._user_calls:
                    call.waited_s = 0.0
                return events
            for call in self._user_calls:
                call.waited_s += limit
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None if timeout is None else self._now + timeout)
        self._waiters.clear()
        return []

    def _patience_s(self, timeout: float | None, sockets: int) -> float:
        """Return how long to wait in real time for what is outside of the loop; 0 if nothing is."""
        if self._in_threads:
            patience_s = self._thread_patience_s
            return patience_s if timeout is None else min(patience_s, max(INSTANT_S, timeout))
        waited = [call.waited_s for call in self._user_calls if not call.is_asleep(self._now)]
        if not waited:
            return 0.0
        if timeout is None and not any(self._waiters.values()):
            return STUCK_S
        return max(0.0, (SOCKET_PATIENCE_S if sockets else OTHER_PATIENCE_S) - min(waited))


def _set_result(waiter: asyncio.Future[float | None], _: object) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _Selector(selectors.DefaultSelector):
    """Asks `pass_time` instead of sleeping."""

    def __init__(self, pass_time: Callable[[float | None, Callable[[float | None], Events], int], Events]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> Events:
        """Return the events that are ready. If there are none and the loop has nothing to do, time passes."""
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        return self._pass_time(timeout, super().select, len(self.get_map()) - 1)  # one is the loop's own
