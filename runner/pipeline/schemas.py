"""Turns the import path of a schema into the type and its validator, or into exact blame."""

from __future__ import annotations

import ast
import functools
import inspect
from typing import Any, get_origin

from pydantic import PydanticUndefinedAnnotation, TypeAdapter

from runner.pipeline.importer import ImportProblem, import_object

_HINT = "name a pydantic model, a dataclass or a TypedDict (before Python 3.12 that of typing_extensions)"


def read_schema(path: str) -> tuple[Any, TypeAdapter[Any]]:
    """Import what `module:attribute` names; return it with its validator. Raises ImportProblem for what is no type."""
    schema = import_object(path)
    if inspect.isroutine(schema) or isinstance(schema, functools.partial):
        raise function_as_schema(path)
    if schema is None or isinstance(schema, str):  # pydantic reads them as annotations: nothing, and a name
        raise unfit_schema(schema)
    try:
        adapter = TypeAdapter(schema)
        if not adapter.pydantic_complete:
            adapter.rebuild(raise_errors=True)
    except PydanticUndefinedAnnotation as error:
        message = f'"{path}" cannot be used: its module does not define "{error.name}"'
        hint = "import it there outside of `if TYPE_CHECKING:`, or correct the name"
        raise ImportProblem("bad-schema", message, hint, is_attribute=True) from error
    except Exception as error:  # pydantic raises several kinds for types that it cannot handle
        raise unfit_schema(schema) from error
    return schema, adapter


def function_as_schema(path: str) -> ImportProblem:
    """Return the blame for a function: pydantic would check its parameters, and no payload is a call."""
    message = f'"{path}" is a function, and a schema is the type of a payload'
    return ImportProblem("bad-schema", message, _HINT, is_attribute=True)


def unfit_schema(schema: object) -> ImportProblem:
    """Return the blame for anything else that payloads cannot be checked against."""
    return ImportProblem("bad-schema", f"payloads cannot be checked against {_named(schema)}", _HINT, is_attribute=True)


def _named(schema: object) -> str:
    """Return what something is called: never the text it holds, nor where it is in memory."""
    if isinstance(schema, ast.ClassDef):
        return schema.name
    if isinstance(schema, str):
        return "a text"
    if schema is None or isinstance(schema, bool | int | float):
        return str(schema)
    if get_origin(schema) is not None:
        return str(schema)
    return getattr(schema, "__qualname__", None) or f"an object of class {type(schema).__qualname__}"
