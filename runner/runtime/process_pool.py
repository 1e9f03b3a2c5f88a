"""Processes that run handlers (`run_in: process`), for CPU-bound work that would block the interpreter.

Each slot is one process, spawned before the first message is taken and kept. Payloads are decoded before they cross the
pipe. A process that exceeds the timeout is killed, and one that dies is replaced; only the attempt that it was working
on fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import multiprocessing
import pickle
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeVar

from runner import log
from runner.errors import BatchFailed
from runner.outcome import ErrorInfo, flatten_errors
from runner.pipeline.importer import import_object
from runner.runtime.invocation import HandlerFailed, Results, is_iterator, take_results, timeout_error
from runner.runtime.tracebacks import RemoteHandlerError, RemoteTraceback, capture_traceback

T = TypeVar("T")

_SPAWN = multiprocessing.get_context("spawn")
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


NO_POSITIONS: Mapping[int, tuple[tuple[ErrorInfo, ...], RemoteTraceback]] = {}


class WorkerDied(Exception):
    """The handler's process ended during a call: it was killed, ran out of memory, or crashed in native code."""


class HandlerCall(NamedTuple):
    """A call of the handler, as it is sent to the process."""

    path: str
    positional: tuple[Any, ...]
    arguments: dict[str, Any]
    context: Mapping[str, Any]
    trace: Mapping[str, str]
    """The current trace context as headers; empty where nothing is traced."""


class HandlerAnswer(NamedTuple):
    """The answer: the results (of a generator, all of them), or the errors that were raised and their traceback.

    Exceptions are not sent: many cannot be pickled, and the outcome of a message must not depend on that. After a
    BatchFailed, there are results as well, and `by_position` has the errors of single messages.
    """

    results: list[Any]
    errors: tuple[ErrorInfo, ...] = ()
    traceback: RemoteTraceback = RemoteTraceback(None, "")
    by_position: Mapping[int, tuple[tuple[ErrorInfo, ...], RemoteTraceback]] = NO_POSITIONS

    def error(self) -> BaseException:
        """Return the error that was raised, for this process."""
        if self.by_position:
            return BatchFailed({place: RemoteHandlerError(*each) for place, each in self.by_position.items()})
        return RemoteHandlerError(self.errors, self.traceback)


