"""Entry: the real `runner up --until-idle` of a real pipeline file."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

from benchmarks.entries.job import Entry, Job
from benchmarks.measuring import ROOT, RUNNER

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


def _command(job: Job, folder: Path) -> list[str]:
    names = [name for name in (job.source, job.target) if name]
    text = _HEAD.format(root=ROOT, url=job.url, messages=str(job.logs).lower())
    text += "queues:\n" + "".join(_QUEUE.format(name=name, kind=job.kind) for name in names)
    match job.work:
        case "consume" | "hop":
            text += _SUBSCRIBER.format(
                source=job.source, handler=job.work, concurrency=job.concurrency, prefetch=job.prefetch
            )
            if job.work == "hop":
                text += f"    to: {job.target}\n"
        case "publish":
            text += _PRODUCER.format(handler="produce_and_note", target=job.target)
    return write(folder, text)


def write(folder: Path, pipeline: str, *arguments: str) -> list[str]:
    """Write a pipeline file and return the command that runs it until it is idle."""
    (folder / "bench.yaml").write_text(pipeline)
    return [*RUNNER, "up", "bench.yaml", "--until-idle", *arguments]


def _end_of_publishing(job: Job, folder: Path) -> float | None:
    """Return when the log says that everything is confirmed: a producer cannot know that itself."""
    if job.work != "publish":
        return None
    lines = [json.loads(line) for line in (folder / "stdout").read_text().splitlines()]
    finished = next(line for line in lines if line["event"] == "producer.finished")
    offset = time.time() - time.monotonic()
    return datetime.fromisoformat(finished["timestamp"]).timestamp() - offset


RUNLINE = Entry("runline", _command, _end_of_publishing)
