"""How much other work the machine does: a fixed loop before each measurement, the processors' time during it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

LOOP = 500_000
MAX_STRETCH = 1.25
MAX_OTHERS = 0.15
"""Above either of them, other work decides what is measured."""

PROC = Path("/proc")
LEAST_TICKS = 50
"""Of a shorter measurement nothing is said: the system counts in ticks of 10 ms, and one of four would be a quarter."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Noise:
    """What one measurement was disturbed by."""

    stretch: float
    """Wall time over CPU time of a fixed loop just before: 1.0 if the loop had a processor to itself."""
    others: float | None
    """The share of all processors' time that went to other processes during the measurement, neither ours nor the
    broker's. None where the system does not say, or the measurement was too short."""

    @property
    def is_too_much(self) -> bool:
        """Whether a figure that was measured then cannot be believed."""
        return self.stretch > MAX_STRETCH or (self.others or 0.0) > MAX_OTHERS


def watched(measure: Callable[[], T]) -> tuple[T, Noise]:
    """Measure, and return the result with what disturbed it."""
    stretch, before = stretch_of_loop(), _processor_times()
    result = measure()
    return result, Noise(stretch, _others(before, _processor_times()))


def stretch_of_loop() -> float:
    """Return wall time over CPU time of a loop that always does the same."""
    wall, cpu, total = time.perf_counter(), time.process_time(), 0
    for number in range(LOOP):
        total += number
    return (time.perf_counter() - wall) / (time.process_time() - cpu)


def is_too_busy(noises: Sequence[Noise]) -> bool:
    """Whether the median of some runs cannot be believed: more than a quarter of them was disturbed."""
    return sum(noise.is_too_much for noise in noises) * 4 > len(noises)


def warning(noises: Sequence[Noise]) -> str:
    """Return what the end of a benchmark says if other work ran beside its measurements; "" otherwise."""
    if not is_too_busy(noises):
        return ""
    disturbed = [noise for noise in noises if noise.is_too_much]
    others, stretch = (
        max(values) for values in zip(*((it.others or 0.0, it.stretch) for it in disturbed), strict=True)
    )
    return (
        f"TOO BUSY: other work disturbed {len(disturbed)} of {len(noises)} measurements: it took up to {others:.0%} of"
        f" the processors, and a fixed loop took up to {stretch:.1f} times its CPU time. Do not believe these numbers;"
        " CPU ratios suffer least."
    )


@dataclass(frozen=True, slots=True)
class _Times:
    """In ticks, since the system's start: all processors' time, what was used of it, and our own part of that."""

    total: int
    used: int
    own: int


def _processor_times() -> _Times | None:
    """Return the times now; None where the system does not say.

    Interrupts are left out: those that our own connections cause stand there too.
    """
    try:
        words = (PROC / "stat").read_text().partition("\n")[0].split()
    except OSError:
        return None
    user, nice, system, idle, iowait, irq, softirq, steal = (int(word) for word in words[1:9])
    used = user + nice + system + steal
    return _Times(used + idle + iowait + irq + softirq, used, _own_ticks())


def _own_ticks() -> int:
    """Return the CPU time of this process and all below it (so the broker too), those that have ended included."""
    parents, ticks = {}, {}
    for stat in PROC.glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents[int(stat.parent.name)] = int(fields[1])
        ticks[int(stat.parent.name)] = sum(int(field) for field in fields[11:15])
    family = {os.getpid()}
    while children := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= children
    return sum(ticks.get(pid, 0) for pid in family)


def _others(before: _Times | None, after: _Times | None) -> float | None:
    if before is None or after is None or after.total - before.total < LEAST_TICKS:
        return None
    others = (after.used - before.used) - (after.own - before.own)
    return max(0.0, others / (after.total - before.total))
