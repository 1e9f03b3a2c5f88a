"""Words for data that is wrong: JSON that cannot be parsed, and values that do not fit their type."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from runner.config.messages import describe, texts

_MAX_SHOWN = 3

EXPECTED_TYPES = {word: expected for word, (expected, _) in texts("data").items()}
"""What is expected, by the first word of the types of pydantic's errors."""
_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
_OF_TYPES = re.compile(r"_(attributes_)?(type|parsing|from_float|exact)(_\w+)?$")


def validation_errors(
    error: ValidationError,
    whole: str = "the payload",
    *,
    shows_values: bool = False,
    adapter: TypeAdapter[Any] | None = None,
) -> str:
    """Return the first errors, by field. Values are left out unless `shows_values`: they may be secret.

    With the adapter that found them, fields that are missing or null are told what the model may lack.
    """
    found: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        where = ".".join(str(part) for part in detail["loc"]) or whole
        value = detail.get("input") if shows_values else None
        words = _words(detail["type"], detail, value, shows_values=shows_values)
        found.setdefault(where, f"{where} {words}{_remark(detail, where, adapter)}")
    shown = list(found.values())[:_MAX_SHOWN]
    more = len(found) - len(shown)
    return "; ".join(shown) + (f" (and {more} more)" if more else "")


def _remark(detail: Mapping[str, Any], where: str, adapter: TypeAdapter[Any] | None) -> str:
    """Return what to write for a field that is missing or null, "" if that is not known."""
    if detail["type"] == "missing" and adapter is not None and where in _nullable_fields(adapter):
        return " (it may be null, but has no default: add `= None` to it in the model)"
    if detail["type"] == "missing" and (other := _same_key(where, detail.get("input"))):
        name = where.rpartition(".")[2]
        return f' (there is "{other}": write "{name}" there, or `{name}: … = Field(alias="{other}")` in the model)'
    if adapter is not None and detail["loc"] and detail.get("input", "") is None:
        return " (if it may be null, write `| None` behind its type in the model)"
    return ""


def _same_key(where: str, value: object) -> str:
    """Return the key of a map that is a missing one in other letters, such as `customerId`; "" if there is none."""
    wanted = re.sub(r"[^a-z0-9]", "", where.rpartition(".")[2].lower())
    keys = value if isinstance(value, Mapping) else ()
    return next((key for key in keys if wanted == re.sub(r"[^a-z0-9]", "", str(key).lower())), "")


def _nullable_fields(adapter: TypeAdapter[Any]) -> set[str]:
    """Return the fields of a model or a dataclass that may be null. In pydantic 1 they had the default None."""
    schema: Mapping[str, Any] = adapter.core_schema
    while "fields" not in schema or schema["type"] == "dataclass":
        if "schema" not in schema:
            return set()
        schema = schema["schema"]
    fields = schema["fields"]
    items = fields.items() if isinstance(fields, Mapping) else ((field["name"], field) for field in fields)
    return {name for name, field in items if field["schema"]["type"] == "nullable"}


def _words(kind: str, detail: Mapping[str, Any], value: object, *, shows_values: bool) -> str:
    context = detail.get("ctx", {})
    is_null = "input" in detail and detail["input"] is None  # not a secret
    instead = f", not {describe(value)}" if shows_values else ", not null" if is_null else ""
    bound = next((f"must be {words} {context[name]}" for name, words in _BOUNDS.items() if name in context), "")
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "is not a field of it"
    if kind in ("value_error", "assertion_error"):
        return f"does not fit: {context.get('error', '')}"
    if kind in ("json_invalid", "json_type"):
        return "is not JSON"
    if kind in ("literal_error", "enum"):
        return f"must be {context['expected']}{instead}"
    if bound:
        return f"{bound}{instead}"
    expected = EXPECTED_TYPES.get(kind.partition("_")[0])
    if expected is not None and _OF_TYPES.search(kind):
        return f"must be {expected}{instead}"
    text = str(detail["msg"]).replace("Input should", "must").replace("should", "must")
    return re.sub(r"^(String|List|Value|Data|Dictionary|Tuple|Set)\b ", "", text)


def json_error(body: bytes) -> str:
    """Return why a body is not JSON, with its line and column and without its content; "" if it is."""
    try:
        text = body.decode("utf-8-sig")
        json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        if not text.strip():
            return "it is empty"
        words, position = _json_words(error.msg, text, error.pos)
        line = text.count("\n", 0, position) + 1
        column = position - text.rfind("\n", 0, position)
        return f"{words} ({f'line {line}, ' if line > 1 else ''}column {column})"
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 (byte {error.start})"
    except (ValueError, RecursionError) as error:
        return str(error) if isinstance(error, ValueError) else "it is nested too deeply"
    return ""


def _refuse(name: str) -> None:
    raise ValueError(f"it has {name}, which JSON does not know")


def _json_words(reason: str, text: str, position: int) -> tuple[str, int]:
    """Return what is wrong, and where, for one of the reasons of Python's parser and its position."""
    rest, before = text[position:], text[:position].rstrip()
    closing = rest.lstrip(" \t\r\n,")[:1]
    if closing in ("}", "]") and (before.endswith(",") or rest.startswith(",")):
        return f'a "," before "{closing}"', position if rest.startswith(",") else len(before) - 1
    if not rest.strip():
        return "it ends too early", position
    if rest[0] in "'\u2018\u2019\u201c\u201d":
        return "other quotes than double quotes", position
    for word, json_word in (("True", "true"), ("False", "false"), ("None", "null")):
        if rest.startswith(word):
            return f"{word} instead of {json_word}", position
    return next(
        (words for start, (words, _) in texts("json").items() if reason.startswith(start)), "a mistake"
    ), position
