"""Makes a Handler from a user's function: what its parameters get, and how it is called."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from runner.config.messages import closest, did_you_mean
from runner.pipeline import codec
from runner.pipeline.annotations import (
    EMPTY,
    Unresolved,
    item_of,
    kind_of_message,
    mentions_message,
    read_parameters,
    read_signature,
)
from runner.pipeline.handler_arguments import ArgumentMismatch, convert_arguments
from runner.pipeline.handler_styles import (
    class_as_handler,
    foreign_annotation,
    is_of_a_resource,
    may_be_handler,
    missing_parameters,
    no_payload_parameter,
    required_parameters,
    wrong_parameters,
)
from runner.pipeline.import_problems import ImportProblem, Place, place_of
from runner.pipeline.model import Handler, Subscriber
from runner.pipeline.payload_use import has_result

Kind = Literal["function", "coroutine", "generator", "async generator"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NO_VALUES = ("None", "NoneType", "Any", "object", "NoReturn", "Never", "typing.NoReturn", "typing.Never")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class BadArguments(Exception):
    """Values in `with:` that do not fit the annotations of the parameters of `target`."""

    def __init__(self, target: str, mismatches: Sequence[ArgumentMismatch]) -> None:
        super().__init__(target)
        self.target = target
        self.mismatches = mismatches


class CallPlan(NamedTuple):
    """The parameters that get the payload and the `Message`, and those that are passed by position."""

    payload: str | None
    message: str | None
    positional: tuple[str, ...]


def read_handler(
    path: str,
    call: Any,
    arguments: Mapping[str, Any],
    *,
    takes_payload: bool,
    resources: Collection[str] = (),
    is_batch: bool = False,
    variables: Collection[str] = (),
) -> Handler:
    """Return the handler for a callable. `takes_payload` is false for producers, which get only their arguments.

    A parameter with the name of one of the `resources` gets it. The handler of a batch takes lists. `variables` are the
    arguments whose values come from variables.

    Raises ImportProblem if it is not callable, has wrong parameters, or an annotation that is not supported. Raises
    BadArguments for values that do not fit.
    """
    if not callable(call):
        from runner.pipeline.handler_objects import uncallable

        raise uncallable(path, call)
    parameters = _parameters(path, call)
    if takes_payload and all(item.kind in _VARIADIC for item in parameters.values()):
        from runner.pipeline.handler_objects import hidden_parameters

        if (hidden := hidden_parameters(path, call, parameters)) is not None:
            raise hidden
    if takes_payload and inspect.isclass(call) and call.__module__ != "builtins":
        methods = [name for name, item in vars(call).items() if inspect.isfunction(item) and may_be_handler(name)]
        has_own = "__init__" in vars(call) and not dataclasses.is_dataclass(call)
        raise class_as_handler(path, required_parameters(parameters) if has_own else [], methods)
    try:
        plan = plan_call(path, parameters, arguments, resources, takes_payload=takes_payload, is_batch=is_batch)
    except ImportProblem as wrong:
        wrong.bad_arguments = _bad_arguments(path, parameters, arguments, variables, besides=str(wrong))
        raise
    decode = _decoder(path, plan.payload, _payload_annotation(path, parameters, plan.payload, is_batch=is_batch))
    values, mismatches = convert_arguments(parameters, arguments, variables)
    if mismatches:
        raise BadArguments(path, mismatches)
    wanted = tuple(_wanted(parameters, arguments, resources, plan.message))
    given = {name for name in (plan.payload, plan.message) if name is not None} | {*arguments, *wanted}
    positional = _positional_of_outermost(path, call, parameters, given, plan.positional)
    return Handler(
        path=path,
        call=call,
        kind=_kind(call),
        decode=decode,
        payload_parameter=plan.payload,
        message_parameter=plan.message,
        positional=positional,
        defaults={name: parameters[name].default for name in positional if name not in given},
        arguments=values,
        resources=wanted,
    )


def _bad_arguments(
    path: str,
    parameters: Mapping[str, inspect.Parameter],
    arguments: Mapping[str, Any],
    variables: Collection[str],
    *,
    besides: str,
) -> BadArguments | None:
    """Return the values in `with:` that do not fit, of those parameters that the message `besides` does not name."""
    known = {name: value for name, value in arguments.items() if name in parameters and f'"{name}"' not in besides}
    mismatches = convert_arguments(parameters, known, variables)[1]
    return BadArguments(path, mismatches) if mismatches else None


def read_factory(
    path: str, call: Any, arguments: Mapping[str, Any], *, variables: Collection[str] = ()
) -> Callable[[], Any]:
    """Return the bound factory of a resource. Raises like `read_handler`, and ImportProblem for a generator.

    A factory in another language, whose parameters cannot be read, gets its arguments unchanged.
    """
    try:
        factory = read_handler(path, call, arguments, takes_payload=False, variables=variables)
    except ImportProblem as error:
        if error.code == "bad-signature":
            return functools.partial(call, **arguments)
        raise
    made_by, of = getattr(call, "__code__", None), getattr(call, "__wrapped__", None)
    is_manager = made_by is not None and made_by.co_qualname == "contextmanager.<locals>.helper"
    if is_manager and (inspect.isasyncgenfunction(of) or inspect.iscoroutinefunction(of)):
        raise wrong_manager(path, place_of(of.__code__.co_filename, of.__code__.co_firstlineno))
    if factory.kind in ("generator", "async generator"):
        raise generator_as_factory(path, is_async=factory.is_async)
    positional, named = factory.bind(factory.arguments)
    return functools.partial(call, *positional, **named)


def wrong_manager(path: str, decorator: Place | None = None) -> ImportProblem:
    """Return the problem of an `async def` under `@contextmanager`: nothing can be opened with it."""
    what, hint = f'"{path}" is `async def` under `@contextmanager`', "write `@asynccontextmanager`"
    hint += ', with "from contextlib import asynccontextmanager" at the top of the module'
    return ImportProblem("bad-factory", what, hint, is_attribute=True, place=decorator)


def generator_as_factory(path: str, *, is_async: bool) -> ImportProblem:
    """Return the problem of a generator function as a factory: handlers would get the generator."""
    manager = "asynccontextmanager" if is_async else "contextmanager"
    hint = f'put `@contextlib.{manager}` above it, with "import contextlib"'
    what = f'"{path}" is a generator, not a context manager'
    return ImportProblem("bad-factory", what, f"{hint} at the top of the module", is_attribute=True, parameter="")


def plan_call(
    path: str,
    parameters: Mapping[str, inspect.Parameter],
    arguments: Collection[str],
    resources: Collection[str] = (),
    *,
    takes_payload: bool,
    is_batch: bool = False,
) -> CallPlan:
    """Return what the parameters get, and how. Raises ImportProblem.

    `arguments` are the keys of `with:`.
    """
    wrong: list[ImportProblem] = []
    message = _message_parameter(path, parameters, wrong, is_batch=is_batch) if takes_payload else None
    if message in arguments:
        what = f'gets the message in "{message}", which `with:` passes, too'
        raise wrong_parameters(path, what, f'remove "{message}" from `with:`')
    given = {*arguments, *_wanted(parameters, arguments, resources, message)}
    received = _payload_parameter(path, parameters, arguments, given, message) if takes_payload else None
    taken = {name for name in (message, received) if name is not None}
    if is_batch and received is not None:
        annotation = parameters[received.removeprefix("*")].annotation
        if not isinstance(annotation, Unresolved) and not mentions_message(annotation) and item_of(annotation) is None:
            name, shown = received.removeprefix("*"), inspect.formatannotation(annotation).rpartition(".")[2]
            what = "takes one payload, and a batch is a list of them"
            hint = f"annotate it as `{name}: list[{shown}]`, and loop over it"
            wrong.append(wrong_parameters(path, what, hint, parameter=name))
    unused = [name for name in resources if name not in parameters]
    wrong += _check_rest(path, parameters, arguments, {*given, *taken}, received, unused, takes_payload=takes_payload)
    if wrong:
        wrong[0].also = wrong[1:]
        raise wrong[0]
    return CallPlan(received, message, _positional(parameters, {*given, *taken}, received))


def payload_annotation(call: Callable[..., Any], handler: Handler, *, is_batch: bool = False) -> Any:
    """Return the annotation of the payload, or of each payload of a batch; EMPTY if there is none."""
    parameters = _parameters(handler.path, call)
    return _payload_annotation(handler.path, parameters, handler.payload_parameter, is_batch=is_batch)


def payload_type(subscriber: Subscriber) -> Any:
    """Return the annotation of the payload that a subscriber's handler takes; EMPTY if there is none."""
    handler = subscriber.handler
    return payload_annotation(handler.call, handler, is_batch=subscriber.batch is not None)


