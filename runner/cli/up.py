"""`runner up`: run pipelines."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from runner.cli import event_loop, options
from runner.cli.output import echo_problems, errors_as_exit_codes, wants_color
from runner.cli.service_manager import ServiceManager
from runner.cli.up_options import UpOptions, load_pipelines
from runner.cli.up_output import echo_loaded, echo_nothing_ran, echo_stage, echo_totals
from runner.cli.up_shutdown import drain_on_signals, drain_when_output_lost, exit_process
from runner.workers import ENV_VARIABLE

if TYPE_CHECKING:
    from runner.app import System


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
    callback=options.http_address,
    help="Where HTTP producers listen, the probes /healthz and /readyz, /metrics and the page /. Port 0 takes a free "
    "one, which is logged.",
)
@options.allow_actions
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
    with errors_as_exit_codes():
        up_options = UpOptions(paths, environ, **settings)
        if worker_env is not None:
            from runner.cli.up_worker import run_worker
            from runner.workers.protocol import WorkerEnv
            from runner.workers.worker import Worker

            worker = Worker(WorkerEnv.from_text(worker_env))
            run_worker(worker, replace(up_options, broker=worker.worker_env.broker, token=worker.worker_env.token))
        _up(up_options, workers)


def _up(up_options: UpOptions, workers: int) -> NoReturn:
    from runner import app, log

    system, logging = load_pipelines(up_options, echo_problems)
    app.check_workers(system, workers)
    echo_loaded(system)
    if workers > 1:
        from runner.cli.up_master import run_workers

        asyncio.run(run_workers(system, workers, logging, up_options))
    log.configure(**logging, is_colored=wants_color(os.isatty(1)), on_write_error=drain_when_output_lost)
    event_loop.run_in_loop(_run(system, up_options))
    raise AssertionError("it ends the process")


async def _run(system: System, up_options: UpOptions) -> NoReturn:
    from runner import app

    stop = asyncio.Event()
    drain_on_signals(stop, is_memory=system.broker.is_memory)
    manager = ServiceManager()
    manager.start(stop)

    def note(stage: app.StartupStep) -> None:
        echo_stage(stage)
        if stage.name == "running":
            manager.tell("READY=1")

    access = up_options.access()
    ended = await app.up(
        system, stop, until_idle=up_options.until_idle, http=up_options.http, access=access, on_step=note
    )
    if ended is None:
        echo_nothing_ran()
        exit_process(0)
    # The loop would wait for handlers that ignore their cancellation.
    exit_process(echo_totals(ended, is_memory=system.broker.is_memory))
