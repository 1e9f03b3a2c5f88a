"""Calls handlers in processes of their own (`run_in: process`), for work that would keep the interpreter busy.

Each slot is one process, started by spawn and kept. What crosses the pipe is ours: payloads that were decoded here, and
what the handler made of them. A process that takes too long is killed, one that dies is replaced, and in both cases
only its own message's attempt has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import pickle
import signal
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeVar

from runner import log
from runner.pipeline.importing import import_object
from runner.runtime.blame import REMOTE, Blame, blame_of, words_of
from runner.runtime.invoking import HandlerFailed, timed_out

T = TypeVar("T")

_SPAWN = multiprocessing.get_context("spawn")
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class WorkerDied(Exception):
    """The handler's process ended in the middle of the work: killed, out of memory, or a crash in native code."""


class Call(NamedTuple):
    """What a process is asked to do."""

    path: str
    positional: tuple[Any, ...]
    arguments: dict[str, Any]
    context: Mapping[str, Any]


class Answer(NamedTuple):
    """What it answers: results (of a generator: all of them), or what the handler raised and where."""

    results: list[Any]
    error: BaseException | None = None
    blame: Blame | None = None


class RemoteError(Exception):
    """Stands for an exception that cannot travel between processes; its words begin with that one's type."""


class ProcessPool:
    """Up to `size` processes for one subscriber, each started when it is first needed."""

    def __init__(self, size: int, name: str) -> None:
        self._free: list[_Worker] = []
        self._slots = asyncio.Semaphore(size)
        self._threads = ThreadPoolExecutor(size, thread_name_prefix=f"process-{name}")
        self._all: set[_Worker] = set()

    async def call(self, call: Call, timeout_s: float | None) -> list[Any]:
        """Run a handler and return its results. Raises HandlerFailed. Cancelling kills the process it runs in."""
        async with self._slots:
            worker = self._free.pop() if self._free else self._start(call.path)
            try:
                await self._in_thread(worker, worker.wait_until_ready)
                try:
                    async with asyncio.timeout(timeout_s):
                        answer = await self._in_thread(worker, lambda: worker.ask(call))
                except TimeoutError as error:
                    raise HandlerFailed(timed_out(timeout_s or 0.0)) from error
            except BaseException:
                self._drop(worker)
                raise
            self._free.append(worker)
        if answer.error is not None:
            setattr(answer.error, REMOTE, answer.blame)
            raise HandlerFailed(answer.error)
        return answer.results

    def close(self) -> None:
        """End all processes at once."""
        for worker in list(self._all):
            self._drop(worker)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, worker: _Worker, work: Callable[[], T]) -> T:
        """Do what waits for a process; raises HandlerFailed when the process ends meanwhile."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (EOFError, ConnectionError) as error:
            text = f"the handler's process ended with exit code {worker.exit_code()}"
            raise HandlerFailed(WorkerDied(text)) from error

    def _start(self, path: str) -> _Worker:
        worker = _Worker(path)
        self._all.add(worker)
        return worker

    def _drop(self, worker: _Worker) -> None:
        self._all.discard(worker)
        worker.kill()


class _Worker:
    """One process and our end of its pipe."""

    def __init__(self, path: str) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        arguments = (theirs, path, list(sys.path), log.settings())
        self._process = _SPAWN.Process(target=serve, args=arguments, daemon=True)
        self._is_ready = False
        # It inherits what is blocked: a signal to the whole group must not end it before it has learnt to ignore it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()

    def wait_until_ready(self) -> None:
        """Return when the process has started and imported its handler; blocks. Raises EOFError when it has died."""
        if not self._is_ready:
            self._pipe.recv()
            self._is_ready = True

    def ask(self, call: Call) -> Answer:
        """Send a call and wait for its answer; blocks. Raises EOFError when the process has died."""
        self._pipe.send(call)
        answer: Answer = self._pipe.recv()
        return answer

    def exit_code(self) -> int | None:
        """Return how the process ended (negative: by a signal), waiting a moment for the end."""
        self._process.join(1.0)
        return self._process.exitcode

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._pipe.close()


def serve(pipe: Connection, path: str, import_path: list[str], log_settings: dict[str, Any]) -> None:
    """Answer calls until the other end is gone. Runs in the child.

    Signals may reach the whole group, from a terminal or a service manager: it is the parent that drains. They are
    caught and not ignored, so that the programs that a handler starts do not ignore them, too.
    """
    for number in _STOPPING:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    sys.path[:] = import_path
    log.configure(**log_settings)
    with contextlib.suppress(BaseException):  # whatever its module raises is told when it is called
        import_object(path)
    with contextlib.suppress(EOFError, OSError):
        pipe.send(True)
        while True:
            call: Call = pipe.recv()
            log.context.set(call.context)
            answer = _portable(_run(call))
            with contextlib.suppress(OSError, ValueError):  # the handler may have closed them
                sys.stdout.flush()  # it will be killed, not ended
                sys.stderr.flush()
            pipe.send(answer)


def _run(call: Call) -> Answer:
    try:
        result = import_object(call.path)(*call.positional, **call.arguments)
        is_stream = hasattr(result, "__next__")
        return Answer(list(result) if is_stream else [result])
    except BaseException as error:  # the handler may raise anything; this process goes on
        return Answer([], error, blame_of(error))


def _portable(answer: Answer) -> Answer:
    """Return the answer, or one that says why it cannot travel."""
    try:
        pickle.loads(pickle.dumps(answer))
        return answer
    except Exception as failure:  # pickling foreign objects raises anything
        error = answer.error if answer.error is not None else failure
        blame = answer.blame or blame_of(error)
        return Answer([], RemoteError(f"{type(error).__qualname__}: {words_of(error)}"), blame)
