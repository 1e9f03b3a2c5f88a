"""Recognizes objects that are no plain functions: not callable, made by other libraries, or with hidden parameters."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Mapping
from typing import Any

from runner.config.foreign_words import foreign_word
from runner.config.models import model_below
from runner.config.proposals import proposals, written
from runner.config.spec import PipelineSpec
from runner.pipeline.import_problems import ImportProblem, place_of, source_of
from runner.pipeline.payload_use import definition_of
from runner.tables import read_kind

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def uncallable(path: str, value: object) -> ImportProblem:
    """Return the problem of an object that cannot be called, with the decorator or the call that made it."""
    file, name, functions, calls = _source(path)
    what = f'"{path}" is not callable: it is {"None" if value is None else f"of type {type(value).__name__}"}'
    hint, at = "name a function, or an object that can be called", calls.get(name) or functions.get(name)
    maker, call = "", calls[name].value if name in calls else None
    if isinstance(call, ast.Call):
        maker = ast.unparse(call.func)
    elif name in functions:
        maker = next(map(ast.unparse, functions[name].decorator_list), "").partition("(")[0]
    if "property" in maker:
        hint = f'remove `@{maker}`, and write "def {name}(self, payload):": a property is read, not called'
    elif inspect.iscoroutine(value):
        value.close()  # Python would warn that nothing has awaited it
        hint = f'write `{name} = asyncio.run({ast.unparse(call or ast.Name(maker))})`, with "import asyncio" at the top'
    elif maker and value is None:
        at = functions.get(maker) or at
        inner = [item.name for item in getattr(functions.get(maker), "body", ()) if isinstance(item, _FUNCTIONS)]
        hint = f"add `return {inner[-1] if inner else '…'}` at the end of {maker}, which makes it and returns nothing"
    elif inspect.isgenerator(value) or inspect.isasyncgen(value):
        hint = f"write `{name} = {maker}`, without the parentheses"
    place = place_of(file, at.lineno, getattr(at, "name", name)) if at is not None and maker else None
    return ImportProblem("not-callable", what, hint, is_attribute=True, place=place)


def foreign_object(path: str, call: Any) -> ImportProblem | None:
    """Return the problem of a task, an actor or a mock of another library, which the runner calls as it is."""
    kinds = [f"{item.__module__}." for item in type(call).__mro__]
    if inspect.isfunction(call):  # decorators leave attributes on it
        kinds += [f"{getattr(item, '__module__', None)}." for item in vars(call).values()]
        kinds += [f"{name.partition('_')[0]}." for name in vars(call)]
    known = read_kind("runner.pipeline", "handler_styles.txt", "object")
    library = next((name for name in known if any(kind.startswith(f"{name}.") for kind in kinds)), None)
    if library is None:
        return None
    file, name, functions, _ = _source(path)
    node = functions.get(name)
    removed = [f"`@{ast.unparse(item)}`" for item in node.decorator_list] if node is not None else []
    hint = f"remove {' and '.join(removed)} above it" if removed else "name the function that handles the messages"
    place = place_of(file, node.lineno, name) if node is not None else None
    what = f'"{path}" is an object of {library}, not a plain function'
    more = [known[library], *([without_library(node)] if node is not None else [])]
    hint += "".join(f", and {text}" for text in more if text)
    return ImportProblem("foreign-handler", what, hint, is_attribute=True, place=place)


def without_library(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return what becomes of the options of a task's decorator, of its retries, and of `self`; "" without them."""
    options = dict[str, str]()
    for item in node.decorator_list:
        for keyword in item.keywords if isinstance(item, ast.Call) else ():
            if isinstance(keyword.value, ast.Constant) and keyword.arg:
                options |= _option(keyword.arg, keyword.value.value)
    shown = [f"`{key}: {value}`" for key, value in options.items()]
    parts = [f"write {' and '.join(shown)} at the subscriber in place of its options"] if shown else []
    if uses := _of_celery(node):
        parts.append(uses)
    if node.args.args and node.args.args[0].arg == "self":
        parts.append("remove `self` from its parameters")
    return ", and ".join(parts)


def _option(word: str, value: object) -> dict[str, str]:
    """Return the option of a subscriber that a word of another library means, as YAML; an empty map for other words."""
    found = foreign_word("subscriber", word, value)
    if found is None or not found.is_rename or found.key in ("handler", "from", "to"):
        return {}
    *parents, key = found.key.split(".")
    items = proposals(model_below(PipelineSpec, ("subscribers", "*", *parents)), key, value, found.how)
    text = (items[0].text or written(value)) if items else ""
    return {".".join(parents) or key: f"{{{key}: {text}}}" if parents else text} if text else {}


