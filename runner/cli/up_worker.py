"""`runner up` as a worker: the same work, told to the master instead of shown."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

from runner.cli import event_loop
from runner.cli.output import echo_bug
from runner.cli.up_options import UpOptions, load_pipelines
from runner.cli.up_shutdown import drain_on_signals, exit_process
from runner.errors import PipelineInvalid, RunnerError
from runner.workers.protocol import WorkerEnv
from runner.workers.worker import Worker

if TYPE_CHECKING:
    from runner.app import System


def run_worker(worker: Worker, up_options: UpOptions) -> NoReturn:
    """Run the pipelines until the master says stop, or is gone."""
    from runner import log

    try:
        system, logging = load_pipelines(up_options, lambda _: None)  # the master has shown the warnings
        _use_terminal_of_master(worker.worker_env, logging)
        log.configure(**logging, is_colored=worker.worker_env.is_colored, worker=worker.worker_env.number)
        event_loop.run_in_loop(_run(worker, system, up_options))
    except PipelineInvalid as invalid:
        from runner.config import diagnostics

        worker.send("error", message=diagnostics.concise(invalid.problems).strip(), hint="")
        exit_process(invalid.exit_code)
    except RunnerError as error:
        worker.send("error", message=str(error), hint=error.hint)
        exit_process(error.exit_code)
    except Exception:  # a bug of ours: whatever threads still run, the master has to see an end
        exit_process(echo_bug())
    raise AssertionError("it ends the process")


def _use_terminal_of_master(worker_env: WorkerEnv, logging: dict[str, Any]) -> None:
    """Write as if our standard output were the master's, which is behind our pipe."""
    if logging["format"] == "auto":
        logging["format"] = "console" if worker_env.is_terminal else "json"


async def _run(worker: Worker, system: System, up_options: UpOptions) -> NoReturn:
    from runner import app

    stop = asyncio.Event()
    drain_on_signals(stop, say=lambda _: None)  # a service manager tells every process; the master says it
    worker.listen(stop, max(pipeline.grace_s for pipeline in system.pipelines))

    def tell(stage: app.StartupStep) -> None:
        worker.send("step", name=stage.name, text=stage.text, seconds=stage.seconds)

    ended = await app.up(
        system,
        stop,
        until_idle=up_options.until_idle,
        http=up_options.http,
        access=up_options.access(),
        on_step=tell,
        worker=worker,
    )
    worker.report(ended, is_done=ended is not None and not stop.is_set())
    exit_process(0)
