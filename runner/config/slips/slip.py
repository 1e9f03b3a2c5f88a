"""A slip of the keyboard, and what the rules that find slips have in common."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NamedTuple

from runner.config.document import KeyPath
from runner.config.interpolation import FREE_KEYS
from runner.config.outline import Line
from runner.config.positions import Edit, Lines

ITEMS: Final = ("queues", "producers", "subscribers")
"""Sections whose items are maps: a text in place of one is always wrong."""
SECTIONS: Final = (*ITEMS, "events", "exchanges", "resources")
LISTS: Final = frozenset({"from", "to", "events", "on", "include", "python_path", "urls"})
PATHS: Final = frozenset({"handler", "factory", "schema"})


class Slip(NamedTuple):
    """A slip: where it is shown, what is wrong, what to write, and the edits that mend it.

    Without a message, what is wrong is found in the mended text. `is_certain`: the edits are what the author means.
    """

    start: int
    length: int
    message: str
    help: str
    edits: tuple[Edit, ...]
    path: KeyPath = ()
    is_certain: bool = True
    code: str = "yaml-syntax"


class Source(NamedTuple):
    """A text, its lines, and the numbers of the lines that have a problem; None if the text is not YAML."""

    text: str
    lines: list[Line]
    positions: Lines
    wrong: Collection[int] | None

    def is_wrong(self, line: Line) -> bool:
        return self.is_wrong_at(line.start)

    def is_wrong_at(self, start: int) -> bool:
        """Whether the line that starts at an index has a problem."""
        return self.wrong is None or self.positions.span(start, start).line in self.wrong

    def is_free(self, line: Line) -> bool:
        return bool(FREE_KEYS & {*line.path}) or line.path[:1] == ("x-",)


def replaced(line: Line, start: int, end: int, text: str, message: str, help_: str) -> Slip:
    """Return the slip of a part of a line, in place of which a text is meant."""
    return Slip(start, max(1, end - start), message, help_, (Edit(start, end, text),), line.path)


def rewritten(line: Line, text: str, message: str, help_: str) -> Slip:
    """Return the slip of a whole value, in place of which a text is meant."""
    return replaced(line, line.value_start, line.value_end, text, message, help_)


def unquoted(text: str) -> str:
    """Return a text of the same length with blanks in place of what is in quotes."""
    return re.sub(r'"(?:\\.|[^"\\])*"|\'[^\']*\'', lambda match: '"' * len(match[0]), text)
