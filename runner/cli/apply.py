"""`runner apply`: make on the broker what is missing, and what else is asked for by name."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli import options
from runner.cli.loader import echo_broker_state, load_system
from runner.cli.output import echo_error, echo_problems, errors_as_exit_codes

if TYPE_CHECKING:
    from runner.operations.plan import Plan, PlanItem

EXIT_DIFFERENCES_LEFT = 1


@click.command("apply", short_help="Make what is missing on the broker; recreate what is named.")
@options.paths
@click.option(
    "--recreate",
    multiple=True,
    metavar="NAME",
    help="Make this queue anew with the pipeline's options, its messages kept; repeatable.",
)
@click.option(
    "--prune",
    is_flag=True,
    help="Remove bindings, and empty unused queues, that the pipeline does not have any more.",
)
@click.option(
    "--prune-queue",
    "prune_queues",
    multiple=True,
    metavar="NAME",
    help="Delete this queue, which the pipeline does not have, with its messages; repeatable.",
)
@options.broker
@options.management
@options.wait
@options.env_file
def command(
    paths: tuple[Path, ...],
    recreate: tuple[str, ...],
    prune: bool,
    prune_queues: tuple[str, ...],
    broker: str | None,
    management: str | None,
    environ: dict[str, str],
    wait_s: float,
) -> None:
    """Declare what pipelines need and the broker does not have. Anything else is done only when it is asked for.

    --recreate moves the messages of a queue aside, confirmed, deletes the queue when it is empty and unused, declares
    it anew and moves the messages back, in order and unchanged. Stop who consumes from it before. A run that was ended
    is finished by running it again: nothing is lost, but up to 100 messages may then be there twice.

    --prune takes the bindings of queues away that begin with the pipeline's name and are not in it, so that they are
    filled no longer, and deletes those that are empty. A queue with a consumer is left as it is.

    Exit codes: 0 nothing differs any more, 1 something still differs or could not be changed, 2 wrong usage, 69 broker
    unreachable or refusing, 78 invalid pipeline.
    """
    logging.disable()  # what goes wrong comes as an error
    with errors_as_exit_codes():
        from runner.operations.apply import apply
        from runner.redaction import escape_controls

        system = load_system(paths, environ, broker, wait_s=wait_s)
        echo_problems(system.warnings)

        def say(text: str) -> None:
            click.echo(escape_controls(text))

        applying = apply(
            system.broker,
            system.whole_topology,
            [pipeline.name for pipeline in system.pipelines],
            management,
            prunes=prune,
            recreate=recreate,
            prune_queues=prune_queues,
            on_step=say,
            on_transport_event=echo_broker_state,
        )
        applied = asyncio.run(applying)
    code = _show_left(applied.left, has_changed=bool(applied.done), prunes=prune)
    for text in applied.refused:
        echo_error(text)
    sys.exit(EXIT_DIFFERENCES_LEFT if applied.refused else code)


def _show_left(left: Plan, *, has_changed: bool, prunes: bool) -> int:
    """Print what still differs, and which flag would change it; return the exit code."""
    from runner.cli.plan import echo_item

    if not left.has_changes:
        if not has_changed:
            click.echo("nothing to change")
        _show_unchecked(left)
        return 0
    click.echo("still different:")
    for item in left.of("create", "recreate", "unfinished", "extra", "foreign"):
        echo_item(item)
        if flag := _flag(item, prunes=prunes):
            click.echo(f"      {flag}")
    _show_unchecked(left)
    return EXIT_DIFFERENCES_LEFT


def _flag(item: PlanItem, *, prunes: bool) -> str:
    """Return which flag would change it, if one does."""
    if item.kind == "queue" and (item.differences or item.action == "unfinished"):
        return f"`runner apply --recreate {item.name}` does it"
    if item.action != "extra" or prunes:
        return ""
    if item.stray is not None:
        return "`runner apply --prune` takes its bindings away, and deletes it when it is empty"
    return "`runner apply --prune` removes it"


def _show_unchecked(left: Plan) -> None:
    """Print what is not known. Bindings were declared, so that they are there, but there may be more of them."""
    from runner.cli.plan import echo_item

    for item in left.of("unchecked"):
        if item.kind != "binding":
            echo_item(item)
    if left.management is None:
        click.echo(f"  ? bindings: declared; whether anything is left over is not checked, {left.unchecked}")
