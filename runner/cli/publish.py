"""`runner publish`: publish one message, or one per line."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli import options
from runner.cli.loader import echo_broker_state, load_system
from runner.cli.output import echo_err, errors_as_exit_codes
from runner.cli.verb import Verb, complete_names
from runner.config.messages import closest
from runner.errors import RunnerError
from runner.pipeline.body_encoding import WIDE_FILE, is_wide, without_mark

if TYPE_CHECKING:
    from runner.app import System
    from runner.config.overlays import Overlay


class NoBrokerToPublishTo(RunnerError):
    """The pipeline runs on the in-process broker, which other processes cannot reach."""

    exit_code = 2


@click.command("publish", cls=Verb, short_help="Publish a message.")
@options.path
@click.argument("name", shell_complete=complete_names("queues", "events"))
@click.argument("payload", default="-", metavar="[PAYLOAD|@FILE|-]")
@click.option("--lines", is_flag=True, help="Publish each line of the payload as a message.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    callback=lambda _, __, values: _headers(values),
    help="Header of each message; repeatable.",
)
@click.option(
    "--rate",
    "per_second",
    metavar="RATE",
    callback=lambda _, __, value: options.parse_rate_option(value),
    help="Maximum rate of messages: 100/s, 10/m.",
)
@options.broker
@options.wait
@options.env_file
def command(
    path: Path,
    overlays: tuple[Overlay, ...],
    name: str,
    payload: str,
    lines: bool,
    headers: dict[str, str],
    per_second: float | None,
    broker: str | None,
    environ: dict[str, str],
    wait_s: float,
) -> None:
    """Publish PAYLOAD to the queue or event NAME of the pipeline at PATH, and wait until the broker has confirmed it.

    PATH is a pipeline, or a folder with exactly one pipeline that has NAME.

    PAYLOAD is the message itself, @FILE for a file's content, or - (the default) for standard input. Valid JSON is
    published as JSON, anything else as text. If NAME has a schema, the payload is checked first.

    Exit codes: 0 confirmed, 1 refused or not confirmed, 2 wrong usage, 69 broker unreachable or different, 78 invalid
    pipeline.
    """
    bodies, numbers = _lines(_body(payload)) if lines else ([_body(payload)], [])
    logging.disable()  # errors are reported below; the AMQP client's own log lines add nothing
    _warn_of_broken_json(bodies, numbers)
    with errors_as_exit_codes():
        from runner import app

        system = load_system([path], environ, broker, overlays, wait_s=wait_s, is_one_process=False)
        system = app.select_destination(system, name)
        if system.broker.is_memory:
            hint = "pass --broker amqp://…, or let a producer of the pipeline publish it"
            raise NoBrokerToPublishTo(
                "the in-process broker exists only inside `runner up`: nothing would receive this message", hint
            )
        ids = asyncio.run(_publish(system, name, bodies, numbers, headers, per_second))
    for message_id in ids:
        click.echo(message_id)


def _body(payload: str) -> bytes:
    """Return the bytes to publish."""
    if payload == "-":
        if sys.stdin is None:  # it is closed
            raise options.BadValue("standard input is closed", "write the payload, or @FILE", "PAYLOAD")
        return sys.stdin.buffer.read()
    if payload.startswith("@"):
        try:
            if Path(payload[1:]).is_char_device():  # it may never end
                raise OSError(None, "it is not a file")
            return Path(payload[1:]).read_bytes()
        except OSError as error:
            guess = closest(payload[1:], os.listdir())
            hint = f'did you mean "@{guess}"?' if guess else "correct the path after the @"
            raise options.BadValue(
                f"cannot read {payload[1:]}: {(error.strerror or '').lower()}", hint, "PAYLOAD"
            ) from None
    return payload.encode("utf-8", "surrogateescape")


def _warn_of_broken_json(bodies: list[bytes], numbers: list[int]) -> None:
    """Say that a payload looks like JSON and is none: it is published as text."""
    from runner.pipeline.data_errors import json_error

    for index, body in enumerate(bodies):
        if body.lstrip()[:1] in (b"{", b"[") and (why := json_error(body)):
            where = f"line {numbers[index]}" if numbers else "the payload"
            echo_err(f"warning: {where} looks like JSON, but is not: {why}; it is text")


def _lines(body: bytes) -> tuple[list[bytes], list[int]]:
    """Return the lines that are not empty, and their numbers."""
    if is_wide(body):
        raise click.BadParameter(WIDE_FILE, param_hint="PAYLOAD")
    found = [(line, number) for number, line in enumerate(without_mark(body).splitlines(), 1) if line.strip()]
    return [line for line, _ in found], [number for _, number in found]


def _headers(values: tuple[str, ...]) -> dict[str, str]:
    """Parse the values of --header."""
    headers = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name or not equals:
            raise options.BadValue(f'"{value}" is not NAME=VALUE', f"write {value.replace(':', '=', 1)}")
        if name.startswith("x-runner-"):
            raise click.BadParameter('names that start with "x-runner-" belong to the runner')
        headers[name] = text
    return headers


async def _publish(
    system: System,
    name: str,
    bodies: list[bytes],
    lines: list[int],
    headers: dict[str, str],
    per_second: float | None,
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
        )
