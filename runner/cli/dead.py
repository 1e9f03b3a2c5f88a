"""`runner dead`: look at dead letters, send them back to where they failed, or drop them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from runner.cli import options
from runner.cli.dead_options import DeadOptions, run_on_dead_letters, utc_now, with_dead_options
from runner.cli.output import echo_err, errors_as_exit_codes
from runner.cli.signals import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from runner.operations.dead_letter_ops import Summary
    from runner.operations.dead_letters import DeadLetterMessage

DEFAULT_LIMIT = 100


@click.group("dead", short_help="Look at dead letters, send them back, or drop them.")
def command() -> None:
    """Look at messages that were given up on, send them back to the queue they failed in, or drop them."""


def _rate(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    return options.parse_rate_option(value)


_JSON = click.option("--json", "is_json", is_flag=True, help="Print JSON, one object on each line.")
_DRY_RUN = click.option("--dry-run", "is_dry", is_flag=True, help="Only show what would be done.")


@command.command("list", short_help="List dead letters.")
@_JSON
@with_dead_options(DEFAULT_LIMIT)
def list_(dead_options: DeadOptions, is_json: bool) -> None:
    """List the dead letters of the pipeline at PATH, and why they are dead; takes none away.

    QUEUE is a queue, a subscriber, or a dead-letter queue; all without it. What the broker itself has given up on
    (delivery_limit, expired, maxlen) is listed too.

    Exit codes: 0 listed, 69 broker unreachable, 78 invalid pipeline.
    """
    from runner.cli.dead_progress import echo_unseen

    with errors_as_exit_codes():
        summary = _listed(dead_options, is_json=is_json)
    echo_unseen(summary)
    of = f" of {summary.total} there" if summary.matched != summary.total else ""
    echo_err(f"{summary.matched} dead letter{'s'[: summary.matched != 1]}{of}")


@command.command("show", short_help="Show everything about one.")
@_JSON
@with_dead_options(1)
def show(dead_options: DeadOptions, is_json: bool) -> None:
    """Show everything about one dead letter: why, since when, from where, its headers and its body.

    What does not print is escaped, and a long body is cut.

    Exit codes: 0 shown, 1 no such dead letter, 69 broker unreachable, 78 invalid pipeline.
    """
    from runner.cli import dead_output
    from runner.cli.dead_progress import echo_unseen
    from runner.cli.tables import json_line
    from runner.operations.dead_letter_json import details_to_json

    if dead_options.selects_all:
        raise click.UsageError("say which one: --id ID")

    def on_found(letter: DeadLetterMessage) -> None:
        if is_json:
            click.echo(json_line(details_to_json(letter, utc_now())))
        else:
            click.echo("\n".join(dead_output.details(letter, utc_now())))

    with errors_as_exit_codes():
        summary = run_on_dead_letters(dead_options, lambda ops, choices: ops.find(choices, on_found))
    echo_unseen(summary)
    if not summary.matched:
        echo_err(f"no such dead letter among {summary.looked}")
        sys.exit(1)


@command.command("replay", short_help="Send dead letters back to where they failed.")
@_DRY_RUN
@click.option("--local", "is_local", is_flag=True, help="Try them on the handler here, and leave them where they are.")
@click.option("--rate", "per_second", metavar="RATE", callback=_rate, help="At most so many: 10/s, 100/m.")
@_JSON
@with_dead_options()
def replay(dead_options: DeadOptions, is_dry: bool, is_local: bool, per_second: float | None, is_json: bool) -> None:
    """Send dead letters back, each to the one queue that it failed in, on its first attempt again.

    Each is confirmed there before it is taken from the dead-letter queue: nothing is lost, whatever happens, and at
    most one message is in both. Those that do not fit the filters stay, and so do those whose queue is gone.

    With --local each is handled here, by the handler as it is now, on an in-process broker: nothing on the live broker
    changes; what the handler does elsewhere, it does.

    Exit codes: 0 all that fit were sent back, 1 some had to stay, or would fail again (--local), 69 broker unreachable,
    78 invalid pipeline, 130 interrupted.
    """
    from runner.cli.dead_progress import Progress

    with errors_as_exit_codes():
        if is_local:
            from runner.cli.dead_replay_local import replay_locally

            sys.exit(replay_locally(dead_options, is_json=is_json))
        if is_dry:
            summary = _listed(dead_options, is_json=is_json)
            echo_err(f"would send back: {summary.matched}")
            return
        with Progress("sending back", "sent back", dead_options.limit, is_json=is_json) as progress:
            progress.summary = summary = run_on_dead_letters(
                dead_options, lambda ops, choices: ops.replay(choices, progress.note, per_second), progress.show
            )
    sys.exit(_code(summary))


@command.command("drop", short_help="Remove dead letters for good.")
@_DRY_RUN
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--all", "is_all", is_flag=True, help="All of them; needed where no filter is given.")
@_JSON
@with_dead_options()
def drop(dead_options: DeadOptions, is_dry: bool, yes: bool, is_all: bool, is_json: bool) -> None:
    """Remove dead letters for good. Asks first, on a terminal; elsewhere it needs --yes.

    Exit codes: 0 dropped, 1 not confirmed, 2 wrong usage, 69 broker unreachable, 78 invalid pipeline, 130 interrupted.
    """
    from runner.cli.dead_progress import Progress

    if dead_options.selects_all and not is_all:
        raise click.UsageError("say which: --id, --error or --older-than; or --all for all of them")
    is_asked = not yes and not is_dry
    if is_asked and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("nobody can be asked here: add --yes, or look first with --dry-run")
    with errors_as_exit_codes():
        if is_dry or is_asked:
            summary = _listed(dead_options, is_json=is_json)
            echo_err(f"would drop: {summary.matched}")
            if is_dry or not summary.matched:
                return
            click.confirm(f"drop {summary.matched} for good?", abort=True, err=True)
        with Progress("dropping", "dropped", dead_options.limit, is_json=is_json) as progress:
            progress.summary = summary = run_on_dead_letters(
                dead_options, lambda ops, choices: ops.drop(choices, progress.note), progress.show
            )
    sys.exit(_code(summary))


def _listed(dead_options: DeadOptions, *, is_json: bool) -> Summary:
    """Print the dead letters that fit, and leave them."""
    from runner.cli import dead_output
    from runner.cli.tables import format_columns, json_line
    from runner.operations.dead_letter_json import to_json

    at = utc_now()
    rows: dict[str, list[tuple[str, ...]]] = {}

    def on_found(letter: DeadLetterMessage) -> None:
        if is_json:
            click.echo(json_line(to_json(letter, at)))
        else:
            rows.setdefault(letter.queue, []).append(dead_output.table_row(letter, at))

    try:
        return run_on_dead_letters(dead_options, lambda ops, choices: ops.find(choices, on_found))
    finally:  # what was found before the broker was lost is shown as well
        for queue, found in rows.items():
            click.echo(click.style(queue, bold=True) if sys.stdout.isatty() else queue)
            for line in format_columns([dead_output.HEADINGS, *found], right=dead_output.RIGHT, width=_width()):
                click.echo(f"  {line}")


def _width() -> int | None:
    """Return how wide a table may be, None where nobody looks at it on a terminal."""
    import shutil

    return max(40, shutil.get_terminal_size().columns - 2) if sys.stdout.isatty() else None


def _code(summary: Summary) -> int:
    if summary.is_interrupted:
        return EXIT_INTERRUPTED
    return 1 if summary.stayed else 0
