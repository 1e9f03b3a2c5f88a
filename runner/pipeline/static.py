"""Turns an import path into exact blame without importing anything: modules are found and parsed, never run.

What source alone cannot tell (extension modules, `from x import *`, names made at run time) is taken to be right.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from runner.message import Message
from runner.pipeline.importing import missing_attribute, missing_module, module_failed, shown
from runner.pipeline.modules import find_module
from runner.pipeline.schemas import function_as_schema, unfit_schema
from runner.pipeline.signature import check_parameters, generator_as_factory

_MESSAGES = {
    "Message": Message,
    "runner.Message": Message,
    "list[Message]": list[Message],
    "list[runner.Message]": list[Message],
}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def check_handler(
    path: str,
    arguments: Mapping[str, Any],
    *,
    takes_payload: bool,
    resources: Collection[str] = (),
    is_batch: bool = False,
) -> None:
    """Check a handler's path, and its parameters where it is a plain function. Raises ImportBlame."""
    node = find(path)
    if isinstance(node, _FUNCTIONS):
        parameters = _parameters(node.args)
        given = {**arguments, **{name: None for name in parameters if name in resources}}
        check_parameters(path, parameters, given, takes_payload=takes_payload, is_batch=is_batch)


def check_factory(path: str) -> None:
    """Check a factory's path, and that it is no bare generator function. Raises ImportBlame."""
    node = find(path)
    if isinstance(node, _FUNCTIONS) and _yields(node.body):
        raise generator_as_factory(path, is_async=isinstance(node, ast.AsyncFunctionDef))


def _yields(nodes: Iterable[ast.AST]) -> bool:
    """Whether any of these yields; what is inside of other functions and classes is theirs."""
    inner = (*_FUNCTIONS, ast.ClassDef, ast.Lambda)
    return any(
        isinstance(node, ast.Yield | ast.YieldFrom)
        or (not isinstance(node, inner) and _yields(ast.iter_child_nodes(node)))
        for node in nodes
    )


def check_schema(path: str) -> None:
    """Check a schema's path, and that it names no function, value or class without fields. Raises ImportBlame."""
    match find(path):
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            raise function_as_schema(path)
        case ast.Assign(value=ast.Constant(value=value)):
            raise unfit_schema(value)
        case ast.ClassDef(bases=[], keywords=[]) as made if not any(map(_tells_pydantic, made.body)):
            raise unfit_schema(made)


def _tells_pydantic(statement: ast.stmt) -> bool:
    """Whether a statement of a class can make it a type that pydantic knows."""
    return isinstance(statement, _FUNCTIONS) and statement.name.startswith("__get_")


def find(path: str) -> ast.stmt | None:
    """Return the statement that makes what `module:attribute` names, None where only running would tell.

    Raises ImportBlame for a module that is nowhere or cannot be parsed, and for a name that it does not make.
    """
    module, _, attribute = path.partition(":")
    spec = _find_module(module)
    file = spec.origin
    if file is None or not file.endswith(".py"):
        return None
    names, is_complete = _names(_parse(module, file))
    if attribute in names:
        return names[attribute]
    if is_complete:
        raise missing_attribute(module, attribute, names, file)
    return None


def _find_module(name: str) -> ModuleSpec:
    """Find a module as an import would, parents first, without running them."""
    partial, spec = list(find_module(name, sys.path))[-1]
    if spec is None:
        raise missing_module(name, partial)
    return spec


def _parse(module: str, file: str) -> ast.Module:
    try:
        return ast.parse(Path(file).read_bytes(), file)
    except (SyntaxError, ValueError, OSError) as error:
        line = getattr(error, "lineno", None)
        place = f"{shown(file)}:{line}" if line else shown(file)
        raise module_failed(module, f"{type(error).__name__}: {getattr(error, 'msg', error)}", place) from None


def _names(module: ast.Module) -> tuple[dict[str, ast.stmt | None], bool]:
    """Return the names a module makes at its top level, and whether these are surely all.

    One that is made twice, as in `try: … except ImportError: …`, may be either.
    """
    names: dict[str, ast.stmt | None] = {}
    is_complete = True
    for statement in _statements(module.body):
        made: dict[str, ast.stmt | None] = {}
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                made[statement.name] = None if statement.decorator_list else statement
                is_complete = is_complete and statement.name != "__getattr__"
            case ast.Import() | ast.ImportFrom():
                for alias in statement.names:
                    is_complete = is_complete and alias.name != "*"
                    made[alias.asname or alias.name.partition(".")[0]] = None
            case ast.Global():
                is_complete = False
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant()):
                made[name] = statement
            case _:
                made = dict.fromkeys(_stored(statement))
        names.update({name: None if name in names else statement for name, statement in made.items()})
    return names, is_complete


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, also those inside `if`, `try`, `with` and loops."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
                yield from _statements(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _stored(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement assigns."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _parameters(arguments: ast.arguments) -> dict[str, inspect.Parameter]:
    """Return a function's parameters; of the annotations only `Message` is known."""
    positional = [*arguments.posonlyargs, *arguments.args]
    without_default = len(positional) - len(arguments.defaults)
    found = []
    for index, argument in enumerate(positional):
        is_posonly = index < len(arguments.posonlyargs)
        kind = inspect.Parameter.POSITIONAL_ONLY if is_posonly else inspect.Parameter.POSITIONAL_OR_KEYWORD
        found.append(_parameter(argument, kind, has_default=index >= without_default))
    if arguments.vararg:
        found.append(_parameter(arguments.vararg, inspect.Parameter.VAR_POSITIONAL, has_default=False))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append(_parameter(argument, inspect.Parameter.KEYWORD_ONLY, has_default=default is not None))
    if arguments.kwarg:
        found.append(_parameter(arguments.kwarg, inspect.Parameter.VAR_KEYWORD, has_default=False))
    return {parameter.name: parameter for parameter in found}


def _parameter(argument: ast.arg, kind: Any, *, has_default: bool) -> inspect.Parameter:
    empty = inspect.Parameter.empty
    annotation = empty if argument.annotation is None else _MESSAGES.get(_text(argument.annotation), empty)
    return inspect.Parameter(argument.arg, kind, default=None if has_default else empty, annotation=annotation)


def _text(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value
    return ast.unparse(annotation)
