"""The worker's side of the control channel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from runner.metrics import Metrics, Samples, as_json, from_json
from runner.runtime import exposition
from runner.runtime.supervisor import RunReport
from runner.workers.protocol import (
    EXIT_MARGIN_S,
    ControlMessage,
    WorkerEnv,
    decode_message,
    encode_message,
    report_to_message,
)

ANSWER_TIMEOUT_S = 1.0
"""How long the master may take to ask the other workers. It gives them half of that time."""


class Worker:
    """One of several processes that run the same pipelines under one master."""

    def __init__(self, worker_env: WorkerEnv) -> None:
        self.worker_env = worker_env
        self._socket = socket.socket(fileno=worker_env.descriptor)
        self._socket.set_inheritable(False)
        self._is_turn = asyncio.Event()
        self._questions: list[asyncio.Future[list[str]]] = []
        self._own_unready_reasons: Callable[[], Sequence[str]] = lambda: ["starting"]
        self._metrics = Metrics()
        self._asked: list[asyncio.Future[Samples]] = []
        self._writing = threading.Lock()

    @property
    def name(self) -> str:
        """Its name in the broker's list of connections."""
        return f"worker {self.worker_env.number}/{self.worker_env.size}"

    @property
    def start_id(self) -> str:
        """Identifies the start of all workers. A finite producer that has ended in it does not run in it again."""
        return self.worker_env.start_id

    @property
    def serves_http(self) -> bool:
        """Whether this worker runs the HTTP server: there is one port, and it answers for all workers."""
        return self.worker_env.number == 1

    def listen(self, stop: asyncio.Event, grace_s: float) -> None:
        """Start listening to the master. Its `stop`, or its end, sets `stop` in the running loop."""
        arguments = (asyncio.get_running_loop(), stop, grace_s)
        threading.Thread(target=self._listen, args=arguments, name="control", daemon=True).start()

    async def wait_for_turn(self) -> None:
        """Wait for `go`.

        The first worker declares the topology, and it alone reports that the broker cannot be reached.
        """
        await self._is_turn.wait()

    def report_readiness(self, unready_reasons: Callable[[], Sequence[str]], metrics: Metrics) -> None:
        """Answer the master's questions from now on: why this worker is not ready, and what it has counted."""
        self._own_unready_reasons = unready_reasons
        self._metrics = metrics

    async def all_unready_reasons(self) -> list[str]:
        """Return the reasons why any worker is not ready, each with the worker's number."""
        own = [f"worker {self.worker_env.number}: {reason}" for reason in self._own_unready_reasons()]
        question: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._questions.append(question)
        self.send("others?")
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return own + await question
        except TimeoutError:
            return [*own, "the master of the workers does not answer"]

    async def whole_metrics(self) -> Samples:
        """Return the samples of all workers, including those that have ended. Raises TimeoutError."""
        question: asyncio.Future[Samples] = asyncio.get_running_loop().create_future()
        self._asked.append(question)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await asyncio.to_thread(self._tell_metrics, "all-metrics?")
            return await question

    def _tell_metrics(self, kind: str) -> None:
        self.send(kind, samples=as_json(exposition.read(self._metrics)))

    def send(self, kind: str, **message: Any) -> None:
        """Send a message, if the master is still there. Thread-safe."""
        with contextlib.suppress(OSError), self._writing:
            self._socket.sendall(encode_message(kind, message))

    def report(self, report: RunReport | None, *, is_done: bool) -> None:
        """Send the report. `is_done` means that there was nothing left to do."""
        if self._metrics.is_timed:
            self._tell_metrics("metrics")
        self.send("report", is_done=is_done, **report_to_message(report))

    def _listen(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, grace_s: float) -> None:
        """Read the master's messages.

        This runs in a thread. If the master is gone and a handler blocks the loop, the thread ends the process after
        the grace period: a worker without a master must not go on.
        """
        with contextlib.suppress(OSError, RuntimeError):
            for line in self._socket.makefile("rb"):
                message = decode_message(line)
                if message["kind"] == "metrics?":  # answered in this thread, even if a handler blocks the loop
                    self._tell_metrics("metrics")
                else:
                    loop.call_soon_threadsafe(self._on_message, message, stop)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)
        time.sleep(grace_s + EXIT_MARGIN_S)
        os._exit(1)

    def _on_message(self, message: ControlMessage, stop: asyncio.Event) -> None:
        match message["kind"]:
            case "go":
                self._is_turn.set()
            case "stop":
                stop.set()
            case "unready?":
                self.send("unready_reasons", unready_reasons=list(self._own_unready_reasons()))
            case "others":
                if self._questions and not (question := self._questions.pop(0)).done():
                    question.set_result(message["unready_reasons"])
            case "all-metrics":
                if self._asked and not (asked := self._asked.pop(0)).done():
                    asked.set_result(from_json(message["samples"]))
