"""What an entry is asked to do, and how it answers: all that a benchmark and an entry need to know of each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Work = Literal["consume", "hop", "publish"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One measurement.

    consume: handle `count` messages that wait in `source`. hop: publish, confirmed, each to `target` before it is
    acknowledged. publish: publish `count` messages to `target`, `WINDOW` of them waiting for their confirm at once.
    Queues exist already; bodies are JSON objects with a `number` from 0 (`body`). `logs` wants a line of JSON for each
    message on stdout, which is a file.
    """

    work: Work
    count: int
    url: str = "memory"
    kind: Literal["classic", "quorum"] = "classic"
    source: str = ""
    target: str = ""
    prefetch: int = 100
    concurrency: int = 100
    logs: bool = False


WINDOW = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """Who does the work.

    `command` gets the job and an empty folder, and returns what to run there. The process has BENCH_VERDICT and
    BENCH_COUNT in its environment, keeps a `benchmarks.ledger.Ledger`, and ends by itself. `read_end`, where there is
    one, returns when (monotonic seconds) the work really ended, from what the process left in the folder.
    """

    name: str
    command: Callable[[Job, Path], list[str]]
    read_end: Callable[[Job, Path], float | None] = lambda _, __: None


def body(number: int) -> dict[str, object]:
    """Return a message of about 100 bytes of JSON."""
    return {"number": number, "customer": "Ada Lovelace", "article": "analytical engine", "quantity": 3, "urgent": True}
