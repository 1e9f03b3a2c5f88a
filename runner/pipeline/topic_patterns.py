"""Matches routing keys with topic patterns, and headers with headers bindings, exactly like RabbitMQ.

A key is words with dots between them. `*` stands for exactly one word, `#` for any number of words, none included; both
only as whole words (`a*` is a plain word). The empty text has no words at all, while a word between two dots may be
empty: `*.x` matches `.x`. Source: https://www.rabbitmq.com/tutorials/tutorial-five-python, and what RabbitMQ does: the
conformance suite holds one table against both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ANY_WORD = "*"
ANY_WORDS = "#"


def words_of(text: str) -> list[str]:
    """Return the words of a key or a pattern; the empty text has none."""
    return text.split(".") if text else []


def is_pattern(text: str) -> bool:
    """Return whether this stands for more than one key: a whole word of it is `*` or `#`."""
    return any(word in (ANY_WORD, ANY_WORDS) for word in words_of(text))


def matches(pattern: str, key: str) -> bool:
    """Return whether a topic binding with this pattern takes messages with this routing key.

    Takes at most (words in the pattern) times (words in the key) steps, however many `#` there are.
    """
    wanted, words = words_of(pattern), words_of(key)
    at = seen = 0
    resume_at, resume_seen = -1, 0  # behind the last `#`, and the word it has swallowed up to
    while seen < len(words):
        if at < len(wanted) and wanted[at] == ANY_WORDS:
            resume_at, resume_seen = at + 1, seen
            at += 1
        elif at < len(wanted) and wanted[at] in (ANY_WORD, words[seen]):
            at += 1
            seen += 1
        elif resume_at >= 0:
            resume_seen += 1
            at, seen = resume_at, resume_seen
        else:
            return False
    return all(word == ANY_WORDS for word in wanted[at:])


def matches_headers(arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    """Return whether a headers binding with these arguments takes messages with these headers.

    `x-match` is `all` (the default) or `any`, which both ignore the other arguments that start with `x-`, or
    `all-with-x` or `any-with-x`, which do not. An argument without a value asks only for the header to be there.
    """
    mode = str(arguments.get("x-match", "all"))
    wanted = [
        (name, value)
        for name, value in arguments.items()
        if name != "x-match" and (mode.endswith("-with-x") or not name.startswith("x-"))
    ]
    found = (name in headers and (value is None or _is_same(value, headers[name])) for name, value in wanted)
    return any(found) if mode.startswith("any") else all(found)


def _is_same(wanted: Any, value: Any) -> bool:
    """Return whether two header values are equal, and of the same types: `1` is neither `1.0` nor `true` nor `"1"`.

    RabbitMQ up to 3.13 takes a `1` that stands alone for `1.0`.
    """
    if type(wanted) is not type(value):
        return False
    if isinstance(wanted, list | tuple):
        return len(wanted) == len(value) and all(map(_is_same, wanted, value))
    if isinstance(wanted, Mapping):
        return wanted.keys() == value.keys() and all(_is_same(each, value[name]) for name, each in wanted.items())
    return bool(wanted == value)
