"""Imports schemas and makes their validators."""

from __future__ import annotations

import ast
import functools
import inspect
from typing import Any, get_origin

from pydantic import PydanticUndefinedAnnotation, TypeAdapter

from runner.pipeline.importer import ImportProblem, import_object

_HINT = "name a pydantic model, a dataclass or a TypedDict (before Python 3.12 that of typing_extensions)"


def read_schema(path: str) -> tuple[Any, TypeAdapter[Any]]:
    """Import the type that `module:attribute` names. Return it with its validator. Raises ImportProblem."""
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
        raise unfit_schema(schema) from error
    return schema, adapter


def function_as_schema(path: str) -> ImportProblem:
    """Return the problem of a function as a schema: pydantic would check its parameters."""
    message = f'"{path}" is a function, and a schema is the type of a payload'
    return ImportProblem("bad-schema", message, _HINT, is_attribute=True)


def unfit_schema(schema: object) -> ImportProblem:
    """Return the problem of an object that payloads cannot be checked against."""
    return ImportProblem("bad-schema", f"payloads cannot be checked against {_named(schema)}", _HINT, is_attribute=True)


def _named(schema: object) -> str:
    """Return a name for an object, without its content and its address in memory."""
    if isinstance(schema, ast.ClassDef):
        return schema.name
    if isinstance(schema, str):
        return "a text"
    if schema is None or isinstance(schema, bool | int | float):
        return str(schema)
    if get_origin(schema) is not None:
        return str(schema)
    return getattr(schema, "__qualname__", None) or f"an object of class {type(schema).__qualname__}"
