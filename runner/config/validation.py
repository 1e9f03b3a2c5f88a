"""Validates a document: returns its spec, or all problems.

pydantic finds the errors. This module adds their positions in the file, and replaces their messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError

from runner.config.document import Document, KeyPath, ScalarNode, plain_data
from runner.config.messages import closest, error_message, quoted
from runner.config.queue_spec import QueueSpec
from runner.config.spec import ITEM_MODELS, PipelineSpec
from runner.config.spec_model import SpecModel, field_keys, model_keys
from runner.errors import Problem

Root = TypeVar("Root", bound=SpecModel)

_KINDS = {
    "queues": "a queue",
    "producers": "a producer",
    "subscribers": "a subscriber",
    "events": "an event",
    "exchanges": "an exchange",
}
_BARE_VARIABLE = re.compile(r"\$([A-Za-z_]\w*)")
_NUMBER = re.compile(r"[-+.\w]+")
_EXTRA = "extra_forbidden"
_MISSING = "missing"


def validate(document: Document) -> tuple[PipelineSpec | None, list[Problem]]:
    """Return the spec, None if there are problems. Defaults and included files must have been merged."""
    problems: list[Problem] = []
    for part in document.parts:  # first, so that an error in a default is reported there
        if rest := document_data(part):  # the keys of an included file that could not be merged
            problems += _validate_data(part, {"version": 1, **rest})[1]
    spec, found = _validate_data(document, document_data(document))
    problems = _deduplicate([*problems, *found])
    return (None if problems else spec), problems


def document_data(document: Document) -> dict[str, Any]:
    """Return the data of a document, without the `x-…` keys."""
    return {key: value for key, value in plain_data(document.root).items() if not key.startswith("x-")}


def _validate_data(document: Document, data: dict[str, Any]) -> tuple[PipelineSpec | None, list[Problem]]:
    return validate_as(PipelineSpec, document, data, _default_errors(data.get("defaults")))


def validate_as(
    root: type[Root], document: Document, data: dict[str, Any], more: Iterable[_Error] = ()
) -> tuple[Root | None, list[Problem]]:
    """Return the spec that the data of a document are by a model, and the problems. `more` are other errors in it."""
    spec, errors = None, list(more)
    try:
        spec = root.model_validate(data)
    except ValidationError as error:
        errors += _errors(error)
    return spec, list(_problems(errors, document, root))


class _Error(NamedTuple):
    """An error of pydantic: its type, its path from the root, its context and the wrong value."""

    type: str
    path: KeyPath
    context: Mapping[str, Any]
    value: object


def _errors(error: ValidationError, prefix: KeyPath = ()) -> list[_Error]:
    return [
        _Error(item["type"], (*prefix, *item["loc"]), item.get("ctx", {}), item.get("input"))
        for item in error.errors(include_url=False)
    ]


def _default_errors(defaults: object) -> Iterator[_Error]:
    """Yield errors in the defaults themselves, without those that depend on the options of an item."""
    for kind, model in ITEM_MODELS.items():
        options = defaults.get(kind) if isinstance(defaults, dict) else None
        if not isinstance(options, dict):
            continue
        try:
            model.model_validate(options)
        except ValidationError as error:
            for item in _errors(error, ("defaults", kind)):
                is_incomplete = item.type == _MISSING and not any(isinstance(part, int) for part in item.path)
                if not is_incomplete and not item.context.get("whole_map"):  # lists replace: no item completes them
                    yield item


def _problems(errors: list[_Error], document: Document, root: type[SpecModel]) -> Iterator[Problem]:
    """Yield one problem for each mistake. A misspelt key is not reported as missing as well."""
    missing: dict[KeyPath, set[str]] = {}
    for error in errors:
        if error.type == _MISSING:
            missing.setdefault(error.path[:-1], set()).add(str(error.path[-1]))
    for error in errors:
        if error.type == _EXTRA:
            yield _unknown_key(error, missing.get(error.path[:-1], set()), document, root)
    for error in errors:
        if error.type == _MISSING:
            if error.path[-1] in missing[error.path[:-1]]:
                yield _missing_key(error, document, root)
        elif error.type != _EXTRA and not _is_reported(error, document):
            yield _wrong_value(error, document)


def _is_reported(error: _Error, document: Document) -> bool:
    node = document.node(document.existing_prefix(error.path))
    return isinstance(node, ScalarNode) and node.is_broken


def self_dead_lettered(document: Document, spec: PipelineSpec, pipeline: str) -> list[Problem]:
    """Return a problem for each queue of a pipeline, by its name, that is its own dead-letter queue."""
    paths: list[tuple[KeyPath, QueueSpec, str]] = [
        (("queues", name), queue, name) for name, queue in spec.queues.items() if queue.dead_letter
    ]
    for name, subscriber in spec.subscribers.items():
        if subscriber.queue is not None and subscriber.queue.dead_letter:
            paths.append((("subscribers", name, "queue"), subscriber.queue, f"{pipeline}.{name}"))
    message, help_ = "a queue cannot be its own dead-letter queue", "write another name, or false"
    return [
        document.problem("conflicting-options", at, message, help_)
        for path, queue, name in paths
        if queue.dead_letter == name and (at := (*path, "dead_letter"))
    ]


# Keys


def _unknown_key(error: _Error, missing: set[str], document: Document, root: type[SpecModel]) -> Problem:
    """Return the problem of an unknown key. Remove the key that was meant from `missing`."""
    path, key = error.path[:-1], str(error.path[-1])
    model = model_at(path, root)
    code, message, help_ = "unknown-key", f"unknown key {quoted(key)}", ""
    if key in model.reserved:
        code, message, help_ = "reserved-key", f'"{key}" is a reserved word', "write another key, or remove it"
    elif meant := closest(key, missing):
        missing.discard(meant)
        help_ = f'did you mean "{meant}"?'
    elif meant := closest(key, model_keys(model), likeness=0.7):
        help_ = f'did you mean "{meant}"?'
    elif below := _below(key, model):
        help_ = f'write it under "{below}:"'
    elif meant := closest(key, model_keys(model)):
        help_ = f'did you mean "{meant}"?'
    else:
        help_ = (root is PipelineSpec and _map_of_key(key, model)) or f"write one of: {', '.join(model_keys(model))}"
    return document.problem(code, path, message, help_, at=error.path, on="key")


def _map_of_key(key: str, model: type[SpecModel]) -> str:
    """Return the help for a key of the language in the wrong map, "" for other keys."""
    if model is PipelineSpec and key.startswith("x_"):
        return f'write "x-{key[2:40]}": keys that begin with x- are ignored'
    if model is not PipelineSpec and key in {*model_keys(PipelineSpec)} - {"version", "name", "description", "owner"}:
        return "move it to the top level of the file"
    homes = [word for section, word in _KINDS.items() if key in model_keys(_model_below(PipelineSpec, (section, "*")))]
    return f"move it into {' or '.join(homes)}" if homes else ""


def _below(key: str, model: type[SpecModel]) -> str | None:
    """Return the key of the map below this one that a key belongs in, None if there is none."""
    return next((below for below in model_keys(model) if key in model_keys(_model_below(model, (below,)))), None)


def _model_below(model: type[SpecModel], path: KeyPath) -> type[SpecModel]:
    annotation: Any = model
    for part in path:
        annotation = _bare(_step(annotation, part))
    return annotation if isinstance(annotation, type) and issubclass(annotation, SpecModel) else SpecModel


def _missing_key(error: _Error, document: Document, root: type[SpecModel]) -> Problem:
    path, key = error.path[:-1], str(error.path[-1])
    examples = [
        field.examples for name, field in model_at(path, root).model_fields.items() if key in field_keys(name, field)
    ]
    example = examples[0][0] if examples and examples[0] else "…"
    help_ = f'add "{key}: {example}"'
    if not path and key == "version":
        help_ = 'add "version: 1" as the first line'
    return document.problem("missing-key", path, f'missing key "{key}"', help_, on="key")


def model_at(path: KeyPath, root: type[SpecModel] = PipelineSpec) -> type[SpecModel]:
    """Return the model of the map at a path."""
    if path[:1] == ("defaults",) and len(path) > 1:
        return _model_below(ITEM_MODELS.get(str(path[1]), SpecModel), path[2:])
    return _model_below(root, path)


def _step(annotation: Any, part: str | int) -> Any:
    """Return the type of a key or an item of a type."""
    if isinstance(annotation, type) and issubclass(annotation, SpecModel):
        for name, field in annotation.model_fields.items():
            if part in field_keys(name, field):
                return field.annotation
        annotation = annotation.__annotations__.get("__pydantic_extra__")  # a map of names beside the known keys
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return arguments[1]
    return arguments[0] if get_origin(annotation) is tuple else None


def _bare(annotation: Any) -> Any:
    """Return a type without its metadata and without None."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, UnionType):
            annotation = next(item for item in get_args(annotation) if item is not type(None))
        else:
            return annotation


