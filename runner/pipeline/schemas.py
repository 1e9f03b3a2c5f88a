"""Imports schemas and makes their validators."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import PydanticUndefinedAnnotation, TypeAdapter

from runner.pipeline.import_problems import ImportProblem, Place, place_of
from runner.pipeline.importer import import_object

_HINT = "name a pydantic model, a dataclass or a TypedDict (before Python 3.12 that of typing_extensions)"


def read_schema(path: str | Path) -> tuple[Any, TypeAdapter[Any]]:
    """Return the type that `module:attribute` names, or that of a file, with its validator. Raises ImportProblem."""
    if isinstance(path, Path):
        from runner.pipeline.schema_files import read_schema_file

        made = read_schema_file(path)
        return made, TypeAdapter(made)
    schema = import_object(path)
    if inspect.isroutine(schema) or isinstance(schema, functools.partial):
        raise function_as_schema(path)
    if schema is None or isinstance(schema, str):  # pydantic would read them as annotations
        raise unfit_schema(schema)
    try:
        adapter = TypeAdapter(schema)
        if not adapter.pydantic_complete:
            adapter.rebuild(raise_errors=True)
    except PydanticUndefinedAnnotation as error:
        message = f'"{path}" cannot be used: its module does not define "{error.name}"'
        hint = "import it there outside of `if TYPE_CHECKING:`, or correct the name"
        raise ImportProblem("bad-schema", message, hint, is_attribute=True) from error
    except Exception as error:  # pydantic raises various errors for unsupported types
        from runner.pipeline.import_failures import typed_dict_of_typing

        raise typed_dict_of_typing(schema, error) or unfit_schema(schema) from error
    return schema, adapter


def json_schemas(types: Mapping[str, Any], template: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the JSON Schemas of payloads by their names, and the definitions that they refer to as in `template`.

    What JSON Schema cannot describe is left out.
    """
    found: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    names: dict[Path, str] = {}
    adapters: list[tuple[str, Literal["validation"], TypeAdapter[Any]]] = []
    from runner.pipeline.schema_files import schema_file

    for name, schema in types.items():
        if (file := schema_file(schema)) is not None:
            definitions |= file.definitions(template, names)
            found[name] = {"$ref": template.replace("{model}", names[next(iter(file.documents))])}
            continue
        try:
            adapter = TypeAdapter(schema)
            adapter.json_schema()
        except Exception:  # pydantic raises various errors for unsupported types
            continue
        adapters.append((name, "validation", adapter))
    made, common = TypeAdapter.json_schemas(adapters, ref_template=template)
    found |= {name: schema for (name, _), schema in made.items()}
    return found, {**definitions, **common.get("$defs", {})}


def undefined_in_model(annotation: Any) -> ImportProblem | None:
    """Return the problem of a pydantic model, also inside of an annotation, that names a type its module lacks."""
    for item in get_args(annotation):
        found = undefined_in_model(item)
        if found is not None:
            return found
    try:
        getattr(annotation, "model_rebuild", lambda: None)()
    except PydanticUndefinedAnnotation as error:
        name = error.name or ""
        message = f'the model "{annotation.__qualname__}" cannot be used: its module does not define "{name}"'
        place = _place_in(annotation, name)
        from runner.pipeline.import_failures import name_hint

        known = [*vars(sys.modules.get(annotation.__module__, object))]
        hint = name_hint(name, known, place.file if place is not None else None, "in this module")
        return ImportProblem("bad-annotation", message, hint, is_attribute=True, place=place)
    except Exception:  # the model's own code may raise anything
        return None
    return None


def _place_in(model: type, name: str) -> Place | None:
    """Return the place of a name in the source of a class."""
    try:
        lines, first = inspect.getsourcelines(model)
    except (OSError, TypeError):
        return None
    mentions = re.compile(rf"\b{re.escape(name)}\b")
    number = next((index for index, line in enumerate(lines, first) if mentions.search(line)), first)
    return place_of(inspect.getsourcefile(model) or "", number, name)


def function_as_schema(path: str) -> ImportProblem:
    """Return the problem of a function as a schema: pydantic would check its parameters."""
    message = f'"{path}" is a function, and a schema is the type of a payload'
    return ImportProblem("bad-schema", message, _HINT, is_attribute=True)


def unfit_schema(schema: object) -> ImportProblem:
    """Return the problem of an object that payloads cannot be checked against."""
    hint, what = _HINT, f"payloads cannot be checked against {_named(schema)}"
    if isinstance(schema, dict) and schema.keys() & {"$schema", "$ref", "type", "properties", "anyOf"}:
        hint = "write this JSON Schema into a file beside the pipeline, and write `schema: schemas/order.json`"
    return ImportProblem("bad-schema", what, hint, is_attribute=True)


def _named(schema: object) -> str:
    """Return a name for an object, without its content and its address in memory."""
    if isinstance(schema, ast.ClassDef):
        return schema.name
    if isinstance(schema, str):
        return "a text"
    if schema is None or isinstance(schema, bool | int | float) or get_origin(schema) is not None:
        return str(schema)
    return getattr(schema, "__qualname__", None) or f"an object of class {type(schema).__qualname__}"
