"""Vocabulary: making foreign text fit to be shown: no passwords, no control characters, and no more than its limit.

All of it takes time in proportion to the length of the text: hostile text must not hold up the event loop.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

LOOKAHEAD_CHARACTERS = 4096
"""How far behind a cut the end of a URL is looked for, so that its password is known as one."""

_BEFORE_PASSWORD = re.compile(r":/{1,2}[^\s:@/]*:")
"""A URL up to its password. One slash is enough: paths have no more of them, also where they are URLs by mistake."""

_BEFORE_CUT_PASSWORD = re.compile(r"://[^\s:@/\[]*:(?!\d{1,5}(?![\w%])|\$\{|\*\*\*)(?=.)")
"""The same, before something that is no port."""

_WORD = re.compile(r"\S*")
_UNSEEN = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def mask_passwords(text: str) -> str:
    """Return a text with the password of every URL in it replaced by `***`."""
    if ":/" not in text:
        return text
    pieces = []
    position = 0
    for start, end in secret_spans(text):
        pieces += [text[position:start], "***"]
        position = end
    return "".join([*pieces, text[position:]])


def mask_head(text: str, limit: int) -> str:
    """Return the masked beginning of a text, at most `limit` characters. What is far behind them is not looked at."""
    return mask_passwords(text[: limit + LOOKAHEAD_CHARACTERS])[:limit]


def mask_tail(text: str, limit: int) -> str:
    """Return the masked end of a text, at most `limit` characters. What is far before them is not looked at.

    A line that is cut may begin inside a password: it is hidden up to its last @.
    """
    start = len(text) - limit - LOOKAHEAD_CHARACTERS
    if start <= 0:
        return mask_passwords(text)[-limit:]
    kept = text[start:]
    line_end = kept.find("\n")
    at = kept.rfind("@", 0, line_end if line_end >= 0 else len(kept))
    return mask_passwords(f"***{kept[at:]}" if at >= 0 else kept)[-limit:]


def secret_spans(text: str) -> list[tuple[int, int]]:
    """Return where the passwords of URLs start and end in a text.

    A password reaches to the last @ of its word, or of its line if its word has none: one that should have been
    written with %XX is hidden all the same, rather too much than too little. So is one at the end of a text that was
    cut before its @.
    """
    spans = []
    line_start, last = 0, text.rfind("@")
    while line_start <= last:  # nothing behind the last @ can match
        line_end = text.find("\n", line_start)
        line_end = len(text) if line_end < 0 else line_end
        spans += _spans_of_line(text, line_start, text.rfind("@", line_start, line_end))
        line_start = line_end + 1
    word = len(text) - len(text.rsplit(None, 1)[-1]) if text and not text[-1].isspace() else len(text)
    if cut := _BEFORE_CUT_PASSWORD.search(text, max(word, last + 1)):
        spans.append((cut.end(), len(text)))
    return spans


def _spans_of_line(text: str, position: int, last: int) -> list[tuple[int, int]]:
    """Return the spans between a position and the last @ of its line, -1 if there is none.

    Each word is read once: behind its last @ only that of the line is left.
    """
    spans = []
    while last >= 0 and (match := _BEFORE_PASSWORD.search(text, position, last + 1)):
        start = match.end()
        word = _WORD.match(text, start, last + 1)
        at = text.rfind("@", start, word.end()) if word else -1
        end = at if at >= 0 else last
        spans.append((start, end))
        position = end + 1
    return spans


def escape_controls(text: str) -> str:
    """Return text with control characters, line separators and lone surrogates escaped, as in `\\n` or `\\x1b`."""
    if text.isprintable():
        return text
    return _CONTROL.sub(lambda match: _escaped(match[0]), text)


def escape_line(text: str, at_most: int | None = None) -> str:
    """Return foreign text on one line, with everything that does not print escaped, and cut with an ellipsis.

    That includes what turns the direction of text around: it could show one thing and mean another.
    """
    if at_most is not None and len(text) > at_most:
        text = f"{text[: max(0, at_most - 1)]}…"
    if text.isprintable():
        return text
    shown = [
        _escaped(letter) if unicodedata.category(letter) in _UNSEEN else letter for letter in escape_controls(text)
    ]
    return "".join(shown)


@cache
def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
