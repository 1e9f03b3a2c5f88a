"""Makes untrusted text safe to show: masks passwords, escapes control characters, and cuts to a limit.

Everything takes linear time, because hostile text must not block the event loop.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

LOOKAHEAD_CHARACTERS = 4096
"""How far beyond a cut to look for the end of a URL, so that a password at the cut is recognized."""

_BEFORE_PASSWORD = re.compile(r":/{1,2}[^\s:@/]*:")
"""A URL up to its password. One slash is enough, for mistyped URLs; paths do not contain `:/` and a second colon."""

_BEFORE_CUT_PASSWORD = re.compile(r"://[^\s:@/\[]*:(?!\d{1,5}(?![\w%])|\$\{|\*\*\*)(?=.)")
"""The same for a URL whose end was cut off; what follows is neither a port nor a variable."""

PASSWORD_KEY = re.compile(r"""\bpassword["']?(?:\s*:\s+(?:!\S*\s+)?|=)("[^"]*"|'[^']*'|(?!\$\{)[^\s,}"'#][^\s,}]*)""")
"""The value of a key `password` in YAML, unless it comes from a variable."""

_VARIABLE = re.compile(r"\$\{\w+\}")
_WORD = re.compile(r"\S*")
_UNSEEN = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def mask_passwords(text: str) -> str:
    """Return the text with the password of every URL, but a variable without a default, replaced by `***`."""
    if ":/" not in text:
        return text
    pieces = []
    position = 0
    for start, end in secret_spans(text):
        if _VARIABLE.fullmatch(text, start, end):  # its name is no secret
            continue
        pieces += [text[position:start], "***"]
        position = end
    return "".join([*pieces, text[position:]])


def mask_head(text: str, limit: int) -> str:
    """Return the first `limit` characters with passwords masked. Text far beyond the limit is not read."""
    return mask_passwords(text[: limit + LOOKAHEAD_CHARACTERS])[:limit]


def mask_tail(text: str, limit: int) -> str:
    """Return the last `limit` characters with passwords masked. Text far before them is not read.

    The first line may begin inside of a password: it is hidden up to its last @.
    """
    start = len(text) - limit - LOOKAHEAD_CHARACTERS
    if start <= 0:
        return mask_passwords(text)[-limit:]
    kept = text[start:]
    line_end = kept.find("\n")
    at = kept.rfind("@", 0, line_end if line_end >= 0 else len(kept))
    return mask_passwords(f"***{kept[at:]}" if at >= 0 else kept)[-limit:]


def secret_spans(text: str) -> list[tuple[int, int]]:
    """Return the start and end of every password in a URL.

    A password reaches up to the last @ of its word, or of its line if its word has none. A password with special
    characters that are not written as %XX is thereby masked as a whole; masking too much is better than too little. So
    is a password at the end of a text that was cut before its @.
    """
    spans = []
    line_start, last = 0, text.rfind("@")
    while line_start <= last:  # nothing matches beyond the last @
        line_end = text.find("\n", line_start)
        line_end = len(text) if line_end < 0 else line_end
        spans += _spans_of_line(text, line_start, text.rfind("@", line_start, line_end))
        line_start = line_end + 1
    word = len(text) - len(text.rsplit(None, 1)[-1]) if text and not text[-1].isspace() else len(text)
    if cut := _BEFORE_CUT_PASSWORD.search(text, max(word, last + 1)):
        spans.append((cut.end(), len(text)))
    return spans


def _spans_of_line(text: str, position: int, last: int) -> list[tuple[int, int]]:
    """Return the spans between a position and the last @ of its line (-1 if it has none).

    Each word is read once: beyond its last @, only the last @ of the line can end a password.
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


def has_secret(text: str) -> bool:
    """Whether a part of a YAML file has a password in it: in a URL, or under a key `password`."""
    return bool(secret_spans(text)) or PASSWORD_KEY.search(text) is not None


def escape_controls(text: str) -> str:
    """Return the text with control characters, line separators and lone surrogates escaped, as in `\\n` or `\\x1b`."""
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
