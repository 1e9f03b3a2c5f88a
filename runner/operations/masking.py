"""Decides which values of a configuration are secrets, and masks them.

Secrets are:

- the password in every URL, and values from `${file:…}`;
- in free-form maps (`with`, `arguments`): texts under a key such as `password`, `secret` or `token`; values from a
  variable with such a name; values from any variable under a key such as `key` or `dsn`; the value of `password=…`
  inside a text such as a connection string.

A secret is masked everywhere: the same text in other places, and other values from the same variable. Only names and
paths are never masked.
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
"""Shorter secrets are masked only as whole words."""


def is_secret_name(name: str) -> bool:
    """Whether a key or a variable of this name always holds a secret."""
    return _SECRET.search(name) is not None


def may_be_secret_name(name: str) -> bool:
    """Whether a value from a variable counts as a secret if its key or its variable has this name."""
    words = [word.lower() for word in _WORDS.findall(name)]
    return is_secret_name(name) or bool(words and words[-1] in _MAYBE)


def is_from_secret(origins: Sequence[str]) -> bool:
    """Whether a value came from a file, or from a variable with the name of a secret."""
    return any(origin.startswith("file:") or may_be_secret_name(origin) for origin in origins)


def mask_free_text(text: str, keys: Sequence[str], origins: Sequence[str]) -> str:
    """Return a text of a free-form map with its secrets masked. `keys` are those that lead to it."""
    if any(is_secret_name(name) for name in keys) or is_from_secret(origins):
        return MASK
    if origins and any(may_be_secret_name(name) for name in keys) and "://" not in text:
        return MASK
    return _PAIR.sub(rf"\g<1>{MASK}", mask_passwords(text))


def mask_spec_text(text: str, origins: Sequence[str], *, accepts_mask: bool) -> str:
    """Return a text of the spec with its secrets masked. Names and paths cannot be masked (`accepts_mask`)."""
    return MASK if accepts_mask and is_from_secret(origins) else mask_passwords(text)


class KnownSecrets:
    """The secrets that were masked in one place, to be masked in all others."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._origins: set[str] = set()

    def note(self, text: str, shown: str, origins: Sequence[str]) -> None:
        """Remember the parts of `text` that are masked in `shown`."""
        if shown == MASK:
            named = [origin for origin in origins if is_from_secret([origin])]
            self._origins.update(named or origins)
        hidden = re.fullmatch("(.*?)".join(map(re.escape, shown.split(MASK))), text, re.DOTALL)
        self._texts.update(part for part in (hidden.groups() if hidden is not None else ()) if part and part != MASK)

    def hide(self, text: str, origins: Sequence[str]) -> str:
        """Return a text with the secrets of other places masked."""
        if not self._origins.isdisjoint(origins):
            return MASK
        for secret in sorted(self._texts, key=len, reverse=True):
            if len(secret) >= MIN_SUBSTRING_LENGTH:
                text = text.replace(secret, MASK)
            else:
                text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", lambda _: MASK, text)
        return text
