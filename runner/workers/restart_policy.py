"""What becomes of a worker that has ended: nothing more, a new start after a pause, or the end of all."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 30.0
STABLE_AFTER_S = 60.0
"""A worker that ran so long was a good one: the next pauses are short again."""

Decision = Literal["done", "restart", "give up"]


@dataclass(frozen=True)
class WorkerExit:
    """How a process ended."""

    code: int
    """Negative: by that signal."""
    uptime_s: float
    has_run: bool
    """Whether it had come so far as to run its pipelines."""
    is_done: bool = False
    """Whether there was nothing more to do for it (--until-idle)."""


def decide(ended: WorkerExit, *, is_first: bool, is_draining: bool) -> Decision:
    """Say what becomes of a worker.

    One that cannot start at all says so by its exit code: another try would only say it again, so that is the end of
    all. After it has run once everything is tried again, for the others go on, and what it lacks may come back.
    """
    if is_draining or ended.is_done:
        return "done"
    if is_first and not ended.has_run and ended.code > 0:
        return "give up"
    return "restart"


class RestartBackoff:
    """The growing pauses before a worker is started again, each random between half and all of its ceiling."""

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._draw = draw
        self._ceiling = FIRST_BACKOFF_S

    def pause_s(self, ended: WorkerExit) -> float:
        """Return how long to wait now."""
        if ended.uptime_s >= STABLE_AFTER_S or ended.code == 0:  # somebody has stopped it: no crash
            self._ceiling = FIRST_BACKOFF_S
        pause = self._draw(self._ceiling / 2, self._ceiling)
        self._ceiling = min(self._ceiling * 2, MAX_BACKOFF_S)
        return pause
