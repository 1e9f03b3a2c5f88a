"""Checks of a subscriber against the schemas of the messages it receives. Only certain contradictions are reported."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from pydantic import TypeAdapter

from runner.config.messages import closest, typo_of
from runner.config.subscriber_spec import SubscriberSpec
from runner.errors import Severity
from runner.message import Publish

SchemaMismatch = tuple[str, str]
"""The error message, and the help."""

CoreSchema = Mapping[str, Any]
"""A schema as `TypeAdapter.core_schema` returns it. Source: https://docs.pydantic.dev/latest/api/pydantic_core_schema/."""

_WITHOUT_KEYS = frozenset({"bool", "float", "frozenset", "int", "list", "none", "set", "str", "tuple"})
_NONE: CoreSchema = {"type": "none"}
_ANY: CoreSchema = {"type": "any"}


class UnknownKey(NamedTuple):
    """The first part of a path that no type has, the names of the types at that point, and the keys that they have."""

    part: str
    types: list[str]
    keys: list[str]


def handler_mismatches(path: str, annotation: Any, schemas: Mapping[str, Any]) -> Iterator[SchemaMismatch]:
    """Yield a mismatch for each schema, by queue or event, that gives no payload for a handler with this annotation."""
    wanted = " | ".join(dict.fromkeys(_name(schema) for schema in schemas.values()))
    for name, schema in schemas.items():
        if not _fits(annotation, schema):
            message = f'"{path}" takes {_name(annotation)}, but the schema of "{name}" is {_name(schema)}'
            help_ = f"annotate its payload with {wanted}"
            if len(schemas) == 1 and inspect.isclass(annotation) and annotation.__module__ != "builtins":
                help_ += f', or write `schema: {annotation.__module__}:{annotation.__qualname__}` at "{name}"'
            yield message, help_


def event_mismatches(queue: str, schema: Any, events: Mapping[str, Any]) -> Iterator[SchemaMismatch]:
    """Yield a mismatch for each event that a queue gets, and whose payloads never fit the schema of the queue."""
    for name, other in events.items():
        if other is schema or (known := _keys(_core_schema(other))) is None:
            continue
        missing = [key for key in _required(_core_schema(schema)) if key not in known]
        if missing:
            message = (
                f'the queue gets the event "{name}", whose schema is {_name(other)}: it has no "{missing[0]}", '
                f"which {_name(schema)} needs"
            )
            yield message, f'remove "schema:" from queue "{queue}": each event is checked by its own'


def result_mismatches(
    path: str, annotation: Any, schemas: Mapping[str, Any], others: Mapping[str, Any]
) -> Iterator[SchemaMismatch]:
    """Yield a mismatch for each destination whose schema refuses a kind of result that a handler may return.

    `schemas` are those of its destinations, `others` those of all queues and events.
    """
    union = get_origin(annotation) in (Union, UnionType)
    kinds = [kind for kind in (get_args(annotation) if union else [annotation]) if kind not in (None, NoneType)]
    for name, schema in schemas.items():
        needed = _required(_core_schema(schema)) if inspect.isclass(schema) else []
        for kind in kinds if needed else ():
            if (get_origin(kind) or kind) in (list, tuple, set):
                message = (
                    f'"{path}" returns a {_name(get_origin(kind) or kind)}, and "{name}" takes one {_name(schema)}'
                )
                yield message, "write `yield` for each of its items in place of `return`: each becomes a message"
            elif inspect.isclass(kind) and kind is not schema and not issubclass(kind, Publish):
                known = _keys(_core_schema(kind)) if hasattr(kind, "model_fields") or is_dataclass(kind) else None
                if missing := [key for key in needed if known is not None and key not in known]:
                    lack = f'{_name(kind)}, which has no "{missing[0]}"'
                    message = f'"{path}" may return {lack}, and "{name}" takes {_name(schema)}'
                    fitting = [other for other, taken in others.items() if taken is kind and other not in schemas]
                    hint = 'return `Publish(value, to="NAME")` to choose the destination of each result'
                    if len(fitting) == 1 and len(kinds) == 1:
                        hint = f'write "{fitting[0]}", which takes {_name(kind)}'
                    yield message, hint


