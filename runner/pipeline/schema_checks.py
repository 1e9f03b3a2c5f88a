"""Meaning: whether a subscriber fits the schemas of what it takes. Only certain contradictions count."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runner.config.messages import closest
from runner.pipeline.payload_fields import first_unknown

SchemaMismatch = tuple[str, str]
"""What is wrong, and what to write."""


def handler_mismatches(path: str, annotation: Any, schemas: Mapping[str, Any]) -> Iterator[SchemaMismatch]:
    """Yield each schema, by the name it belongs to, from which no payload for a handler annotated so can be made."""
    wanted = " | ".join(dict.fromkeys(_name(schema) for schema in schemas.values()))
    for name, schema in schemas.items():
        if not _fits(annotation, schema):
            message = f'"{path}" takes {_name(annotation)}, but the schema of "{name}" is {_name(schema)}'
            yield message, f"annotate its payload with {wanted}"


def path_mismatches(path: str, schemas: Sequence[Any]) -> Iterator[SchemaMismatch]:
    """Yield what is wrong with a dotted path that leads to nothing in any of the schemas."""
    unknown = first_unknown(path, schemas) if schemas else None
    if unknown is None:
        return
    names = " | ".join(dict.fromkeys(_name(kind) for kind in unknown.kinds))
    message = f'{names} has no "{unknown.part}": all messages would be one group'
    help_text = f"write one of: {', '.join(unknown.keys)}" if unknown.keys else f'end the path before "{unknown.part}"'
    if guess := closest(unknown.part, unknown.keys):
        help_text = f'did you mean "{guess}"?'
    yield message, help_text


def _fits(annotation: Any, schema: Any) -> bool:
    if not inspect.isclass(annotation) or not inspect.isclass(schema) or annotation is inspect.Parameter.empty:
        return True
    if annotation in (Any, object, dict, bytes, str) or schema in (object, dict):
        return True
    return issubclass(schema, annotation) or issubclass(annotation, schema)


def _name(annotation: Any) -> str:
    return getattr(annotation, "__qualname__", None) or str(annotation)
