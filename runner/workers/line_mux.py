"""Merges the output of several processes into one standard output, line by line and in order of arrival.

One thread does the writing: a reader that stops reading must not block signals or restarts. Nothing is buffered here. A
writer waits until its lines are written, so pipes fill up and the workers wait in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from runner.log_output import DescriptorStream

READ_BYTES = 256 * 1024
BATCH_DELAY_S = 0.01
"""How long lines may accumulate after a write. Writing many lines at once costs hardly more than one."""

FULL_BATCH_BYTES = 32 * 1024
"""After a read of this size the next one follows without delay: the pipe is nearly full."""

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer line is written in pieces, and lines of other workers may come in between."""

FLUSH_TIMEOUT_S = 2.0
"""How long `settle` waits for the output to be written."""


class LineMux:
    """The standard output of all workers. `on_write_error` is called on the loop, once for each kind of error."""

    def __init__(self, descriptor: int, on_write_error: Callable[[OSError], None]) -> None:
        self._descriptor = DescriptorStream(descriptor)
        self._on_write_error = on_write_error
        self._reported: set[int | None] = set()
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="output")

    async def send(self, data: bytes) -> None:
        """Write, and return when it is done or the reader is gone."""
        await self._loop.run_in_executor(self._thread, self._write, data)

    async def settle(self) -> None:
        """Wait until everything is written, but not longer than `FLUSH_TIMEOUT_S`."""
        flushed = self._loop.run_in_executor(self._thread, lambda: None)
        await asyncio.wait([flushed], timeout=FLUSH_TIMEOUT_S)

    def write(self, text: str) -> int:
        """Write a line of the master itself, later. With `flush` and `isatty` this makes it a stream for a logger."""
        self._thread.submit(self._write, text.encode(errors="backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: lines are written as soon as possible."""

    def isatty(self) -> bool:
        """Return whether standard output is a terminal."""
        return self._descriptor.isatty()

    def _write(self, data: bytes) -> None:
        if errno.EPIPE in self._reported:
            return
        try:
            self._descriptor.write_bytes(data)
        except OSError as error:  # once per kind: a full disk may get space again
            if error.errno not in self._reported:
                self._reported.add(error.errno)
                self._loop.call_soon_threadsafe(self._on_write_error, error)


def make_pipe() -> tuple[int, int]:
    """Return the read end and the write end of a pipe with a large buffer, if the system allows it."""
    read_end, write_end = os.pipe()
    with contextlib.suppress(AttributeError, OSError):  # Linux only, and limited per user
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, READ_BYTES)
    return read_end, write_end


async def forward(descriptor: int, output: LineMux) -> None:
    """Copy a pipe to the output, in whole lines, until its write end is closed. Then close the read end."""
    partial: list[bytes] = []
    os.set_blocking(descriptor, False)
    try:
        while data := await _read(descriptor):
            end = data.rfind(b"\n") + 1
            if end:
                await output.send(b"".join((*partial, data[:end])))
                partial = [data[end:]] if end < len(data) else []
            else:
                partial.append(data)
                if sum(map(len, partial)) > MAX_LINE_BYTES:
                    await output.send(b"".join(partial))
                    partial = []
            if len(data) < FULL_BATCH_BYTES:
                await asyncio.sleep(BATCH_DELAY_S)
        if partial:
            await output.send(b"".join((*partial, b"\n")))
    finally:
        os.close(descriptor)


async def _read(descriptor: int) -> bytes:
    """Return what is in a pipe as soon as there is something."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, READ_BYTES)
