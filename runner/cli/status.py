"""`runner status`: the messages, consumers, rates and dead letters of each queue, and the running processes."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions, echo_broker_state
from runner.cli.output import echo_err, wants_color
from runner.cli.tables import format_age, format_columns, json_line, truncate
from runner.cli.verb import Verb
from runner.redaction import escape_line
from runner.text_width import display_width

if TYPE_CHECKING:
    from runner.operations.conditions import Condition
    from runner.operations.process_status import ProcessReader
    from runner.operations.status import PipelineStatus, QueueStatus
    from runner.system import System

ANSWER_S = 5.0
"""Time without an answer after which `--watch` reports on stderr that it tries again."""

FAILED = 1

CLEAR = "\x1b[H\x1b[2J"

HEADINGS = ("QUEUE", "READY", "UNACKED", "CONSUMERS", "IN/S", "OUT/S", "OLDEST", "FAILED", "DEAD")
SHORT_HEADINGS = ("READY", "UNACK", "CONS", "IN/S", "OUT/S", "OLDEST", "FAILED", "DEAD")
"""The headings if each queue's name has its own line, so that the table fits into 60 columns."""

UNKNOWN = "–"

Look = Callable[[], Awaitable["list[PipelineStatus]"]]


def _interval(context: click.Context, option: click.Parameter, value: str) -> float:
    seconds = options.duration(context, option, value) or 0.0
    if seconds < 0.1:
        raise options.BadValue("must be at least 100ms", by=["100ms"])
    return seconds


def _conditions(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> list[Condition]:
    from runner.operations.conditions import parse_condition

    try:
        return [parse_condition(text) for text in value]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class _StatusCommand(Verb):
    """The command `status`, in which one `--fail-if` takes several conditions. Click has no such option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, with the option repeated before each further condition."""
        repeated: list[str] = []
        for argument in args:
            is_further = repeated[-2:-1] == ["--fail-if"] and not argument.startswith("-")
            if is_further and set("<>=") & set(argument) and not Path(argument).exists():
                repeated.append("--fail-if")
            repeated.append(argument)
        return super().parse_args(ctx, repeated)


@click.command("status", cls=_StatusCommand, short_help="Show each queue's messages and consumers.")
@options.pipelines(options.broker, options.management, options.wait)
@click.option("--watch", "is_watching", is_flag=True, help="Refresh until Ctrl-C.")
@click.option(
    "--interval", default="2s", callback=_interval, show_default=True, help="Time between two refreshes with --watch."
)
@click.option("--json", "is_json", is_flag=True, help="Print a JSON list; with --watch, one list per line.")
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    callback=_conditions,
    help="Exit with 1 if this holds for a queue or is not known, such as 'dead>0', 'age>5m' or 'orders: consumers<1'. "
    "Takes several conditions, and is repeatable.",
)
@click.option(
    "--http",
    metavar="HOST:PORT",
    callback=options.http_address,
    help="Address of a process that runs the pipelines. Default: telemetry.http of the file.",
)
def command(
    chosen: PipelineOptions,
    is_watching: bool,
    interval: float,
    is_json: bool,
    conditions: list[Condition],
    http: tuple[str, int] | None,
) -> None:
    """Show the ready messages, consumers, rates and dead letters of each queue, and the processes of the pipelines.

    A queue that does not exist is "missing". A dash is a number that is not known. The management API knows
    unacknowledged messages, rates, the oldest message of classic queues, and the processes that run the pipelines. A
    process with an HTTP address knows failed attempts, pauses, and the oldest message that it has held. Queues whose
    names begin with the pipeline's name, but which are in no file, are "not in the pipeline"; finding them needs the
    management API.

    Exit codes: 0 shown, 1 a condition of --fail-if holds or is not known, 2 in-process broker without the address of a
    process, 69 broker or process unreachable, 78 invalid pipeline.
    """
    from runner.operations.process_status import ProcessReader
    from runner.operations.targets import require_live_broker

    if conditions and is_watching:
        raise options.BadValue("a condition of --fail-if is checked once", "leave it out", "--watch", by=[])
    system = chosen.load()
    address = http or next((pipeline.http for pipeline in system.pipelines if pipeline.http), None)
    process = ProcessReader(address, [pipeline.name for pipeline in system.pipelines]) if address else None
    if process is None:
        require_live_broker(system.broker)
    shown = _Printer(is_json, interval if is_watching else None)
    sys.exit(asyncio.run(_show(system, process, chosen.management, shown, conditions)))


