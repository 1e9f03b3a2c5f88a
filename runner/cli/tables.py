"""Formats values for a terminal: columns, sizes, ages, and untrusted text that cannot control the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from runner.text_width import display_width

_AGES = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SIZES = ("kB", "MB", "GB")


def json_line(value: Any) -> str:
    """Return a value as JSON on one line, unprintable characters escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def format_age(seconds: float | None) -> str:
    """Return an age in its largest unit, as in `3h`; a dash for None."""
    if seconds is None:
        return "–"
    for length, unit in _AGES:
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return "0s"


def format_size(count: int) -> str:
    """Return a number of bytes with its unit, as in `1.5 kB`."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in _SIZES:
        value /= 1000
        if value < 999.5 or unit == _SIZES[-1]:
            break
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def format_columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), width: int | None = None) -> list[str]:
    """Return one line for each row, aligned; columns numbered in `right` are flush right. `width` truncates lines."""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)] if rows else []
    lines = []
    for row in rows:
        cells = []
        for index, cell in enumerate(row):
            gap = " " * (widths[index] - display_width(cell))
            cells.append(gap + cell if index in right else cell + gap)
        lines.append(truncate("  ".join(cells).rstrip(), width))
    return lines


def truncate(text: str, width: int | None) -> str:
    """Return as much of a text as fits into `width` columns, with an ellipsis if it is cut."""
    if width is None or display_width(text) <= width:
        return text
    taken = 0
    for index, letter in enumerate(text):
        taken += display_width(letter)
        if taken > width - 1:
            return f"{text[:index]}…"
    return text
