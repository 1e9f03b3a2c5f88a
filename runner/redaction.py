"""Vocabulary: making foreign text fit to be shown: no passwords, no control characters."""

from __future__ import annotations

import re

_USER = re.compile(r":/{1,2}[^\s:@/]*:")
"""A URL up to its password. One slash is enough: paths have no more of them, also where they are URLs by mistake."""

_CUT = re.compile(r"://[^\s:@/\[]*:(?!\d{1,5}(?![\w%])|\$\{|\*\*\*)(?=.)")
"""The same, before something that is no port."""

_WORD = re.compile(r"\S*")
_LINE = re.compile(r".*")
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


def secret_spans(text: str) -> list[tuple[int, int]]:
    """Return where the passwords of URLs start and end in a text.

    A password reaches to the last @ of its word, or of its line if its word has none: one that should have been
    written with %XX is hidden all the same, rather too much than too little. So is one at the end of a text that was
    cut before its @.
    """
    spans = []
    position, last = 0, text.rfind("@")  # nothing behind the last @ can match: no time is lost on hostile text
    while match := _USER.search(text, position, last + 1):
        start = match.end()
        end = _last_at(_WORD, text, start)
        if end < 0:
            end = _last_at(_LINE, text, start)
        if end >= 0:
            spans.append((start, end))
        position = max(end + 1, start)
    word = len(text) - len(text.rsplit(None, 1)[-1]) if text and not text[-1].isspace() else len(text)
    if cut := _CUT.search(text, max(word, last + 1)):
        spans.append((cut.end(), len(text)))
    return spans


def _last_at(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Return the index of the last @ in what the pattern matches from `start`, -1 if there is none."""
    match = pattern.match(text, start)
    return text.rfind("@", start, match.end()) if match else -1


def escape_controls(text: str) -> str:
    """Return text with control characters, line separators and lone surrogates escaped, as in `\\n` or `\\x1b`."""
    if text.isprintable():
        return text
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
