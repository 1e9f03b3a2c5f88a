"""`runner up --workers`: what is shown of several processes, and the exit code of them all."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from runner.cli.endings import say, say_error, wants_color
from runner.cli.up_shown import say_goodbye, say_that_nothing_ran, show
from runner.cli.up_stopping import end, handle_signals, stop_without_log

if TYPE_CHECKING:
    from runner.app import System
    from runner.workers.master import MasterResult


async def run_workers(system: System, workers: int, logging: dict[str, Any], broker: str | None) -> NoReturn:
    """Run so many processes until they are stopped or have nothing more to do; say how they ended."""
    from runner import log
    from runner.app import StartupStep
    from runner.workers.line_mux import LineMux
    from runner.workers.master import Master

    def show_stage(name: str, text: str, seconds: float | None) -> None:
        show(StartupStep(name, f"{workers} workers · {text}" if name == "running" else text, seconds))

    log.flush()  # what modules have printed while they were imported comes first
    output = LineMux(1, stop_without_log)
    is_colored = wants_color(output.isatty())
    log.configure(**logging, is_colored=is_colored, stream=output)
    grace_s = max(pipeline.grace_s for pipeline in system.pipelines)
    # The same interpreter, options and arguments as ours, but for the broker's password.
    command = [sys.executable, *without_broker(sys.orig_argv[1:])]
    master = Master(
        workers, command, output, grace_s=grace_s, is_colored=is_colored, broker=broker, on_step=show_stage
    )
    stop = asyncio.Event()
    handle_signals(stop, on_force=master.kill)
    end(_say_how_it_ended(await master.run(stop)))


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
            say_error(*ended.failure.error)
        else:
            say_error(f"worker {ended.failure.worker} ended with exit code {ended.failure.exit_code} before it ran")
        return ended.failure.exit_code
    if ended.report is None:
        say_that_nothing_ran()
        return 0
    code = say_goodbye(ended.report)
    if ended.unreported:
        who = f"{ended.unreported} worker{'s'[: ended.unreported != 1]}"
        say(f"{who} ended without a report: what was done there is not in these totals")
    for number in ended.overdue:
        say_error(f"worker {number} did not end within the grace and was killed; its messages were given back")
    for number in ended.crashed:
        say_error(f"worker {number} crashed while it drained; its messages were given back")
    return 1 if ended.overdue or ended.crashed else code
