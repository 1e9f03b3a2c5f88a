"""Reads the tables beside the code: metrics, words of other tools, and texts for errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pkgutil import get_data


@cache
def read_table(package: str, name: str, columns: int) -> tuple[tuple[str, ...], ...]:
    """Return the rows of a table, a line for each: its columns, which stand between `|`. Missing ones are empty.

    The last column may have a `|` in it. Lines that start with `#` are comments.
    """
    text = (get_data(package, name) or b"").decode()
    rows = (
        [part.strip() for part in line.split("|", columns - 1)] for line in text.splitlines() if line[:1] not in "#"
    )
    return tuple((*row, *[""] * (columns - len(row))) for row in rows)


def read_kind(package: str, name: str, kind: str) -> dict[str, str]:
    """Return the words of one kind in a table of kinds, words and texts, with their texts."""
    return {word: text for row, word, text in read_table(package, name, 3) if row == kind}


def filled(template: str, words: Mapping[str, str]) -> str:
    """Return a text of a table with words for its names in braces."""
    return re.sub(r"\{(\w+)\}", lambda name: words[name[1]], template)
