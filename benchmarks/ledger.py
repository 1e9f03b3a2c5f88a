"""Turns handled messages into a verdict: how many, whether each once, in what time, and what they cost this process.

It is imported by the process under measurement, whoever's it is, and costs each the same fraction of a microsecond.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path


class Ledger:
    """The account of one process. Messages carry numbers from 0; when `count` have come the verdict is written.

    Time and CPU count from the first message (or from `begin`) to the last one, so start-up counts for nobody.
    """

    def __init__(self, verdict: Path, count: int) -> None:
        self._verdict = verdict
        self._expected = count
        self._count = 0
        self._sum = 0
        self._began = 0.0
        self._began_cpu = 0.0

    def begin(self) -> None:
        """Start the clock, where that is not the first message's arrival."""
        self._began_cpu = time.process_time()
        self._began = time.monotonic()

    def note(self, number: int) -> None:
        """Note one message, as its handler sees it."""
        if not self._began:
            self.begin()
        self._count += 1
        self._sum += number
        if self._count >= self._expected:
            self.write()

    def write(self) -> None:
        """Write the verdict as it stands; once more, should there be messages too many."""
        now, cpu_s = time.monotonic(), time.process_time() - self._began_cpu
        verdict = {
            "count": self._count,
            "sum": self._sum,
            "began": self._began,
            "ended": now,
            "seconds": now - self._began,
            "cpu_s": cpu_s,
        }
        unfinished = self._verdict.with_suffix(".part")
        unfinished.write_text(json.dumps(verdict))
        unfinished.replace(self._verdict)


def from_environment() -> Ledger:
    """Return the ledger that the benchmark asks for: BENCH_VERDICT is its file, BENCH_COUNT how many are expected."""
    return Ledger(Path(os.environ["BENCH_VERDICT"]), int(os.environ["BENCH_COUNT"]))
