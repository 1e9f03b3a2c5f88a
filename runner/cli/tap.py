"""`runner tap`: watch messages go by, without taking any."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from runner.cli import options
from runner.cli.loader import echo_broker_state, load_system
from runner.cli.output import echo_err, errors_as_exit_codes

if TYPE_CHECKING:
    from runner.operations.rabbitmq.message_tap import TappedMessage
    from runner.operations.tap import TapSource
    from runner.pipeline.model import Pipeline

MAX_LINE = 2000


@click.command("tap", short_help="Watch messages go by.")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON, one object on each line.")
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also append the payloads to FILE, as JSON lines that a producer with `file:` publishes again.",
)
@options.broker
@options.wait
@options.env_file
def command(
    path: Path,
    name: str,
    limit: int | None,
    is_json: bool,
    record: Path | None,
    broker: str | None,
    environ: dict[str, str],
    wait_s: float,
) -> None:
    """Watch copies of the messages of NAME go by, from now on, until Ctrl-C; takes none away.

    NAME is an event, a pattern of events, or a queue or a subscriber that is bound to some. What is published to a
    queue by its name alone cannot be copied.

    Exit codes: 0 watched, 2 nothing can be heard there, 69 broker unreachable, 78 invalid pipeline.
    """
    logging.disable()  # what goes wrong comes as an error
    with errors_as_exit_codes(), ExitStack() as files:
        from runner.operations.tap import pipeline_with_target, tap_source
        from runner.operations.targets import require_live_broker

        system = load_system([path], environ, broker, wait_s=wait_s)
        require_live_broker(system.broker)
        pipeline = pipeline_with_target(system.pipelines, name)
        heard = tap_source(pipeline, name)
        out = _Out(is_json=is_json, record=files.enter_context(_opened(record)) if record is not None else None)
        try:
            asyncio.run(_tap(pipeline, heard, out, limit))
        except BrokenPipeError:  # nobody reads any more, as after `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _opened(record: Path) -> IO[bytes]:
    try:
        # Other users of the machine must not read messages.
        return open(record, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
    except OSError as error:
        raise click.BadParameter(f"cannot write {record}: {error.strerror}", param_hint="--record") from None


async def _tap(pipeline: Pipeline, heard: TapSource, out: _Out, limit: int | None) -> None:
    from runner.cli.signals import stop_on_signals
    from runner.operations.rabbitmq.message_tap import Tap

    tap = Tap(pipeline.broker, name=pipeline.name, on_transport_event=echo_broker_state)
    shown = 0
    try:
        await tap.open(heard.bindings)
        stopping = asyncio.ensure_future(stop_on_signals().wait())
        places = ", ".join(f"{binding.exchange}:{binding.key}" for binding in heard.bindings)
        echo_err(f"listening to {places}; Ctrl-C to stop")
        if heard.not_covered:
            echo_err(f"not heard: {heard.not_covered}")
        while limit is None or shown < limit:
            passing = asyncio.ensure_future(tap.next())
            await asyncio.wait([passing, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not passing.done():
                passing.cancel()
                break
            await asyncio.to_thread(out.write, passing.result())  # a terminal may be slow, and must hold nobody up
            shown += 1
    finally:
        await tap.close()
        missed = f" · {tap.missed} missed: they came faster than they were written" if tap.missed else ""
        echo_err(f"{shown} went by{missed}{out.unrecorded_words()}")


class _Out:
    """Where messages are written to. Blocks."""

    def __init__(self, *, is_json: bool, record: IO[bytes] | None) -> None:
        self._record = record
        self._line: Callable[[TappedMessage], str] = _as_json if is_json else _as_text
        self._unrecorded = 0

    def write(self, passed: TappedMessage) -> None:
        """Write one."""
        from runner.operations.tap import recorded_line

        click.echo(self._line(passed))
        if self._record is None:
            return
        line = recorded_line(passed.envelope)
        if line is None:
            self._unrecorded += 1
            return
        self._record.write(line + b"\n")
        self._record.flush()

    def unrecorded_words(self) -> str:
        """Say how many were not recorded, and why."""
        count = self._unrecorded
        return f" · {count} not recorded: a line cannot hold what is neither JSON nor text" if count else ""


def _as_json(passed: TappedMessage) -> str:
    from runner.cli.tables import json_line
    from runner.operations.dead_letter_json import body_to_json, time_to_json, to_plain

    envelope = passed.envelope
    return json_line(
        {
            "event": envelope.type,
            "exchange": passed.exchange,
            "routing_key": passed.routing_key,
            "message_id": envelope.message_id,
            "correlation_id": envelope.correlation_id,
            "app_id": envelope.app_id,
            "timestamp": time_to_json(envelope.timestamp),
            "content_type": envelope.content_type,
            "headers": to_plain(envelope.headers),
            "size": len(envelope.body),
            **body_to_json(envelope.body, len(envelope.body)),
        }
    )


def _as_text(passed: TappedMessage) -> str:
    from runner.cli.tables import format_size, truncate
    from runner.redaction import escape_line

    envelope = passed.envelope
    at = datetime.now(UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    name = envelope.type or f"{passed.exchange}:{passed.routing_key}"
    body = envelope.body[:MAX_LINE].decode("utf-8", "backslashreplace")
    parts = (
        at,
        escape_line(name, 80),
        escape_line(envelope.message_id or "–", 40),
        format_size(len(envelope.body)),
        escape_line(body, MAX_LINE),
    )
    return truncate("  ".join(parts), shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
