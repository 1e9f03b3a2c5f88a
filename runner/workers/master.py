"""Runs the same pipelines in several worker processes: starts, restarts and drains them, and merges their output.

A worker is a new interpreter, never a fork. The first one declares the topology, while the others load their code; they
connect after it. A worker notices the end of its master by the end of the control channel, and drains by itself.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from runner import log
from runner.metrics import Samples, as_json, counted, merged
from runner.runtime.supervisor import RunReport
from runner.tasks import wait_set
from runner.workers.line_mux import LineMux
from runner.workers.protocol import EXIT_MARGIN_S, ControlMessage, WorkerEnv, sum_reports
from runner.workers.restart_policy import RestartBackoff, WorkerExit, decide
from runner.workers.worker_process import WorkerProcess

KILL_TIMEOUT_S = 5.0
"""How long a process may take to end after SIGKILL."""


@dataclass(frozen=True)
class StartFailure:
    """A worker that could not start, which ends all workers."""

    worker: int
    exit_code: int
    error: tuple[str, str] | None
    """A message and a hint; None if the worker has already printed its error."""


@dataclass(frozen=True)
class MasterResult:
    """How all workers ended."""

    report: RunReport | None
    """The sum of the workers' reports; None if none of them had started."""
    unreported: int
    """How many workers had started and ended without a report. The sum lacks what they did."""
    overdue: tuple[int, ...]
    """The workers that did not end within the grace period and were killed."""
    crashed: tuple[int, ...]
    """The workers that crashed while they were draining."""
    failure: StartFailure | None