class ProcessPool:
    """The processes of one subscriber."""

    def __init__(self, size: int, name: str, path: str) -> None:
        self._size = size
        self._path = path
        self._free: list[_HandlerProcess] = []
        self._slots = asyncio.Semaphore(size)
        self._threads = ThreadPoolExecutor(size, thread_name_prefix=f"process-{name}")
        self._all: set[_HandlerProcess] = set()
        self._is_closed = False

    async def call(self, call: HandlerCall, timeout_s: float | None) -> Results:
        """Run the handler and return its results. Raises HandlerFailed. Cancelling kills the process."""
        async with self._slots:
            process = self._free.pop() if self._free else self._start()
            try:
                await self._in_thread(process, process.wait_until_ready)
                try:
                    async with asyncio.timeout(timeout_s):
                        answer = await self._in_thread(process, lambda: process.ask(call))
                except TimeoutError as error:
                    raise HandlerFailed(timeout_error(timeout_s or 0.0)) from error
            except BaseException as error:
                self._discard(process)
                if isinstance(error, HandlerFailed) and not self._is_closed:
                    self._free.insert(0, self._start())  # start the replacement now, so that it is ready sooner
                raise
            self._free.append(process)
        if answer.errors and not answer.results:
            raise HandlerFailed(answer.error())
        return _results_before_error(answer) if answer.errors else answer.results

    async def start(self) -> None:
        """Start all processes and wait until they have imported the handler. `call` replaces those that fail."""
        self._free += [self._start() for _ in range(self._size)]
        ready = (self._in_thread(process, process.wait_until_ready) for process in self._free)
        await asyncio.gather(*ready, return_exceptions=True)

    def close(self) -> None:
        """Kill all processes."""
        self._is_closed = True
        for process in list(self._all):
            self._discard(process)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, process: _HandlerProcess, work: Callable[[], T]) -> T:
        """Run a blocking call to a process in a thread. Raises HandlerFailed if the process ends meanwhile."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (EOFError, ConnectionError) as error:
            text = f"the handler's process ended with exit code {process.exit_code()}"
            raise HandlerFailed(WorkerDied(text)) from error

    def _start(self) -> _HandlerProcess:
        process = _HandlerProcess(self._path)
        self._all.add(process)
        return process

    def _discard(self, process: _HandlerProcess) -> None:
        self._all.discard(process)
        process.kill()


class _HandlerProcess:
    """One process and our end of its pipe."""

    def __init__(self, path: str) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        arguments = (theirs, path, list(sys.path), log.current_settings())
        self._process = _SPAWN.Process(target=serve_calls, args=arguments, daemon=True)
        self._is_ready = False
        # The child inherits the blocked signals: a signal to the group must not kill it before its handlers are set.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()

    def wait_until_ready(self) -> None:
        """Block until the process has started and imported its handler. Raises EOFError if it has died."""
        if not self._is_ready:
            self._pipe.recv()
            self._is_ready = True

    def ask(self, call: HandlerCall) -> HandlerAnswer:
        """Send a call and block until it is answered. Raises EOFError if the process has died."""
        self._pipe.send(call)
        answer: HandlerAnswer = self._pipe.recv()
        return answer

    def exit_code(self) -> int | None:
        """Return the exit code of the process (negative: a signal), waiting a moment for its end."""
        self._process.join(1.0)
        return self._process.exitcode

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._pipe.close()


def serve_calls(pipe: Connection, path: str, import_path: list[str], log_settings: dict[str, Any]) -> None:
    """Answer calls until the pipe is closed. Runs in the child.

    Stop signals may be sent to the whole process group, by a terminal or a service manager, but the parent does the
    draining. The child therefore catches them. It does not ignore them, because programs that the handler starts would
    inherit that.
    """
    for number in _STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    sys.path[:] = import_path
    if log_settings:
        log.configure(**log_settings)
    with contextlib.suppress(BaseException):  # the first call raises the error again, and reports it
        import_object(path)
    with contextlib.suppress(EOFError, OSError):
        pipe.send(True)
        while True:
            call: HandlerCall = pipe.recv()
            log.context.set(call.context)
            if call.trace:
                from runner.runtime.tracing import attach

                attach(call.trace)
            answer = _run_call(call)
            with contextlib.suppress(OSError, ValueError, AttributeError):  # the handler may have closed them
                log.flush()  # the process will be killed, without a chance to flush
                sys.stdout.flush()
                sys.stderr.flush()
            pipe.send(answer)


async def _results_before_error(answer: HandlerAnswer) -> AsyncGenerator[list[Any], None]:
    """Yield the results of a batch that has failed in part, and raise its error."""
    yield answer.results
    raise HandlerFailed(answer.error())


def _run_call(call: HandlerCall) -> HandlerAnswer:
    failed_in_part: BatchFailed | None = None
    try:
        result = import_object(call.path)(*call.positional, **call.arguments)
        if inspect.isawaitable(result) or inspect.isasyncgen(result):
            results, failed_in_part = asyncio.run(_await_results(result))
        else:
            results, failed_in_part = take_results(result) if is_iterator(result) else ([result], None)
        answer = HandlerAnswer(results) if failed_in_part is None else _failed(failed_in_part, results)
        pickle.loads(pickle.dumps(answer))
        return answer
    except BaseException as error:  # the handler and pickling may raise anything
        return _failed(error, [])


def _failed(error: BaseException, results: list[Any]) -> HandlerAnswer:
    errors = error.errors if isinstance(error, BatchFailed) else {}
    by_position = {place: (flatten_errors(each), capture_traceback(each)) for place, each in errors.items()}
    return HandlerAnswer(results, flatten_errors(error), capture_traceback(error), by_position)


async def _await_results(work: Any) -> tuple[list[Any], BatchFailed | None]:
    """Return the results of a plain function that returned an awaitable or an async generator."""
    result = work if inspect.isasyncgen(work) else await work
    if not inspect.isasyncgen(result):
        return take_results(result) if is_iterator(result) else ([result], None)
    results: list[Any] = []
    try:
        async for item in result:
            results.append(item)  # noqa: PERF401 - a comprehension would lose what came before the error
    except BatchFailed as error:
        return results, error
    return results, None
