"""Entries: the real `runner up` of a real pipeline file."""

from __future__ import annotations

import functools
import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from benchmarks.entries.job import THREADS, Entry, Job
from benchmarks.harness import ROOT, RUNNER

_HEAD = """\
version: 1
name: bench
python_path: ["{root}"]
broker: {url}
logging: {{messages: {messages}}}
"""

_QUEUE = "  {name}: {{type: {kind}, declare: false, dead_letter: false}}\n"

_SUBSCRIBER = """\
subscribers:
  work:
    from: {source}
    handler: benchmarks.entries.handlers:{handler}
    concurrency: {concurrency}
    prefetch: {prefetch}
    retry: none
"""

_PRODUCER = """\
producers:
  work:
    handler: benchmarks.entries.handlers:{handler}
    to: {target}
"""

_HANDLERS: Mapping[str, str] = {
    "consume": "consume",
    "log": "consume",
    "threads": "consume_in_thread",
    "model": "consume_model",
    "hop": "hop",
    "latency": "clock",
}


def pipeline(job: Job) -> str:
    """Return the pipeline file that does a job."""
    names = [name for name in (job.source, job.target) if name]
    text = _HEAD.format(root=ROOT, url=job.url, messages=str(job.work == "log").lower())
    text += "queues:\n" + "".join(_QUEUE.format(name=name, kind=job.kind) for name in names)
    if job.work == "publish":
        return text + _PRODUCER.format(handler="produce_and_note", target=job.target)
    text += _SUBSCRIBER.format(
        source=job.source,
        handler=_HANDLERS[job.work],
        concurrency=THREADS if job.work == "threads" else job.concurrency,
        prefetch=job.prefetch,
    )
    return text + (f"    to: {job.target}\n" if job.work == "hop" else "")


def write(folder: Path, text: str, *arguments: str) -> list[str]:
    """Write a pipeline file and return the command that runs it."""
    (folder / "bench.yaml").write_text(text)
    return [*RUNNER, "up", "bench.yaml", *arguments]


def _command(job: Job, folder: Path) -> list[str]:
    return write(folder, pipeline(job), *(["--until-idle"] if job.work == "publish" else []))


def _command_with_workers(job: Job, folder: Path) -> list[str]:
    return [*_command(job, folder), "--workers", str(job.processes)]


def _command_with_metrics(job: Job, folder: Path) -> list[str]:
    return [*_command(job, folder), "--http", "127.0.0.1:0"]


@functools.cache
def has_option(name: str) -> bool:
    """Whether this version's `runner up` has an option."""
    done = subprocess.run([*RUNNER, "up", "--help"], cwd=ROOT, capture_output=True, text=True)
    return name in done.stdout


def _end_of_publishing(job: Job, folder: Path) -> float | None:
    """Return when the log says that everything is confirmed: a producer cannot know that itself."""
    return end_of_publishing(folder) if job.work == "publish" else None


def end_of_publishing(folder: Path) -> float:
    """Return when a process logged that its producer had finished, in monotonic seconds."""
    lines = [json.loads(line) for line in (folder / "stdout-0").read_text().splitlines()]
    finished = next(line for line in lines if line["event"] == "producer.finished")
    offset = time.time() - time.monotonic()
    return datetime.fromisoformat(finished["timestamp"]).timestamp() - offset


MQRUNNER = Entry(
    name="mqrunner",
    command=_command,
    works=frozenset({"consume", "model", "log", "threads", "hop", "publish", "latency"}),
    share=3.0,
    read_end=_end_of_publishing,
)

MQRUNNER_WORKERS = replace(MQRUNNER, name="mqrunner, --workers", command=_command_with_workers, starts_its_own=True)
"""Only for a `runner up` that has the option (`has_option`)."""


MQRUNNER_METRICS = replace(MQRUNNER, name="mqrunner, metrics", command=_command_with_metrics)
"""The same, with everything counted and timed that /metrics shows; the messages say when they were published."""

MQRUNNER_UVLOOP = replace(MQRUNNER, name="mqrunner + uvloop", variables={"RUNNER_LOOP": "uvloop"}, requires=("uvloop",))
