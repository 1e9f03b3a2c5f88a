"""The width of a text in a terminal, where Chinese, Japanese and Korean characters take two columns."""

from __future__ import annotations

import unicodedata


def display_width(text: str) -> int:
    """Return how many columns a terminal needs for a text."""
    if text.isascii():
        return len(text)
    return sum(map(_letter_width, text))


def pad(text: str, width: int) -> str:
    """Return a text padded with spaces to a width."""
    return text + " " * (width - display_width(text))


def _letter_width(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
