"""`runner publish`: publish one message, or one per line."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions, echo_broker_state
from runner.cli.payloads import check_json, check_name, headers_option, load_destination, read_body
from runner.cli.verb import Verb, complete_names
from runner.pipeline.body_encoding import WIDE_FILE, is_wide, without_mark

if TYPE_CHECKING:
    from runner.system import System


def _with_unit(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip("0. "):
        raise options.BadValue("must be at least 1ms", "leave it out", by=[])
    options.duration(context, option, value)
    return value


@click.command("publish", cls=Verb, short_help="Publish a message.")
@options.pipelines(options.broker, options.wait, is_one=True)
@click.argument("name", callback=check_name, shell_complete=complete_names("queues", "events"))
@click.argument("payload", default="-", metavar="[PAYLOAD|@FILE|-]")
@click.option("--lines", is_flag=True, help="Publish each line of the payload as a message.")
@headers_option
@click.option(
    "--rate",
    "per_second",
    metavar="RATE",
    callback=options.rate,
    help="Maximum rate of messages: 100/s, 10/m.",
)
@click.option(
    "--delay", metavar="DURATION", callback=_with_unit, help="How long the broker holds the message: 90s, 2h, 7d."
)
@click.option(
    "--expires",
    metavar="DURATION",
    callback=_with_unit,
    help="How long it may wait for a handler before it is dead-lettered.",
)
@click.option("--priority", type=int, metavar="NUMBER", help="Its priority; the queue must have priorities.")
@click.option("--id", metavar="TEXT", help="Its message id.  [default: a new one]")
def command(
    chosen: PipelineOptions,
    name: str,
    payload: str,
    lines: bool,
    headers: dict[str, str],
    per_second: float | None,
    **message_options: Any,
) -> None:
    """Publish PAYLOAD to the queue or event NAME of the pipeline at PATH, and wait until the broker has confirmed it.

    PATH is a pipeline, or a folder with exactly one pipeline that has NAME.

    PAYLOAD is the message itself, @FILE for a file's content, or - (the default) for standard input. Valid JSON is
    published as JSON, anything else as text. What is JSON but for its quotes, ends too early, or is the name of a file
    without @ is refused: such text comes by standard input. If NAME has a schema, the payload is checked first.

    Exit codes: 0 confirmed, 1 refused or not confirmed, 2 wrong usage, 69 broker unreachable or different, 78 invalid
    pipeline.
    """
    _check_message_options(message_options, lines=lines)
    bodies, numbers = _lines(read_body(payload)) if lines else ([read_body(payload)], [])
    check_json(payload, bodies, numbers)
    system = load_destination(chosen, name)
    ids = asyncio.run(_publish(system, name, bodies, numbers, headers, per_second, message_options))
    for message_id in ids:
        click.echo(message_id)


def _check_message_options(given: dict[str, Any], *, lines: bool) -> None:
    """Raise UsageError for an option that no message can have."""
    from runner.message import Publish

    if lines and given["id"] is not None:
        raise options.BadValue("each line is a message, and needs its own", "leave it out", "--id", by=[])
    try:
        Publish(None, **given)
    except ValueError as error:
        raise click.UsageError(f"--{error}") from None


def _lines(body: bytes) -> tuple[list[bytes], list[int]]:
    """Return the lines that are not empty, and their numbers."""
    if is_wide(body):
        raise options.BadValue("cannot be read", WIDE_FILE, "PAYLOAD")
    found = [(line, number) for number, line in enumerate(without_mark(body).splitlines(), 1) if line.strip()]
    return [line for line, _ in found], [number for _, number in found]


async def _publish(
    system: System,
    name: str,
    bodies: list[bytes],
    lines: list[int],
    headers: dict[str, str],
    per_second: float | None,
    message_options: dict[str, Any],
) -> list[str]:
    from runner import app

    bar = None
    with ExitStack() as stack:
        if len(bodies) > 1 and sys.stderr.isatty():
            bar = stack.enter_context(click.progressbar(length=len(bodies), label="publishing", file=sys.stderr))
        return await app.publish(
            system,
            name,
            bodies,
            headers=headers,
            per_second=per_second,
            lines=lines,
            on_confirmed=lambda: bar.update(1) if bar is not None else None,
            on_transport_event=echo_broker_state,
            **message_options,
        )
