"""Texts for error messages: values, suggestions for misspelt words, and messages for the errors of pydantic."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from runner.config.document import Interpolated
from runner.redaction import mask_passwords
from runner.tables import read_table

_MAX_CHARACTERS = 60
_PLAIN = re.compile(r"[A-Za-z0-9_./~][\w./:@+-]*")


def spec_error(code: str, message: str, help: str = "", **context: Any) -> PydanticCustomError:
    """Return an error with its code, message and help, for a validator to raise."""
    return PydanticCustomError(code, "{message}", {"message": message, "help": help, **context})


def quoted_collection(value: object) -> str:
    """Return the list or the map that is written as a text in quotes, "" for other values."""
    bare = value.strip().rstrip(",;") if isinstance(value, str) and not isinstance(value, Interpolated) else ""
    is_list, is_map = re.fullmatch(r"\[[^\[\]{}]+\]", bare), re.fullmatch(r"\{\s*[\w-]+: [^{}]*\}", bare)
    return bare if is_list or is_map else ""


def describe(value: object) -> str:
    """Describe a value, as in `the text "16"` or `a list`. Interpolated values may be secret, and are not shown."""
    match value:
        case Interpolated():
            return f"the value of {value.expression}"
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {_short(str(value))}"
        case str():
            return f'the text "{_short(value)}"'
        case list() | tuple():
            return "a list"
        case dict():
            return "a map"
        case _:
            return "this"


def quoted(value: object) -> str:
    """Quote a text in a message. An interpolated text may be secret: it is not shown."""
    return describe(value) if isinstance(value, Interpolated) else f'"{_short(str(value))}"'


def _short(text: str) -> str:
    text = mask_passwords(text)  # before truncation: half a URL would not be recognized
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"


def closest(word: str, candidates: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """Return the candidate that is most similar to a misspelt word, None if none is similar."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    if len(word) > _MAX_CHARACTERS or not by_lower:
        return None
    from difflib import get_close_matches  # only for pipelines with mistakes

    matches = get_close_matches(word.lower(), by_lower, n=1, cutoff=likeness)
    return by_lower[matches[0]] if matches else None


def typo_of(word: str, candidates: Iterable[str], likelier: Iterable[str] = ()) -> str | None:
    """Return the candidate that a word is a misspelling of, None if it may be another word.

    Numbers are never misspelt: `orders_1` is not `orders_2`. For the `likelier` candidates less similarity is enough.
    """
    candidates = [name for name in candidates if _may_be(word, name)]
    near = [name for name in candidates if is_one_slip(word.lower(), name.lower())]
    if len(near) == 1:
        return near[0]
    return closest(word, likelier) or closest(word, candidates, likeness=0.75)


def _may_be(word: str, name: str) -> bool:
    """Whether a word may be a misspelling of a name: with the same numbers, and as many parts or the same letters."""
    if re.findall(r"\d+", word) != re.findall(r"\d+", name):
        return False
    parts, others = re.split(r"[._-]", word.lower()), re.split(r"[._-]", name.lower())
    joined, other = "".join(parts), "".join(others)
    return len(parts) == len(others) or joined == other or is_one_slip(joined, other)


def is_one_slip(word: str, other: str) -> bool:
    """Whether two words differ by one letter that is missing, too much, or another, or by two that changed places."""
    if len(word) < 3 or abs(len(word) - len(other)) > 1:
        return False
    start = next(
        (i for i, pair in enumerate(zip(word, other, strict=False)) if pair[0] != pair[1]), min(len(word), len(other))
    )
    first, second = word[start:], other[start:]
    swapped = second[1:2] + second[:1] + second[2:]
    return first[1:] == second[1:] or first[1:] == second or first == second[1:] or first == swapped


def abbreviated(word: str, candidates: Iterable[str], *, least: int = 4) -> str | None:
    """Return the only candidate that starts with a word of at least some letters; None if there are none or several."""
    found = [name for name in candidates if len(word) >= least and name.startswith(word.lower())]
    return found[0] if len(found) == 1 else None


def did_you_mean(word: str, candidates: Iterable[str], otherwise: str = "write one of") -> str:
    """Return the help for a misspelt word: the most similar candidate, else all candidates, after `otherwise`."""
    names = list(candidates)
    match = closest(word, names)
    if match is not None:
        return f'did you mean "{match}"?'
    return f"{otherwise}: {', '.join(names)}" if names else ""


def texts(kind: str) -> dict[str, tuple[str, str]]:
    """Return what is expected, or wrong, and the help, by the words of a kind of rows of `messages.txt`."""
    return {
        word: (text, help_) for row, word, text, help_ in read_table("runner.config", "messages.txt", 4) if row == kind
    }


def error_message(kind: str, context: Mapping[str, Any], value: object) -> tuple[str, str, str]:
    """Return the code, message and help of an error: those of the validator, or ours for an error of pydantic."""
    if "message" in context:
        return kind, context["message"], context.get("help", "")
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = f"at least {context['ge']}" if "ge" in context else f"at most {context['le']}"
        help_ = f"write {context['ge']} or more" if "ge" in context else f"write {context['le']} or less"
        return "out-of-range", f"must be {bound}, not {describe(value)}", help_
    if kind == "too_short":
        return "empty-list", "must not be an empty list", "name at least one, or remove the key"
    if kind == "none_required":
        return "wrong-type", f"must be empty, not {describe(value)}", "remove the value"
    expected, help_ = texts("file").get(kind.partition("_")[0], (None, ""))
    if expected is None:
        return (
            "wrong-value",
            f"cannot be {describe(value)}",
            "see the language reference for the values that are allowed here",
        )
    if expected == "a map" and value is None:
        help_ = "write its keys below it, indented"
    elif expected == "text" and isinstance(value, bool | int):
        help_ = f'put it in quotes: "{str(value).lower() if isinstance(value, bool) else value}"'
    elif expected == "a list" and isinstance(value, dict):
        help_ = 'write "- " before its first key, or "[" and "]" around its braces'
    return "wrong-type", f"must be {expected}, not {describe(value)}", help_
