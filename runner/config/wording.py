"""Input: the kind of a pydantic error into a code, a sentence and a help of ours. pydantic's English is never shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.config.words import describe

_EXPECTED = {
    "bool": "true or false",
    "bytes": "text",
    "date": "text",
    "dict": "a map",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "mapping": "a map",
    "model": "a map",
    "string": "text",
    "tuple": "a list",
}
"""What the first word of pydantic's own error types stands for in a file."""

_HELP = {
    "true or false": "write true or false",
    "a map": 'write "key: value" on lines of their own',
    "a list": "write [one, two]",
    "a whole number": "write a number, as in 10",
    "a number": "write a number, as in 0.5",
    "text": "write a text, in quotes if it looks like a number",
}


def say(kind: str, context: Mapping[str, Any], value: object) -> tuple[str, str, str]:
    """Return code, message and help for an error: a validator's own words, or ours for pydantic's."""
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
    expected = _EXPECTED.get(kind.partition("_")[0])
    if expected is None:
        return "wrong-value", f"cannot be {describe(value)}", "see the language reference for what can stand here"
    help_ = _HELP[expected]
    if expected == "a map" and value is None:
        help_ = "write its keys below it, indented"
    elif expected == "a list" and isinstance(value, dict):
        help_ = 'write "- " before its first key'
    return "wrong-type", f"must be {expected}, not {describe(value)}", help_
