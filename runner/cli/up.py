"""`runner up`: run pipelines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from runner.cli import options
from runner.cli.endings import errors_reported, report, say_error, wants_color
from runner.cli.environment import read_environment

if TYPE_CHECKING:
    from runner.app import Stage, System
    from runner.runtime.supervisor import Report

FORCED = 130
ECHO_S = 0.3
"""Within it the same signal again is the first one once more: `timeout` and terminals tell a group of processes."""


def _address(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    from runner.units import parse_address

    try:
        return parse_address(value)
    except ValueError:
        raise click.BadParameter("write HOST:PORT, as in 127.0.0.1:8080") from None


@click.command("up", short_help="Run pipelines until stopped.")
@options.paths
@options.broker
@click.option("--only", multiple=True, metavar="NAME", help="Run only this producer or subscriber; repeatable.")
@click.option(
    "--until-idle", is_flag=True, help="Stop when finite producers have ended and queues and retries are empty."
)
@click.option("--log-format", type=click.Choice(["auto", "console", "json"]), help="How log lines look. Default: auto.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Which lines are written. Default: info.",
)
@click.option(
    "--http",
    metavar="HOST:PORT",
    callback=_address,
    help="Where HTTP producers listen, and the probes /healthz and /readyz.",
)
@options.env_file
def command(paths: tuple[Path, ...], env_file: Path | None, **settings: Any) -> None:
    """Validate pipelines, connect, declare what is missing, and run until SIGINT or SIGTERM; then drain and report.

    PATH is a pipeline, or a folder: every *.yaml below it with a `version:` key. Log lines go to stdout, all else to
    stderr.

    Exit codes: 0 done or drained, 1 work was left behind, 69 broker unreachable or different, 78 invalid pipeline,
    130 forced by a second signal.
    """
    with errors_reported():
        code = _up(paths, read_environment(env_file), **settings)
    _end(code)  # threads of handlers that ignored the grace would keep the interpreter alive


def _up(
    paths: tuple[Path, ...],
    environ: dict[str, str],
    *,
    broker: str | None,
    only: tuple[str, ...],
    until_idle: bool,
    log_format: str | None,
    log_level: str | None,
    http: tuple[str, int] | None,
) -> int:
    from runner import app, log

    # Modules of handlers may bind a logger while they are imported: it should be one of ours already.
    log.configure(format=log_format or "auto", level=log_level or "info")  # type: ignore[arg-type]  # as below
    system = app.read(paths, environ, broker=broker)
    report(system.warnings)
    system = app.select(system, only)
    settings = system.pipelines[0].logging
    log.configure(
        format=log_format or settings.format,  # type: ignore[arg-type]  # click has checked it
        level=log_level or settings.level,
        levels=settings.levels,
        is_colored=wants_color(sys.stdout.isatty()),
        on_lost=_stop_without_log,
        width=min(24, max(len(name) for name in system.names())),
    )
    _show_loaded(system)
    asyncio.run(_run(system, until_idle=until_idle, http=http))


async def _run(system: System, *, until_idle: bool, http: tuple[str, int] | None) -> NoReturn:
    from runner import app

    stop = asyncio.Event()
    _handle_signals(stop)
    ended = await app.up(system, stop, until_idle=until_idle, http=http, on_stage=_show)
    if ended is None:
        click.echo("stopped before anything ran", err=True)
        _end(0)
    _end(_say_goodbye(ended))  # the loop would wait for handlers that ignore their cancellation


def _end(code: int) -> NoReturn:
    """End the process, whatever still runs in it: nothing is left to clean up."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _stop_without_log(error: OSError) -> None:
    """Drain when nobody reads our log lines any more, as after `| head`: to work on unseen helps nobody."""
    _say_now(f"log lines cannot be written ({error.strerror})")
    os.kill(os.getpid(), signal.SIGTERM)


def _handle_signals(stop: asyncio.Event) -> None:
    """Let the first SIGINT or SIGTERM begin the drain, and the second end the process at once.

    Python's own handlers, not the loop's: a handler that blocks the loop would keep those from running.
    """
    loop = asyncio.get_running_loop()
    first: tuple[int, float] | None = None

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if first is not None:
            if number == first[0] and now - first[1] < ECHO_S:
                return
            _say_now("forced to stop: what was running is given back by the broker")
            os._exit(FORCED)
        first = number, now
        _say_now("draining (once more to stop now)")
        loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


def _say_now(text: str) -> None:
    """Write to stderr from a signal handler, which may have interrupted another write."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())


def _show_loaded(system: System) -> None:
    from runner.app import Stage

    for index, pipeline in enumerate(system.pipelines):
        is_last = index == len(system.pipelines) - 1
        _show(Stage("pipeline", f"{pipeline.name} · {pipeline.path}", system.load_s if is_last else None))


def _show(stage: Stage) -> None:
    """Write one line of the start-up checklist."""
    took = "" if stage.seconds is None else f"{stage.seconds * 1000:6.0f} ms"
    name = click.style(f"{stage.name:<10}", bold=True) if wants_color(sys.stderr.isatty()) else f"{stage.name:<10}"
    click.echo(f"{name} {stage.text:<60} {took}".rstrip(), err=True, color=True)


def _say_goodbye(ended: Report) -> int:
    """Write the totals, and what was left behind; return the exit code."""
    totals = ended.totals
    parts = [f"{totals.handled} handled", f"{totals.retried} retried", f"{totals.dead_lettered} dead-lettered"]
    parts += [f"{totals.released} given back"] if totals.released else []
    click.echo(f"stopped: {totals.published} published · {' · '.join(parts)}", err=True)
    for name, count in ended.unfinished.items():
        handlers = f"{count} handler{'s'[: count != 1]}"
        say_error(f"{handlers} of {name} still ran when the grace was over; their messages were given back")
    if ended.forgotten:
        messages = f"{ended.forgotten} message{'s'[: ended.forgotten != 1]}"
        hint = "--until-idle works them off before the end; RabbitMQ keeps them"
        say_error(f"the in-process broker forgets {messages} that nobody has handled", hint)
    for name in ended.failed_producers:
        say_error(f"producer {name} failed and was given up")
    return 1 if ended.unfinished or ended.forgotten or ended.failed_producers else 0
