"""Vocabulary: making foreign text fit to be shown: no passwords, no control characters."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s/@]+(?=@)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def mask_passwords(text: str) -> str:
    """Return text with the password of every `://user:password@` replaced by `***`."""
    return _PASSWORD.sub(r"\1***", text) if "://" in text else text


def escape_controls(text: str) -> str:
    """Return text with control characters, line separators and lone surrogates escaped, as in `\\n` or `\\x1b`."""
    if text.isprintable():
        return text
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def mask_url(url: str) -> str:
    """Return a broker's URL as it may be shown: the password is `***`, the query is gone."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return mask_passwords(url)
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}:***@" if parts.password else f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{host}{parts.path}"
