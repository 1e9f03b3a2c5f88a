"""Compares two JSON Schemas of a payload: what breaks those who publish it, and those who read it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

Side = Literal["publishers", "consumers", ""]
Documents = Mapping[str, Any]

TEMPLATE = "#/{model}"
"""References to definitions, for `json_schemas`."""

_ANY = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_LOWER = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_UPPER = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_OTHERS = frozenset({"pattern", "format", "multipleOf", "uniqueItems"})


class Field(NamedTuple):
    """One part of a payload: its types, or the JSON texts of the only values that it may have."""

    types: frozenset[str]
    is_required: bool
    limits: Mapping[str, Any]
    is_closed: bool


def fields(schema: Any, documents: Documents) -> dict[str, Field]:
    """Return the parts of a payload by their places, as in `items[].qty`; "" is the whole."""
    found: dict[str, Field] = {}
    for place, field in _fields(schema, documents, "", (), is_required=True):
        found.setdefault(place, field)
    return found


def compare(old: Mapping[str, Field], new: Mapping[str, Field]) -> Iterator[tuple[Side, str]]:
    """Yield each difference with the side that it breaks, "" for none."""
    for place in dict.fromkeys([*old, *new]):
        before, after, parent = old.get(place), new.get(place), place.removesuffix("[]").rpartition(".")[0]
        shown = place or "the payload"
        if before is not None and after is not None:
            yield from ((side, f"{shown} {what}") for side, what in _changes(before, after))
        elif parent in old and parent in new and (before is None) != (after is None):
            if after is not None:
                yield ("publishers", f"{shown} is new and required") if after.is_required else ("", f"{shown} is new")
            else:
                side: Side = "publishers" if new[parent].is_closed else "consumers"
                yield side, f"{shown} is removed"


def _changes(before: Field, after: Field) -> Iterator[tuple[Side, str]]:
    if after.is_required != before.is_required:
        yield ("publishers", "is required now") if after.is_required else ("consumers", "may be missing now")
    if lost := sorted(one for one in before.types if not _covers(after.types, one)):
        yield "publishers", f"must no longer be {' or '.join(lost)}"
    if added := sorted(one for one in after.types if not _covers(before.types, one)):
        yield "consumers", f"may be {' or '.join(added)} now"
    if after.is_closed and not before.is_closed:
        yield "publishers", "must have no other fields now"
    for key in sorted({*before.limits, *after.limits}):
        was, now = before.limits.get(key), after.limits.get(key)
        if was != now:
            is_looser = now is None or (
                was is not None and (now < was if key in _LOWER else now > was) and key not in _OTHERS
            )
            yield ("consumers" if is_looser else "publishers"), f"has another {key}: {_text(now)}, not {_text(was)}"


def _covers(types: frozenset[str], one: str) -> bool:
    """Whether a type, or a value as JSON, is among types."""
    if one in types or (one == "integer" and "number" in types):
        return True
    kinds = {
        str: ("string",),
        bool: ("boolean",),
        int: ("integer", "number"),
        float: ("number",),
        type(None): ("null",),
    }
    if one in _ANY:
        return False
    return any(kind in types for kind in kinds.get(type(json.loads(one)), ("object", "array")))


def _text(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _fields(
    schema: Any, documents: Documents, place: str, seen: tuple[str, ...], *, is_required: bool
) -> Iterator[tuple[str, Field]]:
    branches = list(_branches(schema, documents, seen))
    merged = {key: value for branch, _ in branches for key, value in branch.items()}
    limits = {key: merged[key] for key in sorted(_LOWER | _UPPER | _OTHERS) if key in merged}
    types = frozenset[str]().union(*(_types(branch) for branch, _ in branches))
    yield place, Field(types, is_required, limits, merged.get("additionalProperties") is False)
    for branch, inside in branches:
        for name, inner in branch.get("properties", {}).items():
            below = f"{place}.{name}" if place else name
            yield from _fields(inner, documents, below, inside, is_required=name in branch.get("required", ()))
        if isinstance(branch.get("items"), dict):
            yield from _fields(branch["items"], documents, f"{place}[]", inside, is_required=is_required)


def _branches(
    schema: Any, documents: Documents, seen: tuple[str, ...]
) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Yield the alternatives of a schema, with the references that lead to each; a recursion ends there."""
    if not isinstance(schema, dict):
        yield {}, seen
        return
    if isinstance(reference := schema.get("$ref"), str):
        if reference not in seen:
            target: Any = documents
            for part in reference.removeprefix("#/").split("/"):
                target = target.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, dict) else {}
            yield from _branches(target, documents, (*seen, reference))
        return
    inner = [each for key in ("anyOf", "oneOf", "allOf") for each in schema.get(key, ())]
    for each in inner:
        yield from _branches(each, documents, seen)
    if not inner or "properties" in schema:
        yield schema, seen


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    if "const" in schema or "enum" in schema:
        return frozenset(
            _text(value) if value is not None else "null" for value in schema.get("enum", [schema.get("const")])
        )
    named = schema.get("type", "object" if "properties" in schema else sorted(_ANY))
    return frozenset([named] if isinstance(named, str) else named)
