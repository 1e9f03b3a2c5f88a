"""Input: a wrong value into the words of a problem, and a misspelt word into the one that was meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic_core import PydanticCustomError

from runner.config.document import Interpolated
from runner.redaction import mask_passwords

_LONGEST = 60


def wrong(code: str, message: str, help: str = "", **context: Any) -> PydanticCustomError:
    """Return the error that a validator raises to say something in our own words."""
    return PydanticCustomError(code, "{message}", {"message": message, "help": help, **context})


def describe(value: object) -> str:
    """Name a value in a message: `the text "16"`, `the number 5`, `a list`. Interpolated values may be secret."""
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
    """Quote a text in a message; an interpolated one may be secret."""
    return describe(value) if isinstance(value, Interpolated) else f'"{_short(str(value))}"'


def _short(text: str) -> str:
    text = mask_passwords(text)  # before it is cut: half a URL is not known as one
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def closest(word: str, candidates: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """Return the candidate that was probably meant by a misspelt word, None if none is near."""
    from difflib import get_close_matches  # only for pipelines with mistakes

    if len(word) > _LONGEST:
        return None
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    matches = get_close_matches(word.lower(), by_lower, n=1, cutoff=likeness)
    return by_lower[matches[0]] if matches else None


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return the help for a misspelt word: the one that was meant, or else all of them."""
    names = list(candidates)
    match = closest(word, names)
    if match is not None:
        return f'did you mean "{match}"?'
    return f"write one of: {', '.join(names)}" if names else ""
