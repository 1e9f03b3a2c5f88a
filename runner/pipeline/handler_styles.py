"""Recognizes handlers that are written for other libraries or in another style, and says how to write them here."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from runner.config.messages import closest
from runner.pipeline.import_problems import ImportProblem
from runner.tables import filled, read_kind

_PIKA, _RESOURCES, _CALLERS, _TYPES, _SHAPES = (
    read_kind("runner.pipeline", "handler_styles.txt", kind) for kind in ("pika", "resource", "caller", "type", "shape")
)
_SCALARS = (bool, int, float, str)
_METHODS = ("handle", "process", "run", "execute", "on_message", "consume", "call")

Parameters = Mapping[str, inspect.Parameter]


def wrong_parameters(path: str, what: str, hint: str, *, parameter: str | None = None) -> ImportProblem:
    """Return the problem of a handler's parameters; with `parameter`, at that place in the Python file.

    An empty `parameter` is the name of the function.
    """
    return ImportProblem("wrong-parameters", f'"{path}" {what}', hint, is_attribute=True, parameter=parameter)


def missing_parameters(
    path: str,
    parameters: Parameters,
    missing: Sequence[str],
    payload: str | None,
    unused: Collection[str],
    *,
    takes_payload: bool,
) -> ImportProblem:
    """Return the problem of required parameters that get nothing. `unused` are resources that no parameter takes."""
    what, first = f"needs {_listed(missing)}, which nothing provides", missing[0]
    offered = f"pass a value by `with: {{{', '.join(f'{name}: …' for name in missing)}}}`"
    only = "".join(unused) if len(unused) == 1 else ""
    near = {name: closest(name, unused) or (only if name in _RESOURCES else "") for name in missing}
    if all(near.values()):
        renamed = " and ".join(f'"{name}" to "{meant}"' for name, meant in near.items())
        hint = f"rename the parameter {renamed}, as the resource is called, or {offered}"
        return wrong_parameters(path, what, hint, parameter=first)
    if not takes_payload:
        hint = f"it is called without a payload: {offered}, or give it a default"
        return wrong_parameters(path, what, hint, parameter=first)
    if style := _style(path.rpartition(":")[2].rpartition(".")[2], parameters, missing):
        return wrong_parameters(path, style[0] or what, style[1], parameter=style[2])
    declare = f"declare {'the resource' if len(missing) == 1 else 'the resources'} {_listed(missing, '`')}"
    if payload is None or any(name in _RESOURCES for name in missing):
        return wrong_parameters(path, what, f"{declare}, or {offered}", parameter=first)
    annotation = parameters[payload.removeprefix("*")].annotation
    is_object = isinstance(annotation, type) and not issubclass(annotation, dict | inspect.Parameter.empty)
    taken = " and ".join(f"{payload}.{name}" if is_object else f'{payload}["{name}"]' for name in missing)
    hint = f"remove {'it' if len(missing) == 1 else 'them'} and use {taken}, or {offered}, or {declare}"
    if annotation in _SCALARS or payload == "id" or payload.endswith("_id"):
        function = path.rpartition(":")[2].rpartition(".")[2]
        hint = f"{_one_payload(function, [payload, *missing])}, or {offered}"
    elif all(map(_is_model, (annotation, *(parameters[name].annotation for name in missing)))):
        hint = _one_model(path.rpartition(":")[2].rpartition(".")[2], parameters, [payload, *missing])
    elif is_object and not set(missing) <= set(getattr(annotation, "__annotations__", ())):
        hint = f"{offered}, or {declare}"
    return wrong_parameters(path, f'{what}: the whole payload goes to "{payload}"', hint, parameter=first)


def _is_model(annotation: object) -> bool:
    """Whether an annotation is a class with fields, which JSON becomes an object of."""
    return isinstance(annotation, type) and (
        hasattr(annotation, "model_fields") or dataclasses.is_dataclass(annotation)
    )


def _one_model(function: str, parameters: Parameters, names: Sequence[str]) -> str:
    """Return the help for a handler that takes several models: there is one payload."""
    model = f"{function.title().replace('_', '')}Payload"
    fields = "; ".join(f"{name}: {parameters[name].annotation.__name__}" for name in names)
    uses = _listed([f"payload.{name}" for name in names], "")
    return (
        f"make one model of them, `class {model}(pydantic.BaseModel): {fields}`, write "
        f'"def {function}(payload: {model}):", and use {uses} in it'
    )


def _style(function: str, parameters: Parameters, missing: Sequence[str]) -> tuple[str, str, str] | None:
    """Return what is wrong ("": parameters are missing), the help and the parameter, for other libraries."""
    names = list(parameters)
    is_pika = len(_PIKA.keys() & names) >= 3
    if style := _SHAPES["pika"] if is_pika else _SHAPES.get(", ".join(names)):
        (library, _, hint), body = style.partition(": "), "body" if "body" in names else names[-1]
        unused = _listed([name for name in names if name != body])
        words = {"function": function, "first": names[0], "body": body, "unused": unused}
        at = names[0] if is_pika else missing[0]
        return f"looks like a handler of {library} ({', '.join(names)})", filled(hint, words), at
    if names[0] in _CALLERS:
        but = "but is not a method: it gets one payload" if names[0] in ("self", "cls") else "and gets only the payload"
        rest = [name for name in names[1:] if name in missing]
        hint = f'remove "{names[0]}" from its parameters' if len(rest) == 1 else _one_payload(function, rest)
        return f'has "{names[0]}" as its first parameter, {but}', hint, names[0]
    for name in missing:
        if _means_message(name, parameters[name].annotation):
            hint = (
                f'write "{name}: runner.Message", with "import runner" at the top of the module, and remove calls such '
            )
            return "", f"{hint}as {name}.ack(): the runner acknowledges", name
    if missing == ["context"]:
        return "", f'write "def {function}({names[0]}):", and remove what uses "context"', "context"
    return None


def no_payload_parameter(path: str, parameters: Parameters, given: Collection[str]) -> ImportProblem:
    """Return the problem of a handler without a parameter for the payload."""
    function = path.rpartition(":")[2].rpartition(".")[2]
    named = [
        name
        for name, item in parameters.items()
        if item.kind is inspect.Parameter.KEYWORD_ONLY and item.default is inspect.Parameter.empty and name not in given
    ]
    if named:
        what = f'takes "{named[0]}" only by name, and the payload is passed by position'
        hint = 'remove the "*" before it'
        if named[1:]:
            taken = _listed([f'{named[0]}["{name}"]' for name in named[1:]], "")
            hint = f'write "def {function}({named[0]}):", and take {taken} out of it'
        return wrong_parameters(path, what, hint, parameter=named[0])
    keywords = [name for name, item in parameters.items() if item.kind is inspect.Parameter.VAR_KEYWORD]
    step = f'remove the "**" before "{keywords[0]}"' if keywords else f'write "def {function}(payload):"'
    hint = f"its first parameter gets the payload: {step}"
    return wrong_parameters(path, "takes no parameter for the payload", hint, parameter="")


def class_as_handler(path: str, constructor: Sequence[str], methods: Sequence[str]) -> ImportProblem:
    """Return the problem of a class as a handler: each message would make an object, and do nothing else.

    `constructor` are the required parameters of an `__init__` of its own: a model has none.
    """
    module, _, owner = path.partition(":")
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", owner.rpartition(".")[2]).lower()
    made = f"{owner}({', '.join(f'{item}=…' for item in constructor)})"
    likely = next((item for item in _METHODS if item in methods), methods[0] if len(methods) == 1 else "")
    if "__call__" in methods:
        hint = f'add `{name} = {made}` to the module, and write "{module}:{name}"'
    elif likely:
        hint = f'add `{likely} = {made}.{likely}` to the module, and write "{module}:{likely}"'
    elif len(constructor) == 1:
        work = f"def {name}({constructor[0]}): {owner}({constructor[0]})"
        hint = f'add `{work}` to the module, and write "{module}:{name}"'
    elif constructor:
        hint = f"write a function that uses {owner}, and name it"
    else:
        work = f"def handle_{name}({name}: {owner}): …"
        hint = f'write a function that takes it as its payload, `{work}`, and name "{module}:handle_{name}"'
    return wrong_parameters(path, "is a class, not a function", hint, parameter="")


def is_of_a_resource(name: str) -> bool:
    """Whether a parameter has the name of something that is opened once, such as `db`."""
    return name in _RESOURCES


def required_parameters(parameters: Parameters) -> list[str]:
    """Return the names of the parameters without a default."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    empty = inspect.Parameter.empty
    return [name for name, item in parameters.items() if item.default is empty and item.kind not in variadic]


