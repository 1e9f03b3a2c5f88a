"""Finds calls of `logging` in the source of a handler that cannot work: wrong arguments for the format, or by name."""

from __future__ import annotations

import ast
import inspect
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

from runner.pipeline.import_problems import ImportProblem, Place
from runner.pipeline.payload_use import definition_of
from runner.units import pluralize

_METHODS = ("debug", "info", "warning", "error", "exception", "critical")
_KEYWORDS = ("exc_info", "stack_info", "stacklevel", "extra")
_CONVERSION = re.compile(r"%[-#0 +]*(?:\*|\d+)?(?:\.(?:\*|\d+))?[diouxXeEfFgGcrsa]")
_BRACES = re.compile(r"\{[\w.!:]*\}")


def wrong_log_calls(path: str, call: Callable[..., Any]) -> Iterator[ImportProblem]:
    """Yield a warning for each call of a logger of the standard library that fails whenever it is made."""
    function = inspect.unwrap(call)
    if not inspect.isfunction(function):
        return
    known, used = function.__globals__, function.__code__.co_names
    loggers = [name for name in used if known.get(name) is logging or isinstance(known.get(name), logging.Logger)]
    if not loggers or (definition := definition_of(function)) is None:
        return
    node, above = definition
    for item in ast.walk(node):
        match item:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if (
                name in loggers and method in _METHODS and (found := _wrong(item)) is not None
            ):
                length = (item.func.end_col_offset or 0) - item.func.col_offset
                at = Place(function.__code__.co_filename, above + item.lineno, item.col_offset + 1, length)
                what = f'"{path}" calls {name}.{method}() {found[0]}'
                yield ImportProblem("wrong-log-call", what, f"write `{found[1]}`", place=at)


def _wrong(call: ast.Call) -> tuple[str, str] | None:
    """Return what is wrong with a call, and the call to write; None if it works."""
    unknown = [item for item in call.keywords if item.arg is not None and item.arg not in _KEYWORDS]
    if unknown:
        names = " and ".join(f'"{item.arg}"' for item in unknown)
        fields = ast.Dict([ast.Constant(item.arg) for item in unknown], [item.value for item in unknown])
        extra = next((item.value for item in call.keywords if item.arg == "extra"), None)
        if isinstance(extra, ast.Dict):
            fields = ast.Dict([*extra.keys, *fields.keys], [*extra.values, *fields.values])
        kept = [item for item in call.keywords if item not in unknown and item.arg != "extra"]
        return f"with {names}, which it does not take", _written(call, keywords=[*kept, ast.keyword("extra", fields)])
    match call.args:
        case [ast.Constant(value=str(text)), _, *_] if not any(isinstance(item, ast.Starred) for item in call.args):
            return _wrong_format(call, text.replace("%%", ""), len(call.args) - 1)
    return None


def _wrong_format(call: ast.Call, text: str, given: int) -> tuple[str, str] | None:
    places = _CONVERSION.findall(text)
    if "%(" in text or len(places) + sum(place.count("*") for place in places) == given:
        return None
    braces = _BRACES.findall(text)
    what = f"with {pluralize(given, 'value')} for {pluralize(len(places), 'place')} in its format"
    meant = f"{text}{' %s' * (given - len(places))}" if given > len(places) else text
    if not places and len(braces) == given:
        meant = _BRACES.sub("%s", text)
    values = [*call.args[1:], *[ast.Constant(...)] * (len(places) - given)]
    return what, _written(call, args=[ast.Constant(meant), *values])


def _written(call: ast.Call, **parts: Any) -> str:
    """Return a call with other parts as it is written, with double quotes."""
    made = ast.Call(**{"func": call.func, "args": call.args, "keywords": call.keywords, **parts})
    text = ast.unparse(made)
    return text if '"' in text else text.replace("'", '"')
