"""Turns handled messages into an account: how many, whether each once, in what time, and what they cost the process.

It is imported by the processes under measurement, whoever's they are, and costs each the same fraction of a
microsecond.
"""

from __future__ import annotations

import json
import os
import threading
import time
from array import array
from pathlib import Path

SHARED_WRITE_S = 0.02


class Ledger:
    """The account of one process, in a file of its own in `folder`. Messages carry numbers from 0.

    When `count` have come it is written. Time and CPU count from the first message (or from `begin`) to the last one,
    so start-up counts for nobody.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._expected = count
        self._count = 0
        self._sum = 0
        self._began = 0.0
        self._began_cpu = 0.0

    @property
    def is_counting(self) -> bool:
        """Whether the clock runs: the first message has come, the last one has not."""
        return self._began > 0 and self._count < self._expected

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
            self.write(time.monotonic())

    def write(self, ended: float, **more: object) -> None:
        """Write the account as it stands; once more, should there be messages too many."""
        account = {
            "count": self._count,
            "sum": self._sum,
            "began": self._began,
            "ended": ended,
            "cpu_s": time.process_time() - self._began_cpu,
            **more,
        }
        file = self._folder / f"ledger-{os.getpid()}.json"
        unfinished = file.with_suffix(".part")
        unfinished.write_text(json.dumps(account))
        unfinished.replace(file)


class ThreadsLedger(Ledger):
    """The account of a process whose handlers run in several threads."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(folder, count)
        self._lock = threading.Lock()

    def note(self, number: int) -> None:
        with self._lock:
            super().note(number)


class SharedLedger(Ledger):
    """The account of one of several processes: none knows when all is done, so each writes whenever there is news.

    A thread writes, begun with the first message: a process that forks before it has its own. CPU time is that of the
    last writing, 20 ms of idling after the last message at most.
    """

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(folder, count)
        self._ended = 0.0

    def begin(self) -> None:
        super().begin()
        threading.Thread(target=self._write_news, daemon=True).start()

    def note(self, number: int) -> None:
        if not self._began:
            self.begin()
        self._count += 1
        self._sum += number
        self._ended = time.monotonic()

    def _write_news(self) -> None:
        written = 0
        while True:
            time.sleep(SHARED_WRITE_S)
            if self._count != written:
                written = self._count
                self.write(self._ended)


class Stopwatch(Ledger):
    """A ledger that also keeps how long each message was under way; `sent` is the publisher's monotonic time."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(folder, count)
        self._latencies = array("d")

    def clock(self, number: int, sent: float) -> None:
        """Note one message and its latency, first thing in its handler."""
        self._latencies.append(time.monotonic() - sent)
        self.note(number)

    def write(self, ended: float, **more: object) -> None:
        super().write(ended, latencies=list(self._latencies), **more)


def from_environment() -> Ledger:
    """Return the ledger that the benchmark asks for.

    BENCH_LEDGER is its folder, BENCH_COUNT how many messages are expected, BENCH_LEDGER_KIND its class.
    """
    kinds = {kind.__name__: kind for kind in (Ledger, ThreadsLedger, SharedLedger, Stopwatch)}
    kind = kinds[os.environ.get("BENCH_LEDGER_KIND", "Ledger")]
    return kind(Path(os.environ["BENCH_LEDGER"]), int(os.environ["BENCH_COUNT"]))


def stopwatch() -> Stopwatch:
    """Return the ledger of a latency benchmark."""
    found = from_environment()
    assert isinstance(found, Stopwatch)
    return found
