"""What a single process and a worker of `runner up` share: the options, loading, the start-up checklist, the totals."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from runner.cli.loader import PipelineOptions, with_broker
from runner.cli.output import echo_err, echo_error, wants_color
from runner.text_width import display_width, pad
from runner.units import pluralize

_MAX_COLUMNS = 80

if TYPE_CHECKING:
    from runner.app import StartupStep
    from runner.errors import Problem
    from runner.page.access import Access
    from runner.runtime.supervisor import RunReport
    from runner.system import System


@dataclass(frozen=True, kw_only=True)
class UpOptions(PipelineOptions):
    """The options of `runner up`, parsed."""

    only: tuple[str, ...]
    without: tuple[str, ...]
    until_idle: bool
    log_format: str | None
    log_level: str | None
    http: tuple[str, int] | None
    allow_actions: bool
    token: str | None = None
    """The token of the page, if a master made one for its workers."""

    def access(self) -> Access:
        """Return who may do what on the page. Raises WeakToken."""
        from runner.page.access import ENV_VARIABLE, Access, make_access

        if self.token is not None:
            return Access(self.token, self.allow_actions, is_new=True)
        return make_access(self.environ.get(ENV_VARIABLE), may_act=self.allow_actions, makes_token=self.allow_actions)


def load_pipelines(
    up_options: UpOptions, on_warnings: Callable[[Sequence[Problem]], None]
) -> tuple[System, dict[str, Any]]:
    """Return the pipelines, and the arguments for `log.configure`. Raises PipelineInvalid and UnknownName."""
    from runner import log
    from runner.system import load, select

    # Logging comes first: handlers' modules may bind a logger or print while they are imported.
    format: Any = up_options.log_format or "auto"
    log.configure(format=format, level=up_options.log_level or "info", capture_stdout=True)
    system = load(up_options.paths, up_options.environ, up_options.overlays, broker=up_options.broker)
    on_warnings(system.warnings)
    system = select(system, up_options.only, up_options.without)
    system = with_broker(system, management_url=up_options.management)
    settings = system.pipelines[0].logging
    return system, {
        "format": up_options.log_format or settings.format,
        "level": up_options.log_level or settings.level,
        "levels": settings.levels,
        "width": min(24, max(map(display_width, system.names()))),
        "capture_stdout": True,
    }


def echo_loaded(system: System) -> None:
    """Write a checklist line for each pipeline, the last one with the time that loading took, and what is disabled."""
    from runner.app import StartupStep
    from runner.operations.pipeline_files import disabled_items

    for index, pipeline in enumerate(system.pipelines):
        is_last = index == len(system.pipelines) - 1
        echo_step(StartupStep("pipeline", f"{pipeline.name} · {pipeline.path}", system.load_s if is_last else None))
    if names := disabled_items(spec for _, spec in system.specs):
        echo_step(StartupStep("disabled", ", ".join(names)))


def echo_step(step: StartupStep) -> None:
    """Write one line of the start-up checklist."""
    took = "" if step.seconds is None else f"{step.seconds * 1000:6.0f} ms"
    columns = min(_MAX_COLUMNS, shutil.get_terminal_size((_MAX_COLUMNS, 24)).columns)
    width = columns - len("pipeline   ") - len("  12345 ms")
    name = click.style(f"{step.name:<10}", bold=True) if wants_color(sys.stderr.isatty()) else f"{step.name:<10}"
    echo_err(f"{name} {pad(step.text, width)} {took}".rstrip(), is_colored=True)


def echo_nothing_ran() -> None:
    """Say that a signal arrived before any handler ran."""
    echo_err("stopped before anything ran")


def echo_totals(report: RunReport, *, is_memory: bool = False) -> int:
    """Write the totals and what was left unfinished; return the exit code."""
    totals = report.totals
    parts = [f"{totals.handled} handled", f"{totals.retried} retried", f"{totals.dead_lettered} dead-lettered"]
    parts += [f"{totals.released} given back"] if totals.released else []
    echo_err(f"stopped: {totals.published} published · {' · '.join(parts)}")
    for name, count in report.unfinished.items():
        fate = "are lost with the in-process broker" if is_memory else "were given back to the broker"
        echo_error(
            f"{pluralize(count, 'handler')} of {name} still ran when the grace period ended; their messages {fate}"
        )
    if report.left_in_memory:
        hint = "--until-idle handles what has no delay before it stops; RabbitMQ and a broker in a file keep the rest"
        echo_error(f"{pluralize(report.left_in_memory, 'unhandled message')} lost with the in-process broker", hint)
    for name in report.failed_producers:
        echo_error(f"producer {name} failed and was not restarted")
    if report.idle_unknown_reason:
        hint = "pass the management API's URL: --management http://host:15672; "
        hint += "`rabbitmq-plugins enable rabbitmq_management` starts it"
        echo_error(f"it is not known whether anything is left to do: {report.idle_unknown_reason}", hint)
    is_clean = not (report.unfinished or report.left_in_memory or report.failed_producers or report.idle_unknown_reason)
    return 0 if is_clean else 1
