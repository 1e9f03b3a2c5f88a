"""Finds what a handler does not do although it looks so: calls that fail, results and resources that are lost."""

from __future__ import annotations

import ast
import builtins
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any

from runner.config.loader import PipelineFile
from runner.config.messages import closest
from runner.errors import Problem, Reject, RetryLater
from runner.message import Publish
from runner.pipeline.annotations import read_signature
from runner.pipeline.handler_styles import is_of_a_resource
from runner.pipeline.import_problems import ImportProblem, Place, is_of_the_user
from runner.pipeline.model import Handler, Pipeline, Producer, Subscriber
from runner.pipeline.payload_use import definition_of, own_nodes
from runner.tables import read_kind
from runner.units import parse_duration, pluralize

_STARTERS = frozenset({"delay", "apply_async", "send", "send_with_options", "kiq", "kicker", "enqueue", "signature"})
"""How other libraries start a task."""
_METHODS = ("debug", "info", "warning", "error", "exception", "critical")
_KEYWORDS = ("exc_info", "stack_info", "stacklevel", "extra")
_CONVERSION = re.compile(r"%[-#0 +]*(?:\*|\d+)?(?:\.(?:\*|\d+))?[diouxXeEfFgGcrsa]")
_BRACES = re.compile(r"\{[\w.!:]*\}")
_OURS = (Publish, RetryLater, Reject)
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Found = tuple[ast.expr, str, str]
"""The expression to underline, what the handler does there, and what to write."""


def source_warnings(path: str, call: Callable[..., Any]) -> Iterator[ImportProblem]:
    """Yield a warning for each line in the source of a handler that does something else than it says."""
    function = inspect.unwrap(call)
    if inspect.isfunction(function):  # not a method, a class or a partial
        yield from _wrong_calls(path, function)
        yield from _lost_returns(path, function)


def untaken_resources(loaded: PipelineFile, pipeline: Pipeline) -> Iterator[Problem]:
    """Warn of resources that no handler takes, where a handler has a parameter that may be meant for one."""
    items: list[Producer | Subscriber] = [*pipeline.producers, *pipeline.subscribers]
    handlers = [item.handler for item in items if item.handler is not None]
    taken = {name for handler in handlers for name in handler.resources}
    untaken = [item.name for item in pipeline.resources if item.name not in taken]
    for name in untaken:
        for handler in handlers:
            free = _free_parameters(handler)
            near = closest(name, free) or next(filter(is_of_a_resource, free if len(untaken) == 1 else ()), None)
            if near:
                message = f'no handler takes the resource "{name}", and "{handler.path}" has the parameter "{near}"'
                help_ = "rename one of the two: a handler gets a resource as the parameter of its name"
                path = ("resources", name)
                yield loaded.problem("unused-option", path, message, help_, severity="warning", on="key")
                break


def _wrong_calls(path: str, function: FunctionType) -> Iterator[ImportProblem]:
    """Yield a warning for each call that fails whenever it is made, and for what is not awaited or not raised."""
    names, known = function.__code__.co_names, {**vars(builtins), **function.__globals__}
    used = {name: known[name] for name in names if name in known and _is_checked(known[name])}
    if not _STARTERS.isdisjoint(names):
        used |= {name: known[name] for name in names if inspect.isfunction(known.get(name))}
    used |= _classes_of_parameters(function)
    if not used or (definition := definition_of(function)) is None:
        return
    node, above = definition
    for item, what, meant in (*_failing(node, used), *_unawaited(node, used), *_unraised(node, used)):
        length = (item.end_col_offset or 0) - item.col_offset
        at = Place(function.__code__.co_filename, above + item.lineno, item.col_offset + 1, length)
        yield ImportProblem("wrong-call", f'"{path}" {what}', f"write {meant}", place=at)


