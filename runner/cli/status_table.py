"""The table of `runner status`: one row for each queue, or two lines on a narrow terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from runner.cli.output import wants_color
from runner.cli.tables import format_age, format_columns, truncate
from runner.redaction import escape_line
from runner.text_width import display_width

if TYPE_CHECKING:
    from runner.operations.status import PipelineStatus, QueueStatus, RunningProcess

HEADINGS = ("QUEUE", "READY", "UNACKED", "CONSUMERS", "IN/S", "OUT/S", "OLDEST", "FAILED", "DEAD")
SHORT_HEADINGS = ("READY", "UNACK", "CONS", "IN/S", "OUT/S", "OLDEST", "FAILED", "DEAD")
"""The headings if each queue's name has its own line, so that the table fits into 60 columns."""

UNKNOWN = "–"


def table(pipelines: Sequence[PipelineStatus]) -> str:
    """Return the tables of pipelines, one below the other."""
    is_colored = wants_color(sys.stdout.isatty())
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    blocks = []
    for pipeline in pipelines:
        retrying = f" · {pipeline.retrying} waiting for a retry" if pipeline.retrying else ""
        retrying += f" · {pipeline.scheduled} scheduled" if pipeline.scheduled else ""
        name = click.style(pipeline.name, bold=True) if is_colored else pipeline.name
        title = f"{name}  {escape_line(pipeline.path)}{retrying}"
        disabled = [f"disabled: {', '.join(pipeline.disabled)}"] if pipeline.disabled else []
        pauses = sorted((pipeline.pauses or {}).items())
        lines = [*_queues(pipeline, width), *disabled, *_processes(pipeline)]
        lines += [escape_line(f"{subscriber} is {pause.text}") for subscriber, pause in pauses]
        blocks.append("\n".join([title, *(truncate(f"  {line}", width) for line in lines)]))
    return "\n\n".join(blocks)


def _queues(pipeline: PipelineStatus, width: int | None) -> list[str]:
    rows = [HEADINGS, *map(_row, pipeline.queues)]
    rows += [(f"{name} (not in the pipeline)", *numbers) for name, *numbers in map(_row, pipeline.leftovers)]
    lines = format_columns(rows, right=range(1, len(HEADINGS)))
    if width is None or max(map(display_width, lines)) + 2 <= width:
        return lines
    numbers = format_columns([SHORT_HEADINGS, *(row[1:] for row in rows[1:])], right=range(len(SHORT_HEADINGS)))
    names = ["QUEUE", *(row[0] for row in rows[1:])]
    return [line for name, cells in zip(names, numbers, strict=True) for line in (name, f"  {cells}")]


def _row(queue: QueueStatus) -> tuple[str, ...]:
    name = f"{escape_line(queue.name)}{' (paused)' if queue.is_paused else ''}"
    failed, dead = (UNKNOWN if number is None else str(number) for number in (queue.failed, queue.dead))
    if queue.exists is False:
        return name, "missing", "", "", "", "", "", "", dead
    numbers = (queue.ready, queue.unacked, queue.consumers)
    rates = (queue.publish_rate, queue.deliver_rate)
    return (
        name,
        *(UNKNOWN if number is None else str(number) for number in numbers),
        *(UNKNOWN if rate is None else f"{rate:.1f}" for rate in rates),
        format_age(queue.oldest_s),
        failed,
        dead,
    )


def _processes(pipeline: PipelineStatus) -> Iterator[str]:
    """Yield a line for each process that runs the pipeline; nothing if that is not known."""
    if pipeline.processes is not None and not pipeline.processes:
        yield "no process runs it"
    for process in pipeline.processes or ():
        yield f"run by {escape_line(_process_text(process))}"


def _process_text(process: RunningProcess) -> str:
    release = f"release {process.release} · " if process.release else ""
    return f"{process.host} · process {process.process} · {release}{process.version} · since {_moment(process.since)}"


def _moment(text: str) -> str:
    """Return a time to the minute, in the local time zone; other text is returned unchanged."""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return text
