"""`runner plan`: what `up` would declare on the broker, and what differs."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions, echo_broker_state
from runner.cli.output import echo_err, echo_problems, wants_color
from runner.cli.verb import Verb
from runner.units import pluralize

if TYPE_CHECKING:
    from runner.operations.plan import Plan, PlanItem
    from runner.system import System

EXIT_DIFFERENT = 2

SIGNS = {
    "create": ("+", "green"),
    "recreate": ("~", "yellow"),
    "unfinished": ("~", "yellow"),
    "extra": ("-", "red"),
    "foreign": ("!", "red"),
    "unchecked": ("?", "cyan"),
}


@click.command("plan", cls=Verb, short_help="Compare pipelines with the broker; change nothing.")
@options.pipelines(options.broker, options.management, options.wait)
@click.option("--json", "is_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 2 if anything differs.")
def command(chosen: PipelineOptions, is_json: bool, detailed_exitcode: bool) -> None:
    """Compare pipelines with a live broker: what `up` would declare, and what differs. Changes nothing.

    + will be created, ~ differs and must be recreated, - is on the broker and not in the pipeline, ! is missing and
    belongs to another owner, ? could not be checked. AMQP cannot list bindings, policies and leftover queues: they
    come from the management API, if it is available.

    Exit codes: 0 compared, 2 with --detailed-exitcode if anything differs, 69 broker unreachable, 78 invalid pipeline.
    """
    system = chosen.load()
    if not is_json:
        echo_problems(system.warnings)
    found = asyncio.run(_compare(system, chosen.management))
    if is_json:
        click.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
    else:
        echo_plan(found)
    sys.exit(EXIT_DIFFERENT if detailed_exitcode and found.has_changes else 0)


async def _compare(system: System, management: str | None) -> Plan:
    from runner.operations.apply import compare
    from runner.pipeline.delivery_rules import check_targets
    from runner.transports.rabbitmq.broker_features import line_of, quorum_priorities_of

    names = [pipeline.name for pipeline in system.pipelines]
    found = await compare(system.broker, system.whole_topology, names, management, on_transport_event=echo_broker_state)
    if system.broker.is_rabbitmq:
        check_targets(system.pipelines, quorum_priorities_of(line_of(found.product)))
    return found


def echo_plan(found: Plan) -> None:
    """Print a plan: the differences on stdout, the broker and the management API on stderr."""
    echo_err(f"broker     {found.product}")
    if management := found.management or (f"not used: {found.unchecked}" if found.unchecked else ""):
        echo_err(f"management {management}")
    shown = found.of("create", "recreate", "unfinished", "extra", "foreign")
    for item in shown:
        echo_item(item)
    _show_unchecked(found)
    for note in found.notes:
        click.echo(f"  i {note}")
    if not shown and found.is_complete:
        click.echo("the broker matches the pipeline")
    click.echo(found.summary())


def echo_item(item: PlanItem) -> None:
    """Print one item with its details below."""
    from runner.redaction import escape_controls

    sign, colour = SIGNS[item.action]
    is_colored = wants_color(sys.stdout.isatty())
    label = click.style(sign, fg=colour, bold=True) if is_colored else sign
    click.echo(f"  {label} {escape_controls(item.text)}", color=is_colored)
    for line in item.details:
        click.echo(f"      {escape_controls(line)}")


def _show_unchecked(found: Plan) -> None:
    """Print what could not be checked; bindings as one line, because they share one reason."""
    unchecked = found.of("unchecked")
    bindings = [item for item in unchecked if item.kind == "binding"]
    for item in unchecked:
        if item.kind != "binding":
            echo_item(item)
    if found.unchecked:
        click.echo(f"  ? leftover queues: not checked, {found.unchecked}")
    if bindings:
        click.echo(f"  ? {pluralize(len(bindings), 'binding')}: not checked, {found.unchecked}")
