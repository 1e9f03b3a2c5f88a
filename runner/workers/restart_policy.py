"""Decides what follows when a worker has ended: nothing, a restart after a pause, or the end of all workers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from runner.backoff import backoff_delays

FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 30.0
STABLE_AFTER_S = 60.0
"""A worker that ran for this long counts as stable: the next pause is short again."""

Decision = Literal["done", "restart", "give up"]


@dataclass(frozen=True)
class WorkerExit:
    """How a worker process ended."""

    code: int
    """Negative: the signal that ended it."""
    uptime_s: float
    has_run: bool
    """Whether it had started its pipelines."""
    is_done: bool = False
    """Whether it had nothing left to do (`--until-idle`)."""


def decide(ended: WorkerExit, *, is_first: bool, is_draining: bool) -> Decision:
    """Decide what to do about a worker that has ended.

    A worker that fails before it has ever run fails for a reason, such as a broker that cannot be reached, that another
    try would meet again: all workers end. Once it has run it is always restarted, because the other workers still run,
    and what it lacks may come back.
    """
    if is_draining or ended.is_done:
        return "done"
    if is_first and not ended.has_run and ended.code > 0:
        return "give up"
    return "restart"


class RestartBackoff:
    """Growing pauses before a restart. After a stable run they start again at the shortest."""

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._draw = draw
        self._delays = backoff_delays(FIRST_BACKOFF_S, MAX_BACKOFF_S, draw=draw)

    def pause_s(self, ended: WorkerExit) -> float:
        """Return how long to wait before the next start."""
        if ended.uptime_s >= STABLE_AFTER_S or ended.code == 0:  # stopped from outside, no crash
            self._delays = backoff_delays(FIRST_BACKOFF_S, MAX_BACKOFF_S, draw=self._draw)
        return next(self._delays)
