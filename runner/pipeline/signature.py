"""Turns a user's function into a Handler: what it wants, how it is called, or what is wrong with its parameters."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from runner.message import Message
from runner.pipeline import payload
from runner.pipeline.importing import ImportBlame
from runner.pipeline.model import Handler

Kind = Literal["function", "coroutine", "generator", "async generator"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def read_handler(
    path: str,
    call: Any,
    arguments: Mapping[str, Any],
    *,
    takes_payload: bool,
    resources: Collection[str] = (),
    is_batch: bool = False,
) -> Handler:
    """Return the handler behind a callable. `takes_payload` is false for producers, which get only their arguments.

    A parameter named like one of the `resources` gets it. The handler of a batch takes lists.

    Raises ImportBlame: not callable, wrong parameters, an annotation that nothing can be converted to.
    """
    if not callable(call):
        hint = "name a function, or an object that can be called"
        raise ImportBlame("not-callable", f'"{path}" is not callable: it is {_article(call)}', hint, is_attribute=True)
    parameters = _parameters(path, call)
    wanted = tuple(name for name in parameters if name in resources and name not in arguments)
    provided = {**arguments, **dict.fromkeys(wanted)}
    message_parameter, payload_parameter = check_parameters(
        path, parameters, provided, takes_payload=takes_payload, is_batch=is_batch
    )
    annotation = parameters[payload_parameter].annotation if payload_parameter else inspect.Parameter.empty
    if is_batch:
        annotation = _item_annotation(path, annotation)
    return Handler(
        path=path,
        call=call,
        kind=_kind(call),
        decode=_decoder(path, annotation),
        takes_payload=payload_parameter is not None,
        message_parameter=message_parameter,
        arguments=dict(arguments),
        resources=wanted,
    )


def read_factory(path: str, call: Any, arguments: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the callable that makes a resource. Raises ImportBlame as `read_handler` does, and for a generator."""
    factory = read_handler(path, call, arguments, takes_payload=False)
    if factory.kind in ("generator", "async generator"):
        raise generator_as_factory(path, is_async=factory.is_async)
    return factory.call


def generator_as_factory(path: str, *, is_async: bool) -> ImportBlame:
    """Return the blame for a function that yields: handlers would get the generator itself."""
    hint = f"put `@contextlib.{'asynccontextmanager' if is_async else 'contextmanager'}` above it"
    return ImportBlame("bad-factory", f'"{path}" is a generator, not a context manager', hint, is_attribute=True)


def check_parameters(
    path: str,
    parameters: Mapping[str, inspect.Parameter],
    arguments: Mapping[str, Any],
    *,
    takes_payload: bool,
    is_batch: bool = False,
) -> tuple[str | None, str | None]:
    """Return the names of the parameters for the `Message` and for the payload. Raises ImportBlame.

    `arguments` are all that is given by name: from `with:`, and resources.
    """
    message_parameter = _message_parameter(path, parameters, is_batch=is_batch)
    payload_parameter = _payload_parameter(path, parameters, arguments, message_parameter) if takes_payload else None
    taken = {name for name in (message_parameter, payload_parameter) if name is not None}
    _check_rest(path, parameters, arguments, taken, takes_payload=takes_payload)
    return message_parameter, payload_parameter


def payload_annotation(call: Callable[..., Any], handler: Handler, *, is_batch: bool = False) -> Any:
    """Return what the payload (of a batch: each) is annotated with, `inspect.Parameter.empty` if nothing."""
    for name, parameter in _parameters(handler.path, call).items():
        is_given = name in handler.arguments or name in handler.resources or name == handler.message_parameter
        if handler.takes_payload and not is_given:
            return _item_annotation(handler.path, parameter.annotation) if is_batch else parameter.annotation
    return inspect.Parameter.empty