def path_mismatches(
    path: str, schemas: Sequence[Any], then: str = "all messages would be one group"
) -> Iterator[SchemaMismatch]:
    """Yield a mismatch if a dotted path exists in none of the schemas; `then` says what follows from that."""
    unknown = first_unknown_key(path, schemas) if schemas else None
    if unknown is None:
        return
    message = f'{" | ".join(unknown.types)} has no "{unknown.part}": {then}'
    help_text = f"write one of: {', '.join(unknown.keys)}" if unknown.keys else f'end the path before "{unknown.part}"'
    if guess := closest(unknown.part, unknown.keys):
        help_text = f'did you mean "{guess}"?'
    yield message, help_text


def subscriber_path_mismatches(
    spec: SubscriberSpec, schemas: Sequence[Any], annotation: Any
) -> Iterator[tuple[str, tuple[str, ...], SchemaMismatch, Severity]]:
    """Yield the mismatches of the paths by which a subscriber orders and deduplicates: code, keys, text and severity.

    `schemas` are those of all messages that it gets, none if there are others; then its annotation is compared.
    """
    dedupe = spec.dedupe.key if spec.dedupe is not None else None
    one_group, no_key = "all messages would be one group", "every message would be invalid"
    for path, at, then in ((spec.order_by, ("order_by",), one_group), (dedupe, ("dedupe", "key"), no_key)):
        if path is None:
            continue
        yield from (("bad-payload-path", at, mismatch, "error") for mismatch in path_mismatches(path, schemas, then))
        if not schemas and (mismatch := _misspelt_path(path, annotation)) is not None:
            yield "payload-attribute", at, mismatch, "warning"


def _misspelt_path(path: str, annotation: Any) -> SchemaMismatch | None:
    """Return the mismatch of a path that is near to one of a model, which need not have all keys of a payload."""
    if not inspect.isclass(annotation) or not (hasattr(annotation, "model_fields") or is_dataclass(annotation)):
        return None
    unknown = first_unknown_key(path, [annotation])
    guess = typo_of(unknown.part, unknown.keys) if unknown is not None else None
    if unknown is None or guess is None:
        return None
    help_ = f'did you mean "{guess}"?'
    if re.sub("[^a-z0-9]", "", unknown.part.lower()) == re.sub("[^a-z0-9]", "", guess.lower()):  # customerId
        alias = f'Field(alias="{unknown.part}")'
        help_ = f'write "{guess}", or, if messages have "{unknown.part}", `{guess}: … = {alias}` in {unknown.types[0]}'
    return f'{" | ".join(unknown.types)} has no "{unknown.part}"', help_


def first_unknown_key(path: str, types: Iterable[Any]) -> UnknownKey | None:
    """Return the first part of a dotted path that no payload of these types can have, None if one may have it."""
    definitions: dict[str, CoreSchema] = {}
    schemas = [schema for item in types for schema in _alternatives(_core_schema(item), definitions)]
    for part in path.split("."):
        known = [keys for schema in schemas if (keys := _keys(schema)) is not None]
        if len(known) < len(schemas):
            return None
        if not any(part in keys for keys in known):
            names = dict.fromkeys(_type_name(schema) for schema in schemas if schema is not _NONE)
            return UnknownKey(part, [*names] or ["None"], sorted({key for keys in known for key in keys}))
        schemas = [schema for keys in known if part in keys for schema in _alternatives(keys[part], definitions)]
    return None


def _fits(annotation: Any, schema: Any) -> bool:
    if not inspect.isclass(annotation) or not inspect.isclass(schema) or annotation is inspect.Parameter.empty:
        return True
    if annotation in (Any, object, dict, bytes, str) or schema in (object, dict):
        return True
    try:
        return issubclass(schema, annotation) or issubclass(annotation, schema)
    except TypeError:  # a TypedDict does not answer
        return True


