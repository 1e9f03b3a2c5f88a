"""Reports handlers that take too long: those that block the event loop, stay in a thread, or do not end."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import copy_context
from typing import NamedTuple

from runner import log
from runner.metrics import RecentMax
from runner.runtime.tracebacks import innermost_user_location, user_frames

HEARTBEAT_S = 0.25
"""How often the loop signals that it is alive, and how often the watching thread looks."""
BLOCKED_AFTER_S = 1.0
"""How long the loop may stand still before a handler is reported. Broker heartbeats and other handlers wait meanwhile.
"""

SLOW_AFTER_S = 60.0
"""How long a handler without a timeout may run before it is reported."""

TIMEOUT_GRACE_S = 5.0
"""How long a handler on the loop may outlast its timeout before it is reported: it may ignore its cancellation."""


_IN_A_THREAD = "`run_in: process` at its subscriber lets its timeout end it, and so does an `async def` that awaits"
_ON_THE_LOOP = "await what waits, as in `await asyncio.sleep(1)`, or write `def`: then it runs in a thread"


class RunningHandler(NamedTuple):
    """A running handler: its log fields, the loop time at which it started, and its timeout in seconds."""

    fields: dict[str, object]
    since: float
    timeout_s: float | None

    def limit(self) -> float:
        """Return after how many seconds the handler is reported as slow."""
        return SLOW_AFTER_S if self.timeout_s is None else self.timeout_s + TIMEOUT_GRACE_S


class WatchedCall:
    """A call in a thread. `due` is the loop time at which it is late; that is logged in the context of the call."""

    __slots__ = ("context", "due", "is_overdue", "thread_id")

    def __init__(self, due: float) -> None:
        self.due = due
        self.context = copy_context()
        self.is_overdue = False
        self.thread_id: int | None = None


class ThreadWatchdog:
    """Watches one subscriber's handlers in threads. A thread cannot be stopped, so a handler may outlast its timeout.

    `overdue` counts the calls that have been running for longer than their timeout.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self.overdue = 0
        self._calls: dict[WatchedCall, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, left_s: float | None) -> WatchedCall:
        """Watch a call until `end`. `left_s` is the time left for it."""
        loop = asyncio.get_running_loop()
        call = WatchedCall(loop.time() + (SLOW_AFTER_S if left_s is None else max(0.0, left_s)))
        self._calls[call] = None
        if self._timer is None or call.due < self._timer.when():
            self._set_timer(call.due)
        return call

    def end(self, call: WatchedCall) -> None:
        """Note the end of a call."""
        del self._calls[call]
        self.overdue -= call.is_overdue
        if not self._calls:
            self._set_timer(None)

    def _look(self) -> None:
        """Report calls that are late, and wait for the next one that may be: one timer is enough for all."""
        now = asyncio.get_running_loop().time()
        for call in [call for call in self._calls if call.due <= now]:
            call.due = math.inf
            if self._timeout_s is not None:
                call.is_overdue = True
                self.overdue += 1
            call.context.run(self._warn, call.thread_id)
        due = min((call.due for call in self._calls), default=math.inf)
        self._set_timer(due if due < math.inf else None)

    def _set_timer(self, due: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due is None else asyncio.get_running_loop().call_at(due, self._look)

    def _warn(self, thread_id: int | None) -> None:
        text, running_s = "it does not end", SLOW_AFTER_S
        if self._timeout_s is not None:
            text = (
                f"it has outlasted its timeout of {self._timeout_s:g} s, and keeps its place: a thread cannot be ended"
            )
            running_s = self._timeout_s
        where = _location_fields(_frames_of_thread(thread_id))
        log.get_logger().warning("handler.slow", error=text, running_s=running_s, hint=_IN_A_THREAD, **where)


@asynccontextmanager
async def handler_watchdog(
    running: Callable[[], Iterable[tuple[object, RunningHandler]]], lag: RecentMax | None = None
) -> AsyncIterator[None]:
    """Log `handler.slow` for handlers that block this loop and for handlers that run too long.

    `running` returns the running handlers, each with a key that is unique to its run. The delay of the loop is noted in
    `lag`.
    """
    watch = asyncio.create_task(_report_slow_handlers(running), name="handlers-watch")
    try:
        with _loop_watchdog(lag or RecentMax()):
            yield
    finally:
        watch.cancel()


async def _report_slow_handlers(running: Callable[[], Iterable[tuple[object, RunningHandler]]]) -> None:
    reported: set[object] = set()
    while True:
        await asyncio.sleep(TIMEOUT_GRACE_S)
        now = asyncio.get_running_loop().time()
        late = {key: item for key, item in running() if now - item.since > item.limit()}
        for key in late.keys() - reported:
            item = late[key]
            log.get_logger().warning("handler.slow", **item.fields, running_s=round(now - item.since, 1))
        reported = set(late)


@contextmanager
def _loop_watchdog(lag: RecentMax) -> Iterator[None]:
    """Watch from a thread whether the event loop makes progress."""
    loop, thread_id, ended = asyncio.get_running_loop(), threading.get_ident(), threading.Event()
    beat = time.monotonic()
    timer: asyncio.TimerHandle

    def note_beat() -> None:
        nonlocal beat, timer
        late_s = time.monotonic() - beat - HEARTBEAT_S
        beat = time.monotonic()
        lag.note(beat, max(late_s, 0.0))
        timer = loop.call_later(HEARTBEAT_S, note_beat)

    def look() -> None:
        reported = 0.0
        while not ended.wait(HEARTBEAT_S):
            since = beat
            if time.monotonic() - since > BLOCKED_AFTER_S and reported != since and _warn_blocked(thread_id, since):
                reported = since

    timer = loop.call_later(0, note_beat)
    threading.Thread(target=look, name="loop-watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        timer.cancel()


def _warn_blocked(thread_id: int, since: float) -> bool:
    """Log what blocks the loop's thread, and return whether anything was logged.

    If the stack shows none of the user's code, the whole process was stopped or starved of CPU: no handler is to blame.
    """
    frames = _frames_of_thread(thread_id)
    if not frames:
        return False
    log.get_logger().warning(
        "handler.slow",
        error="it blocks the event loop: nothing else runs meanwhile, not even heartbeats to the broker",
        blocked_s=round(time.monotonic() - since, 1),
        hint=_ON_THE_LOOP,
        **_location_fields(frames),
    )
    return True


def _frames_of_thread(thread_id: int | None) -> list[traceback.FrameSummary]:
    """Return the user's frames on a thread's stack, outermost first; empty if the thread runs none."""
    frame = sys._current_frames().get(thread_id) if thread_id is not None else None
    return user_frames(traceback.extract_stack(frame)) if frame is not None else []


def _location_fields(frames: list[traceback.FrameSummary]) -> dict[str, str | None]:
    """Return the log fields that say where the code is."""
    if not frames:
        return {}
    return {"at": innermost_user_location(frames), "stack": "".join(traceback.format_list(frames)).rstrip()}