class _Printer:
    """Prints statuses. `interval` is the time between two refreshes in seconds, None to print once."""

    def __init__(self, is_json: bool, interval: float | None) -> None:
        self.is_json = is_json
        self.interval = interval
        self._has_printed = False

    def print(self, pipelines: list[PipelineStatus]) -> None:
        if self.is_json:
            click.echo(json_line([pipeline.as_json() for pipeline in pipelines]))
        else:
            separator = CLEAR if sys.stdout.isatty() else "\n"
            click.echo((separator if self._has_printed else "") + table(pipelines), color=True)
        self._has_printed = True


async def _show(
    system: System,
    process: ProcessReader | None,
    management: str | None,
    shown: _Printer,
    conditions: Sequence[Condition],
) -> int:
    """Connect to the broker or the process, and show the state; return the exit code."""
    from runner.cli.signals import stop_on_signals
    from runner.operations.memory_access import open_access
    from runner.operations.process_status import statuses_of
    from runner.operations.status import StatusReader, find_management

    if system.broker.is_memory and process is not None:
        disabled = {pipeline.name: pipeline.disabled for pipeline in system.pipelines}
        local = process

        async def ask() -> list[PipelineStatus]:
            statuses = statuses_of([*disabled], await local.ask())
            return [replace(status, disabled=disabled[status.name]) for status in statuses]

        return await _refresh_until(stop_on_signals(), ask, shown, conditions)
    name = f"{system.name} status"
    async with open_access(system.broker, name=name, on_transport_event=echo_broker_state) as browser:
        stop = stop_on_signals()
        found, reason = await find_management(system.broker, management, browser)
        if found is None and reason and (management is not None or not shown.is_json):
            echo_err(f"management API: not used: {reason}")
            echo_err("without it, leftover queues cannot be listed")
        reader = StatusReader(system.pipelines, browser, found)
        return await _refresh_until(stop, _with_process(reader.read, process), shown, conditions)


def _with_process(look: Look, process: ProcessReader | None) -> Look:
    """Return a function that reads the broker and the process. If the process is silent, stderr says why, once."""
    from runner.operations.process_status import ProcessSilent, with_process

    said = ""

    async def look_at_both() -> list[PipelineStatus]:
        nonlocal said
        statuses = await look()
        if process is None:
            return statuses
        try:
            return with_process(statuses, await process.ask())
        except ProcessSilent as silent:
            if str(silent) != said:
                said = str(silent)
                echo_err(f"process: not used: {said}")
            return statuses

    return look_at_both


async def _refresh_until(stop: asyncio.Event, look: Look, shown: _Printer, conditions: Sequence[Condition]) -> int:
    """Show the state once, or until `stop` is set; return the exit code."""
    statuses = await look()
    shown.print(statuses)
    if conditions:
        return _report_conditions(conditions, statuses)
    stopping = asyncio.ensure_future(stop.wait())
    while shown.interval is not None and not stop.is_set():
        await asyncio.wait([stopping], timeout=shown.interval)
        if not stop.is_set():
            await _refresh(look, stopping, shown)
    return 0


async def _refresh(look: Look, stopping: asyncio.Future[Any], shown: _Printer) -> None:
    """Refresh once. If the broker or the process does not answer, report it and go on, because it may come back."""
    from runner.errors import BrokerUnavailable
    from runner.operations.process_status import ProcessSilent

    looking = asyncio.ensure_future(look())
    waiting: list[asyncio.Future[Any]] = [looking, stopping]
    await asyncio.wait(waiting, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
    if not looking.done():
        looking.cancel()
        if not stopping.done():
            echo_err("no answer from the broker; trying again")
        return
    try:
        shown.print(looking.result())
    except (BrokerUnavailable, ProcessSilent) as error:
        echo_err(f"{error}; trying again")


def _report_conditions(conditions: Sequence[Condition], statuses: Sequence[PipelineStatus]) -> int:
    """Report the conditions that hold or may hold; return the exit code. Raises a usage error for an unknown queue."""
    from runner.operations.conditions import judge

    try:
        findings = list(judge(conditions, statuses))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--fail-if") from None
    for finding in findings:
        echo_err(f"failed: {finding}")
    return FAILED if findings else 0


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
        release = [f"release {process.release}"] if process.release else []
        parts = [
            process.host,
            f"process {process.process}",
            *release,
            process.version,
            f"since {_moment(process.since)}",
        ]
        yield f"run by {escape_line(' · '.join(parts))}"


def _moment(text: str) -> str:
    """Return a time to the minute, in the local time zone; other text is returned unchanged."""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return text
