"""A thread with an event loop of virtual time. The loop runs only while a command runs: nothing happens in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from runner.testing.virtual_time import VirtualTimeLoop

T = TypeVar("T")


class LoopThread:
    """Runs coroutines of any thread on one loop. Close it with `close`."""

    def __init__(self) -> None:
        self.loop = VirtualTimeLoop()
        self._commands = 0
        self._lock = threading.Lock()
        self._has_work: SimpleQueue[bool] = SimpleQueue()
        self._ended: Future[None] = Future()
        self._is_closed = False
        self._last: Coroutine[Any, Any, None] | None = None
        self._thread = threading.Thread(target=self._run, name="pipelines-under-test", daemon=True)
        self._thread.start()

    @property
    def is_current(self) -> bool:
        """Whether this is the loop's thread: what waits for a command here would wait for itself."""
        return threading.current_thread() is self._thread

    def submit(self, command: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a command. The future may be awaited on another loop, with `asyncio.wrap_future`."""
        with self._lock:
            if self._is_closed:
                command.close()
                raise RuntimeError("the pipelines under test are closed")
            self._commands += 1
            future = asyncio.run_coroutine_threadsafe(self._finish(command), self.loop)
        self._has_work.put(True)
        return future

    @property
    def is_open(self) -> bool:
        """Whether commands can be submitted."""
        return not self._is_closed

    def close(self, last: Coroutine[Any, Any, None]) -> Future[None]:
        """Run a last command, then end all tasks and the thread. Idempotent.

        When the future is done, the thread is about to return.
        """
        with self._lock:
            if self._is_closed:
                last.close()
            else:
                self._is_closed = True
                self._last = last
                self._has_work.put(False)
        return self._ended

    def join(self) -> None:
        """Wait until the thread has returned."""
        self._thread.join()

    async def _finish(self, command: Coroutine[Any, Any, T]) -> T:
        try:
            return await command
        finally:
            self.loop.call_soon(self._note_finished)

    def _note_finished(self) -> None:
        with self._lock:
            self._commands -= 1
            if not self._commands:
                self.loop.stop()

    def _run(self) -> None:
        try:
            while self._has_work.get():
                while self._commands:
                    try:
                        self.loop.run_forever()
                    except (SystemExit, KeyboardInterrupt) as error:  # of a task that a user's code has left behind
                        self.loop.fail(RuntimeError(f"{type(error).__name__} was raised in a background task"))
            assert self._last is not None
            try:
                self.loop.run_until_complete(self._last)
            finally:
                try:
                    self.loop.run_until_complete(self._end())
                finally:
                    self.loop.close()
        except BaseException as error:
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _end(self) -> None:
        """Cancel what the user's code has left behind, and wait for its threads."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await self.loop.drive(asyncio.gather(*tasks, return_exceptions=True))
        await self.loop.shutdown_asyncgens()
        await self.loop.close_threads()
