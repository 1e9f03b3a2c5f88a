"""A line of a file for the terminal, with carets under a part of it.

The carets are right under wide characters, tabs and control characters, too. Passwords of URLs are not shown.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

from runner.redaction import PASSWORD_KEY, secret_spans
from runner.text_width import display_width

_TAB: Final = "    "
_MAX_WIDTH: Final = 120
_MAX_BEFORE: Final = 40
"""How many characters before the carets are shown of a line that is too long."""

_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control and format characters, among them those that move the cursor or turn the direction of writing."""


def escape(text: str) -> str:
    """Return a text with the characters that control a terminal escaped, as in `\\x1b`."""
    return text if text.isascii() and text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def code_frame(line: str, column: int, length: int) -> tuple[str, str]:
    """Return a line as it is shown, and a line with carets under `length` characters from `column` on."""
    cells = _cells(line)
    start = min(max(column - 1, 0), len(cells))
    end = min(start + max(length, 1), max(len(cells), start + 1))
    first, last = _window(len(cells), start, end)
    before = "…" if first else ""
    after = "…" if last < len(cells) else ""
    shown = before + "".join(cells[first:last]) + after
    margin = len(before) + sum(map(display_width, cells[first:start]))
    span = sum(map(display_width, cells[start : min(end, last)]))
    return shown.rstrip(), " " * margin + "^" * max(span, 1)


@lru_cache(maxsize=1)  # a line of a megabyte may hold a thousand problems, one after the other
def _cells(line: str) -> list[str]:
    """Return what is shown for each character of a line: of a password, `***` for the first and "" for the others."""
    cells = [_TAB if character == "\t" else _escaped(character) for character in line]
    for start, end in [*secret_spans(line), *(match.span(1) for match in PASSWORD_KEY.finditer(line))]:
        cells[start:end] = ["***", *[""] * (end - start - 1)] if end > start else []
    return cells


def _window(size: int, start: int, end: int) -> tuple[int, int]:
    """Return the start and the end of the part of a line that is shown."""
    if size <= _MAX_WIDTH:
        return 0, size
    first = min(max(0, start - _MAX_BEFORE), size - _MAX_WIDTH)
    return first, max(first + _MAX_WIDTH, min(end, first + 2 * _MAX_WIDTH))
