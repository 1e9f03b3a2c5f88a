"""Positions in files: lines and columns from indexes."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runner.errors import Fix, Problem, Severity
from runner.redaction import has_secret

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
        self,
        code: str,
        message: str,
        help: str = "",
        *,
        path: str = "",
        file: str = "",
        severity: Severity = "error",
        fix: Fix | None = None,
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
            fix=fix,
        )


OPTION = "--set "
"""The start of the text of a `--set` option, which stands in place of a file where a problem is in the option."""


class Edit(NamedTuple):
    """A replacement in a text: `text` in place of the characters from index `start` to before `end`."""

    start: int
    end: int
    text: str


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """Return a text with edits, which are in order and do not overlap."""
    pieces, position = [], 0
    for edit in edits:
        pieces += [text[position : edit.start], edit.text]
        position = edit.end
    return "".join([*pieces, text[position:]])


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

    def fix(self, edits: Sequence[Edit]) -> Fix | None:
        """Return the fix that makes edits of this text. None if it would show a password."""
        start, end = edits[0].start, edits[-1].end
        text = apply_edits(self._text[:end], edits)[start:]
        if has_secret(text) or has_secret(self._text[start:end]):
            return None
        return Fix(self._position(start), self._position(end), text)

    def renumber(self, file: int) -> None:
        """Give the file another number: one that could not be read before has none."""
        self._file = file

    def _position(self, index: int) -> tuple[int, int]:
        line = bisect_right(self._starts, index)
        return line, index - self._starts[line - 1] + 1

    def index(self, position: tuple[int, int]) -> int:
        """Return the index of a line and column."""
        return self._starts[position[0] - 1] + position[1] - 1

    def mended(self, edits: Sequence[Edit]) -> Lines:
        """Return the lines of the text after edits. Their positions are those before them."""
        return _MendedLines(self, apply_edits(self._text, edits), edits)

    @property
    def text(self) -> str:
        """The text, after edits."""
        return self._text

    def _end(self, line: int) -> int:
        """Return the index after the last character of a line, without its line break."""
        if line == len(self._starts):
            return len(self._text)
        end = self._starts[line] - 1
        return end - 1 if self._text[end - 1 : end + 1] == "\r\n" else end

    def last_index(self) -> int:
        """Return the index of the last character that is not white space, 0 for a blank text."""
        return max(0, len(self._text.rstrip()) - 1)


class _MendedLines(Lines):
    """The lines of a text that was mended in memory, so that the rest of it can be checked as well."""

    def __init__(self, before: Lines, text: str, edits: Sequence[Edit]) -> None:
        super().__init__(text, before._file)
        self._before, self._edits = before, edits

    def span(self, start: int, end: int) -> Span:
        return self._before.span(self._index_before(start), self._index_before(end))

    def fix(self, edits: Sequence[Edit]) -> Fix | None:
        return self._before.fix(
            [Edit(self._index_before(edit.start), self._index_before(edit.end), edit.text) for edit in edits]
        )

    def renumber(self, file: int) -> None:
        self._before.renumber(file)

    def _index_before(self, index: int) -> int:
        """Return the index in the text before the edits of a character of this one."""
        shift = 0
        for start, end, text in self._edits:
            if index < start + shift:
                break
            if index < start + shift + len(text):
                return min(start + max(0, index - start - shift), end)
            shift += len(text) - (end - start)
        return index - shift
