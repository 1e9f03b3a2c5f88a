"""Entries: Celery's worker, with the solo pool (one process), prefork (two children of one process), and threads.

From its "Optimizing" and "Configuration" guides: `task_acks_late`, a prefetch multiplier for many short tasks (100
messages in all), results and events off, rate limits off; gossip, mingle and heartbeat off. hop: publishing on waits
for its confirm, by `broker_transport_options: {confirm_publish: True}`; without it Celery has none.
`benchmarks.entries.celery_tasks` is the application.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.entries.job import THREADS, Entry, Job

TASKS = "benchmarks.entries.celery_tasks"
_QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")


def _solo(job: Job, _: Path) -> list[str]:
    return _worker(job, "solo", 1)


def _prefork(job: Job, _: Path) -> list[str]:
    return _worker(job, "prefork", 2)


def _threads(job: Job, _: Path) -> list[str]:
    return _worker(job, "threads", THREADS)


def _worker(job: Job, pool: str, children: int) -> list[str]:
    prefetch = f"--prefetch-multiplier={job.prefetch // children}"
    pool_of = ["--pool", pool, "--concurrency", str(children), prefetch]
    return [sys.executable, "-m", "celery", "-A", TASKS, "worker", "-Q", job.source, *pool_of, *_QUIET]


CELERY = Entry(
    name="Celery, solo",
    command=_solo,
    works=frozenset({"consume", "hop"}),
    requires=("celery",),
    share=0.5,
    fill=[sys.executable, "-m", TASKS],
)
CELERY_PREFORK = replace(
    CELERY,
    name="Celery, prefork of 2",
    command=_prefork,
    works=frozenset({"consume"}),
    kinds=frozenset({"classic"}),
    share=0.5,
    is_shared=True,
)
CELERY_THREADS = replace(
    CELERY,
    name=f"Celery, {THREADS} threads",
    command=_threads,
    works=frozenset({"threads"}),
    kinds=frozenset({"classic"}),
)