def _lost_returns(path: str, function: FunctionType) -> Iterator[ImportProblem]:
    """Yield a warning for each value that a generator returns: its results are what it yields."""
    if not inspect.isgeneratorfunction(function) or (definition := definition_of(function)) is None:
        return
    node, above = definition
    for item in own_nodes(node):
        if isinstance(item, ast.Return) and item.value is not None:
            at = Place(function.__code__.co_filename, above + item.lineno, item.col_offset + 1, len("return"))
            value = ast.unparse(item.value)
            what = f'"{path}" yields its results, and what it returns besides is lost'
            yield ImportProblem("lost-result", what, f"write `yield {value}` in place of `return {value}`", place=at)


def _free_parameters(handler: Handler) -> list[str]:
    """Return the parameters that keep their defaults."""
    given = {*handler.arguments, *handler.resources, handler.payload_parameter, handler.message_parameter}
    parameters = read_signature(handler.call).parameters.values()
    return [item.name for item in parameters if item.default is not item.empty and item.name not in given]


def _is_checked(value: object) -> bool:
    is_logger = value is logging or isinstance(value, logging.Logger)
    return is_logger or value is Publish or _is_error(value) or _is_asyncio(value) or inspect.iscoroutinefunction(value)


def _classes_of_parameters(function: FunctionType) -> dict[str, Any]:
    """Return the classes of the user with coroutines that annotate parameters: of resources, as a rule."""
    try:
        parameters = read_signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    kinds = {item.name: item.annotation for item in parameters}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and _is_asynchronous(kind)}


def _is_asynchronous(kind: type) -> bool:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    is_async = any(map(inspect.iscoroutinefunction, vars(kind).values()))
    return is_async and file is not None and is_of_the_user(file)


def _is_asyncio(value: object) -> bool:
    return inspect.ismodule(value) and value.__name__ == "asyncio"


def _has_coroutines(value: object) -> bool:
    return _is_asyncio(value) or (isinstance(value, type) and not _is_error(value))


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _failing(node: _Function, used: Mapping[str, Any]) -> Iterator[_Found]:
    for item in ast.walk(node):
        if isinstance(item, ast.Call) and (found := _wrong(item, used)) is not None:
            yield item.func, f"calls {ast.unparse(item.func)}() {found[0]}", found[1]


def _unraised(node: _Function, used: Mapping[str, Any]) -> Iterator[_Found]:
    """Yield the errors that are returned, yielded or only made."""
    for item in own_nodes(node):
        if not isinstance(item, ast.Return | ast.Yield | ast.Expr):
            continue
        made = item.value.func if isinstance(item.value, ast.Call) else item.value
        if item.value is not None and isinstance(made, ast.Name) and _is_error(used.get(made.id)):
            verb = {ast.Return: "returns", ast.Yield: "yields"}.get(type(item), "makes")
            yield made, f"{verb} {made.id}, which has its effect only when it is raised", _raised(item.value)


def _raised(value: ast.expr) -> str:
    return f"`raise {ast.unparse(value)}`".replace("'", '"')


def _unawaited(node: _Function, used: Mapping[str, Any]) -> Iterator[_Found]:
    """Yield the calls of coroutine functions whose coroutine is dropped, returned, or used like its result."""
    for call, is_used in _unawaited_calls(node):
        match call.func:
            case ast.Name(id=name):
                called = used.get(name)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if _has_coroutines(used.get(name)):
                called = inspect.getattr_static(used[name], attribute, None)
            case _:
                continue
        if inspect.iscoroutinefunction(called):
            meant = f"`await {ast.unparse(call)}`"
            if isinstance(node, ast.FunctionDef):
                returned = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
                meant = f'"async def {node.name}({ast.unparse(node.args)}){returned}:", and {meant} in it'
            effect = "which gives a coroutine, not its result" if is_used else "which does nothing"
            yield call.func, f"calls {ast.unparse(call.func)}() without `await`, {effect}", meant


