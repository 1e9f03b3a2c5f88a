"""Input: a character's index in a text into its line and column."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from runner.errors import Problem, Severity

LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""What YAML counts as the end of a line; an excerpt must count the same."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where something is written: line and column from 1, and how many characters of that line are meant.

    `file` counts the pipeline's files in the order in which they are read, its own is 0. `is_default` marks keys that
    an item has from `defaults`.
    """

    line: int
    column: int
    length: int = 1
    file: int = 0
    is_default: bool = False

    def problem(
        self, code: str, message: str, help: str = "", *, path: str = "", file: str = "", severity: Severity = "error"
    ) -> Problem:
        """Return a problem at this place; `path` is that of the key, with dots."""
        return Problem(
            code=code,
            message=message,
            path=path,
            help=help,
            severity=severity,
            file=file,
            line=self.line,
            column=self.column,
            length=max(1, self.length),
        )


class Lines:
    """The lines of one text; `file` is its number."""

    def __init__(self, text: str, file: int = 0) -> None:
        self._text = text
        self._file = file
        self._starts = [0, *(match.end() for match in LINE_BREAK.finditer(text))]

    def span(self, start: int, end: int) -> Span:
        """Return the place of the characters from `start` to before `end`, cut at the end of the first line."""
        line = bisect_right(self._starts, start)
        first = self._starts[line - 1]
        return Span(line, start - first + 1, max(0, min(end, self._end(line)) - start), self._file)

    def _end(self, line: int) -> int:
        """Return the index after the last character of a line, its line break not counted."""
        if line == len(self._starts):
            return len(self._text)
        end = self._starts[line] - 1
        return end - 1 if self._text[end - 1 : end + 1] == "\r\n" else end

    def last_index(self) -> int:
        """Return the index of the last character that is not blank, 0 for a blank text."""
        return max(0, len(self._text.rstrip()) - 1)