# Values


def _wrong_value(error: _Error, document: Document) -> Problem:
    path = document.existing_prefix(error.path)
    code, message, help_ = error_message(error.type, error.context, error.value)
    if isinstance(error.value, str) and (variable := _BARE_VARIABLE.fullmatch(error.value)):
        help_ = f'write "${{{variable[1]}}}" for the value of a variable'
    source_text = document.source_text(path) if path == error.path and isinstance(error.value, int | float) else ""
    if help_.startswith('put it in quotes: "') and _NUMBER.fullmatch(source_text):
        help_ = f'put it in quotes: "{source_text}"'  # as it is written: 1.10 is the number 1.1
    if error.value is None and path == error.path and (comment := document.comment_behind(path)):
        help_ = f'"#" starts a comment: put the value in quotes, as in "{comment[:20]}"'
    if error.path[-1:] == ("[key]",) and path and path == error.path[:-1]:  # the error is in the key itself
        return document.problem(code, path[:-1], message, help_, at=path, on="key")
    return document.problem(code, path, message, help_)


def _deduplicate(problems: Iterable[Problem]) -> list[Problem]:
    """Return each problem once. An error in a default or an anchor is found again in every item that uses it."""
    first: dict[tuple[str, str, str, int, int], Problem] = {}
    for problem in problems:
        first.setdefault((problem.code, problem.message, problem.file, problem.line, problem.column), problem)
    return list(first.values())
