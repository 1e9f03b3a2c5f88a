"""`runner up --workers`: the master process, and the worker processes that run the same command line."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from runner.cli import event_loop
from runner.cli.output import drain_when_output_lost, echo_bug, echo_err, echo_error, exit_process, wants_color
from runner.cli.service_manager import ServiceManager
from runner.cli.signals import drain_on_signals
from runner.cli.up_run import UpOptions, echo_nothing_ran, echo_step, echo_totals, load_pipelines
from runner.errors import PipelineInvalid, RunnerError
from runner.units import pluralize
from runner.workers.master import Master, MasterResult
from runner.workers.protocol import WorkerEnv
from runner.workers.worker import Worker

if TYPE_CHECKING:
    from runner.app import StartupStep
    from runner.system import System


async def run_master(system: System, workers: int, logging: dict[str, Any], up_options: UpOptions) -> NoReturn:
    """Run `workers` processes until they are stopped or idle; write how they ended, and exit."""
    from runner import log
    from runner.app import StartupStep
    from runner.workers.line_mux import LineMux

    access = up_options.access()
    manager = ServiceManager()

    def on_step(name: str, text: str, seconds: float | None) -> None:
        echo_step(StartupStep(name, f"{workers} workers · {text}" if name == "running" else text, seconds))
        if name == "running":
            manager.notify("READY=1")

    log.flush()  # lines that modules printed while they were imported come first
    output = LineMux(1, drain_when_output_lost)
    is_colored = wants_color(output.isatty())
    log.configure(**logging, is_colored=is_colored, stream=output)
    grace_s = max(pipeline.grace_s for pipeline in system.pipelines)
    # The same interpreter, options and arguments as ours, except the broker URL: it may contain a password.
    command = [sys.executable, *without_broker(sys.orig_argv[1:])]
    master = Master(
        workers,
        command,
        output,
        grace_s=grace_s,
        is_colored=is_colored,
        broker=up_options.broker,
        token=access.token if access.is_new else None,
        on_step=on_step,
    )
    stop = asyncio.Event()
    drain_on_signals(stop, on_force=master.kill)
    manager.start(stop)
    exit_process(_echo_result(await master.run(stop)))


def without_broker(arguments: Sequence[str]) -> list[str]:
    """Return a command line without `--broker` and its value."""
    kept: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            return [*kept, argument, *left]
        if argument == "--broker":
            next(left, None)
        elif not argument.startswith("--broker="):
            kept.append(argument)
    return kept


def _echo_result(result: MasterResult) -> int:
    """Write how the workers ended; return the exit code."""
    if (failure := result.failure) is not None:
        if failure.error is not None:
            echo_error(*failure.error)
        else:
            echo_error(f"worker {failure.worker} failed to start: exit code {failure.exit_code}")
        return failure.exit_code
    if result.report is None:
        echo_nothing_ran()
        return 0
    code = echo_totals(result.report)
    if result.unreported:
        echo_err(
            f"{pluralize(result.unreported, 'worker')} ended without a report: the totals do not include their work"
        )
    for number in result.overdue:
        echo_error(f"worker {number} did not stop within the grace period and was killed; its messages were given back")
    for number in result.crashed:
        echo_error(f"worker {number} crashed while it drained; its messages were given back")
    return 1 if result.overdue or result.crashed else code


def run_worker(worker_env: str, up_options: UpOptions) -> NoReturn:
    """Run the pipelines as a worker, until the master says stop or is gone. `worker_env` is the master's message."""
    from runner import log

    worker = Worker(WorkerEnv.from_text(worker_env))
    up_options = replace(up_options, broker=worker.worker_env.broker, token=worker.worker_env.token)
    try:
        system, logging = load_pipelines(up_options, lambda _: None)  # the master has shown the warnings
        if logging["format"] == "auto":  # our standard output is a pipe to the master, which may have a terminal
            logging["format"] = "console" if worker.worker_env.is_terminal else "json"
        log.configure(**logging, is_colored=worker.worker_env.is_colored, worker=worker.worker_env.number)
        event_loop.run_in_loop(_run(worker, system, up_options))
    except PipelineInvalid as invalid:
        from runner.config import diagnostics

        worker.send("error", message=diagnostics.concise(invalid.problems).strip(), hint="")
        exit_process(invalid.exit_code)
    except RunnerError as error:
        worker.send("error", message=str(error), hint=error.hint)
        exit_process(error.exit_code)
    except Exception:  # a bug: the process must end even if handlers' threads still run, so that the master sees it
        exit_process(echo_bug())
    raise AssertionError("unreachable: the process has exited")


async def _run(worker: Worker, system: System, up_options: UpOptions) -> NoReturn:
    from runner import app

    stop = asyncio.Event()
    drain_on_signals(stop, say=lambda _: None)  # service managers signal every process; the master writes the line
    worker.listen(stop, max(pipeline.grace_s for pipeline in system.pipelines))

    def on_step(step: StartupStep) -> None:
        worker.send("step", name=step.name, text=step.text, seconds=step.seconds)

    report = await app.up(
        system,
        stop,
        until_idle=up_options.until_idle,
        http=up_options.http,
        access=up_options.access(),
        on_step=on_step,
        worker=worker,
    )
    worker.report(report, is_done=report is not None and not stop.is_set())
    exit_process(0)
