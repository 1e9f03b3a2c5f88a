"""Threads for the handlers of one subscriber. They wake the event loop once for all calls that have ended meanwhile.

The standard library's pool makes a future with a lock for each call, wakes a thread for each call, and the loop for
each result. A wake-up is a system call and a change of threads, which cost more than a short handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from queue import SimpleQueue
from typing import Any

Call = tuple[Callable[[], Any], asyncio.Future[Any]]


class ThreadPool(Executor):
    """At most `size` threads, which start when they are needed, for one event loop.

    A thread that takes a call wakes the next one if there are more calls. So calls that block run beside each other,
    and many short ones are worked off by a thread that is awake already.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._lock = threading.Lock()
        """Held for the five below."""
        self._calls: deque[Call] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._is_waking = False
        """Whether a thread was woken and has not taken a call since. It wakes the next one."""
        self._is_closed = False
        self._wake_ups: SimpleQueue[None] = SimpleQueue()
        self._ended: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._is_loop_woken = False

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run a call in a thread, for `loop.run_in_executor`. It returns a future of that loop as it is."""
        ended = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the threads of the handler have ended")
            self._calls.append((work, ended))
            new = self._wake()
        try:
            self._start(new)
        except RuntimeError:
            ended.cancel()  # nothing will make the call
            raise
        return ended

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after their calls, and wait for them if asked to. Calls that wait are cancelled."""
        with self._lock:
            self._is_closed = True
            calls, self._calls = self._calls, deque()
            for _ in range(self._idle):
                self._wake_ups.put(None)
            self._idle = 0
        for _, ended in calls:
            ended.cancel()
        for thread in self._threads if wait else ():
            thread.join()

    def _wake(self) -> threading.Thread | None:
        """Wake a thread, or return a new one, unless one is waking. The lock is held; the new one must find it free."""
        if self._is_waking or not (self._idle or len(self._threads) < self._size):
            return None
        self._is_waking = True
        if self._idle:
            self._idle -= 1
            self._wake_ups.put(None)
            return None
        new = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
        self._threads.append(new)
        return new

    def _start(self, new: threading.Thread | None) -> None:
        """Start a thread. Raises RuntimeError if the system has no more threads and there is no other one."""
        if new is None:
            return
        try:
            new.start()
        except RuntimeError:
            with self._lock:
                self._threads.remove(new)
                self._is_waking = False
            if not self._threads:
                raise

    def _work(self) -> None:
        """Make calls until the pool is closed. Runs in each thread."""
        call = self._next(is_woken=True)
        while call is not None:
            work, ended = call
            result, error = None, None
            try:
                result = work()
            except BaseException as failure:  # whatever it is, the thread goes on
                error = failure
            self._ended.append((ended, result, error))
            if not self._is_loop_woken:
                self._is_loop_woken = True
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    ended.get_loop().call_soon_threadsafe(self._pass_on)
            del work, ended, result, error
            call = self._next(is_woken=False)

    def _next(self, *, is_woken: bool) -> Call | None:
        """Return the next call; None when the pool is closed."""
        while True:
            with self._lock:
                if is_woken:
                    self._is_waking = False
                while self._calls and self._calls[0][1].cancelled():
                    self._calls.popleft()
                if self._calls:
                    call = self._calls.popleft()
                    new = self._wake() if self._calls else None
                    break
                if self._is_closed:
                    return None
                self._idle += 1
            self._wake_ups.get()
            is_woken = True
        with contextlib.suppress(RuntimeError):
            self._start(new)
        return call

    def _pass_on(self) -> None:
        """Pass on the results of all calls that have ended. Runs on the loop."""
        self._is_loop_woken = False  # first: a call that ends from now on wakes the loop again
        while self._ended:
            ended, result, error = self._ended.popleft()
            if ended.done():
                continue
            if error is None:
                ended.set_result(result)
            else:
                ended.set_exception(error)
