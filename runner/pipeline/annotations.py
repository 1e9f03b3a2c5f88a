"""What parameters are annotated with: each annotation is resolved for itself, and `runner.Message` is found in it."""

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

EMPTY = inspect.Parameter.empty

_LISTS = (list, Sequence, Collection, Iterable)
"""What a handler of batches may call the list that it gets."""

_RUNNER = types.SimpleNamespace(Message=Message, message=types.SimpleNamespace(Message=Message))


class Unresolved(NamedTuple):
    """Stands for an annotation that cannot be resolved, and says why; "" where nothing was run to find out."""

    reason: str


def read_parameters(call: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a callable. An annotation that cannot be resolved is `Unresolved`, and harms no other.

    Raises ValueError or TypeError, or whatever an annotation raises, where there is no signature.
    """
    function = _function_behind(call)
    return {
        name: parameter.replace(annotation=_resolved(parameter.annotation, function))
        for name, parameter in read_signature(call).parameters.items()
    }


def read_signature(call: Callable[..., Any], *, follow_wrapped: bool = True) -> inspect.Signature:
    """Return the signature of a callable, or of what decorators have wrapped; annotations are as they are written."""
    if sys.version_info >= (3, 14):  # annotations are evaluated when they are asked for, and names may be missing
        from annotationlib import Format

        return inspect.signature(call, follow_wrapped=follow_wrapped, annotation_format=Format.FORWARDREF)
    return inspect.signature(call, follow_wrapped=follow_wrapped)


def kind_of_message(annotation: Any) -> Literal["one", "many"] | None:
    """Return whether an annotation asks for one message, for a list of them, or (None) for something else."""
    bare = without_wrapping(annotation)
    if bare is Message:
        return "one"
    is_list = typing.get_origin(bare) in _LISTS and without_wrapping(typing.get_args(bare)[0]) is Message
    return "many" if is_list else None


def mentions_message(annotation: Any) -> bool:
    """Return whether `runner.Message` stands anywhere in an annotation."""
    return annotation is Message or any(mentions_message(item) for item in typing.get_args(annotation))


def item_of(annotation: Any) -> Any:
    """Return what each item of a list annotated so is, EMPTY where that is not said; None for what is no list."""
    bare = without_wrapping(annotation)
    if bare in (EMPTY, Any, object, *_LISTS):
        return EMPTY
    return typing.get_args(bare)[0] if typing.get_origin(bare) in _LISTS else None


def without_wrapping(annotation: Any) -> Any:
    """Return what stands inside of `Annotated[…]`, `Optional[…]` and type aliases."""
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
    """Yield the names by which an import statement makes `runner.Message` known, with what each stands for."""
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
    """Return the function whose parameters a callable has: decorators, partials, objects and classes wrap one."""
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
    """Return an annotation with the names in its texts looked up; Unresolved where that fails."""
    if annotation is EMPTY or isinstance(annotation, type):
        return annotation
    scope = function.__globals__ if function is not None else {}
    local = {item.__name__: item for item in getattr(function, "__type_params__", ())}
    try:
        return _evaluated(annotation, scope, local)
    except NameError as error:
        return _resolved_for_checkers(annotation, scope, local, error)
    except Exception as error:  # evaluating annotations runs foreign code
        return Unresolved(str(error))


def _resolved_for_checkers(annotation: Any, scope: dict[str, Any], local: dict[str, Any], error: NameError) -> Any:
    """Resolve an annotation whose `Message` is imported under TYPE_CHECKING only, where linters move it."""
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
    """Return the names by which the source of a module knows `runner.Message`, with what they stand for."""
    try:
        tree = ast.parse(Path(file or "").read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {}
    statements = (node for node in ast.walk(tree) if isinstance(node, ast.stmt))
    return dict(found for statement in statements for found in message_bound_by(statement))
