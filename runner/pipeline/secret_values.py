"""Writes the values of pydantic's secrets into JSON, which would have stars in their place.

pydantic always writes a mask for a secret. The dump for Python keeps the secrets, so both are compared value by value,
and each mask is replaced.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import (
    BaseModel,
    PydanticUndefinedAnnotation,
    PydanticUserError,
    Secret,
    SecretBytes,
    SecretStr,
    TypeAdapter,
)
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import SchemaSerializer, core_schema, from_json, to_json

from runner.errors import PublishFailed

MASK = b"****"
"""A part of every mask of pydantic, and of most masks of other serializers."""

_SECRETS = (SecretStr, SecretBytes, Secret)
_known: dict[type, bool] = {}
"""Whether the fields of a type may hold a secret. Cleared at MAX_KNOWN, because programs can create types."""

MAX_KNOWN = 10_000

_ANY = SchemaSerializer(core_schema.any_schema())  # a TypeAdapter would look for pydantic's plugins


def may_hold_secrets(payload: Any) -> bool:
    """Whether the type of a payload may hold a secret with another mask than MASK."""
    kind = type(payload)
    found = _known.get(kind)
    if found is None:
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        found = _known[kind] = _reaches_secret(kind, set())
    return found


def secret_keys(annotation: Any) -> frozenset[str]:
    """Return the keys that hold a SecretStr or SecretBytes in the JSON of a type; none if it has no JSON Schema."""
    try:
        schema = TypeAdapter(annotation).json_schema()
    except (PydanticUserError, PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return frozenset()
    return frozenset(_secret_properties(schema))


def _secret_properties(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, item in schema.get("properties", {}).items():
            if '"format": "password"' in json.dumps(item):  # also in a list, and beside null
                yield key
    children = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    for child in children:
        yield from _secret_properties(child)


def reveal_secrets(payload: Any, body: bytes) -> bytes:
    """Return the JSON of a payload with its secrets. Raises PublishFailed if a secret cannot be written."""
    meant = _ANY.to_python(payload, by_alias=True, warnings=False)
    return to_json(_merged(meant, from_json(body)), inf_nan_mode="strings")


def _merged(meant: Any, shown: Any) -> Any:
    """Return masked JSON with the masks replaced by the secrets of the dump."""
    if isinstance(meant, _SECRETS):
        mask = from_json(to_json(meant))
        return meant.get_secret_value() if shown == mask else shown  # otherwise the user's serializer wrote it
    if isinstance(meant, dict) and isinstance(shown, dict) and len(meant) == len(shown):
        if any(isinstance(key, _SECRETS) for key in meant):
            raise _hidden()
        return {key: _merged(value, shown[key]) for key, value in zip(shown, meant.values(), strict=True)}
    if isinstance(meant, list | tuple) and isinstance(shown, list) and len(meant) == len(shown):
        return [_merged(item, shown_item) for item, shown_item in zip(meant, shown, strict=True)]
    if isinstance(meant, set | frozenset) and meant and all(isinstance(item, _SECRETS) for item in meant):
        return [item.get_secret_value() for item in meant]
    is_unlike = isinstance(shown, dict | list) and not _is_same(meant, shown)
    if _holds_secret(meant) or (is_unlike and MASK in to_json(shown)):
        raise _hidden()
    return shown


def _holds_secret(meant: Any) -> bool:
    if isinstance(meant, dict):
        return any(_holds_secret(item) for pair in meant.items() for item in pair)
    if isinstance(meant, list | tuple | set | frozenset):
        return any(map(_holds_secret, meant))
    return isinstance(meant, _SECRETS)


def _is_same(meant: Any, shown: Any) -> bool:
    """Whether a set has the same plain values, in any order."""
    return isinstance(meant, set | frozenset) and sorted(map(repr, meant)) == sorted(map(repr, shown))


def _hidden() -> PublishFailed:
    text = "the payload holds a secret in a place where its value cannot be published, only the stars that hide it"
    return PublishFailed(text, reason="invalid", hint="publish `secret.get_secret_value()`")


def _reaches_secret(kind: Any, seen: set[Any]) -> bool:
    if isinstance(kind, type) and issubclass(kind, _SECRETS):
        return True
    if isinstance(kind, typing.Hashable) and kind in seen:
        return False
    if isinstance(kind, type):
        seen.add(kind)
        return any(_reaches_secret(item, seen) for item in _field_types(kind))
    origin = typing.get_origin(kind)
    return (isinstance(origin, type) and issubclass(origin, _SECRETS)) or any(
        _reaches_secret(item, seen) for item in typing.get_args(kind)
    )


def _field_types(kind: type) -> Iterable[Any]:
    if issubclass(kind, BaseModel):
        return [field.annotation for field in kind.model_fields.values()]
    if dataclasses.is_dataclass(kind):
        return [field.type for field in dataclasses.fields(kind)]
    return ()
