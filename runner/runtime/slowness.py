"""Names handlers that take too long: those that block the event loop, with their stack, and those that do not end."""

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
from runner.runtime.blame import in_user_code, users_frames

BEAT_S = 0.25
BLOCKED_S = 1.0
"""How long nothing else may run on the loop before that is told: heartbeats and every other handler wait meanwhile."""

SLOW_S = 60.0
"""How long a handler without a timeout may run before that is told."""

GRACE_S = 5.0
"""How much longer than its timeout a handler may run: a thread cannot be stopped, and a cancellation can be ignored."""


class Running(NamedTuple):
    """A handler at work: what is told of it, the loop time at which it began, and its timeout in seconds."""

    fields: dict[str, object]
    since: float
    timeout_s: float | None

    def limit(self) -> float:
        """Return after how many seconds it is slow."""
        return SLOW_S if self.timeout_s is None else self.timeout_s + GRACE_S


@asynccontextmanager
async def slowness_told(running: Callable[[], Iterable[tuple[object, Running]]]) -> AsyncIterator[None]:
    """Log `handler.slow` for what blocks this loop, and for each handler that runs for too long.

    `running` returns the handlers at work, each with what tells it from others.
    """
    watch = asyncio.create_task(_watch_handlers(running), name="handlers-watch")
    try:
        with _loop_watched():
            yield
    finally:
        watch.cancel()


async def _watch_handlers(running: Callable[[], Iterable[tuple[object, Running]]]) -> None:
    told: set[object] = set()
    while True:
        await asyncio.sleep(GRACE_S)
        now = asyncio.get_running_loop().time()
        late = {key: item for key, item in running() if now - item.since > item.limit()}
        for key in late.keys() - told:
            item = late[key]
            log.get_logger().warning("handler.slow", **item.fields, running_s=round(now - item.since, 1))
        told = set(late)


@contextmanager
def _loop_watched() -> Iterator[None]:
    """Let a thread look whether the loop goes round."""
    loop, thread_id, ended = asyncio.get_running_loop(), threading.get_ident(), threading.Event()
    beat = time.monotonic()
    timer: asyncio.TimerHandle

    def note_beat() -> None:
        nonlocal beat, timer
        beat = time.monotonic()
        timer = loop.call_later(BEAT_S, note_beat)

    def look() -> None:
        told = 0.0
        while not ended.wait(BEAT_S):
            since = beat
            if time.monotonic() - since > BLOCKED_S and told != since and _tell_blocked(thread_id, since):
                told = since

    timer = loop.call_later(0, note_beat)
    threading.Thread(target=look, name="loop-watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        timer.cancel()


def _tell_blocked(thread_id: int, since: float) -> bool:
    """Say what the loop's thread does; not where that is waiting or code of ours: then it was the whole process that
    stood still, or had no processor."""
    frame = sys._current_frames().get(thread_id)
    frames = users_frames(traceback.extract_stack(frame)) if frame is not None else []
    if not frames:
        return False
    log.get_logger().warning(
        "handler.slow",
        error="it blocks the event loop: nothing else runs meanwhile, not even heartbeats to the broker",
        blocked_s=round(time.monotonic() - since, 1),
        at=in_user_code(frames),
        stack="".join(traceback.format_list(frames)).rstrip(),
    )
    return True
