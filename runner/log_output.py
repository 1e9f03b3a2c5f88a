"""Vocabulary: where log lines go: a stream that cannot fail, and lines that wait for each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO


class Output:
    """A stream that cannot fail: lines that cannot be written are left out."""

    def __init__(self, stream: TextIO, on_lost: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._on_lost = on_lost
        self._is_lost = False
        self._is_due = False
        self.isatty = stream.isatty

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return 0

    def flush(self) -> None:
        """Flush, if that is possible."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def write_soon(self, text: str) -> None:
        """Write, and flush at the end of the loop's turn: most of what a line costs is that."""
        self.write(text)
        if self._is_due:
            return
        from asyncio import get_running_loop  # `runner validate` can do without

        try:
            loop = get_running_loop()
        except RuntimeError:
            self.flush()
            return
        self._is_due = True
        loop.call_soon(self._flush_due)

    def _flush_due(self) -> None:
        self._is_due = False
        self.flush()

    def _lose(self, error: OSError) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._on_lost(error)


class SoonLogger:
    """What structlog writes to, where lines may wait for each other."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def msg(self, line: str) -> None:
        """Write a line."""
        self._out.write_soon(line + "\n")

    debug = info = warning = error = critical = msg
