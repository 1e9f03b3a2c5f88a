"""The tables of docs/reference/logs.md, which say what the runner writes. Tests compare them with the code."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.process import ROOT

_NAME = re.compile(r"`([^`]+)`")
_FIELD = re.compile(r"(?:^|; )`([^`]+)`: ")


@dataclass(frozen=True)
class Event:
    """A row of the table of events."""

    name: str
    levels: tuple[str, ...]
    fields: frozenset[str]


def _rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading."""
    text = (ROOT / "docs/reference/logs.md").read_text("utf-8")
    lines = iter(text.partition(f"\n## {heading}\n")[2].splitlines())
    next(line for line in lines if line.startswith("|---"))
    rows = []
    while (line := next(lines, "")).startswith("|"):
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))])
    return rows


def _names(heading: str) -> list[str]:
    return [name for cells in _rows(heading) for name in _NAME.findall(cells[0])]


COMMON = _names("Fields of any line")
TOTALS = _names("Totals")
EVENTS = [
    Event(_NAME.findall(name)[0], tuple(levels.split(", ")), frozenset(_FIELD.findall(fields)))
    for name, levels, _, fields in _rows("Events")
]
