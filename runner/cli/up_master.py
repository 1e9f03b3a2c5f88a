"""`runner up --workers`: what is shown of several processes, and the exit code of them all."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from runner.cli.output import echo_err, echo_error, wants_color
from runner.cli.service_manager import ServiceManager
from runner.cli.up_output import echo_nothing_ran, echo_stage, echo_totals
from runner.cli.up_shutdown import drain_on_signals, drain_when_output_lost, exit_process

if TYPE_CHECKING:
    from runner.app import System
    from runner.cli.up_options import UpOptions
    from runner.workers.master import MasterResult


async def run_workers(system: System, workers: int, logging: dict[str, Any], up_options: UpOptions) -> NoReturn:
    """Run so many processes until they are stopped or have nothing more to do; say how they ended."""
    from runner import log
    from runner.app import StartupStep
    from runner.workers.line_mux import LineMux
    from runner.workers.master import Master

    access = up_options.access()
    manager = ServiceManager()

    def show_stage(name: str, text: str, seconds: float | None) -> None:
        echo_stage(StartupStep(name, f"{workers} workers · {text}" if name == "running" else text, seconds))
        if name == "running":
            manager.tell("READY=1")

    log.flush()  # what modules have printed while they were imported comes first
    output = LineMux(1, drain_when_output_lost)
    is_colored = wants_color(output.isatty())
    log.configure(**logging, is_colored=is_colored, stream=output)
    grace_s = max(pipeline.grace_s for pipeline in system.pipelines)
    # The same interpreter, options and arguments as ours, but for the broker's password.
    command = [sys.executable, *without_broker(sys.orig_argv[1:])]
    master = Master(
        workers,
        command,
        output,
        grace_s=grace_s,
        is_colored=is_colored,
        broker=up_options.broker,
        token=access.token if access.is_new else None,
        on_step=show_stage,
    )
    stop = asyncio.Event()
    drain_on_signals(stop, on_force=master.kill)
    manager.start(stop)
    exit_process(_say_how_it_ended(await master.run(stop)))


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


def _say_how_it_ended(ended: MasterResult) -> int:
    if ended.failure is not None:
        if ended.failure.error is not None:
            echo_error(*ended.failure.error)
        else:
            echo_error(f"worker {ended.failure.worker} ended with exit code {ended.failure.exit_code} before it ran")
        return ended.failure.exit_code
    if ended.report is None:
        echo_nothing_ran()
        return 0
    code = echo_totals(ended.report)
    if ended.unreported:
        who = f"{ended.unreported} worker{'s'[: ended.unreported != 1]}"
        echo_err(f"{who} ended without a report: what was done there is not in these totals")
    for number in ended.overdue:
        echo_error(f"worker {number} did not end within the grace and was killed; its messages were given back")
    for number in ended.crashed:
        echo_error(f"worker {number} crashed while it drained; its messages were given back")
    return 1 if ended.overdue or ended.crashed else code