def _unawaited_calls(node: _Function) -> Iterator[tuple[ast.Call, bool]]:
    """Yield the calls that no `await` can reach, and whether their value is used."""
    nodes = [*own_nodes(node)]
    misused = {
        id(value)
        for item in nodes
        if isinstance(item, ast.Attribute | ast.Subscript | ast.BinOp | ast.Compare | ast.FormattedValue)
        for value in ast.iter_child_nodes(item)
    }
    for item in nodes:
        if isinstance(item, ast.Expr | ast.Return | ast.Assign) and isinstance(call := item.value, ast.Call):
            names = {target.id for target in getattr(item, "targets", ()) if isinstance(target, ast.Name)}
            uses = [each for each in nodes if _is_read(each, names)]
            if not isinstance(item, ast.Assign) or (uses and all(id(each) in misused for each in uses)):
                yield call, not isinstance(item, ast.Expr)


def _is_read(node: ast.AST, names: set[str]) -> bool:
    """Whether a node reads one of some variables."""
    return isinstance(node, ast.Name) and node.id in names and isinstance(node.ctx, ast.Load)


def _wrong(call: ast.Call, used: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what is wrong with a call, and the call to write; None if it works or is another one."""
    match call.func:
        case ast.Name(id=name) if isinstance(used.get(name), type):
            return _wrong_arguments(call, used[name]) if used[name] in _OURS else None
        case ast.Attribute(value=ast.Name(id=name), attr=method) if method in _METHODS and name in used:
            return _wrong_log_call(call) if used[name] is logging or isinstance(used[name], logging.Logger) else None
        case ast.Attribute(value=ast.Name(id=name), attr=method) if method in _STARTERS:
            is_plain = inspect.isfunction(used.get(name)) and not hasattr(used[name], method)
            return _wrong_start(call, name) if is_plain else None
    return None


def _wrong_start(call: ast.Call, name: str) -> tuple[str, str]:
    """Return what is wrong with a call that starts a task of another library, and what to write."""
    given = [*call.args, *[item.value for item in call.keywords]]
    value = ast.unparse(given[0]) if len(given) == 1 else "its payload"
    what = f"as a task of another library, and {name} is a plain function"
    return what, f"`return {value}` in place of it, and `to:` with the queue that {name} reads at this subscriber"


def _wrong_arguments(call: ast.Call, kind: type) -> tuple[str, str] | None:
    """Return what is wrong with a call of a class of the runner by the names of its arguments."""
    if kind is RetryLater and len(call.args) == 1 and _is_reason(call.args[0]):
        keywords = [ast.keyword("reason", call.args[0]), *call.keywords]
        found = _wrong_arguments(ast.Call(call.func, [], keywords), kind)
        if found is None and not any(item.arg == "after" for item in call.keywords):
            found = "", _written(call, args=[ast.Constant("30s"), *call.args])
        shown = ast.unparse(call.args[0])
        return (f"with {shown}, which is not a duration", found[1]) if found is not None else None
    taken = [*inspect.signature(kind).parameters]
    given = {*taken[: len(call.args)], *(item.arg for item in call.keywords)}
    words = read_kind("runner.pipeline", "handler_styles.txt", "argument").items()
    meant = {word: text for row, text in words for word in row.split()}
    keywords, wrong = [], []
    for item in call.keywords:
        if item.arg is None or item.arg in taken:
            keywords.append(item)
            continue
        free = [name for name in taken if name not in given]
        name = next((name for name in meant.get(item.arg, "").split() if name in free), closest(item.arg, free))
        wrong.append(f'"{item.arg}"')
        keywords += [ast.keyword(name, item.value)] if name else []
    if not wrong:
        return None
    return f"with {' and '.join(wrong)}, which it does not take", _written(call, keywords=keywords)


def _is_reason(argument: ast.expr) -> bool:
    """Whether a text where `RetryLater` takes a duration is none."""
    if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
        return isinstance(argument, ast.JoinedStr) and " " in ast.unparse(argument)
    try:
        parse_duration(argument.value)
    except ValueError:
        return True
    return False


def _wrong_log_call(call: ast.Call) -> tuple[str, str] | None:
    """Return what is wrong with a call of a logger."""
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
    return f"`{text}`" if '"' in text else f"`{text}`".replace("'", '"')
