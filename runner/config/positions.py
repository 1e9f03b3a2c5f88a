"""Positions in files: lines and columns from indexes."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from runner.errors import Problem, Severity

LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""The line breaks of YAML. `code_frame` must split lines at the same places."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a line in a file. `line` and `column` count from 1, `length` is in characters.

    `file` is the number of the file in the order of reading; that of the pipeline's own file is 0. `is_default` marks
    keys that come from `defaults`.
    """

    line: int
    column: int
    length: int = 1
    file: int = 0
    is_default: bool = False

    def problem(
        self, code: str, message: str, help: str = "", *, path: str = "", file: str = "", severity: Severity = "error"
    ) -> Problem:
        """Return a problem at this position. `path` is the dotted path of the key."""
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


OPTION = "--set "
"""The start of the text of a `--set` option, which stands in place of a file where a problem is in the option."""


class Lines:
    """The lines of a text. `file` is the number of its file."""

    def __init__(self, text: str, file: int = 0) -> None:
        self._text = text
        self._file = file
        self._starts = [0, *(match.end() for match in LINE_BREAK.finditer(text))]

    def span(self, start: int, end: int) -> Span:
        """Return the span of the characters from `start` to before `end`, cut off at the end of the first line."""
        line = bisect_right(self._starts, start)
        first = self._starts[line - 1]
        return Span(line, start - first + 1, max(0, min(end, self._end(line)) - start), self._file)

    def _end(self, line: int) -> int:
        """Return the index after the last character of a line, without its line break."""
        if line == len(self._starts):
            return len(self._text)
        end = self._starts[line] - 1
        return end - 1 if self._text[end - 1 : end + 1] == "\r\n" else end

    def last_index(self) -> int:
        """Return the index of the last character that is not white space, 0 for a blank text."""
        return max(0, len(self._text.rstrip()) - 1)
