"""What `runner up` tells people on stderr: the checklist of its start, and the totals at its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from runner.cli.output import echo_err, echo_error, wants_color
from runner.text_width import pad

if TYPE_CHECKING:
    from runner.app import StartupStep, System
    from runner.runtime.supervisor import RunReport


def echo_loaded(system: System) -> None:
    """Write which pipelines were read."""
    from runner.app import StartupStep

    for index, pipeline in enumerate(system.pipelines):
        is_last = index == len(system.pipelines) - 1
        echo_stage(StartupStep("pipeline", f"{pipeline.name} · {pipeline.path}", system.load_s if is_last else None))


def echo_stage(stage: StartupStep) -> None:
    """Write one line of the start-up checklist."""
    took = "" if stage.seconds is None else f"{stage.seconds * 1000:6.0f} ms"
    name = click.style(f"{stage.name:<10}", bold=True) if wants_color(sys.stderr.isatty()) else f"{stage.name:<10}"
    echo_err(f"{name} {pad(stage.text, 60)} {took}".rstrip(), is_colored=True)


def echo_nothing_ran() -> None:
    """Say that a signal came first."""
    echo_err("stopped before anything ran")


def echo_totals(ended: RunReport, *, is_memory: bool = False) -> int:
    """Write the totals, and what was left behind; return the exit code."""
    totals = ended.totals
    parts = [f"{totals.handled} handled", f"{totals.retried} retried", f"{totals.dead_lettered} dead-lettered"]
    parts += [f"{totals.released} given back"] if totals.released else []
    echo_err(f"stopped: {totals.published} published · {' · '.join(parts)}")
    for name, count in ended.unfinished.items():
        handlers = f"{count} handler{'s'[: count != 1]}"
        fate = "are lost with the in-process broker" if is_memory else "were given back"
        echo_error(f"{handlers} of {name} still ran when the grace was over; their messages {fate}")
    if ended.left_in_memory:
        messages = f"{ended.left_in_memory} message{'s'[: ended.left_in_memory != 1]}"
        hint = "--until-idle works them off before the end; RabbitMQ keeps them"
        echo_error(f"the in-process broker forgets {messages} that nobody has handled", hint)
    for name in ended.failed_producers:
        echo_error(f"producer {name} failed and was given up")
    if ended.idle_unknown_reason:
        hint = "say where the management API is: --management http://host:15672"
        echo_error(f"it is not known whether anything is left to do: {ended.idle_unknown_reason}", hint)
    return 1 if ended.unfinished or ended.left_in_memory or ended.failed_producers or ended.idle_unknown_reason else 0