def _parameters(path: str, call: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters with their annotations evaluated (they are strings under `from __future__`)."""
    try:
        signature = inspect.signature(call)
    except (ValueError, TypeError):
        hint = "wrap it in a function of your own"
        raise ImportBlame(
            "bad-signature", f'the parameters of "{path}" cannot be read', hint, is_attribute=True
        ) from None
    target = call if inspect.isroutine(call) or inspect.isclass(call) else type(call).__call__
    try:
        hints = typing.get_type_hints(target, include_extras=True)
    except Exception as error:  # evaluating annotations runs foreign code
        hint = "import what the annotation names at the top of the module"
        message = f'an annotation of "{path}" cannot be resolved: {error}'
        raise ImportBlame("bad-annotation", message, hint, is_attribute=True) from None
    return {
        name: parameter.replace(annotation=hints.get(name, parameter.annotation))
        for name, parameter in signature.parameters.items()
    }


def _message_parameter(path: str, parameters: Mapping[str, inspect.Parameter], *, is_batch: bool) -> str | None:
    kinds = {name: _kind_of_message(parameter.annotation) for name, parameter in parameters.items()}
    names = [name for name, kind in kinds.items() if kind is not None]
    if names and kinds[names[0]] != ("many" if is_batch else "one"):
        wanted = "list[runner.Message]" if is_batch else "runner.Message"
        what = f'wants one message in "{names[0]}", and a batch has a list of them'
        if not is_batch:
            what = f'wants a list of messages in "{names[0]}", and gets one at a time'
        raise _wrong(path, what, f"annotate it with `{wanted}`")
    if len(names) > 1:
        raise _wrong(path, f"has {len(names)} parameters annotated `runner.Message`", "keep one of them")
    if names and parameters[names[0]].kind is inspect.Parameter.POSITIONAL_ONLY:
        raise _wrong(path, f'takes "{names[0]}" by position only', "remove the `/` from its parameters")
    return names[0] if names else None


def _kind_of_message(annotation: Any) -> str | None:
    """Return whether an annotation asks for one message, for many, or (None) for something else."""
    if annotation is Message:
        return "one"
    is_list = typing.get_origin(annotation) is list and typing.get_args(annotation) == (Message,)
    return "many" if is_list else None


def _item_annotation(path: str, annotation: Any) -> Any:
    """Return what each payload of a batch is converted to: the item of `list[…]`, or nothing for a bare `list`."""
    if annotation in (inspect.Parameter.empty, Any, list):
        return inspect.Parameter.empty
    if typing.get_origin(annotation) is list:
        return typing.get_args(annotation)[0]
    raise _wrong(path, "takes one payload, and a batch is a list of them", "annotate it as in `orders: list[Order]`")


def _payload_parameter(
    path: str, parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any], message_parameter: str | None
) -> str | None:
    for name, parameter in parameters.items():
        if name == message_parameter or name in arguments:
            continue
        if parameter.kind in _POSITIONAL:
            return name
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return name
    if message_parameter is None:
        given = next((name for name, item in parameters.items() if name in arguments and item.kind in _POSITIONAL), "")
        if given:
            what = f'has no parameter left for the payload: "{given}" is given by name'
            raise _wrong(path, what, f'remove "{given}" from `with:`, or add a parameter')
        raise _wrong(path, "takes no parameter for the payload", "its first parameter gets the payload")
    return None


def _check_rest(
    path: str,
    parameters: Mapping[str, inspect.Parameter],
    arguments: Mapping[str, Any],
    taken: set[str],
    *,
    takes_payload: bool,
) -> None:
    """Check that everything the function needs is given, and everything given is wanted."""
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in arguments:
        if name not in parameters and not takes_any:
            raise _wrong(
                path, f'has no parameter "{name}", which `with:` passes', "correct the name, or remove it from `with:`"
            )
    for name, parameter in parameters.items():
        is_given = name in taken or name in arguments
        if is_given or parameter.default is not inspect.Parameter.empty or parameter.kind in _VARIADIC:
            continue
        what = f'needs "{name}", which nothing provides'
        help_ = f"give it a default, or a value by `with: {{{name}: …}}`"
        if takes_payload:
            help_ = f"{help_}, or declare the resource `{name}`"
        else:
            help_ = f"it is called without a payload: {help_}"
        raise _wrong(path, what, help_)


def _decoder(path: str, annotation: Any) -> payload.Decode:
    try:
        return payload.decoder(annotation)
    except Exception as error:  # pydantic raises several kinds for types that it cannot handle
        shown = getattr(annotation, "__qualname__", None) or str(annotation)
        hint = "annotate it with a pydantic model, a dataclass, a TypedDict, dict, list, str or bytes"
        message = f'no payload of "{path}" can be converted to its annotation {shown}'
        raise ImportBlame("bad-annotation", message, hint, is_attribute=True) from error


def _kind(call: Callable[..., Any]) -> Kind:
    target = call if inspect.isroutine(call) else getattr(type(call), "__call__", call)  # noqa: B004 - not a test
    for candidate in (call, target):
        if inspect.isasyncgenfunction(candidate):
            return "async generator"
        if inspect.iscoroutinefunction(candidate):
            return "coroutine"
        if inspect.isgeneratorfunction(candidate):
            return "generator"
    return "function"


def _wrong(path: str, what: str, hint: str) -> ImportBlame:
    return ImportBlame("wrong-parameters", f'"{path}" {what}', hint, is_attribute=True)


def _article(value: object) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
