"""`runner apply`: declare what is missing on the broker; recreate and remove what is named."""

from __future__ import annotations

import asyncio
import shlex
import sys
from typing import TYPE_CHECKING

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions, echo_broker_state
from runner.cli.output import echo_error, echo_problems
from runner.cli.verb import Verb

if TYPE_CHECKING:
    from runner.operations.plan import Plan, PlanItem

EXIT_DIFFERENCES_LEFT = 1


@click.command("apply", cls=Verb, short_help="Declare what is missing on the broker; recreate named queues.")
@options.pipelines(options.broker, options.management, options.wait)
@click.option(
    "--recreate",
    multiple=True,
    metavar="NAME",
    help="Delete and redeclare this queue with the pipeline's options; its messages are kept. Repeatable.",
)
@click.option(
    "--prune",
    is_flag=True,
    help="Remove bindings, and empty unused queues, that are no longer in the pipeline.",
)
@click.option(
    "--prune-queue",
    "prune_queues",
    multiple=True,
    metavar="NAME",
    help="Delete this queue, which is not in the pipeline, with its messages; repeatable.",
)
def command(chosen: PipelineOptions, recreate: tuple[str, ...], prune: bool, prune_queues: tuple[str, ...]) -> None:
    """Declare what the pipelines need and the broker does not have. Other changes are made only on request.

    --recreate moves the messages of a queue to a temporary queue, confirmed, deletes the queue once it is empty and
    unused, declares it again and moves the messages back, in order and unchanged. Stop its consumers first. If a run
    is interrupted, run it again: no message is lost, but up to 100 may be in the queue twice.

    --prune removes the bindings of queues that begin with the pipeline's name and are not in it, so that no more
    messages arrive, and deletes those that are empty. A queue with a consumer stays as it is.

    In a file, what is missing is declared beside `runner up` too; for --recreate and --prune, stop it first. A queue
    keeps its messages there, and --prune removes bindings only.

    Exit codes: 0 nothing differs, 1 something still differs or could not be changed, 2 wrong usage, 69 broker
    unreachable or refusing, 78 invalid pipeline.
    """
    from runner.operations.apply import apply
    from runner.redaction import escape_controls

    system = chosen.load()
    echo_problems(system.warnings)
    applying = apply(
        system.broker,
        system.whole_topology,
        [pipeline.name for pipeline in system.pipelines],
        chosen.management,
        prunes=prune,
        recreate=recreate,
        prune_queues=prune_queues,
        on_step=lambda text: click.echo(escape_controls(text)),
        on_transport_event=echo_broker_state,
    )
    applied = asyncio.run(applying)
    line = f"runner apply {shlex.join(map(str, chosen.paths))}"
    code = _show_left(applied.left, line, has_changed=bool(applied.done), prunes=prune)
    for text in applied.refused:
        echo_error(text)
    sys.exit(EXIT_DIFFERENCES_LEFT if applied.refused else code)


def _show_left(left: Plan, line: str, *, has_changed: bool, prunes: bool) -> int:
    """Print what still differs and the command that would change it; return the exit code."""
    from runner.cli.plan import echo_item

    if not left.has_changes:
        if not has_changed:
            click.echo("nothing to change")
        _show_unchecked(left)
        return 0
    click.echo("still different:")
    for item in left.of("create", "recreate", "unfinished", "extra", "foreign"):
        echo_item(item)
        if flag := _flag(item, line, prunes=prunes):
            click.echo(f"      {flag}")
    _show_unchecked(left)
    return EXIT_DIFFERENCES_LEFT


def _flag(item: PlanItem, line: str, *, prunes: bool) -> str:
    """Return the command that would change an item, or an empty string."""
    if item.kind == "queue" and (item.differences or item.action == "unfinished"):
        return f"`{line} --recreate {item.name}` recreates it"
    if item.action != "extra" or prunes:
        return ""
    if item.stray is not None:
        return f"`{line} --prune` removes its bindings, and deletes it if it is empty"
    return f"`{line} --prune` removes it"


def _show_unchecked(left: Plan) -> None:
    """Print what could not be checked. All bindings of the pipeline exist by now, but there may be others."""
    from runner.cli.plan import echo_item

    for item in left.of("unchecked"):
        if item.kind != "binding":
            echo_item(item)
    if left.unchecked:
        click.echo(f"  ? bindings: declared; leftovers not checked, {left.unchecked}")
