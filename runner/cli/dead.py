"""`runner dead`: list dead letters, show one, replay them, or drop them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli import options
from runner.cli.dead_options import (
    DeadOptions,
    connect_and_run,
    load_selection,
    run_on_dead_letters,
    with_dead_options,
)
from runner.cli.output import EXIT_INTERRUPTED, echo_err, echo_error
from runner.cli.verb import Verb
from runner.clock import utc_now
from runner.units import pluralize

if TYPE_CHECKING:
    from runner.operations.dead_letter_ops import DeadLetterOps, Summary
    from runner.operations.dead_letters import DeadLetterMessage, SelectedQueue
    from runner.pipeline.model import Pipeline
    from runner.system import System

DEFAULT_LIMIT = 100

DEFAULT_LOCAL_LIMIT = 100
"""How many messages `replay --local` tries without --limit: all of them are held in memory."""


@click.group("dead", short_help="List, show, replay or drop dead letters.")
def command() -> None:
    """List the messages that were given up on, send them back to the queue they failed in, or drop them."""


_JSON = click.option("--json", "is_json", is_flag=True, help="Print JSON, one object per line.")
_DRY_RUN = click.option("--dry-run", "is_dry", is_flag=True, help="Only show what would be done.")


@command.command("list", cls=Verb, short_help="List dead letters.")
@_JSON
@with_dead_options(DEFAULT_LIMIT)
def list_(dead_options: DeadOptions, is_json: bool) -> None:
    """List the dead letters of the pipeline at PATH and why each is dead. Removes nothing.

    QUEUE is a queue, a subscriber or a dead-letter queue. Without it, all dead-letter queues are listed. Messages that
    the broker itself dead-lettered (delivery_limit, expired, maxlen) are listed too.

    Exit codes: 0 listed, 69 broker unreachable, 78 invalid pipeline.
    """
    from runner.cli.dead_output import echo_unseen

    summary = _list(dead_options, is_json=is_json)
    echo_unseen(summary)
    of = f" of {summary.total}" if summary.matched != summary.total else ""
    echo_err(f"{pluralize(summary.matched, 'dead letter')}{of}")


@command.command("show", cls=Verb, short_help="Show everything about one dead letter.")
@_JSON
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write a test, which expects that the message is handled, to FILE, which is called *.test.yaml.",
)
@options.redact
@with_dead_options(1)
def show(dead_options: DeadOptions, is_json: bool, record: Path | None, redacted: tuple[str, ...]) -> None:
    """Show everything about one dead letter: the reason, the time, the origin, the headers and the body.

    The beginning of an id is enough for --id if no other one begins so. Without a filter the only dead letter is shown.

    Unprintable characters are escaped, and a long body is cut. With --record, the message becomes a test, which fails
    until its handler is corrected; it is added to a file that exists.

    Exit codes: 0 shown, 1 no such dead letter or it cannot be recorded, 69 broker unreachable, 78 invalid pipeline.
    """
    from runner.cli import dead_output
    from runner.cli.tables import json_line
    from runner.operations.dead_letter_json import details_to_json
    from runner.operations.recording import SUFFIXES

    if record is not None and not record.name.endswith(SUFFIXES):
        meant = record.with_name(f"{record.name.partition('.')[0]}.test.yaml")
        raise options.BadValue("a test file is called *.test.yaml", label="--record", by=[str(meant)])
    found: list[DeadLetterMessage] = []
    is_only = dead_options.selects_all  # without a filter it must be the only one
    dead_options = replace(dead_options, limit=2 if is_only else dead_options.limit)
    system, selected = load_selection(dead_options)
    looking = connect_and_run(system, selected, dead_options, lambda ops, queues: ops.find(queues, found.append))
    summary = asyncio.run(looking)
    if is_only and len(found) > 1:
        after = f"; runner dead list {dead_options.pipelines.paths[0]} has the others"
        raise options.BadValue("there are several dead letters", "write", by=["--id", found[0].id], after=after)
    now = utc_now()
    for letter in found:
        if is_json:
            click.echo(json_line(details_to_json(letter, now)))
        else:
            click.echo("\n".join(dead_output.details(letter, now)))
    if record is not None and found:
        _record(system, found, record, redacted, dead_options)
    dead_output.echo_unseen(summary)
    if not summary.matched:
        echo_error(f"no such dead letter among {summary.looked}", "`runner dead list` has their ids")
        sys.exit(1)


def _record(
    system: System,
    letters: Sequence[DeadLetterMessage],
    file: Path,
    redacted: tuple[str, ...],
    dead_options: DeadOptions,
) -> None:
    """Add a test for each dead letter to a file. Raises CannotRecord."""
    from runner.operations.recording import Recorder, file_of, write_test

    specs = dead_options.pipelines.specs()
    for letter in letters:
        readers = (each for each in system.pipelines for item in each.subscribers if item.queue == letter.origin)
        pipeline = next(readers, system.pipelines[0])
        test = Recorder(pipeline, letter.queue, redacted).test_of_dead_letter(letter)
        name = write_test(file, test, file_of(specs, pipeline), dead_options.pipelines.environ)
        echo_err(f'recorded: "{name}" in {file}')


@command.command("replay", cls=Verb, short_help="Send dead letters back to the queue they failed in.")
@_DRY_RUN
@click.option("--local", "is_local", is_flag=True, help="Try them with the local handler; the broker keeps them.")
@click.option(
    "--rate", "per_second", metavar="RATE", callback=options.rate, help="Maximum rate of messages: 10/s, 100/m."
)
@click.option("--to", metavar="NAME", help="Send them to this queue or event of the pipeline instead.")
@click.option("--edit", "is_edited", is_flag=True, help="Open the body of each message in $EDITOR first.")
@_JSON
@with_dead_options()
def replay(
    dead_options: DeadOptions,
    is_dry: bool,
    is_local: bool,
    per_second: float | None,
    to: str | None,
    is_edited: bool,
    is_json: bool,
) -> None:
    """Send dead letters back, each to the one queue it failed in, where it starts with its first attempt.

    The broker confirms each message in that queue before it is removed from the dead-letter queue: no message is lost
    if this is interrupted, and at most one is in both queues. Messages that do not match the filters stay, and so do
    those whose queue no longer exists.

    With --local the handler as it is here handles each message once, on an in-process broker. Nothing changes on the
    live broker, but the handler's own side effects do happen.

    With --edit a message keeps its id, and the header x-runner-edited-at says when it was changed. It stays if the
    editor is closed without saving.

    Exit codes: 0 all matching messages were sent back, 1 some had to stay or would fail again (--local), 69 broker
    unreachable, 78 invalid pipeline, 130 interrupted.
    """
    if is_local and (to or is_edited):
        what, option = "--local tries the handler of the queue they failed in", "--to" if to else "--edit"
        raise options.BadValue(what, "leave it out", option, by=[])
    if is_edited and dead_options.selects_all:
        raise click.UsageError("choose what to edit, as with --id ID")
    if is_local:
        sys.exit(_replay_locally(dead_options, is_json=is_json))
    if is_dry:
        summary = _list(dead_options, is_json=is_json)
        echo_err(f"would send back: {summary.matched}")
        return
    summary = _replay(dead_options, per_second, to, is_edited=is_edited, is_json=is_json)
    sys.exit(_exit_code(summary))


@command.command("drop", cls=Verb, short_help="Delete dead letters.")
@_DRY_RUN
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--all", "is_all", is_flag=True, help="Drop all of them; required without a filter.")
@_JSON
@with_dead_options()
def drop(dead_options: DeadOptions, is_dry: bool, yes: bool, is_all: bool, is_json: bool) -> None:
    """Delete dead letters. Asks for confirmation on a terminal, and requires --yes elsewhere.

    Exit codes: 0 dropped, 1 not confirmed, 2 wrong usage, 69 broker unreachable, 78 invalid pipeline, 130 interrupted.
    """
    from runner.cli.dead_output import Progress

    asks = not yes and not is_dry
    confirms = ["--yes"] if asks and not (sys.stdin.isatty() and sys.stderr.isatty()) else []
    if dead_options.selects_all and not is_all:
        after = " (all of them; --id, --error and other filters choose some)"
        raise options.BadValue("it is not said which of them", "write", by=["--all", *confirms], after=after)
    if confirms:
        after = " (or look first, with --dry-run)"
        raise options.BadValue("there is no terminal to ask on", "write", by=confirms, after=after)
    if is_dry or asks:
        summary = _list(dead_options, is_json=is_json)
        echo_err(f"would drop: {summary.matched}")
        if is_dry or not summary.matched:
            return
        click.confirm(f"delete {pluralize(summary.matched, 'dead letter')}?", abort=True, err=True)
    with Progress("dropping", "dropped", dead_options.limit, is_json=is_json) as progress:
        progress.summary = summary = run_on_dead_letters(
            dead_options, lambda ops, selected: ops.drop(selected, progress.note), progress.show
        )
    sys.exit(_exit_code(summary))


def _list(dead_options: DeadOptions, *, is_json: bool) -> Summary:
    """Print the dead letters that match, and remove none."""
    from runner.cli import dead_output
    from runner.cli.tables import json_line
    from runner.operations.dead_letter_json import to_json

    now = utc_now()
    letters: dict[str, list[DeadLetterMessage]] = {}

    def on_found(letter: DeadLetterMessage) -> None:
        if is_json:
            click.echo(json_line(to_json(letter, now)))
        else:
            letters.setdefault(letter.queue, []).append(letter)

    try:
        return run_on_dead_letters(dead_options, lambda ops, selected: ops.find(selected, on_found))
    finally:  # also shows what was found before the connection was lost
        dead_output.echo_tables(letters, now)


def _replay(
    dead_options: DeadOptions, per_second: float | None, to: str | None, *, is_edited: bool, is_json: bool
) -> Summary:
    """Send the dead letters that match back, or to the queue or event `to`."""
    from runner.cli.dead_output import Progress, edit_body
    from runner.operations.targets import pipeline_with_destination

    system, selected = load_selection(dead_options)
    destination = pipeline_with_destination(system.pipelines, to).destinations[to] if to else None
    edit = edit_body if is_edited else None
    with Progress("sending back", "sent back", dead_options.limit, is_json=is_json) as progress:

        async def send(ops: DeadLetterOps, selected: list[SelectedQueue]) -> Summary:
            return await ops.replay(selected, progress.note, per_second, to=destination, edit=edit)

        work = connect_and_run(system, selected, dead_options, send, progress.show, is_traced=True)
        progress.summary = summary = asyncio.run(work)
    return summary


def _exit_code(summary: Summary) -> int:
    if summary.is_interrupted:
        return EXIT_INTERRUPTED
    return 1 if summary.stayed else 0


# replay --local


def _replay_locally(dead_options: DeadOptions, *, is_json: bool) -> int:
    """Handle each matching message with the local handler, print how it ended, and return the exit code."""
    from runner import log

    log.configure(level="error", stream=sys.stderr)  # shows the traceback of what would be dead-lettered
    dead_options = replace(dead_options, limit=dead_options.limit or DEFAULT_LOCAL_LIMIT)
    system, selected = load_selection(dead_options)
    logging.disable(logging.NOTSET)
    letters: list[DeadLetterMessage] = []

    async def find(ops: DeadLetterOps, selected: list[Any]) -> Summary:
        return await ops.find(selected, letters.append)

    async def run() -> tuple[int, Summary]:
        summary = await connect_and_run(system, selected, dead_options, find)
        return await _replay_all(system.pipelines, letters, is_json=is_json), summary

    handled, summary = asyncio.run(run())
    echo_err(f"would be handled: {handled} of {summary.matched}; nothing was changed on the broker")
    return 0 if handled == summary.matched else 1


async def _replay_all(pipelines: Sequence[Pipeline], letters: list[DeadLetterMessage], *, is_json: bool) -> int:
    """Replay each message, print each result, and return how many were handled."""
    from runner.cli.dead_output import echo_replay_result
    from runner.operations.local_replay import LocalReplay, NoSubscriber
    from runner.outcome import Ack

    handled = 0
    async with LocalReplay(pipelines) as replay:
        for letter in letters:
            try:
                with contextlib.redirect_stdout(sys.stderr):  # stdout is for results, not for what the handler prints
                    result = await replay.attempt(letter)
            except NoSubscriber as error:
                echo_replay_result(letter, None, f"not tried: {error}", is_json=is_json)
                continue
            handled += isinstance(result.outcome, Ack)
            echo_replay_result(letter, result, is_json=is_json)
    return handled
