"""Compares two JSON Schemas of a payload: what breaks those who publish it, and those who read it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

Side = Literal["publishers", "consumers", ""]

TEMPLATE = "#/{model}"
"""References to definitions, for `json_schemas`."""

_ANY = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_LIMITS = (*_LOWER, *_UPPER, "pattern", "format", "multipleOf", "uniqueItems", "additionalProperties")


class Field(NamedTuple):
    """One part of a payload: its types, or the JSON texts of the only values that it may have, and its limits."""

    types: frozenset[str]
    is_required: bool
    limits: Mapping[str, Any]


def fields(schema: Any, documents: Mapping[str, Any]) -> dict[str, Field]:
    """Return the parts of a payload by their places, as in `items[].qty`; "" is the whole."""
    return dict(reversed(list(_fields(schema, documents, "", (), is_required=True))))


def compare(old: Mapping[str, Field], new: Mapping[str, Field]) -> Iterator[tuple[Side, str]]:
    """Yield each difference with the side that it breaks, "" for none."""
    for place in sorted({*old, *new}):
        before, after, parent = old.get(place), new.get(place), place.removesuffix("[]").rpartition(".")[0]
        shown = place or "the payload"
        if before is not None and after is not None:
            yield from ((side, f"{shown} {what}") for side, what in _changes(before, after))
        elif parent in old and parent in new and after is not None:
            yield ("publishers", f"{shown} is new and required") if after.is_required else ("", f"{shown} is new")
        elif parent in old and parent in new:
            is_closed = new[parent].limits.get("additionalProperties") is False
            yield ("publishers" if is_closed else "consumers"), f"{shown} is removed"


def _changes(before: Field, after: Field) -> Iterator[tuple[Side, str]]:
    if after.is_required != before.is_required:
        yield ("publishers", "is required now") if after.is_required else ("consumers", "may be missing now")
    if lost := sorted(one for one in before.types if not _covers(after.types, one)):
        yield "publishers", f"must no longer be {' or '.join(lost)}"
    if added := sorted(one for one in after.types if not _covers(before.types, one)):
        yield "consumers", f"may be {' or '.join(added)} now"
    for key in sorted({*before.limits, *after.limits}):
        was, now = before.limits.get(key), after.limits.get(key)
        if was != now:
            is_larger = was is not None and now is not None and key in (*_LOWER, *_UPPER) and now > was
            is_wider = now is None or (was is not None and is_larger == (key in _UPPER) and key in (*_LOWER, *_UPPER))
            yield ("consumers" if is_wider else "publishers"), f"has another {key}: {_text(now)}, not {_text(was)}"


def _covers(types: frozenset[str], one: str) -> bool:
    """Whether a type, or a value as JSON, is among types."""
    if one in types or (one == "integer" and "number" in types):
        return True
    kind = "" if one in _ANY else type(json.loads(one)).__name__
    kinds = {"str": {"string"}, "bool": {"boolean"}, "int": {"integer", "number"}, "float": {"number"}}
    return not types.isdisjoint(kinds.get(kind, {"object", "array"} if kind else ()))


def _text(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _fields(
    schema: Any, documents: Mapping[str, Any], place: str, seen: tuple[str, ...], *, is_required: bool
) -> Iterator[tuple[str, Field]]:
    branches = list(_branches(schema, documents, seen))
    merged = {key: value for branch, _ in branches for key, value in branch.items()}
    limits = {key: merged[key] for key in _LIMITS if not isinstance(merged.get(key, {}), dict)}
    types = frozenset[str]().union(*(_types(branch) for branch, _ in branches))
    yield place, Field(types, is_required, limits)
    for branch, inside in branches:
        for name, inner in branch.get("properties", {}).items():
            below, required = f"{place}.{name}" if place else name, branch.get("required", ())
            yield from _fields(inner, documents, below, inside, is_required=name in required)
        if isinstance(branch.get("items"), dict):
            yield from _fields(branch["items"], documents, f"{place}[]", inside, is_required=is_required)


def _branches(
    schema: Any, documents: Mapping[str, Any], seen: tuple[str, ...]
) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Yield the alternatives of a schema, with the references that lead to each; a recursion ends there."""
    schema = schema if isinstance(schema, dict) else {}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target: Any = documents
        for part in reference.removeprefix("#/").split("/"):
            target = target.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, dict) else {}
        if reference not in seen:
            yield from _branches(target, documents, (*seen, reference))
        return
    inner = [each for key in ("anyOf", "oneOf", "allOf") for each in schema.get(key, ())]
    for each in inner:
        yield from _branches(each, documents, seen)
    if not inner or "properties" in schema:
        yield schema, seen


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    if "const" in schema or "enum" in schema:
        return frozenset(json.dumps(value, ensure_ascii=False) for value in schema.get("enum", [schema.get("const")]))
    named = schema.get("type", "object" if "properties" in schema else sorted(_ANY))
    return frozenset([named] if isinstance(named, str) else named)