def _name(annotation: Any) -> str:
    return getattr(annotation, "__qualname__", None) or str(annotation)


def _core_schema(item: Any) -> CoreSchema:
    adapter = TypeAdapter(item)
    adapter.rebuild(raise_errors=True)  # of a type with `defer_build` there is no core schema before
    return adapter.core_schema


def _alternatives(schema: CoreSchema, definitions: dict[str, CoreSchema]) -> Iterator[CoreSchema]:
    """Yield the schemas that a value may have: the members of a union, and what a wrapper wraps."""
    match schema:
        case {"serialization": _}:  # the user's function writes the JSON
            yield _ANY
        case {"type": "definitions", "schema": inner, "definitions": found}:
            definitions.update({item["ref"]: item for item in found})
            yield from _alternatives(inner, definitions)
        case {"type": "definition-ref", "schema_ref": reference}:
            yield from _alternatives(definitions[reference], definitions)
        case {"type": "nullable", "schema": inner}:
            yield _NONE
            yield from _alternatives(inner, definitions)
        case {"type": "union", "choices": choices}:
            for choice in choices:
                yield from _alternatives(choice[0] if isinstance(choice, tuple) else choice, definitions)
        case {"type": "tagged-union", "choices": choices}:
            for choice in choices.values():
                yield from _alternatives(choice, definitions)
        case {"type": "default" | "function-after", "schema": inner} | {
            "type": "model",
            "root_model": True,
            "schema": inner,
        }:
            yield from _alternatives(inner, definitions)
        case _:
            yield schema


def _keys(schema: CoreSchema) -> Mapping[str, CoreSchema] | None:
    """Return the keys of a JSON object with the schemas of their values. {}: no object. None: any key may occur."""
    if schema["type"] in _WITHOUT_KEYS:
        return {}
    config = schema.get("config", {})
    if config.get("extra_fields_behavior") == "allow" or schema.get("custom_init"):
        return None
    match schema:
        case {"type": "model", "schema": {"type": "model-fields", "fields": fields} as inner}:
            named = list(fields.items())
        case {"type": "dataclass", "schema": {"type": "dataclass-args", "fields": fields} as inner}:
            named = [(field["name"], field) for field in fields]
        case {"type": "typed-dict", "fields": fields} as inner:
            named = list(fields.items())
        case _:
            return None
    if inner.get("extra_behavior") == "allow":
        return None
    by_name = bool(config.get("validate_by_name") or config.get("populate_by_name"))
    keys: dict[str, CoreSchema] = {
        item.get("alias") or item["property_name"]: _ANY for item in inner.get("computed_fields", ())
    }
    for name, field in named:
        keys |= _field_keys(name, field, by_name=by_name)
    return keys


def _required(schema: CoreSchema) -> list[str]:
    """Return the keys that each JSON object of a model must have; none where a field may have several."""
    match schema:
        case {"type": "model", "schema": {"type": "model-fields", "fields": fields}}:
            named = fields.items()
        case {"type": "dataclass", "schema": {"type": "dataclass-args", "fields": fields}}:
            named = [(field["name"], field) for field in fields]
        case _:
            return []
    return [
        name
        for name, field in named
        if field["schema"]["type"] != "default" and not {"alias", "validation_alias"} & {*field}
    ]


def _field_keys(name: str, field: CoreSchema, *, by_name: bool) -> dict[str, CoreSchema]:
    """Return the keys under which a field is read or written. An alias may be a path into the JSON, or several."""
    alias = field.get("validation_alias") or name
    paths = [[alias]] if isinstance(alias, str) else alias if isinstance(alias[0], list) else [alias]
    keys = {str(path[0]) for path in paths} | {field.get("serialization_alias") or name}
    if by_name:
        keys.add(name)
    is_moved = any(len(path) > 1 for path in paths)
    return dict.fromkeys(keys, _ANY if is_moved else field["schema"])


def _type_name(schema: CoreSchema) -> str:
    return _name(schema["cls"]) if "cls" in schema else str(schema["type"])
