"""Operations: which values of a configuration are secrets, and what is shown in their place.

Secret are: the password in every URL; what came from a `${file:…}`; in maps that are handed on as they are (`with`,
`arguments`), a text under a key that says password, secret, token or the like, and what came from a variable of such a
name, or came from a variable and stands under a key like `key` or `dsn`. The value of `password=…` inside a text, as in
a connection string, is hidden in those maps, too.

What is secret once is secret everywhere: the same text in another place, and what came from the same variable. Only
names and paths stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from runner.redaction import mask_passwords

MASK: Final = "***"
"""What is printed in place of a secret, the same as in URLs."""

_SECRET: Final = re.compile(
    r"passw|passphrase|pwd|secret|token|credential|api[-_]?key|access[-_]?key|private[-_]?key|authorization|bearer",
    re.IGNORECASE,
)
_MAYBE: Final = frozenset({"key", "pass", "auth", "dsn", "cookie", "pin", "salt", "signature"})
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_PAIR: Final = re.compile(
    r"(?i)\b([\w-]*(?:passw|passphrase|pwd|secret|token|credential|api[-_]?key)[\w-]*\s*=\s*)('[^']*'|\"[^\"]*\"|[^\s&;,]+)"
)


MIN_SUBSTRING_LENGTH: Final = 6
"""A secret that is shorter is hidden only where it is a word of its own."""


def is_secret_name(name: str) -> bool:
    """Whether a key or a variable of this name always holds a secret."""
    return _SECRET.search(name) is not None


def may_be_secret_name(name: str) -> bool:
    """Whether a value from outside under this name is taken for a secret."""
    words = [word.lower() for word in _WORDS.findall(name)]
    return is_secret_name(name) or bool(words and words[-1] in _MAYBE)


def is_from_secret(origins: Sequence[str]) -> bool:
    """Whether one of the variables or files that a value came from is secret by itself."""
    return any(origin.startswith("file:") or may_be_secret_name(origin) for origin in origins)


def mask_free_text(text: str, keys: Sequence[str], origins: Sequence[str]) -> str:
    """Return a text of a map that is handed on as it is, under these keys, as it may be shown."""
    if any(is_secret_name(name) for name in keys) or is_from_secret(origins):
        return MASK
    if origins and any(may_be_secret_name(name) for name in keys) and "://" not in text:
        return MASK
    return _PAIR.sub(rf"\g<1>{MASK}", mask_passwords(text))


def mask_spec_text(text: str, origins: Sequence[str], *, accepts_mask: bool) -> str:
    """Return a text of ours as it may be shown; names and paths must stay what they are."""
    return MASK if accepts_mask and is_from_secret(origins) else mask_passwords(text)


class KnownSecrets:
    """What was hidden in one place of a configuration, to be hidden in all others."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._origins: set[str] = set()

    def note(self, text: str, shown: str, origins: Sequence[str]) -> None:
        """Remember what a text has and what is shown in its place has not."""
        if shown == MASK:
            named = [origin for origin in origins if is_from_secret([origin])]
            self._origins.update(named or origins)
        hidden = re.fullmatch("(.*?)".join(map(re.escape, shown.split(MASK))), text, re.DOTALL)
        self._texts.update(part for part in (hidden.groups() if hidden is not None else ()) if part and part != MASK)

    def hide(self, text: str, origins: Sequence[str]) -> str:
        """Return a text without the secrets of other places."""
        if not self._origins.isdisjoint(origins):
            return MASK
        for secret in sorted(self._texts, key=len, reverse=True):
            if len(secret) >= MIN_SUBSTRING_LENGTH:
                text = text.replace(secret, MASK)
            else:
                text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", lambda _: MASK, text)
        return text