def with_uses(error: ImportProblem, call: Any) -> ImportProblem:
    """Return the problem of a parameter, with what is to become of its uses in the function."""
    function, name = inspect.unwrap(call) if callable(call) else None, error.parameter or ""
    definition = definition_of(function) if inspect.isfunction(function) and name else None
    if definition is None:
        return error
    uses = [
        node for node in ast.walk(definition[0]) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == name
    ]
    if uses and error.hint.startswith("annotate it with `list[runner.Message]`"):
        error.hint += f", and loop over it: each message in it has its own .{uses[0].attr}"
    if error.hint.startswith(f'remove "{name}"') and (of_celery := _of_celery(definition[0])):
        error.hint += f", and {of_celery}"
    return error


def _of_celery(node: ast.AST | None) -> str:
    """Return what to write in place of what a function reads and calls of a task of Celery, "" without such uses."""
    parts, read = [], dict[str, str]()
    for item in ast.walk(node) if node is not None else ():
        text = ast.unparse(item) if isinstance(item, ast.Call | ast.Attribute) else ""
        if isinstance(item, ast.Call) and text.startswith(("self.retry(", "task.retry(")):
            pause = next((given.value for given in item.keywords if given.arg == "countdown"), None)
            raised = f"raise RetryLater(after={_pause(pause)})"
            parts.append(f'write `{raised}`, with "from runner import RetryLater", in place of {text}')
        elif text.partition(".")[2] in _OF_A_REQUEST:
            read[text] = f"{_OF_A_REQUEST[text.partition('.')[2]]} in place of {text}"
    if read:
        added = 'add the parameter "message: runner.Message", with "import runner"'
        parts.append(f"{added}, and write {' and '.join(read.values())}")
    return ", and ".join(parts)


def _pause(countdown: ast.expr | None) -> str:
    """Return the argument `after` of `RetryLater` for a number of seconds."""
    if isinstance(countdown, ast.Constant) and isinstance(countdown.value, int):
        return f'"{countdown.value}s"'
    if countdown is None:
        return '"3m"'  # as Celery
    return re.sub(r"\b(?:self|task)\.request\.retries\b", "(message.attempt - 1)", ast.unparse(countdown))


_OF_A_REQUEST = {
    "request.retries": "message.attempt - 1",
    "request.id": "message.id",
    "request.headers": "message.headers",
    "request.correlation_id": "message.correlation_id",
}
"""What a task of Celery reads of its request, and the same of a message."""


def hidden_parameters(path: str, call: Any, parameters: Mapping[str, inspect.Parameter]) -> ImportProblem | None:
    """Return the problem of a decorator without `functools.wraps`, around a function that needs more than a payload."""
    if hasattr(call, "__wrapped__") or any(item.kind not in _VARIADIC for item in parameters.values()):
        return None
    name = path.rpartition(":")[2].rpartition(".")[2]
    kept = inspect.getclosurevars(call).nonlocals if inspect.isfunction(call) else getattr(call, "__dict__", {})
    for word, inner in kept.items():
        wanted = list(inspect.signature(inner).parameters.values()) if inspect.isfunction(inner) else []
        if not wanted or inner.__name__ != name or (len(wanted) == 1 and wanted[0].annotation in _PLAIN):
            continue
        code = (call if inspect.isfunction(call) else type(call).__call__).__code__
        hint = f'put `@functools.wraps({word})` above "def {code.co_name}"'
        if not inspect.isfunction(call):
            hint = f"add `functools.update_wrapper(self, self.{word})` to `__init__` of its class"
        what = f'"{path}" hides its parameters behind a decorator: it would get the payload alone, as plain data'
        place, hint = place_of(code.co_filename, code.co_firstlineno, code.co_name), f'{hint}, with "import functools"'
        return ImportProblem("wrong-parameters", what, f"{hint} at the top", is_attribute=True, place=place)
    return None


_PLAIN = (inspect.Parameter.empty, Any, object, dict, "dict", "Any", "object")


def _source(path: str) -> tuple[str, str, dict[str, ast.FunctionDef | ast.AsyncFunctionDef], dict[str, ast.Assign]]:
    """Return the file of a path, the last name in it, and the functions and assignments of the file by their names."""
    module, _, attribute = path.partition(":")
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    nodes = list(ast.walk(ast.Module(source_of(file), [])))
    functions = {node.name: node for node in nodes if isinstance(node, _FUNCTIONS)}
    made = {ast.unparse(node.targets[0]): node for node in nodes if isinstance(node, ast.Assign)}
    return file, attribute.rpartition(".")[2], functions, made
