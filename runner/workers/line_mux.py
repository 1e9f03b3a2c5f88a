"""Merges what several processes write into one standard output: whole lines, as they come, not looked at.

One thread writes, because a reader who does not read must stop neither the signals nor the restarts. Nothing piles up
here: who has written waits until it is out, and then the pipes fill up, and then the workers wait.
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
"""How long lines may gather after others have gone out: each piece costs as much as a hundred lines in one piece."""

FULL_BATCH_BYTES = 32 * 1024
"""A piece so long is followed by the next at once: the pipe was about to be full."""

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer one goes out in pieces, between which lines of others may come."""

FLUSH_TIMEOUT_S = 2.0


class LineMux:
    """The standard output of all workers. `on_write_error` is called in the loop, once for each kind of error."""

    def __init__(self, descriptor: int, on_write_error: Callable[[OSError], None]) -> None:
        self._descriptor = DescriptorStream(descriptor)
        self._on_write_error = on_write_error
        self._reported: set[int | None] = set()
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="output")

    async def send(self, data: bytes) -> None:
        """Write; return when it is out, or when nobody wants it."""
        await self._loop.run_in_executor(self._thread, self._write, data)

    async def settle(self) -> None:
        """Wait until everything is out, but not for long."""
        flushed = self._loop.run_in_executor(self._thread, lambda: None)
        await asyncio.wait([flushed], timeout=FLUSH_TIMEOUT_S)

    def write(self, text: str) -> int:
        """Write later a line of our own: there are few. With the next two, this is what a logger needs."""
        self._thread.submit(self._write, text.encode(errors="backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: it is written as soon as that is possible."""

    def isatty(self) -> bool:
        """Whether people read it."""
        return self._descriptor.isatty()

    def _write(self, data: bytes) -> None:
        if errno.EPIPE in self._reported:
            return
        try:
            self._descriptor.write_bytes(data)
        except OSError as error:  # a full disk may pass
            if error.errno not in self._reported:
                self._reported.add(error.errno)
                self._loop.call_soon_threadsafe(self._on_write_error, error)


def make_pipe() -> tuple[int, int]:
    """Return a pipe for lines, to be read and to be written: with room for all that gathers, where that can be had."""
    read_end, write_end = os.pipe()
    with contextlib.suppress(AttributeError, OSError):  # Linux only, and within a limit for each user
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, READ_BYTES)
    return read_end, write_end


async def forward(descriptor: int, output: LineMux) -> None:
    """Pass on what comes out of a pipe until it is closed at the other end; then close it here."""
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
    """Return what there is in a pipe, as soon as there is something."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, READ_BYTES)
