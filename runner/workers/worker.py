"""A worker's own side: what its master tells it, and what it tells its master."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from runner.runtime.supervisor import Report
from runner.workers.control import MARGIN_S, Role, Words, as_line, from_line, report_as_words

ANSWER_S = 1.0
"""How long the master may take to ask the others; it gives them half of that."""


class Worker:
    """One of several processes that run the same pipelines under one master."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self._socket = socket.socket(fileno=role.descriptor)
        self._socket.set_inheritable(False)
        self._may_connect = asyncio.Event()
        self._questions: list[asyncio.Future[list[str]]] = []
        self._own_trouble: Callable[[], Sequence[str]] = lambda: ["starting"]

    @property
    def name(self) -> str:
        """What it is called in the broker's list of connections."""
        return f"worker {self.role.number}/{self.role.size}"

    @property
    def start(self) -> str:
        """Names the start of all: a finite producer that has ended in it does not run again, whoever leads now."""
        return self.role.start

    @property
    def listens(self) -> bool:
        """Whether it is the one that answers HTTP, for all: there is one port."""
        return self.role.number == 1

    def begin(self, stop: asyncio.Event, grace_s: float) -> None:
        """Listen to the master from now on. Its `stop`, or its end, sets `stop`; the loop is the running one."""
        arguments = (asyncio.get_running_loop(), stop, grace_s)
        threading.Thread(target=self._listen, args=arguments, name="control", daemon=True).start()

    async def may_connect(self) -> None:
        """Wait for our turn: the first one declares, and is alone in saying that the broker cannot be reached."""
        await self._may_connect.wait()

    def watch(self, trouble: Callable[[], Sequence[str]]) -> None:
        """Tell the master from now on, when it asks, what this returns."""
        self._own_trouble = trouble

    async def whole_trouble(self) -> list[str]:
        """Return what keeps any worker from doing its work, each in its own words."""
        own = [f"worker {self.role.number}: {words}" for words in self._own_trouble()]
        question: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._questions.append(question)
        self.tell("others?")
        try:
            async with asyncio.timeout(ANSWER_S):
                return own + await question
        except TimeoutError:
            return [*own, "the master of the workers does not answer"]

    def tell(self, kind: str, **words: Any) -> None:
        """Send a message, if the master is still there."""
        with contextlib.suppress(OSError):
            self._socket.sendall(as_line(kind, words))

    def report(self, report: Report | None, *, is_done: bool) -> None:
        """Tell how we end; `is_done`: because there is nothing more to do."""
        self.tell("report", is_done=is_done, **report_as_words(report))

    def _listen(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, grace_s: float) -> None:
        """Hear the master. In a thread, which also ends us in time when it is gone and a handler blocks the loop."""
        with contextlib.suppress(OSError, RuntimeError):
            for line in self._socket.makefile("rb"):
                loop.call_soon_threadsafe(self._hear, from_line(line), stop)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)
        time.sleep(grace_s + MARGIN_S)
        os._exit(1)

    def _hear(self, words: Words, stop: asyncio.Event) -> None:
        match words["kind"]:
            case "go":
                self._may_connect.set()
            case "stop":
                stop.set()
            case "trouble?":
                self.tell("trouble", trouble=list(self._own_trouble()))
            case "others":
                if self._questions and not (question := self._questions.pop(0)).done():
                    question.set_result(words["trouble"])