def may_be_handler(name: str) -> bool:
    """Whether a method of a class may be meant as a handler."""
    return name == "__call__" or not name.startswith("_")


def foreign_annotation(path: str, name: str, annotation: Any) -> ImportProblem | None:
    """Return the problem of a payload that is annotated with a message or type of another library, None for others."""
    bases = [f"{item.__module__}." for item in getattr(annotation, "__mro__", ())]
    bases += ["attrs."] if hasattr(annotation, "__attrs_attrs__") else []
    for module, hint in _TYPES.items():
        if any(base.startswith(f"{module}.") for base in bases):
            shown = annotation.__qualname__
            hint = filled(hint, {"type": shown, "name": name})
            return wrong_parameters(path, f'takes {shown}, a type of {module}, in "{name}"', hint, parameter=name)
    return None


def _means_message(name: str, annotation: Any) -> bool:
    shown = getattr(annotation, "__name__", "")
    return name in ("message", "msg", "envelope") or shown.endswith("Message")


def _one_payload(function: str, names: Sequence[str]) -> str:
    if not names:
        return f'write "def {function}(payload):"'
    if len(names) == 1:
        return f'write "def {function}({names[0]}):"'
    taken = _listed([f'payload["{name}"]' for name in names], "")
    return f'write "def {function}(payload: dict):", and take {taken} out of it'


def _listed(names: Sequence[str], quote: str = '"') -> str:
    quoted = [f"{quote}{name}{quote}" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
