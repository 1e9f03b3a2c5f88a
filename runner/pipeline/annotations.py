"""The annotations of parameters. Each is resolved on its own, so one that cannot be resolved does not affect others."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from runner.message import Message
from runner.pipeline.python_source import parse_python

EMPTY = inspect.Parameter.empty

_LISTS = (list, Sequence, Collection, Iterable)
"""The types that a handler of batches may annotate its list with."""

_RUNNER = types.SimpleNamespace(Message=Message, message=types.SimpleNamespace(Message=Message))


class Unresolved(NamedTuple):
    """An annotation that cannot be resolved, with the reason; "" if no code was run to resolve it."""

    reason: str


def read_parameters(call: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a callable. Annotations that cannot be resolved are `Unresolved`.

    Raises ValueError or TypeError if there is no signature, or the error of an annotation.
    """
    function = _function_behind(call)
    return {
        name: parameter.replace(annotation=_resolved(parameter.annotation, function))
        for name, parameter in read_signature(call).parameters.items()
    }


def read_signature(call: Callable[..., Any], *, follow_wrapped: bool = True) -> inspect.Signature:
    """Return the signature of a callable or of the function that its decorators wrap, with unresolved annotations."""
    if sys.version_info >= (3, 14):  # annotations are evaluated lazily, and names may be missing
        from annotationlib import Format

        return inspect.signature(call, follow_wrapped=follow_wrapped, annotation_format=Format.FORWARDREF)
    try:
        return inspect.signature(call, follow_wrapped=follow_wrapped)
    except TypeError:
        if inspect.isfunction(call) or not hasattr(call, "__code__"):
            raise
        # An AsyncMock, which Python 3.11.2 takes for a function.
        return inspect.signature(type(call).__call__.__get__(call))


def kind_of_message(annotation: Any) -> Literal["one", "many"] | None:
    """Return "one" for the annotation of a message, "many" for that of a list of messages, None for others."""
    bare = without_wrapping(annotation)
    if bare is Message:
        return "one"
    is_list = typing.get_origin(bare) in _LISTS and without_wrapping(typing.get_args(bare)[0]) is Message
    return "many" if is_list else None


def mentions_message(annotation: Any) -> bool:
    """Whether an annotation contains `runner.Message`."""
    return annotation is Message or any(mentions_message(item) for item in typing.get_args(annotation))


def item_of(annotation: Any) -> Any:
    """Return the type of the items of a list, EMPTY if the annotation has none, None if it is not a list."""
    bare = without_wrapping(annotation)
    if bare in (EMPTY, Any, object, *_LISTS):
        return EMPTY
    return typing.get_args(bare)[0] if typing.get_origin(bare) in _LISTS else None


def without_wrapping(annotation: Any) -> Any:
    """Return the type inside `Annotated[…]`, `Optional[…]` and type aliases."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            others = [item for item in typing.get_args(annotation) if item is not types.NoneType]
            if len(others) != 1:
                return annotation
            annotation = others[0]
        elif type(annotation).__name__ == "TypeAliasType":  # `type X = …`, from Python 3.12 on
            annotation = annotation.__value__
        else:
            return annotation


def message_bound_by(statement: ast.stmt) -> Iterator[tuple[str, Any]]:
    """Yield the names that an import statement binds to `runner.Message` or a module with it, and their values."""
    match statement:
        case ast.ImportFrom(module="runner" | "runner.message", level=0):
            for alias in statement.names:
                if alias.name == "Message":
                    yield alias.asname or alias.name, Message
        case ast.Import():
            for alias in statement.names:
                if alias.name == "runner" or (alias.name == "runner.message" and alias.asname is None):
                    yield alias.asname or "runner", _RUNNER
                elif alias.name == "runner.message":
                    yield alias.asname or alias.name, _RUNNER.message


def _function_behind(call: Any) -> types.FunctionType | None:
    """Return the function inside a callable: under decorators and partials, or a method of an object or a class."""
    seen: set[int] = set()
    while id(call) not in seen:
        seen.add(id(call))
        if isinstance(call, functools.partial):
            call = call.func
        elif inspect.ismethod(call):
            call = call.__func__
        elif hasattr(call, "__wrapped__") and not inspect.isclass(call):
            call = call.__wrapped__
        elif isinstance(call, types.FunctionType):
            return call
        elif inspect.isclass(call):
            call = call.__init__ if isinstance(call.__init__, types.FunctionType) else call.__new__
        else:
            call = type(call).__call__
    return None


def _resolved(annotation: Any, function: types.FunctionType | None) -> Any:
    """Return an annotation with the names in its strings resolved, Unresolved if that fails."""
    if annotation is EMPTY or isinstance(annotation, type):
        return annotation
    scope = function.__globals__ if function is not None else {}
    local = {item.__name__: item for item in getattr(function, "__type_params__", ())}
    try:
        return _evaluated(annotation, scope, local)
    except NameError as error:
        return _resolved_for_checkers(annotation, scope, local, error)
    except Exception as error:  # the evaluation runs the user's code
        return Unresolved(str(error))


def _resolved_for_checkers(annotation: Any, scope: dict[str, Any], local: dict[str, Any], error: NameError) -> Any:
    """Resolve an annotation whose `Message` is imported under TYPE_CHECKING, where linters move it."""
    names = _messages_in(scope.get("__file__"))
    try:
        return _evaluated(annotation, scope, {**names, **local}) if names else Unresolved(str(error))
    except Exception:  # as in `_resolved`
        return Unresolved(str(error))


def _evaluated(annotation: Any, scope: dict[str, Any], local: Mapping[str, Any]) -> Any:
    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    return typing.get_type_hints(holder, scope, dict(local), include_extras=True)["it"]


@functools.lru_cache
def _messages_in(file: str | None) -> Mapping[str, Any]:
    """Return the names that the source of a module binds to `runner.Message`, and their values."""
    try:
        tree = parse_python(Path(file or "").read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {}
    statements = (node for node in ast.walk(tree) if isinstance(node, ast.stmt))
    return dict(found for statement in statements for found in message_bound_by(statement))
