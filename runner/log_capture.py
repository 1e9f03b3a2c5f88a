"""Turns what handlers and libraries print into log lines.

Printed text would otherwise appear between log lines, or in the middle of one.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Mapping
from typing import Any

MAX_PRINTED_CHARACTERS = 32_768
"""A longer line is split."""

LogLine = Callable[[str, Mapping[str, Any]], None]
"""Logs a printed line with these fields."""


class CapturedStdout(io.TextIOBase):
    """Replaces `sys.stdout`.

    Each printed line is passed to `log_line`, with the fields that `context` returned when the line began: it belongs
    to the message whose handler printed it. Text without a newline waits for one, for `flush`, or until the handler of
    another message prints in the same thread.
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
        """Text without a newline, by thread."""
        self.buffer = _BytesWriter(self)

    def write(self, text: str) -> int:
        """Accept printed text."""
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
        """Log the incomplete line of this thread."""
        if partial := self._partial.pop(threading.get_ident(), None):
            self._log_line(partial[1], partial[0])

    def flush_all(self) -> None:
        """Log the incomplete lines of all threads."""
        while self._partial:
            context, text = self._partial.popitem()[1]
            self._log_line(text, context)

    def fileno(self) -> int:
        """Return the original descriptor: programs that handlers start write there directly."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return False: escape sequences for colours would only be escaped."""
        return False

    def writable(self) -> bool:
        return True

    def reconfigure(self, **_: object) -> None:
        """Do nothing: there are no settings."""

    def close(self) -> None:
        """Do nothing: it belongs to the whole process."""

    def _log_in_pieces(self, line: str, context: Mapping[str, Any]) -> None:
        """Log a line, in pieces if it is long. An empty line is dropped."""
        for start in range(0, len(line), MAX_PRINTED_CHARACTERS):
            self._log_line(line[start : start + MAX_PRINTED_CHARACTERS], context)


class LossyStderr(io.TextIOWrapper):
    """Replaces `sys.stderr`: text that cannot be written is dropped, so that a full disk fails no handler."""

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
    """Accepts bytes, as `sys.stdout.buffer` does."""

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
        """Do nothing, as `CapturedStdout.close`."""
