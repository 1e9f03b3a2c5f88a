"""Entries: Dramatiq's command with one process, of one thread or of `THREADS`.

`dramatiq --processes 1 --threads N`, and `dramatiq_queue_prefetch=100` (its environment variable; the default is twice
the threads). More threads are slower where the actor only counts, since they share one interpreter. Messages are
acknowledged after the actor, always. hop: `confirm_delivery=True`. Its queues are classic ones: it has no option for
quorum queues.
`benchmarks.entries.dramatiq_tasks` is the application.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.entries.job import THREADS, Entry, Job

TASKS = "benchmarks.entries.dramatiq_tasks"


def _command(job: Job, _: Path) -> list[str]:
    threads = str(THREADS if job.work == "threads" else 1)
    return [sys.executable, "-m", "dramatiq", "--processes", "1", "--threads", threads, "-Q", job.source, "--", TASKS]


DRAMATIQ = Entry(
    name="Dramatiq, 1 thread",
    command=_command,
    works=frozenset({"consume", "hop"}),
    kinds=frozenset({"classic"}),
    requires=("dramatiq", "pika"),
    share=0.5,
    fill=[sys.executable, "-m", TASKS],
    variables={"dramatiq_queue_prefetch": "100"},
)
DRAMATIQ_THREADS = replace(DRAMATIQ, name=f"Dramatiq, {THREADS} threads", works=frozenset({"threads"}))
