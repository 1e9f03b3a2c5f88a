"""Checks import paths without importing: modules are found and parsed, never run.

What cannot be known from the source (extension modules, `from x import *`, names made at run time) counts as valid.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple

from runner.message import Message
from runner.pipeline.annotations import EMPTY, Unresolved
from runner.pipeline.handler_arguments import convert_arguments
from runner.pipeline.handler_styles import class_as_handler, may_be_handler, required_parameters
from runner.pipeline.import_problems import (
    ImportProblem,
    Place,
    bare_method,
    is_of_the_user,
    missing_attribute,
    missing_module,
    not_python,
    place_of,
)
from runner.pipeline.module_search import find_module
from runner.pipeline.python_source import parse_python
from runner.pipeline.schemas import function_as_schema, unfit_schema
from runner.pipeline.signature import BadArguments, generator_as_factory, plan_call, wrong_manager
from runner.pipeline.static_annotations import Names, read_annotation

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Definition(NamedTuple):
    """The statement that defines the object of an import path, and the names of its module."""

    node: ast.stmt | None
    names: Names


def check_handler(
    path: str,
    arguments: Mapping[str, Any],
    *,
    takes_payload: bool,
    resources: Collection[str] = (),
    is_batch: bool = False,
    variables: Collection[str] = (),
) -> None:
    """Check the path of a handler, and its parameters if it is a plain function.

    Raises ImportProblem and BadArguments, but only if an import would, too.
    """
    node, names = _find_callable(path)
    if takes_payload and isinstance(node, ast.ClassDef) and not node.decorator_list:
        raise _class_as_handler(path, node)
    if not isinstance(node, _FUNCTIONS):
        return
    parameters = _parameters(node.args, names)
    errors = []
    for assumed in _assumptions(parameters, is_batch=is_batch):
        try:
            plan_call(path, assumed, arguments, resources, takes_payload=takes_payload, is_batch=is_batch)
            break
        except ImportProblem as error:
            errors.append(error)
    else:
        raise errors[-1]
    _, mismatches = convert_arguments(parameters, arguments, variables)
    if mismatches:
        raise BadArguments(path, mismatches)


def definition_place(path: str, parameter: str = "") -> Place | None:
    """Return the place of the name of a function or class, or of one of its parameters; None if that is not certain."""
    try:
        node = _find_callable(path).node
        file = _find_module(path.partition(":")[0]).origin
    except ImportProblem:
        return None
    if file is None or not isinstance(node, (*_FUNCTIONS, ast.ClassDef)) or not is_of_the_user(file):
        return None
    if isinstance(node, _FUNCTIONS):
        given = node.args
        parameters = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
        found = next((item for item in parameters if item is not None and item.arg == parameter), None)
        if found is not None:
            return place_of(file, found.lineno, parameter)
    return place_of(file, node.lineno, node.name)


def _class_as_handler(path: str, node: ast.ClassDef) -> ImportProblem:
    functions = {item.name: item for item in node.body if isinstance(item, _FUNCTIONS)}
    constructor = functions.get("__init__")
    required: list[str] = []
    if constructor is not None:
        parameters = _parameters(constructor.args, Names.none()).values()
        required = required_parameters({item.name: item for item in [*parameters][1:]})
    return class_as_handler(path, required, [name for name in functions if may_be_handler(name)])


def check_factory(path: str, arguments: Mapping[str, Any] | None = None, variables: Collection[str] = ()) -> None:
    """Check a factory like a handler, and that it is not a plain generator function."""
    node, _ = _find_callable(path)
    check_handler(path, arguments or {}, takes_payload=False, variables=variables)
    decorated = _walk(path)[-1].node
    for item in decorated.decorator_list if isinstance(decorated, ast.AsyncFunctionDef) else ():
        if ast.unparse(item) in ("contextmanager", "contextlib.contextmanager"):
            file = _find_module(path.partition(":")[0]).origin
            raise wrong_manager(path, place_of(file, item.lineno) if file else None)
    if isinstance(node, _FUNCTIONS) and _yields(node.body):
        raise generator_as_factory(path, is_async=isinstance(node, ast.AsyncFunctionDef))


def _assumptions(
    parameters: Mapping[str, inspect.Parameter], *, is_batch: bool
) -> Iterator[Mapping[str, inspect.Parameter]]:
    """Yield the possible parameters: each annotation that is not known may be `runner.Message`."""
    yield parameters
    wanted = list[Message] if is_batch else Message
    for name, parameter in parameters.items():
        if isinstance(parameter.annotation, Unresolved):
            yield {**parameters, name: parameter.replace(annotation=wanted)}


def _yields(nodes: Iterable[ast.AST]) -> bool:
    """Whether any of these nodes yields, without the bodies of inner functions and classes."""
    inner = (*_FUNCTIONS, ast.ClassDef, ast.Lambda)
    return any(
        isinstance(node, ast.Yield | ast.YieldFrom)
        or (not isinstance(node, inner) and _yields(ast.iter_child_nodes(node)))
        for node in nodes
    )


def check_schema(path: str | Path) -> None:
    """Check the path of a schema: not a function, a value or a class without fields. Raises ImportProblem."""
    if isinstance(path, Path):
        from runner.pipeline.schema_files import read_schema_file

        read_schema_file(path)
        return
    match find_definition(path).node:
        case ast.FunctionDef(decorator_list=[]) | ast.AsyncFunctionDef(decorator_list=[]):
            raise function_as_schema(path)
        case ast.Assign(value=ast.Constant(value=value)):
            raise unfit_schema(value)
        case ast.ClassDef(bases=[], keywords=[], decorator_list=[]) as made if not any(map(_tells_pydantic, made.body)):
            raise unfit_schema(made)


def _tells_pydantic(statement: ast.stmt) -> bool:
    """Whether a statement in a class can make it a type that pydantic supports."""
    return isinstance(statement, _FUNCTIONS) and statement.name.startswith("__get_")


def find_definition(path: str) -> Definition:
    """Return the definition of `module:attribute`, without a statement if only running the code would tell.

    Raises ImportProblem for a module that is not found or cannot be parsed, and for an undefined name.
    """
    return _walk(path)[-1]


def _find_callable(path: str) -> Definition:
    """Return the definition of a handler or factory. Raises ImportProblem for a method without an object."""
    *_, owner, found = (Definition(None, Names.none()), *_walk(path))
    node = found.node
    if not isinstance(node, _FUNCTIONS):
        return found
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    if not isinstance(owner.node, ast.ClassDef):
        return found if not decorators else Definition(None, found.names)
    if not decorators:
        raise bare_method(path, owner.node.name)
    return found if decorators == ["staticmethod"] else Definition(None, found.names)


def _walk(path: str) -> list[Definition]:
    """Return the definitions of the attributes of an import path, one after the other."""
    module, _, attributes = path.partition(":")
    names, file = _read(module)
    found: list[Definition] = []
    inner, before = names, ""
    for attribute in attributes.split("."):
        may_be_set = f"{before}{attribute}" in names.assigned
        if attribute not in inner.made and inner.is_complete and not may_be_set:
            known = [f"{before}{name}" for name in inner.made if not name.startswith("_")]
            has_more = attributes != f"{before}{attribute}"
            raise missing_attribute(module, f"{before}{attribute}", known, file, has_more=has_more)
        node = None if may_be_set else inner.made.get(attribute)
        found.append(Definition(node, names))
        if not isinstance(node, ast.ClassDef):
            break
        inner, before = _made_in(node), f"{before}{attribute}."
    is_whole = len(found) == attributes.count(".") + 1
    return found if is_whole else [Definition(None, names)]


def _made_in(node: ast.ClassDef) -> Names:
    """Return the names of a class, none if a decorator or a metaclass may change them."""
    if node.keywords or node.decorator_list:
        return Names.none()
    made, is_complete = _names(node.body)
    return Names({**dict.fromkeys(dir(type)), **made}, is_complete and not node.bases)


def _read(module: str) -> tuple[Names, str | None]:
    """Return the names of a module and its file; no names without source."""
    spec = _find_module(module)
    file = spec.origin
    if file is None or not file.endswith(".py"):
        return Names.none(), file
    tree = _parse(module, file)
    package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
    stored = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    return Names(*_names(tree.body), package, frozenset(map(ast.unparse, stored))), file


def _find_module(name: str) -> ModuleSpec:
    """Find a module like an import, parents first, without running code."""
    partial, spec = list(find_module(name, sys.path))[-1]
    if spec is None:
        raise missing_module(name, partial)
    return spec


def _parse(module: str, file: str) -> ast.Module:
    try:
        return parse_python(Path(file).read_bytes(), file)
    except (SyntaxError, ValueError, OSError) as error:
        raise not_python(module, file, error) from None


def _names(body: Sequence[ast.stmt]) -> tuple[dict[str, ast.stmt | None], bool]:
    """Return the names that a module or class defines, with their statements, and whether they are complete.

    A name that is defined twice, as in `try: … except ImportError: …`, has no statement.
    """
    names: dict[str, ast.stmt | None] = {}
    is_complete = True
    for statement in _statements(body):
        made: dict[str, ast.stmt | None] = {}
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                made[statement.name] = statement
                is_complete = is_complete and statement.name != "__getattr__"
            case ast.Import() | ast.ImportFrom():
                for alias in statement.names:
                    is_complete = is_complete and alias.name != "*"
                    made[alias.asname or alias.name.partition(".")[0]] = statement
            case ast.Global():
                is_complete = False
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant()):
                made[name] = statement
            case _:
                made = dict.fromkeys(_stored(statement))
        names.update({name: None if name in names else statement for name, statement in made.items()})
    return names, is_complete


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, also those in `if`, `try`, `with` and loops."""
    for statement in body:
        yield statement
        is_main = isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'"
        for part in ("orelse",) if is_main else ("body", "orelse", "finalbody"):
            if not isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
                yield from _statements(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _stored(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement assigns."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _parameters(arguments: ast.arguments, names: Names) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function, with their annotations as far as the source tells."""

    def parameter(argument: ast.arg, kind: Any, *, has_default: bool) -> inspect.Parameter:
        annotation = read_annotation(argument.annotation, names, _imported_from)
        return inspect.Parameter(argument.arg, kind, default=None if has_default else EMPTY, annotation=annotation)

    positional = [*arguments.posonlyargs, *arguments.args]
    without_default = len(positional) - len(arguments.defaults)
    found = []
    for index, argument in enumerate(positional):
        is_posonly = index < len(arguments.posonlyargs)
        kind = inspect.Parameter.POSITIONAL_ONLY if is_posonly else inspect.Parameter.POSITIONAL_OR_KEYWORD
        found.append(parameter(argument, kind, has_default=index >= without_default))
    if arguments.vararg:
        found.append(parameter(arguments.vararg, inspect.Parameter.VAR_POSITIONAL, has_default=False))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append(parameter(argument, inspect.Parameter.KEYWORD_ONLY, has_default=default is not None))
    if arguments.kwarg:
        found.append(parameter(arguments.kwarg, inspect.Parameter.VAR_KEYWORD, has_default=False))
    return {parameter.name: parameter for parameter in found}


def _imported_from(statement: ast.ImportFrom, names: Names) -> Names:
    """Return the names of the module that a statement imports from, none if they are not known."""
    module = statement.module or ""
    try:
        if statement.level:
            module = importlib.util.resolve_name("." * statement.level + module, names.package)
        return _read(module)[0]
    except (ImportProblem, ImportError):
        return Names.none()
