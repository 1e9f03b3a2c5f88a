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

Say = Callable[[str, Mapping[str, Any]], None]
"""Writes one printed line as a log line, with these fields."""


class Printed(io.TextIOBase):
    """Stands in for `sys.stdout`.

    Each line that is printed is given to `say`, with the fields that `place` returned when it was begun: so a line
    belongs to the message whose handler printed it. A text without a line end waits for it, until `flush`, or until
    another message's handler prints in the same thread.
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    mode = "w"
    name = "<stdout>"
    line_buffering = True

    def __init__(self, say: Say, place: Callable[[], Mapping[str, Any]], descriptor: int) -> None:
        self._say = say
        self._place = place
        self._descriptor = descriptor
        self._begun: dict[int, tuple[Mapping[str, Any], str]] = {}
        """What has no line end yet, by thread."""
        self.buffer = _Bytes(self)

    def write(self, text: str) -> int:
        """Take what is printed."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        thread, place = threading.get_ident(), self._place()
        begun_in, begun = self._begun.pop(thread, (place, ""))
        if begun_in is not place:
            self._say(begun, begun_in)
            begun = ""
        *lines, rest = (begun + text).split("\n")
        if len(rest) > MAX_PRINTED_CHARACTERS:
            lines, rest = [*lines, rest], ""
        for line in lines:
            self._say_in_pieces(line.rstrip("\r"), place)
        if rest:
            self._begun[thread] = place, rest
        return len(text)

    def flush(self) -> None:
        """Make a line of what this thread has begun."""
        if begun := self._begun.pop(threading.get_ident(), None):
            self._say(begun[1], begun[0])

    def flush_all(self) -> None:
        """Make lines of what any thread has begun."""
        while self._begun:
            place, text = self._begun.popitem()[1]
            self._say(text, place)

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

    def _say_in_pieces(self, line: str, place: Mapping[str, Any]) -> None:
        """Say a line; an empty one says nothing."""
        for start in range(0, len(line), MAX_PRINTED_CHARACTERS):
            self._say(line[start : start + MAX_PRINTED_CHARACTERS], place)


class Forgiving(io.TextIOWrapper):
    """Stands in for `sys.stderr`: what cannot be written is left out. No handler fails over a full disk."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def forgiving_stderr() -> Forgiving:
    """Return a stream on descriptor 2."""
    return Forgiving(open(2, "wb", closefd=False), encoding="utf-8", errors="backslashreplace", line_buffering=True)


class _Bytes(io.RawIOBase):
    """Takes bytes for it, as `sys.stdout.buffer` does."""

    def __init__(self, text: Printed) -> None:
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
