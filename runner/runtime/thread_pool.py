"""Threads for the handlers of one subscriber. They wake the event loop once for all calls that have ended meanwhile.

The standard library's pool makes a future with a lock for each call, and wakes a thread for each call and the loop for
each result. That costs more than a short handler. Here a thread that takes a call wakes another one if more calls wait:
where calls are short, one thread makes them all, and where they block, each has a thread at once.
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
    """At most `size` threads, which start when they are needed, for one event loop. All methods are for its thread."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._threads: list[threading.Thread] = []
        self._calls: deque[Call] = deque()
        self._wakes: SimpleQueue[bool] = SimpleQueue()
        """Each wakes a thread: True to look for calls, False to end."""
        self._is_waking = False
        """Whether a thread that was woken has not looked for calls yet."""
        self._unfinished = 0
        self._ended: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._is_loop_woken = False
        self._is_closed = False

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run a call in a thread, for `loop.run_in_executor`, which returns a future of its own loop as it is."""
        if self._is_closed:
            raise RuntimeError("the threads of the handler have ended")
        ended = asyncio.get_running_loop().create_future()
        self._unfinished += 1
        self._calls.append((work, ended))
        self._wake()
        if len(self._threads) < min(self._unfinished, self._size):
            thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads; no other one may make the call later
                ended.cancel()
                raise
            self._threads.append(thread)
        return ended

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after their calls, and wait for them if asked to. Calls that wait are cancelled."""
        self._is_closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._calls.popleft()[1].cancel()
        for _ in self._threads:
            self._wakes.put(False)
        for thread in self._threads if wait else ():
            thread.join()

    def _wake(self) -> None:
        if not self._is_waking:
            self._is_waking = True
            self._wakes.put(True)

    def _work(self) -> None:
        """Make calls until the pool is closed. Runs in each thread."""
        while self._wakes.get():
            self._is_waking = False  # first: a call that is added from now on wakes a thread again
            with contextlib.suppress(IndexError):  # no call is left
                while True:
                    self._make(*self._calls.popleft())

    def _make(self, work: Callable[[], Any], ended: asyncio.Future[Any]) -> None:
        """Make a call, and let the loop know its result. More calls that wait have another thread."""
        if self._calls:
            self._wake()
        result, error = None, None
        try:
            if not ended.cancelled():
                result = work()
        except BaseException as failure:  # whatever it is, the thread goes on
            error = failure
        self._ended.append((ended, result, error))
        if not self._is_loop_woken:
            self._is_loop_woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                ended.get_loop().call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        """Pass on the results of all calls that have ended. Runs on the loop."""
        self._is_loop_woken = False  # first: a call that ends from now on wakes the loop again
        while self._ended:
            ended, result, error = self._ended.popleft()
            self._unfinished -= 1
            if ended.done():
                continue
            if error is None:
                ended.set_result(result)
            else:
                ended.set_exception(error)
