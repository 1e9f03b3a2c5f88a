"""Vocabulary: what handlers, and libraries, print: a stream that makes log lines of it.

A printed text would else come between log lines, or into the middle of one.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Mapping
from typing import Any

MAX_PRINTED_CHARACTERS = 32_768
"""A longer line becomes several."""

LogLine = Callable[[str, Mapping[str, Any]], None]
"""Writes one printed line as a log line, with these fields."""


class CapturedStdout(io.TextIOBase):
    """Stands in for `sys.stdout`.

    Each line that is printed is given to `log_line`, with the fields that `context` returned when it was begun: so a
    line belongs to the message whose handler printed it. A text without a line end waits for it, until `flush`, or
    until another message's handler prints in the same thread.
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    mode = "w"
    name = "<stdout>"
    line_buffering = True

    def __init__(self, log_line: LogLine, context: Callable[[], Mapping[str, Any]], descriptor: int) -> None:
        self._log_line = log_line
        self._context = context
        self._descriptor = descriptor
        self._partial: dict[int, tuple[Mapping[str, Any], str]] = {}
        """What has no line end yet, by thread."""
        self.buffer = _BytesWriter(self)

    def write(self, text: str) -> int:
        """Take what is printed."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        thread, context = threading.get_ident(), self._context()
        partial_context, partial = self._partial.pop(thread, (context, ""))
        if partial_context is not context:
            self._log_line(partial, partial_context)
            partial = ""
        *lines, rest = (partial + text).split("\n")
        if len(rest) > MAX_PRINTED_CHARACTERS:
            lines, rest = [*lines, rest], ""
        for line in lines:
            self._log_in_pieces(line.rstrip("\r"), context)
        if rest:
            self._partial[thread] = context, rest
        return len(text)

    def flush(self) -> None:
        """Make a line of what this thread has begun."""
        if partial := self._partial.pop(threading.get_ident(), None):
            self._log_line(partial[1], partial[0])

    def flush_all(self) -> None:
        """Make lines of what any thread has begun."""
        while self._partial:
            context, text = self._partial.popitem()[1]
            self._log_line(text, context)

    def fileno(self) -> int:
        """Return the descriptor behind it all: programs that are started write there directly."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return False: colours would only be escaped."""
        return False

    def writable(self) -> bool:
        return True

    def reconfigure(self, **_: object) -> None:
        """Do nothing: there is nothing to choose."""

    def close(self) -> None:
        """Do nothing: it belongs to the whole process."""

    def _log_in_pieces(self, line: str, context: Mapping[str, Any]) -> None:
        """Say a line; an empty one says nothing."""
        for start in range(0, len(line), MAX_PRINTED_CHARACTERS):
            self._log_line(line[start : start + MAX_PRINTED_CHARACTERS], context)


class LossyStderr(io.TextIOWrapper):
    """Stands in for `sys.stderr`: what cannot be written is left out. No handler fails over a full disk."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def open_lossy_stderr() -> LossyStderr:
    """Return a stream on descriptor 2."""
    return LossyStderr(open(2, "wb", closefd=False), encoding="utf-8", errors="backslashreplace", line_buffering=True)


class _BytesWriter(io.RawIOBase):
    """Takes bytes for it, as `sys.stdout.buffer` does."""

    def __init__(self, text: CapturedStdout) -> None:
        self._text = text

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._text.write(raw.decode(errors="backslashreplace"))
        return len(raw)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._text.fileno()

    def close(self) -> None:
        """Do nothing, as there."""
