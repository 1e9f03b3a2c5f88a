"""How much room a text takes in a terminal, where Chinese, Japanese and Korean letters take two columns."""

from __future__ import annotations

import unicodedata


def columns_of(text: str) -> int:
    """Return how many columns a terminal needs for a text."""
    if text.isascii():
        return len(text)
    return sum(map(_columns_of_letter, text))


def padded(text: str, width: int) -> str:
    """Return a text with blanks behind it, up to a number of columns."""
    return text + " " * (width - columns_of(text))


def _columns_of_letter(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
