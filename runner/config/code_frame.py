"""Input: one line of a file and a span in it into two lines for a terminal: the line, and carets under the span.

Wide characters, tabs and control characters keep the carets in their place; passwords of URLs are not shown.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from runner.redaction import secret_spans
from runner.text_width import display_width

_TAB: Final = "    "
_WIDEST: Final = 120
_BEFORE: Final = 40
"""Characters kept before the span where a line is too long to be shown whole."""

_PASSWORD: Final = re.compile(r"""\bpassword["']?\s*:\s+("[^"]*"|'[^']*'|(?!\$\{)[^\s,}"'#][^\s,}]*)""")
"""The value of a key `password`, unless it comes from a variable."""

_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control and format characters, among them those that move the cursor or turn the direction of writing."""


def escape(text: str) -> str:
    """Return a text in which characters that a terminal would act on are written out, as in `\\x1b`."""
    return text if text.isascii() and text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def code_frame(line: str, column: int, length: int) -> tuple[str, str]:
    """Return a line as it is shown, and the carets under `length` characters from `column`."""
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
    """Return what is shown for each character of a line; nothing for all but the first of a password."""
    cells = [_TAB if character == "\t" else _escaped(character) for character in line]
    for start, end in [*secret_spans(line), *(match.span(1) for match in _PASSWORD.finditer(line))]:
        cells[start:end] = ["***", *[""] * (end - start - 1)] if end > start else []
    return cells


def _window(size: int, start: int, end: int) -> tuple[int, int]:
    """Return which part of a line is shown."""
    if size <= _WIDEST:
        return 0, size
    first = min(max(0, start - _BEFORE), size - _WIDEST)
    return first, max(first + _WIDEST, min(end, first + 2 * _WIDEST))
