"""`runner up`: run pipelines."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NoReturn

import click

from runner.cli import event_loop, options
from runner.cli.loader import PipelineOptions
from runner.cli.output import drain_when_output_lost, echo_problems, exit_process, wants_color
from runner.cli.service_manager import ServiceManager
from runner.cli.signals import drain_on_signals
from runner.cli.up_run import UpOptions, echo_loaded, echo_nothing_ran, echo_step, echo_totals, load_pipelines
from runner.cli.verb import Verb
from runner.workers import ENV_VARIABLE

if TYPE_CHECKING:
    from runner.system import System


@click.command("up", cls=Verb, short_help="Run pipelines until stopped.")
@options.pipelines(options.broker, options.management)
@options.only
@click.option(
    "--until-idle",
    is_flag=True,
    help="Stop when finite producers have ended and no message waits or is retried. Delayed messages are not awaited.",
)
@options.log_format
@options.log_level
@options.http
@options.allow_actions
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Run N processes on this machine and restart those that crash. Needs RabbitMQ. Default: 1.",
)
@click.option("--watch", is_flag=True, help="Reload when files change, as `runner dev` does. Needs the extra `dev`.")
def command(chosen: PipelineOptions, workers: int, watch: bool, **settings: Any) -> None:
    """Validate pipelines, connect, declare what is missing, and run until SIGINT, SIGTERM or SIGHUP; then drain.

    PATH is a pipeline, or a folder: every *.yaml below it with a `version:` key. Log lines go to stdout, everything
    else to stderr.

    Exit codes: 0 done or drained, 1 work was left unfinished (with --until-idle also: that is not known), 69 broker
    unreachable or different, 78 invalid pipeline, 130 forced by a second signal.
    """
    worker_env = os.environ.pop(ENV_VARIABLE, None)
    up_options = UpOptions(**vars(chosen), **settings)
    if worker_env is not None:
        from runner.cli.up_workers import run_worker

        run_worker(worker_env, up_options)
    if watch:
        _watch(up_options, workers)
    _up(up_options, workers)


def _watch(up_options: UpOptions, workers: int) -> NoReturn:
    from runner.cli.reload_run import run_reloading

    if workers > 1:
        raise options.BadValue("--watch reloads one process", "leave it out", "--workers", by=[])
    if up_options.until_idle:
        raise options.BadValue("--watch runs until it is stopped", "leave it out", "--until-idle", by=[])
    run_reloading(up_options, is_dev=False)


def _up(up_options: UpOptions, workers: int) -> NoReturn:
    from runner import log
    from runner.system import check_workers

    system, logging = load_pipelines(up_options, echo_problems)
    check_workers(system, workers)
    for _, reader in system.stream_readers() if up_options.until_idle else ():
        text = f'"{reader.name}" reads the stream "{reader.queue}", which never becomes empty'
        raise click.UsageError(f"{text}: leave --until-idle out, or add --except {reader.name}")
    echo_loaded(system)
    if workers > 1:
        from runner.cli.up_workers import run_master

        asyncio.run(run_master(system, workers, logging, up_options))
    log.configure(**logging, is_colored=wants_color(os.isatty(1)), on_write_error=drain_when_output_lost)
    event_loop.run_in_loop(_run(system, up_options))
    raise AssertionError("unreachable: the process has exited")


async def _run(system: System, up_options: UpOptions) -> NoReturn:
    from runner import app

    stop = asyncio.Event()
    drain_on_signals(stop, is_memory=system.broker.is_memory)
    manager = ServiceManager()
    manager.start(stop)

    def on_step(step: app.StartupStep) -> None:
        echo_step(step)
        if step.name == "running":
            manager.notify("READY=1")

    access = up_options.access()
    report = await app.up(
        system, stop, until_idle=up_options.until_idle, http=up_options.http, access=access, on_step=on_step
    )
    if report is None:
        echo_nothing_ran()
        exit_process(0)
    # Returning would make the loop wait for handlers that ignore their cancellation.
    exit_process(echo_totals(report, is_memory=system.broker.is_memory))
