"""`runner tap`: print copies of messages as they are published."""

from __future__ import annotations

import asyncio
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
from runner.cli.loader import PipelineOptions, echo_broker_state
from runner.cli.output import cannot_write, echo_err
from runner.cli.verb import Verb, complete_names
from runner.units import pluralize

if TYPE_CHECKING:
    from runner.operations.recording import Recorder
    from runner.operations.tap import TappedMessage, TapSource
    from runner.pipeline.model import Pipeline

MAX_LINE = 2000


@click.command("tap", cls=Verb, short_help="Print copies of messages as they are published.")
@options.pipelines(options.broker, options.wait, is_one=True)
@click.argument("name", shell_complete=complete_names("queues", "events", "subscribers"))
@click.option("--limit", type=click.IntRange(min=1), help="Stop after N messages.", metavar="N")
@click.option("--json", "is_json", is_flag=True, help="Print JSON, one object per line.")
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write the messages to FILE: as a test if it is called *.test.yaml, else the payloads as JSON lines, "
    "which a producer with `file:` can publish again.",
)
@options.redact
def command(
    chosen: PipelineOptions, name: str, limit: int | None, is_json: bool, record: Path | None, redacted: tuple[str, ...]
) -> None:
    """Print a copy of each message published to NAME from now on, until Ctrl-C. The queues keep their messages.

    NAME is an event, a pattern of events, or a queue or subscriber that is bound to events. Messages that are published
    to a queue by its name cannot be copied. A test is written at the end, and added to a file that exists. On a broker
    in a file, it works beside `runner up` and without it, and keeps the newest 1000 messages and 32 MiB to be printed.

    Exit codes: 0 stopped, 2 NAME cannot be tapped, 69 broker unreachable, 78 invalid pipeline.
    """
    with ExitStack() as files:
        from runner.operations.recording import SUFFIXES, Recorder, file_of, write_test
        from runner.operations.tap import pipeline_with_target, tap_source
        from runner.operations.targets import require_live_broker

        system = chosen.load()
        require_live_broker(system.broker)
        pipeline = pipeline_with_target(system.pipelines, name)
        source = tap_source(pipeline, name)
        out = _Out(is_json=is_json)
        if record is not None and record.name.endswith(SUFFIXES):
            out.recorder = Recorder(pipeline, name, redacted)
        elif redacted:
            raise click.UsageError("--redact needs --record with a FILE that is called *.test.yaml")
        elif record is not None:
            out.lines = files.enter_context(_opened(record))
        try:
            asyncio.run(_tap(pipeline, source, out, limit))
            if record is not None and out.recorder is not None and out.recorder.messages:
                test = out.recorder.test_of_tapped(datetime.now(UTC))
                write_test(record, test, file_of(chosen.specs(), pipeline), chosen.environ)
                echo_err(f"recorded: {pluralize(len(out.recorder.messages), 'message')} in {record}")
        except BrokenPipeError:  # the reader has gone, as after `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _opened(record: Path) -> IO[bytes]:
    from runner.pipeline.data_errors import json_error

    if record.suffix in (".yaml", ".yml"):
        meant, lines = f"{record.name.partition('.')[0]}.test.yaml", record.with_suffix(".jsonl")
        by, after = [str(record.with_name(meant))], f", or --record {lines} for JSON lines"
        raise options.BadValue("a test file is called *.test.yaml", "for a test, write", "--record", by=by, after=after)
    try:
        if record.is_file() and (first := record.read_bytes().partition(b"\n")[0]) and json_error(first):
            raise options.BadValue(
                f"{record} is there already, with something else in it", "choose another name", "--record"
            )
        # 0600: messages may be confidential, and the machine may have other users.
        return open(record, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
    except OSError as error:
        raise cannot_write(record, error, "--record") from None


async def _tap(pipeline: Pipeline, source: TapSource, out: _Out, limit: int | None) -> None:
    from runner.cli.signals import stop_on_signals
    from runner.operations.memory_access import FileTap
    from runner.operations.rabbitmq.message_tap import Tap

    file, name = pipeline.broker.file, pipeline.name
    tap: Tap | FileTap = Tap(pipeline.broker, name=name, on_transport_event=echo_broker_state)
    if file is not None:
        tap = FileTap(file, name, echo_broker_state)
    shown = 0
    try:
        await tap.start(source.bindings)
        stopping = asyncio.ensure_future(stop_on_signals().wait())
        places = ", ".join(f"{binding.exchange}:{binding.key}" for binding in source.bindings)
        echo_err(f"listening to {places}; Ctrl-C to stop")
        if source.not_covered:
            echo_err(f"not covered: {source.not_covered}")
        while limit is None or shown < limit:
            arriving = asyncio.ensure_future(tap.next())
            await asyncio.wait([arriving, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not arriving.done():
                arriving.cancel()
                break
            await asyncio.to_thread(
                out.write, arriving.result()
            )  # in a thread: a slow terminal must not block the loop
            shown += 1
    finally:
        await tap.close()
        missed = f" · {tap.missed} missed: they arrived faster than they could be written" if tap.missed else ""
        echo_err(f"{pluralize(shown, 'message')}{missed}{out.unrecorded()}")


class _Out:
    """Writes messages to stdout, and to the file of --record or a recorder. Blocks."""

    def __init__(self, *, is_json: bool) -> None:
        self.lines: IO[bytes] | None = None
        self.recorder: Recorder | None = None
        self._line: Callable[[TappedMessage], str] = _as_json if is_json else _as_text
        self._unrecorded = 0

    def write(self, tapped: TappedMessage) -> None:
        """Print one message, and record it."""
        from runner.message import Address
        from runner.operations.tap import recorded_line

        click.echo(self._line(tapped))
        if self.recorder is not None:
            address = Address(tapped.exchange, tapped.routing_key)
            self._unrecorded += not self.recorder.tapped(tapped.envelope, address)
        if self.lines is None:
            return
        line = recorded_line(tapped.envelope)
        if line is None:
            self._unrecorded += 1
            return
        self.lines.write(line + b"\n")
        self.lines.flush()

    def unrecorded(self) -> str:
        """Return how many messages were not recorded and why; empty if all were."""
        if not self._unrecorded:
            return ""
        if self.recorder is None:
            return f" · {self._unrecorded} not recorded, because they are neither JSON nor text"
        return (
            f" · {self._unrecorded} not recorded: a test takes 100 messages of JSON or text, to what the pipeline names"
        )


def _as_json(tapped: TappedMessage) -> str:
    from runner.cli.tables import json_line
    from runner.operations.dead_letter_json import body_to_json, time_to_json, to_plain
    from runner.pipeline.body_encoding import readable

    envelope, body = tapped.envelope, readable(tapped.envelope).body
    return json_line(
        {
            "event": envelope.type,
            "exchange": tapped.exchange,
            "routing_key": tapped.routing_key,
            "message_id": envelope.message_id,
            "correlation_id": envelope.correlation_id,
            "app_id": envelope.app_id,
            "timestamp": time_to_json(envelope.timestamp),
            "content_type": envelope.content_type,
            "headers": to_plain(envelope.headers),
            "size": len(envelope.body),
            **body_to_json(body, len(body)),
        }
    )


def _as_text(tapped: TappedMessage) -> str:
    from runner.cli.tables import format_size, truncate
    from runner.pipeline.body_encoding import readable
    from runner.redaction import escape_line

    envelope = tapped.envelope
    at = datetime.now(UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    name = envelope.type or f"{tapped.exchange}:{tapped.routing_key}"
    body = readable(envelope).body[:MAX_LINE].decode("utf-8", "backslashreplace")
    parts = (
        at,
        escape_line(name, 80),
        escape_line(envelope.message_id or "–", 40),
        format_size(len(envelope.body)),
        escape_line(body, MAX_LINE),
    )
    return truncate("  ".join(parts), shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
