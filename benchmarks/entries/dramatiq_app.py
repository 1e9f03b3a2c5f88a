"""Entry: Dramatiq's command, with one process and one thread.

`dramatiq --processes 1 --threads 1`, and `dramatiq_queue_prefetch=100` (its environment variable; the default is twice
the threads). Measured with 8 threads it was slower, since they share one interpreter. Messages are acknowledged after
the actor, always. hop: `confirm_delivery=True`. Its queues are classic ones: it has no option for quorum queues.
`benchmarks.entries.dramatiq_tasks` is the application.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.entries.job import Entry, Job

TASKS = "benchmarks.entries.dramatiq_tasks"


def _command(job: Job, _: Path) -> list[str]:
    return [sys.executable, "-m", "dramatiq", "--processes", "1", "--threads", "1", "-Q", job.source, "--", TASKS]


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
