"""Converts the values of `with:` to the annotations of their parameters, and reports those that do not fit."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from runner.config.document import Interpolated
from runner.config.messages import describe, error_message
from runner.config.scalars import resolve_scalar
from runner.pipeline.annotations import EMPTY, Unresolved
from runner.units import parse_duration

_OF_TYPES = ("_type", "_parsing", "_from_float", "_than_equal")
"""The suffixes of pydantic's error types for values of a wrong type or out of range."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

_OF_USERS = ("value_error", "assertion_error")
"""The error types of the user's own validators."""


class ArgumentMismatch(NamedTuple):
    """A value that does not fit its annotation: its path below `with`, the error of pydantic, and the value.

    `annotation` is the annotation of the parameter.
    """

    where: tuple[str | int, ...]
    kind: str
    context: Mapping[str, Any]
    value: Any
    annotation: str

    @property
    def _is_known(self) -> bool:
        return self.kind.endswith(_OF_TYPES) and not self.kind.startswith("date")

    def _meant(self, value: str) -> str:
        """Return what to write in place of a text for a number, a list or a time, "" if it is not known."""
        from runner.config.guesses import duration, number

        seconds = parse_duration(short) if (short := duration(value)) else 0.0
        if self.kind.startswith(("list", "tuple", "set")) and re.fullmatch(r"[\w./-]+(, *[\w./-]+)*", value):
            return f"[{value}]"
        if self.kind.startswith("time_delta"):
            return f"{seconds:g}, in seconds" if seconds else ""
        if self.kind.startswith(("int", "float")):
            spoken = {word: str(count) for count, word in enumerate(_NUMBERS)}.get(value.lower(), "")
            with_unit = re.match(r"-?\d+(?:\.\d+)?(?=\s*[^\W\d]+$)", value)
            alone = with_unit[0] if with_unit else ""
            return number(value) or spoken or (f"{seconds:g} if it is in seconds" if seconds else alone)
        return ""

    def words(self, target: str, variables: Sequence[str]) -> tuple[str, str]:
        """Return the message and the help. A value from variables may be secret, and is not shown."""
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
        if isinstance(self.value, str) and not variables and (meant := self._meant(self.value)):
            help_ = f"write {meant}"
        return f'{message}; "{target}" takes {self.where[0]}: {self.annotation}', help_


def convert_arguments(
    parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any], variables: Collection[str] = ()
) -> tuple[dict[str, Any], list[ArgumentMismatch]]:
    """Return the arguments converted to the annotations of their parameters, and those that do not fit.

    A value is passed unchanged if its parameter has no annotation, or one that pydantic does not support. The text of
    one of the `variables` may also be read as a YAML value without quotes, such as `5`.
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
        except PydanticUserError:  # the annotation has an undefined name
            continue
        except Exception as error:  # the user's validators may raise anything
            context = {"error": f"{type(error).__qualname__}: {error}"}
            mismatches.append(ArgumentMismatch((name,), "value_error", context, value, _shown(parameter.annotation)))
    return values, mismatches


def _validator(annotation: Any) -> Callable[[Any], Any] | None:
    """Return the function that converts a value to an annotation, None if pydantic does not support it."""
    if annotation in (EMPTY, Any, object) or isinstance(annotation, Unresolved):
        return None
    try:
        return TypeAdapter(annotation).validate_python
    except Exception:  # pydantic raises various errors for unsupported types
        return None


def _converted(validate: Callable[[Any], Any], value: Any, *, is_variable: bool) -> Any:
    try:
        made = validate(value)
    except ValidationError:
        if not is_variable or not isinstance(value, str):
            raise
        made = validate(resolve_scalar(value))
    # pydantic returns an iterator for `Iterable[…]`, which the first call would exhaust
    return value if hasattr(made, "__next__") else made


def _mismatches(name: str, annotation: str, value: Any, error: ValidationError) -> list[ArgumentMismatch]:
    """Return the mismatches, each at the innermost value in the file."""
    found: dict[tuple[str | int, ...], ArgumentMismatch] = {}
    for item in error.errors(include_url=False, include_input=False):
        where, inner = _innermost((name,), value, item["loc"])
        # a union gives one error for each of its types
        kind = item["type"] if where not in found else ""
        context = item.get("ctx", {}) if kind else {}
        if kind == "missing":
            where, context = (*where, item["loc"][-1]), {"name": item["loc"][-1]}
        found[where] = ArgumentMismatch(where, kind, context, inner, annotation)
    return list(found.values())


def _innermost(
    where: tuple[str | int, ...], value: Any, parts: Sequence[str | int]
) -> tuple[tuple[str | int, ...], Any]:
    """Follow a path into a value as far as it exists. pydantic adds parts for the members of unions."""
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
