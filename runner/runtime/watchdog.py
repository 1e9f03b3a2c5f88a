"""Names handlers that take too long: those that block the event loop or stay in a thread, with their stack, and others
that do not end."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

from runner import log
from runner.metrics import RecentMax
from runner.runtime.tracebacks import innermost_user_location, user_frames

HEARTBEAT_S = 0.25
BLOCKED_AFTER_S = 1.0
"""How long nothing else may run on the loop before that is told: heartbeats and every other handler wait meanwhile."""

SLOW_AFTER_S = 60.0
"""How long a handler without a timeout may run before that is told."""

TIMEOUT_GRACE_S = 5.0
"""How much longer than its timeout a handler may run that is not in a thread: a cancellation can be ignored."""


class RunningHandler(NamedTuple):
    """A handler at work: what is told of it, the loop time at which it began, and its timeout in seconds."""

    fields: dict[str, object]
    since: float
    timeout_s: float | None

    def limit(self) -> float:
        """Return after how many seconds it is slow."""
        return SLOW_AFTER_S if self.timeout_s is None else self.timeout_s + TIMEOUT_GRACE_S


class ThreadWatchdog:
    """Watches one subscriber's handlers in threads, which nothing can end: says which outlasts its time, and where.

    `overdue` is how many of them have been at work for longer than their timeout.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self.overdue = 0

    @contextmanager
    def watch(self, left_s: float | None, thread_id: Callable[[], int | None]) -> Iterator[None]:
        """Watch some work; `left_s` is what is left of the timeout, and `thread_id` says which thread does the work."""
        is_late = False

        def report_late() -> None:
            nonlocal is_late
            if self._timeout_s is not None:
                is_late = True
                self.overdue += 1
            self._warn(thread_id())

        timer = asyncio.get_running_loop().call_later(SLOW_AFTER_S if left_s is None else max(0.0, left_s), report_late)
        try:
            yield
        finally:
            timer.cancel()
            self.overdue -= is_late

    def _warn(self, thread_id: int | None) -> None:
        text, running_s = "it does not end", SLOW_AFTER_S
        if self._timeout_s is not None:
            text = (
                f"it has outlasted its timeout of {self._timeout_s:g} s, and keeps its place: a thread cannot be ended"
            )
            running_s = self._timeout_s
        log.get_logger().warning(
            "handler.slow", error=text, running_s=running_s, **_location_fields(_frames_of_thread(thread_id))
        )


@asynccontextmanager
async def handler_watchdog(
    running: Callable[[], Iterable[tuple[object, RunningHandler]]], lag: RecentMax | None = None
) -> AsyncIterator[None]:
    """Log `handler.slow` for what blocks this loop, and for each handler that runs for too long.

    `running` returns the handlers at work, each with what tells it from others. How late the loop is goes into `lag`.
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
    """Let a thread look whether the loop goes round."""
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
    """Say what the loop's thread does; not where that is waiting or code of ours: then it was the whole process that
    stood still, or had no processor."""
    frames = _frames_of_thread(thread_id)
    if not frames:
        return False
    log.get_logger().warning(
        "handler.slow",
        error="it blocks the event loop: nothing else runs meanwhile, not even heartbeats to the broker",
        blocked_s=round(time.monotonic() - since, 1),
        **_location_fields(frames),
    )
    return True


def _frames_of_thread(thread_id: int | None) -> list[traceback.FrameSummary]:
    """Return where in the user's code a thread is now; empty where it is elsewhere."""
    frame = sys._current_frames().get(thread_id) if thread_id is not None else None
    return user_frames(traceback.extract_stack(frame)) if frame is not None else []


def _location_fields(frames: list[traceback.FrameSummary]) -> dict[str, str | None]:
    """Return the fields of a log line that say where something is."""
    if not frames:
        return {}
    return {"at": innermost_user_location(frames), "stack": "".join(traceback.format_list(frames)).rstrip()}
