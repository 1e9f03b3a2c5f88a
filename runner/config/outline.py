"""Reads the lines of a YAML file one by one: keys, values and indentation, also of a file that is not valid YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from runner.config.document import KeyPath

BLANKS = " \t\u00a0\u2000-\u200b\u202f\u3000\ufeff"
"""White space for a regular expression, the characters included that look like a space or like nothing."""

_LINE = re.compile(
    rf"""(?P<indent>[{BLANKS}]*)(?P<dash>(?:-[{BLANKS}]+)*)"""
    rf"""(?:(?P<key>"[^"\n]*"|'[^'\n]*'|[^\s"'\[\]{{}}#&*!|>%@`,:：][^\n:：#]*?)"""
    rf"""[{BLANKS}]*(?::(?=[{BLANKS}\r]|$)|：)[{BLANKS}]*)?(?P<value>[^\n]*)""",
    re.MULTILINE,
)
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\'\'|[^\'])*\'', re.DOTALL)
_BLOCK_KEY = re.compile(r"[ ]*[\w.-]+:[ ]*(?:[^\s,{\[][^\n,]*)?$", re.MULTILINE)
_ANY_KEY = re.compile(r"([ ]*)[\w.-]+:[ \n]")
_BLOCK_TEXT = re.compile(r"(?:[&!]\S+\s+)*[|>][-+0-9]*$")


@dataclass(slots=True)
class Line:
    """A line with a key, an item or a value. `start` and the others are indexes in the text.

    `path` is where its key or item lies by its indentation; `level` the column of its first character after dashes.
    `value` ends before its comment. `end` is the index after the lines that are indented deeper.
    """

    start: int
    indent: int
    dash: str
    key: str
    key_start: int
    value: str
    value_start: int
    path: KeyPath = ()

    @property
    def level(self) -> int:
        return self.indent + len(self.dash)

    @property
    def value_end(self) -> int:
        return self.value_start + len(self.value)


def outline(text: str) -> list[Line]:
    """Return the lines of a text, without comments and without what is inside a text, quotes or brackets."""
    lines = list(_lines(text))
    open_maps: list[tuple[int, KeyPath]] = []  # the column of the keys of each map around a line, and its path
    counts: dict[KeyPath, int] = {}
    for line in lines:
        column = line.indent
        while open_maps and open_maps[-1][0] >= column and not (line.dash and open_maps[-1][0] == column):
            open_maps.pop()
        path = open_maps[-1][1] if open_maps else ()
        for _ in range(line.dash.count("-")):
            counts[path] = counts.get(path, -1) + 1
            path = (*path, counts[path])
        line.path = (*path, line.key) if line.key else path
        if line.key:
            open_maps.append((line.level, line.path))
    return lines


def _lines(text: str) -> Iterator[Line]:
    position, block_indent = 0, -1
    while position < len(text):
        match = _LINE.match(text, position)
        if match is None:
            return
        start, indent = position, len(match["indent"])
        position = match.end() + 1
        content = text[start + indent : match.end()].strip()
        if block_indent >= 0 and (not content or indent > block_indent):
            continue
        block_indent = -1
        if not content or content.startswith("#") or content in ("---", "..."):
            continue
        value_start = match.start("value")
        end, position = _value_end(text, value_start, indent)
        value = text[value_start:end].rstrip("\r\n \t")
        key = (match["key"] or "").strip()
        if _BLOCK_TEXT.fullmatch(value):
            block_indent = indent
        yield Line(
            start, indent, match["dash"], key.strip("\"'"), start + indent + len(match["dash"]), value, value_start
        )


def _value_end(text: str, start: int, indent: int) -> tuple[int, int]:
    """Return the index after a value without its comment, and the index of the next line to read.

    `indent` is the indentation of the line in which the value starts.
    """
    depth, position = 0, start
    while True:
        quoted = _QUOTED.match(text, position) if depth or position == start else None
        if quoted is not None:
            position = quoted.end()
            continue
        character = text[position : position + 1]
        if character == "" or (character == "\n" and (depth <= 0 or _is_key_line(text, position + 1, indent))):
            return position, position + 1
        if character == "#" and (position == start or text[position - 1].isspace()):
            line_end = text.find("\n", position)
            line_end = len(text) if line_end < 0 else line_end
            if depth <= 0:
                return position, line_end + 1
            position = line_end
            continue
        if position == start or depth:
            depth += (character in "[{") - (character in "]}")
        position += 1


def _is_key_line(text: str, start: int, indent: int) -> bool:
    """Whether a line inside open brackets looks like a key of a block: then a bracket is missing above it."""
    beside = _ANY_KEY.match(text, start)
    return _BLOCK_KEY.match(text, start) is not None or (beside is not None and len(beside[1]) <= indent)