def accepted_arguments(call: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments of `with:` that a callable has parameters for; none if it is not callable."""
    if not callable(call):
        return {}
    parameters = _parameters(repr(call), call)
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(arguments)
    return {name: value for name, value in arguments.items() if name in parameters}


def returned_value(handler: Handler) -> str:
    """Return what a handler says it returns, as in `dict`; "" for nothing, and for what may be nothing or a Publish."""
    annotation = result_annotation(handler)
    if "Publish" in str(annotation):
        return ""
    if handler.kind in ("generator", "async generator"):
        return "several values"
    shown = annotation if isinstance(annotation, str) else getattr(annotation, "__qualname__", str(annotation))
    return "" if annotation is EMPTY or shown in _NO_VALUES else f"{shown.removeprefix('typing.')}"


def returns_nothing(handler: Handler) -> str:
    """Return how a handler says that it has no results: by its annotation, or by its code; "" if it may have some."""
    annotation = result_annotation(handler)
    if annotation in (None, "None"):
        return "is annotated `-> None`"
    if handler.kind in ("function", "coroutine") and not has_result(handler.call):
        return "returns nothing"
    return ""


def result_annotation(handler: Handler) -> Any:
    """Return the annotation of what a handler returns; EMPTY if it has none."""
    try:
        return read_signature(handler.call).return_annotation
    except (TypeError, ValueError):
        return EMPTY


def _parameters(path: str, call: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return read_parameters(call)
    except Exception:  # a signature may run the user's code
        hint, message = "wrap it in a function of your own", f'the parameters of "{path}" cannot be read'
        if isinstance(call, functools.partial) and callable(call.func):
            known = [*_parameters(path, call.func)]
            for name in (name for name in call.keywords if name not in known):
                message = f'"{path}" is a partial that passes "{name}", which {call.func.__name__} does not take'
                hint = did_you_mean(name, known)
        raise ImportProblem("bad-signature", message, hint, is_attribute=True) from None


def _wanted(
    parameters: Mapping[str, inspect.Parameter],
    arguments: Collection[str],
    resources: Collection[str],
    message: str | None,
) -> list[str]:
    """Return the parameters that get the resource of their name."""
    return [
        name
        for name, parameter in parameters.items()
        if name in resources and name not in arguments and name != message and parameter.kind not in _VARIADIC
    ]


def _message_parameter(
    path: str, parameters: Mapping[str, inspect.Parameter], wrong: list[ImportProblem], *, is_batch: bool
) -> str | None:
    kinds = {
        name: kind
        for name, parameter in parameters.items()
        if parameter.kind not in _VARIADIC and (kind := kind_of_message(parameter.annotation)) is not None
    }
    names = list(kinds)
    if names and kinds[names[0]] != ("many" if is_batch else "one"):
        wanted = "list[runner.Message]" if is_batch else "runner.Message"
        what = f'wants one message in "{names[0]}", and a batch has a list of them'
        if not is_batch:
            what = f'wants a list of messages in "{names[0]}", and gets one at a time'
        hint = f'annotate it with `{wanted}`, with "import runner" at the top of the module'
        wrong.append(wrong_parameters(path, what, hint, parameter=names[0]))
    if len(names) > 1:
        raise wrong_parameters(path, f"has {len(names)} parameters annotated `runner.Message`", "keep one of them")
    return names[0] if names else None


def _payload_parameter(
    path: str,
    parameters: Mapping[str, inspect.Parameter],
    arguments: Collection[str],
    given: Collection[str],
    message: str | None,
) -> str | None:
    """Return the parameter for the payload: the first that gets nothing else, `*name` for a variadic one."""
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return f"*{name}"
        if parameter.kind in _POSITIONAL and name != message and name not in given:
            return name
    if message is None:
        taken = next((name for name, item in parameters.items() if name in given and item.kind in _POSITIONAL), "")
        if taken in arguments:
            what = f'has no parameter left for the payload: "{taken}" is given by name'
            raise wrong_parameters(path, what, f'remove "{taken}" from `with:`, or add a parameter')
        if taken:
            what = f'has no parameter left for the payload: "{taken}" gets the resource of that name'
            raise wrong_parameters(path, what, f'rename "{taken}", or add a parameter')
        raise no_payload_parameter(path, parameters, given)
    return None


def _payload_annotation(
    path: str, parameters: Mapping[str, inspect.Parameter], name: str | None, *, is_batch: bool
) -> Any:
    """Return the type of the payload, or of the items of a batch. Raises ImportProblem."""
    if name is None:
        return EMPTY
    annotation = parameters[name.removeprefix("*")].annotation
    if isinstance(annotation, Unresolved):
        raise _unresolved(path, name, annotation)
    if mentions_message(annotation):
        what = f'annotates its payload "{name}" with `runner.Message` among other things'
        raise wrong_parameters(path, what, "annotate it with the type of the payload, or with `runner.Message` alone")
    if not is_batch:
        return annotation
    return item_of(annotation)


def _check_rest(
    path: str,
    parameters: Mapping[str, inspect.Parameter],
    arguments: Collection[str],
    given: Collection[str],
    payload: str | None,
    unused: Collection[str],
    *,
    takes_payload: bool,
) -> Iterator[ImportProblem]:
    """Yield the problems of required parameters that get no value, and of values that have no parameter.

    `unused` are the resources that no parameter takes.
    """
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [name for name in arguments if name not in parameters or parameters[name].kind in _VARIADIC]
    free = [name for name in parameters if name not in given]
    likely = [name for name in free if not is_of_a_resource(name)]
    only = likely[0] if len(likely) == 1 == len(unknown) else ""
    first = [payload] if payload is not None and payload in parameters and likely else []  # that `with:` leaves
    meant = {name: closest(name, [*free, *first]) or only for name in unknown if not takes_any}
    for name, guess in meant.items():
        options = " or ".join(f'"{item}"' for item in ([guess] if guess else free))
        hint = f'add a parameter "{name}" to the function, or remove it from `with:`'
        hint = f"write {options} in place of it under `with:`" if options else hint
        problem = wrong_parameters(path, f'has no parameter "{name}", which `with:` passes', hint)
        problem.argument = name
        yield problem
    if payload in meant.values():
        return
    missing = [
        name
        for name, parameter in parameters.items()
        if name not in (*given, *meant.values()) and parameter.default is EMPTY and parameter.kind not in _VARIADIC
    ]
    for name in missing:
        annotation = parameters[name].annotation
        if isinstance(annotation, Unresolved) and annotation.reason:
            raise _unresolved(path, name, annotation)  # it may be `runner.Message`
    if missing:
        yield missing_parameters(path, parameters, missing, payload, unused, takes_payload=takes_payload)


def _positional(
    parameters: Mapping[str, inspect.Parameter], given: Collection[str], received: str | None
) -> tuple[str, ...]:
    """Return the parameters that are passed by position: a payload that comes first, and positional-only ones.

    The payload is passed by position because a decorator may name its parameter differently.
    """
    names = [name for name, parameter in parameters.items() if parameter.kind in _POSITIONAL]
    if received is not None and received.startswith("*"):
        return (*names, received)
    count = 1 if names[:1] == [received] else 0
    for index, name in enumerate(names, 1):
        if name in given and parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY:
            count = index
    return tuple(names[:count])


def _positional_of_outermost(
    path: str,
    call: Callable[..., Any],
    parameters: Mapping[str, inspect.Parameter],
    given: Collection[str],
    planned: tuple[str, ...],
) -> tuple[str, ...]:
    """Return the parameters that are passed by position: more than planned if a decorator names them differently.

    `parameters` are those of the wrapped function; the function of the decorator is called.
    """
    try:
        outermost = read_signature(call, follow_wrapped=False)
    except Exception:  # as in `_parameters`
        return planned
    names = [name for name, parameter in parameters.items() if parameter.kind in _POSITIONAL]
    together = tuple(itertools.takewhile(lambda name: name in given, names))
    for positional in (planned, together):
        named = dict.fromkeys(name for name in given if name not in positional)
        with contextlib.suppress(TypeError):
            outermost.bind(*positional, **named)
            if len(positional) >= len(planned):
                return positional
    hint = "let the decorator's function take `*args, **kwargs`"
    raise wrong_parameters(path, "has a decorator whose function takes other parameters", hint)


def _decoder(path: str, parameter: str | None, annotation: Any) -> codec.Decode:
    name = (parameter or "").removeprefix("*")
    foreign = foreign_annotation(path, name, annotation)
    if foreign is not None:
        raise foreign
    try:
        return codec.decoder(annotation)
    except Exception as error:  # pydantic raises various errors for unsupported types
        from runner.pipeline.import_failures import as_dataclass, typed_dict_of_typing
        from runner.pipeline.schemas import undefined_in_model

        undefined = undefined_in_model(annotation) or typed_dict_of_typing(annotation, error)
        if undefined is not None:
            raise undefined from error
        shown = getattr(annotation, "__qualname__", None) or str(annotation)
        hint = "annotate it with a pydantic model, a dataclass, a TypedDict, dict, list, str or bytes"
        hint = as_dataclass(annotation) or hint
        message = f'no payload of "{path}" can be converted to its annotation {shown}'
        raise ImportProblem("bad-annotation", message, hint, is_attribute=True, parameter=name) from error


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


def _unresolved(path: str, name: str, annotation: Unresolved) -> ImportProblem:
    message = f'an annotation of "{path}" cannot be resolved: {annotation.reason}'
    found = re.search("name '([^']+)' is not defined", annotation.reason)
    module = sys.modules.get(path.partition(":")[0])
    hint = "annotate it with a type, such as `dict`"
    if found:
        from runner.pipeline.import_failures import name_hint

        hint = name_hint(found[1], [*vars(module or object)], getattr(module, "__file__", None))
    return ImportProblem("bad-annotation", message, hint, is_attribute=True, parameter=name.removeprefix("*"))
