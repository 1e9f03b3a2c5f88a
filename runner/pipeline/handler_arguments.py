"""Turns the values of `with:` into what the parameters that get them are annotated with, or into what is wrong."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from runner.config.document import Interpolated
from runner.config.messages import describe, error_message
from runner.config.scalars import resolve_scalar
from runner.pipeline.annotations import EMPTY, Unresolved

_OF_TYPES = ("_type", "_parsing", "_from_float", "_than_equal")
"""How the kinds of pydantic's errors end that say nothing but that a value is of another type, or out of range."""

_OF_USERS = ("value_error", "assertion_error")
"""The kinds of errors that validators of the user's own have raised."""


class ArgumentMismatch(NamedTuple):
    """One value that does not fit: where it is below `with`, the kind of the error and what is known of it, the value.

    `annotation` is that of the parameter.
    """

    where: tuple[str | int, ...]
    kind: str
    context: Mapping[str, Any]
    value: Any
    annotation: str

    @property
    def _is_known(self) -> bool:
        return self.kind.endswith(_OF_TYPES) and not self.kind.startswith("date")

    def words(self, target: str, variables: Sequence[str]) -> tuple[str, str]:
        """Return what is wrong, and what to write; nothing of a value that came from variables, which may be secret."""
        value = self.value
        if variables:
            value = Interpolated("", " and ".join(f"${{{name}}}" for name in variables))
        bounds = {name: item for name, item in self.context.items() if name in ("ge", "le")}
        code, message, help_ = error_message(self.kind if self._is_known else "", bounds, value)
        if self.kind == "missing":
            message, help_ = f'must have "{self.context["name"]}"', f'add "{self.context["name"]}"'
        elif "expected" in self.context:
            message, help_ = f"must be {self.context['expected']}, not {describe(value)}", "write one of them"
        elif self.kind in _OF_USERS and not variables:
            message, help_ = f"does not fit: {self.context['error']}", "write a value that fits"
        elif code == "wrong-value":
            message, help_ = f"must fit its annotation, not be {describe(value)}", "write a value that fits"
        return f'{message}; "{target}" takes {self.where[0]}: {self.annotation}', help_


def convert_arguments(
    parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any], variables: Collection[str] = ()
) -> tuple[dict[str, Any], list[ArgumentMismatch]]:
    """Return the arguments, converted to the annotations of their parameters, and every one that does not fit.

    A value is passed as it is written where its parameter has no annotation, or one that pydantic cannot handle. The
    text of one of the `variables` may also be what it would be without quotes: `5`, or nothing.
    """
    others = next((item for item in parameters.values() if item.kind is inspect.Parameter.VAR_KEYWORD), None)
    values: dict[str, Any] = {}
    mismatches: list[ArgumentMismatch] = []
    for name, value in arguments.items():
        parameter = parameters.get(name, others)
        validate = _validator(parameter.annotation) if parameter is not None else None
        values[name] = value
        if parameter is None or validate is None:
            continue
        try:
            values[name] = _converted(validate, value, is_variable=name in variables)
        except ValidationError as error:
            mismatches += _mismatches(name, _shown(parameter.annotation), value, error)
        except PydanticUserError:  # a name in the annotation leads nowhere
            continue
        except Exception as error:  # validators of the user's own may raise anything
            context = {"error": f"{type(error).__qualname__}: {error}"}
            mismatches.append(ArgumentMismatch((name,), "value_error", context, value, _shown(parameter.annotation)))
    return values, mismatches


def _validator(annotation: Any) -> Callable[[Any], Any] | None:
    """Return what converts a value to an annotation, None for annotations that say nothing to pydantic."""
    if annotation in (EMPTY, Any, object) or isinstance(annotation, Unresolved):
        return None
    try:
        return TypeAdapter(annotation).validate_python
    except Exception:  # pydantic raises several kinds for types that it cannot handle
        return None


def _converted(validate: Callable[[Any], Any], value: Any, *, is_variable: bool) -> Any:
    try:
        made = validate(value)
    except ValidationError:
        if not is_variable or not isinstance(value, str):
            raise
        made = validate(resolve_scalar(value))
    # pydantic makes an iterator for `Iterable[…]`, which the first call would use up
    return value if hasattr(made, "__next__") else made


def _mismatches(name: str, annotation: str, value: Any, error: ValidationError) -> list[ArgumentMismatch]:
    """Return what does not fit, each at the innermost value that is written."""
    found: dict[tuple[str | int, ...], ArgumentMismatch] = {}
    for item in error.errors(include_url=False, include_input=False):
        where, inner = _innermost((name,), value, item["loc"])
        # of a union there is one error for each of its types
        kind = item["type"] if where not in found else ""
        context = item.get("ctx", {}) if kind else {}
        if kind == "missing":
            where, context = (*where, item["loc"][-1]), {"name": item["loc"][-1]}
        found[where] = ArgumentMismatch(where, kind, context, inner, annotation)
    return list(found.values())


def _innermost(
    where: tuple[str | int, ...], value: Any, parts: Sequence[str | int]
) -> tuple[tuple[str | int, ...], Any]:
    """Follow the parts of a place that are written in a value; pydantic adds others, for unions."""
    for part in parts:
        keys: Collection[Any] = ()
        if isinstance(value, dict | list):
            keys = value if isinstance(value, dict) else range(len(value))
        if part in keys:
            where, value = (*where, part), value[part]
    return where, value


def _shown(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
