"""`runner status`: the messages, consumers, rates and dead letters of each queue."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli import options
from runner.cli.loader import echo_broker_state, load_system
from runner.cli.output import echo_err, errors_as_exit_codes, wants_color

if TYPE_CHECKING:
    from runner.app import System
    from runner.operations.status import PipelineStatus, QueueStatus, StatusReader

HEADINGS = ("QUEUE", "READY", "UNACKED", "CONSUMERS", "IN/S", "OUT/S", "DEAD")
RIGHT = (1, 2, 3, 4, 5, 6)
UNKNOWN = "–"
ANSWER_S = 5.0
"""How long the broker may take to answer before stderr says that `--watch` is waiting."""

CLEAR = "\x1b[H\x1b[2J"


def _interval(_: click.Context, __: click.Parameter, value: str) -> float:
    from runner.units import parse_duration

    try:
        seconds = parse_duration(value)
    except ValueError:
        seconds = 0.0
    if seconds < 0.1:
        raise click.BadParameter("write a duration of at least 100ms, such as 2s")
    return seconds


@click.command("status", short_help="Show each queue's messages and consumers.")
@options.paths
@click.option("--watch", "is_watching", is_flag=True, help="Refresh until Ctrl-C.")
@click.option(
    "--interval", default="2s", callback=_interval, show_default=True, help="Time between two refreshes with --watch."
)
@click.option("--json", "is_json", is_flag=True, help="Print a JSON list; with --watch, one list per line.")
@options.broker
@options.management
@options.wait
@options.env_file
def command(
    paths: tuple[Path, ...],
    is_watching: bool,
    interval: float,
    is_json: bool,
    broker: str | None,
    management: str | None,
    environ: dict[str, str],
    wait_s: float,
) -> None:
    """Show the ready messages, consumers, rates and dead letters of each queue of the pipelines.

    A queue that does not exist is "missing". A dash is a number that only the management API knows: unacknowledged
    messages and rates. Queues that begin with the pipeline's name and are in no file are "not in the pipeline"; these
    too need the management API.

    Exit codes: 0 shown, 69 broker unreachable, 78 invalid pipeline.
    """
    logging.disable()  # errors are reported below
    with errors_as_exit_codes():
        from runner.operations.targets import require_live_broker

        system = load_system(paths, environ, broker, wait_s=wait_s)
        require_live_broker(system.broker)
        asyncio.run(_show(system, management, is_json=is_json, interval=interval if is_watching else None))


async def _show(system: System, management: str | None, *, is_json: bool, interval: float | None) -> None:
    from runner.cli.signals import stop_on_signals
    from runner.operations.rabbitmq.queue_browser import BrowseSession
    from runner.operations.status import StatusReader, find_management

    browser = BrowseSession(system.broker, name=f"{system.name} status", on_transport_event=echo_broker_state)
    try:
        await browser.open()
        stop = stop_on_signals()
        found, reason = await find_management(system.broker, management, browser)
        if found is None and (management is not None or not is_json):
            echo_err(f"management API: not used: {reason}")
            echo_err("without it, leftover queues cannot be listed")
        reader = StatusReader(system.pipelines, browser, found)
        _print(await reader.read(), is_json=is_json, is_again=False)
        stopping = asyncio.ensure_future(stop.wait())
        while interval is not None and not stop.is_set():
            await asyncio.wait([stopping], timeout=interval)
            if not stop.is_set():
                await _refresh(reader, stopping, is_json=is_json)
    finally:
        await browser.close()


async def _refresh(reader: StatusReader, stopping: asyncio.Future[Any], *, is_json: bool) -> None:
    """Refresh once. If the broker does not answer, say so and go on: it may come back."""
    from runner.errors import BrokerUnavailable

    looking = asyncio.ensure_future(reader.read())
    waiting: list[asyncio.Future[Any]] = [looking, stopping]
    await asyncio.wait(waiting, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
    if not looking.done():
        looking.cancel()
        if not stopping.done():
            echo_err("no answer from the broker; trying again")
        return
    try:
        _print(looking.result(), is_json=is_json, is_again=True)
    except BrokerUnavailable as error:
        echo_err(f"{error}; trying again")


def _print(pipelines: list[PipelineStatus], *, is_json: bool, is_again: bool) -> None:
    from runner.cli.tables import json_line

    if is_json:
        click.echo(json_line([pipeline.as_json() for pipeline in pipelines]))
    else:
        separator = CLEAR if sys.stdout.isatty() else "\n"
        click.echo((separator if is_again else "") + table(pipelines), color=True)


def table(pipelines: list[PipelineStatus]) -> str:
    """Return the tables of the pipelines, separated by blank lines."""
    from runner.cli.tables import format_columns
    from runner.redaction import escape_line

    is_colored = wants_color(sys.stdout.isatty())
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    blocks = []
    for pipeline in pipelines:
        retrying = f" · {pipeline.retrying} waiting for a retry" if pipeline.retrying else ""
        name = click.style(pipeline.name, bold=True) if is_colored else pipeline.name
        title = f"{name}  {escape_line(pipeline.path)}{retrying}"
        rows = [HEADINGS, *(_row(queue) for queue in pipeline.queues)]
        rows += [(f"{name} (not in the pipeline)", *numbers) for name, *numbers in map(_row, pipeline.leftovers)]
        blocks.append("\n".join([title, *(f"  {line}" for line in format_columns(rows, right=RIGHT, width=width))]))
    return "\n\n".join(blocks)


def _row(queue: QueueStatus) -> tuple[str, ...]:
    from runner.redaction import escape_line

    dead = UNKNOWN if queue.dead is None else str(queue.dead)
    if queue.exists is False:
        return escape_line(queue.name), "missing", "", "", "", "", dead
    numbers = (queue.ready, queue.unacked, queue.consumers)
    rates = (queue.publish_rate, queue.deliver_rate)
    return (
        escape_line(queue.name),
        *(UNKNOWN if number is None else str(number) for number in numbers),
        *(UNKNOWN if rate is None else f"{rate:.1f}" for rate in rates),
        dead,
    )
