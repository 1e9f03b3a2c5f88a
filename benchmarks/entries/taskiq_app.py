"""Entry: Taskiq with taskiq-aio-pika, run by its own command.

`taskiq worker --workers 1 --ack-type when_executed --max-async-tasks 100 --no-parse` (CLI guide): one process,
acknowledged after the task, as many tasks at once as the prefetch (`qos`) allows, no pydantic for a plain dict. The
command takes uvloop where it is installed, which it is with the extra `bench`.

`benchmarks.entries.taskiq_tasks` is what the command imports, and what fills the queue.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.entries.job import Entry, Job

TASKS = "benchmarks.entries.taskiq_tasks"


def _command(job: Job, _: Path) -> list[str]:
    flags = ["--workers", "1", "--ack-type", "when_executed", "--max-async-tasks", str(job.concurrency), "--no-parse"]
    return [sys.executable, "-m", "taskiq", "worker", *flags, "--log-level", "WARNING", f"{TASKS}:broker"]


TASKIQ = Entry(
    name="Taskiq (uvloop)",
    command=_command,
    works=frozenset({"consume"}),
    requires=("taskiq", "taskiq_aio_pika", "uvloop"),
    share=0.5,
    fill=[sys.executable, "-m", TASKS],
)
