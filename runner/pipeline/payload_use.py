"""Finds what cannot work in the source of a handler: attributes that its payload or its message does not have."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any, NamedTuple

from pydantic import BaseModel

from runner.config.messages import closest
from runner.message import Message
from runner.pipeline.import_problems import ImportProblem, Place, is_of_the_user
from runner.pipeline.model import Handler
from runner.pipeline.python_source import parse_python
from runner.tables import filled, read_kind

_COMPLETE = (str, bytes, dict, list, int, float, bool, Message)
"""Types whose objects get no other attributes at run time."""
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_DECODERS = ("decode", "loads", "load", "bytes", "str")


class MissingAttribute(NamedTuple):
    """An attribute that is read and is not there: `text` as it is written, and what may be meant.

    `decoding` is the expression that decodes its value, such as `json.loads(message.body)`.
    """

    text: str
    name: str
    guess: str
    place: Place
    decoding: str


def missing_attributes(call: Callable[..., Any], parameter: str | None, annotation: Any) -> Iterator[MissingAttribute]:
    """Yield the attributes that a function reads of its payload, or of its message, and that no such object has.

    For a model only those that are near to one that it has: it may get others at run time.
    """
    function = inspect.unwrap(call)
    kind = typing.get_origin(annotation) or annotation
    if parameter is None or not inspect.isfunction(function) or not isinstance(kind, type):
        return
    known = {*dir(kind)}
    is_complete = kind in _COMPLETE
    if not is_complete:
        if not (dataclasses.is_dataclass(kind) or issubclass(kind, BaseModel)) or "__getattribute__" in vars(kind):
            return
        known |= {name for base in kind.__mro__ for name in getattr(base, "__annotations__", {})}
    if (definition := definition_of(function)) is None:
        return
    node, above = definition
    for found in _attributes(node, parameter):
        guess = closest(found.attr, [name for name in known if not name.startswith("_")], likeness=0.8)
        if found.attr not in known and (is_complete or guess):
            column = (found.end_col_offset or 0) - len(found.attr) + 1
            line = above + (found.end_lineno or found.lineno)
            place = Place(function.__code__.co_filename, line, column, len(found.attr))
            yield MissingAttribute(f"{parameter}.{found.attr}", found.attr, guess or "", place, _decoding(node, found))


def without_attribute(
    handler: Handler, annotation: Any, found: MissingAttribute, schemas: Mapping[str, Any]
) -> ImportProblem:
    """Return the warning about an attribute, with what to write. `schemas` are those of the messages, by source."""
    kind = typing.get_origin(annotation) or annotation
    named = "a runner.Message" if kind is Message else kind.__name__
    what = f'"{handler.path}" reads "{found.text}", and {named} has no "{found.name}"'
    hint = "annotate it with what the JSON is: a model, a dataclass or dict"
    if kind is Message:
        hint = _of_message(found, handler.message_parameter or "")
        return ImportProblem("payload-attribute", what, hint, place=found.place)
    types = {schema: name for name, schema in schemas.items() if isinstance(schema, type) and schema is not kind}
    if len(types) == 1:
        ((schema, name),) = types.items()
        hint = f'write "{handler.payload_parameter}: {schema.__name__}", which is the schema of "{name}"'
    elif found.guess:
        hint = f'did you mean "{found.guess}"?'
    elif kind is dict:
        hint = f'write {handler.payload_parameter}["{found.name}"]'
    return ImportProblem("payload-attribute", what, hint, place=found.place)


def has_result(call: Callable[..., Any]) -> bool:
    """Whether a function may return a value; true where its source is not known."""
    function = inspect.unwrap(call)
    definition = definition_of(function) if inspect.isfunction(function) and function is call else None
    if definition is None or all(_is_empty(statement) for statement in definition[0].body):  # it is not written yet
        return True
    return any(
        isinstance(node, ast.Yield | ast.YieldFrom) or (isinstance(node, ast.Return) and node.value is not None)
        for node in own_nodes(definition[0])
    )


def own_nodes(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    """Yield what is in a function, without what is in functions and classes in it."""
    waiting: list[ast.AST] = [*definition.body]
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, (*_SCOPES, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)


def _is_empty(statement: ast.stmt) -> bool:
    """Whether a statement does nothing: `pass`, `...` or a docstring."""
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _of_message(found: MissingAttribute, parameter: str) -> str:
    """Return what to write in place of an attribute that messages of other libraries have."""
    rows = read_kind("runner.pipeline", "handler_styles.txt", "message").items()
    known = {word: text for words, text in rows for word in words.split()}
    if found.name in known:
        return filled(known[found.name], {"message": parameter, "value": found.decoding})
    if found.guess:
        return f'did you mean "{found.guess}"?'
    return f"it has {', '.join(item.name for item in dataclasses.fields(Message))}"


def _decoding(node: ast.FunctionDef | ast.AsyncFunctionDef, found: ast.Attribute) -> str:
    """Return the largest expression that only decodes what an attribute has, at least the attribute itself."""
    whole: ast.expr = found
    for call in reversed([item for item in ast.walk(node) if isinstance(item, ast.Call)]):  # from the innermost
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
        if name in _DECODERS and whole in (receiver, *call.args):
            whole = call
    return ast.unparse(whole)


def definition_of(function: FunctionType) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef, int] | None:
    """Return the statement of a function at the top of a module of the user, and how many lines are above it.

    Only the lines of the function are parsed: a module may have many handlers.
    """
    if function.__qualname__ != function.__name__ or not is_of_the_user(function.__code__.co_filename):
        return None
    try:
        lines, first = inspect.getsourcelines(function)
        node = parse_python("".join(lines)).body[0]
    except (OSError, TypeError, SyntaxError, ValueError, IndexError):
        return None
    return (node, first - 1) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None


def _attributes(node: ast.FunctionDef | ast.AsyncFunctionDef, parameter: str) -> list[ast.Attribute]:
    """Return the attributes that a function reads of a parameter; none where the parameter may be something else."""
    inner = [item for statement in node.body for item in ast.walk(statement)]
    for item in inner:
        is_set = isinstance(item, ast.Name) and item.id == parameter and not isinstance(item.ctx, ast.Load)
        is_tested = isinstance(item, ast.Call) and getattr(item.func, "id", "") in ("isinstance", "hasattr", "getattr")
        is_hidden = isinstance(item, ast.arg) and item.arg == parameter
        if is_set or is_tested or is_hidden or isinstance(item, ast.Match):
            return []
    reads = (item for item in inner if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Load))
    return [item for item in reads if isinstance(item.value, ast.Name) and item.value.id == parameter]