class Master:
    """Keeps `size` workers running.

    `on_step` gets the start-up steps of the first worker, and the step `running` once all workers run.
    """

    def __init__(
        self,
        size: int,
        command: Sequence[str],
        output: LineMux,
        *,
        grace_s: float,
        is_colored: bool,
        broker: str | None = None,
        token: str | None = None,
        on_step: Callable[[str, str, float | None], None],
    ) -> None:
        self._size = size
        self._command = command
        self._output = output
        self._grace_s = grace_s
        self._worker_env = WorkerEnv(0, size, -1, output.isatty(), is_colored, uuid4().hex, broker, token)
        self._on_step = on_step
        self._processes: dict[int, WorkerProcess] = {}
        self._done: set[int] = set()
        self._draining = asyncio.Event()
        self._has_declared = False
        self._has_run: set[int] = set()
        self._reports: list[RunReport | None] = []
        self._unreported = 0
        self._crashed: list[int] = []
        self._failure: StartFailure | None = None
        self._ended_samples: Samples = {}
        """What was counted by processes that have ended: the sums must not go back."""
        self._answering: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> MasterResult:
        """Run until `stop` is set, all workers are done, or one cannot start. Then drain."""
        keeping = {asyncio.create_task(self._supervise(number)): number for number in range(1, self._size + 1)}
        stopping: list[asyncio.Future[Any]] = [
            asyncio.create_task(stop.wait()),
            asyncio.create_task(self._draining.wait()),
        ]
        ended = asyncio.gather(*keeping)
        await asyncio.wait([ended, *stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in stopping:
            task.cancel()
        overdue: tuple[int, ...] = ()
        if not ended.done():
            self._drain()
            _, late = await asyncio.wait(keeping, timeout=self._grace_s + EXIT_MARGIN_S)
            overdue = tuple(sorted(keeping[task] for task in late))
            self.kill()
            await asyncio.wait(keeping, timeout=KILL_TIMEOUT_S)
        if ended.done():
            await ended  # raises an unexpected error: a bug in the runner
        reports = [report for report in self._reports if report is not None]
        total = sum_reports(reports) if reports or self._unreported else None
        if total is not None:
            log.get_logger().info("workers.stopped", workers=self._size, **total.totals.as_fields())
        await self._output.settle()
        crashed = tuple(number for number in self._crashed if number not in overdue)
        return MasterResult(total, self._unreported, overdue, crashed, self._failure)

    def kill(self) -> None:
        """Kill all workers."""
        for process in self._processes.values():
            process.kill()

    def _drain(self) -> None:
        self._draining.set()
        for process in self._processes.values():
            process.send("stop")

    async def _supervise(self, number: int) -> None:
        """Start a worker, and restart it as the restart policy says."""
        backoff = RestartBackoff()
        while not self._draining.is_set():
            process = WorkerProcess(number, self._on_message)
            ended = await self._run_once(process)
            self._reports += process.reports
            self._unreported += ended.has_run and not process.reports
            verdict = decide(ended, is_first=number not in self._has_run, is_draining=self._draining.is_set())
            pause_s = backoff.pause_s(ended)
            self._log_end(process, ended, {"restart_in_ms": round(pause_s * 1000)} if verdict == "restart" else {})
            if verdict == "done":
                self._done.add(number)
                self._crashed += [number] if ended.has_run and not process.reports else []
                return
            if verdict == "give up":
                self._failure = self._failure or StartFailure(number, ended.code, process.error)
                self._draining.set()
                return
            await wait_set(self._draining, pause_s)

    async def _run_once(self, process: WorkerProcess) -> WorkerExit:
        try:
            await process.start(self._command, self._worker_env, self._output)
        except OSError as error:  # no memory or too many processes: may be better next time
            process.error = f"worker {process.number} cannot be started: {error.strerror}", ""
            return WorkerExit(1, 0.0, has_run=False)
        self._processes[process.number] = process
        if self._has_declared or process.number == 1:
            process.send("go")
        if self._draining.is_set():
            process.send("stop")
        ended = await process.wait()
        del self._processes[process.number]
        self._ended_samples = merged([self._ended_samples, counted(process.samples)])
        return ended

    def _on_message(self, process: WorkerProcess, message: ControlMessage) -> None:
        if message["kind"] in ("others?", "all-metrics?"):
            if message["kind"] == "others?":
                answer = self._answer_readiness(process)
            else:
                process.keep_samples(message)
                answer = self._answer_metrics(process)
            task = asyncio.create_task(answer)
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif message["name"] == "running":
            took_ms = round(process.uptime_s * 1000)
            log.get_logger().info("worker.started", worker=process.number, pid=process.pid, took_ms=took_ms)
            self._note_running(process.number, message)
        elif not self._has_declared:
            self._show_step(message)
            if message["name"] == "topology":
                self._has_declared = True
                for each in self._processes.values():
                    each.send("go")

    def _note_running(self, number: int, message: ControlMessage) -> None:
        before = len(self._has_run)
        self._has_run.add(number)
        if before < len(self._has_run) == self._size and not self._draining.is_set():
            self._show_step(message)

    def _show_step(self, message: ControlMessage) -> None:
        self._on_step(message["name"], message["text"], message["seconds"])

    async def _answer_readiness(self, asker: WorkerProcess) -> None:
        """Ask all other workers concurrently why they are not ready, and send the answers to `asker`."""
        numbers = [n for n in range(1, self._size + 1) if n != asker.number and n not in self._done]
        answers = await asyncio.gather(*map(self._unready_reasons, numbers))
        reasons = [f"worker {n}: {reason}" for n, answer in zip(numbers, answers, strict=True) for reason in answer]
        asker.send("others", unready_reasons=reasons)

    async def _answer_metrics(self, asker: WorkerProcess) -> None:
        """Ask all the others what they have counted, at the same time, and tell who wants to know the sums."""
        others = [process for process in self._processes.values() if process is not asker]
        await asyncio.gather(*(process.read_samples() for process in others))
        # Looked up now: one that has ended meanwhile is in the sum of those already.
        now = [process.samples for process in self._processes.values()]
        asker.send("all-metrics", samples=as_json(merged([self._ended_samples, *now])))

    async def _unready_reasons(self, number: int) -> list[str]:
        process = self._processes.get(number)
        return ["not running, to be started again"] if process is None else await process.unready_reasons()

    def _log_end(self, process: WorkerProcess, ended: WorkerExit, more: dict[str, Any]) -> None:
        how: dict[str, Any] = {"signal": _signal_name(-ended.code)} if ended.code < 0 else {"exit_code": ended.code}
        how["uptime_ms"] = round(ended.uptime_s * 1000)
        if process.error is not None:
            how["error"] = process.error[0]
        write = log.get_logger().error if ended.code else log.get_logger().info
        write("worker.exited", worker=process.number, pid=process.pid, **how, **more)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
