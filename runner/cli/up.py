"""`runner up`: run pipelines."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from runner.cli import loops, options
from runner.cli.endings import errors_reported, report, wants_color
from runner.cli.up_loading import Asked, load
from runner.cli.up_shown import say_goodbye, say_that_nothing_ran, show, show_loaded
from runner.cli.up_stopping import end, handle_signals, stop_without_log
from runner.workers import ENV_VARIABLE

if TYPE_CHECKING:
    from runner.app import System


def _address(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    from runner.units import parse_address

    try:
        return parse_address(value, lowest_port=0)
    except ValueError:
        raise click.BadParameter("write HOST:PORT, as in 127.0.0.1:8080; port 0 takes a free one") from None


@click.command("up", short_help="Run pipelines until stopped.")
@options.paths
@options.broker
@options.management
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
    help="Where HTTP producers listen, and the probes /healthz and /readyz. Port 0 takes a free one, which is logged.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Run N processes on this machine, and start again what crashes. Needs RabbitMQ. Default: 1.",
)
@options.env_file
def command(paths: tuple[Path, ...], environ: dict[str, str], workers: int, **settings: Any) -> None:
    """Validate pipelines, connect, declare what is missing, and run until SIGINT, SIGTERM or SIGHUP; then drain.

    PATH is a pipeline, or a folder: every *.yaml below it with a `version:` key. Log lines go to stdout, all else to
    stderr.

    Exit codes: 0 done or drained, 1 work was left behind (or that is not known, with --until-idle), 69 broker
    unreachable or different, 78 invalid pipeline, 130 forced by a second signal.
    """
    worker_env = os.environ.pop(ENV_VARIABLE, None)
    with errors_reported():
        asked = Asked(paths, environ, **settings)
        if worker_env is not None:
            from runner.cli.up_worker import work
            from runner.workers.protocol import WorkerEnv
            from runner.workers.worker import Worker

            worker = Worker(WorkerEnv.from_text(worker_env))
            work(worker, replace(asked, broker=worker.worker_env.broker))
        _up(asked, workers)


def _up(asked: Asked, workers: int) -> NoReturn:
    from runner import app, log

    system, logging = load(asked, report)
    app.check_workers(system, workers)
    show_loaded(system)
    if workers > 1:
        from runner.cli.up_master import run_workers

        asyncio.run(run_workers(system, workers, logging, asked.broker))
    log.configure(**logging, is_colored=wants_color(os.isatty(1)), on_write_error=stop_without_log)
    loops.run(_run(system, asked))
    raise AssertionError("it ends the process")


async def _run(system: System, asked: Asked) -> NoReturn:
    from runner import app

    stop = asyncio.Event()
    handle_signals(stop, is_memory=system.broker.is_memory)
    ended = await app.up(system, stop, until_idle=asked.until_idle, http=asked.http, on_step=show)
    if ended is None:
        say_that_nothing_ran()
        end(0)
    # The loop would wait for handlers that ignore their cancellation.
    end(say_goodbye(ended, is_memory=system.broker.is_memory))
