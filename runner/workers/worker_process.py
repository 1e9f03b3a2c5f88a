"""A worker as its master sees it: a process, our end of the control channel, and its standard output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from runner.metrics import Samples, from_json
from runner.runtime.supervisor import RunReport
from runner.tasks import wait_set
from runner.workers import ENV_VARIABLE
from runner.workers.line_mux import LineMux, forward, make_pipe
from runner.workers.protocol import ControlMessage, WorkerEnv, decode_message, encode_message, report_from_message
from runner.workers.restart_policy import WorkerExit

MAX_LINE = 256 * 1024 * 1024
"""Bounds a message of a worker: the samples of a thousand subscribers are about one megabyte."""

ANSWER_TIMEOUT_S = 0.5
"""How long a worker may take to answer a readiness question. Most probes wait for one second."""

OUTPUT_TIMEOUT_S = 1.0
"""How long to read the output of a process that has ended: programs that it started may keep its pipes open."""


class WorkerProcess:
    """One run of a worker.

    It has a session of its own, so that Ctrl-C in the terminal reaches only the master. `on_message` gets every message
    of the worker that is no answer.
    """

    def __init__(self, number: int, on_message: Callable[[WorkerProcess, ControlMessage], None]) -> None:
        self.number = number
        self.is_running = False
        self.is_done = False
        self.reports: list[RunReport | None] = []
        self.error: tuple[str, str] | None = None
        """Why it could not run, and a hint."""
        self._on_message = on_message
        self.samples: Samples = {}
        """What it has counted, as it said last."""
        self._has_samples = asyncio.Event()
        self._questions: list[asyncio.Future[list[str]]] = []
        self._process: asyncio.subprocess.Process | None = None
        self._started_at = asyncio.get_running_loop().time()

    async def start(self, command: Sequence[str], worker_env: WorkerEnv, output: LineMux) -> None:
        """Start a new interpreter with this command line, and its settings in the environment."""
        ours, theirs = socket.socketpair()
        read_end, write_end = make_pipe()
        worker_env = replace(worker_env, number=self.number, descriptor=theirs.fileno())
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdout=write_end,
                env={**os.environ, ENV_VARIABLE: worker_env.as_text()},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(read_end)
            raise
        finally:
            theirs.close()
            os.close(write_end)
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE)
        self._listening = asyncio.create_task(self._listen(reader))
        self._forwarding = asyncio.create_task(forward(read_end, output))

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def uptime_s(self) -> float:
        return asyncio.get_running_loop().time() - self._started_at

    def send(self, kind: str, **message: Any) -> None:
        """Send a message, if the worker is still connected."""
        if not self._writer.is_closing():
            self._writer.write(encode_message(kind, message))

    async def unready_reasons(self) -> list[str]:
        """Return the reasons why the worker is not ready."""
        if not self.is_running:
            return ["starting"]
        question: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._questions.append(question)
        self.send("unready?")
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await question
        except TimeoutError:
            return ["does not answer"]

    async def read_samples(self) -> None:
        """Ask what it has counted by now, and wait until `samples` says so; not for long."""
        self._has_samples.clear()
        self.send("metrics?")
        await wait_set(self._has_samples, ANSWER_TIMEOUT_S)

    def keep_samples(self, message: ControlMessage) -> None:
        """Note what it says that it has counted."""
        self.samples = from_json(message["samples"])
        self._has_samples.set()

    async def wait(self) -> WorkerExit:
        """Wait for the end of the process and its output, and return how it ended."""
        assert self._process is not None
        code = await self._process.wait()
        uptime_s = self.uptime_s
        await asyncio.wait([self._listening, self._forwarding], timeout=OUTPUT_TIMEOUT_S)
        self._listening.cancel()
        self._writer.close()
        return WorkerExit(code, uptime_s, self.is_running, self.is_done)

    def kill(self) -> None:
        """Kill the process and everything that it has started."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                message = decode_message(line)
                match message["kind"]:
                    case "unready_reasons":
                        self._answer(message["unready_reasons"])
                    case "metrics":
                        self.keep_samples(message)
                    case "error":
                        self.error = message["message"], message["hint"]
                    case "report":
                        self.is_done = message["is_done"]
                        self.reports.append(report_from_message(message))
                    case _:
                        self.is_running |= message["kind"] == "step" and message["name"] == "running"
                        self._on_message(self, message)

    def _answer(self, unready_reasons: list[str]) -> None:
        """Resolve the oldest question: a worker answers in order."""
        if self._questions and not (question := self._questions.pop(0)).done():
            question.set_result(unready_reasons)
