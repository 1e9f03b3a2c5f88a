"""`runner up` as a worker: the same work, told to the master instead of shown."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

from runner.cli import loops
from runner.cli.endings import report_bug
from runner.cli.up_loading import Asked, load
from runner.cli.up_stopping import end, handle_signals
from runner.errors import PipelineInvalid, RunnerError
from runner.workers.protocol import WorkerEnv
from runner.workers.worker import Worker

if TYPE_CHECKING:
    from runner.app import System


def work(worker: Worker, asked: Asked) -> NoReturn:
    """Run the pipelines until the master says stop, or is gone."""
    from runner import log

    try:
        system, logging = load(asked, lambda _: None)  # the master has shown the warnings
        _use_terminal_of_master(worker.worker_env, logging)
        log.configure(**logging, is_colored=worker.worker_env.is_colored, worker=worker.worker_env.number)
        loops.run(_run(worker, system, asked))
    except PipelineInvalid as invalid:
        from runner.config import diagnostics

        worker.send("error", message=diagnostics.concise(invalid.problems).strip(), hint="")
        end(invalid.exit_code)
    except RunnerError as error:
        worker.send("error", message=str(error), hint=error.hint)
        end(error.exit_code)
    except Exception:  # a bug of ours: whatever threads still run, the master has to see an end
        end(report_bug())
    raise AssertionError("it ends the process")


def _use_terminal_of_master(worker_env: WorkerEnv, logging: dict[str, Any]) -> None:
    """Write as if our standard output were the master's, which is behind our pipe."""
    if logging["format"] == "auto":
        logging["format"] = "console" if worker_env.is_terminal else "json"


async def _run(worker: Worker, system: System, asked: Asked) -> NoReturn:
    from runner import app

    stop = asyncio.Event()
    handle_signals(stop, say=lambda _: None)  # a service manager tells every process; the master says it
    worker.listen(stop, max(pipeline.grace_s for pipeline in system.pipelines))

    def tell(stage: app.StartupStep) -> None:
        worker.send("step", name=stage.name, text=stage.text, seconds=stage.seconds)

    ended = await app.up(system, stop, until_idle=asked.until_idle, http=asked.http, on_step=tell, worker=worker)
    worker.report(ended, is_done=ended is not None and not stop.is_set())
    end(0)
