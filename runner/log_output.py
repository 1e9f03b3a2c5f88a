"""Where log lines go: a descriptor of our own, behind a sink that cannot fail.

Log lines do not pass through `sys.stdout`, because handlers print to it, replace it and close it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

MAX_HELD = 10_000
"""How many writes a stream keeps while it is held."""


class Stream(Protocol):
    """A text stream."""

    def write(self, text: str, /) -> object:
        """Write."""

    def flush(self) -> object:
        """Write what is buffered."""

    def isatty(self) -> bool:
        """Return whether it is a terminal."""


class DescriptorStream:
    """A file descriptor as a stream. Each write is one system call, unless the descriptor takes only a part."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._held: list[str] | None = None
        self._has_partial_line = False

    def write(self, text: str) -> int:
        """Write all of it, or keep it while the stream is held. Raises OSError."""
        if (held := self._held) is not None and len(held) < MAX_HELD:
            held.append(text)
        else:
            self.release()
            self.write_bytes(text.encode(errors="backslashreplace"))
        return len(text)

    def hold(self) -> None:
        """Keep what is written until `release`, or until it is too much."""
        self._held = []

    def release(self) -> None:
        """Write what was kept. Raises OSError."""
        held, self._held = self._held, None
        if held:
            self.write_bytes("".join(held).encode(errors="backslashreplace"))

    def write_bytes(self, data: bytes) -> None:
        """Write all of it. Raises OSError. If an error has cut a line, the next write starts a new line."""
        rest = memoryview(b"\n" + data if self._has_partial_line else data)
        total = len(rest)
        try:
            while rest:
                rest = rest[self._write(rest) :]
        except OSError:
            self._has_partial_line = self._has_partial_line or len(rest) < total
            raise
        self._has_partial_line = False

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._descriptor)

    def _write(self, data: memoryview) -> int:
        """Write a part. The descriptor may be non-blocking, because another program that shares it has set that."""
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()


class LogSink:
    """A thread-safe stream that cannot fail: lines that cannot be written are dropped."""

    def __init__(self, stream: Stream, on_write_error: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._on_write_error = on_write_error
        self._reported: set[int | None] = set()
        self._is_flush_scheduled = False
        self._waiting: list[str] = []
        self._lock = threading.RLock()
        self.isatty = stream.isatty
        _sinks.add(self)

    def write_line(self, line: str) -> None:
        """Write a line, and what is buffered before it."""
        self.write(f"{line}\n")

    def write(self, text: str) -> int:
        """Write text, and what is buffered before it."""
        with self._lock:
            text, self._waiting = "".join([*self._waiting, text]), []
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError) as error:  # ValueError: the stream is closed
                self._report(error if isinstance(error, OSError) else OSError(errno.EBADF, os.strerror(errno.EBADF)))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._lock:
            if self._waiting:
                self.write("")

    def buffer_line(self, line: str) -> None:
        """Write a line at the end of the loop's iteration, together with others: the system call is the main cost."""
        with self._lock:
            self._waiting.append(f"{line}\n")
            if self._is_flush_scheduled:
                return
            self._is_flush_scheduled = True
        from asyncio import get_running_loop  # slow to import, and `runner validate` does not need it

        try:
            get_running_loop().call_soon(self._flush_scheduled)
        except RuntimeError:
            self._flush_scheduled()

    def _flush_scheduled(self) -> None:
        self._is_flush_scheduled = False
        self.flush()

    def _report(self, error: OSError) -> None:
        if error.errno not in self._reported:
            self._reported.add(error.errno)
            self._on_write_error(error)

    def reset_after_fork(self) -> None:
        """Drop the buffer and the lock. In the child of a fork, both belong to the parent."""
        self._lock = threading.RLock()
        self._waiting = []
        self._is_flush_scheduled = False


_sinks: weakref.WeakSet[LogSink] = weakref.WeakSet()


def _reset_after_fork() -> None:
    for output in _sinks:
        output.reset_after_fork()


os.register_at_fork(after_in_child=_reset_after_fork)


def open_standard_streams() -> None:
    """Open closed standard streams (`>&-`) on /dev/null.

    Otherwise the next files and connections would get their descriptors, and prints would end up in them.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                opened = os.open(os.devnull, mode)
                if opened != descriptor:
                    os.dup2(opened, descriptor)
                    os.close(opened)
                os.set_inheritable(descriptor, True)
    # Python sets these to None if the descriptor was closed.
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
