"""Validates a document: returns its spec, or all problems.

pydantic finds the errors. This module adds their positions in the file, and replaces their messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from runner.config.document import Document, Interpolated, KeyPath, MappingNode, ScalarNode, plain_data
from runner.config.fields import MAX_INTEGER
from runner.config.messages import error_message, quoted_collection
from runner.config.models import model_at
from runner.config.queue_spec import QueueSpec
from runner.config.spec import ITEM_MODELS, PipelineSpec
from runner.config.spec_model import SpecModel, field_keys, model_keys
from runner.errors import Problem
from runner.redaction import mask_passwords

Root = TypeVar("Root", bound=SpecModel)

_BARE_VARIABLE = re.compile(r"\$([A-Za-z_]\w*)")
_NUMBER = re.compile(r"[-+.\w]+")
_EXTRA = "extra_forbidden"
_MISSING = "missing"

MAX_PASSES = 8
"""An unknown key that is renamed can show another one below it. No file has more levels."""


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
    return validate_as(PipelineSpec, document, data, default_errors(data.get("defaults")))


def validate_as(
    root: type[Root], document: Document, data: dict[str, Any], more: Iterable[_Error] = ()
) -> tuple[Root | None, list[Problem]]:
    """Return the spec that the data of a document are by a model, and the problems. `more` are other errors in it."""
    spec, errors = None, list(more)
    try:
        spec = root.model_validate(data)
    except ValidationError as error:
        errors += _errors(error)
    if any(error.type == _EXTRA or _is_source(error) for error in errors):
        return None, _without_unknown_keys(root, errors, document, data)
    return spec, [*_problems(errors, document, root)]


def _without_unknown_keys(
    root: type[SpecModel], errors: list[_Error], document: Document, data: dict[str, Any]
) -> list[Problem]:
    """Return the problems of data with unknown keys. Their values are checked under the keys that are meant."""
    from runner.config.unknown_keys import UnknownKeys

    known = UnknownKeys(document, data, root)
    for _ in range(MAX_PASSES):
        found = [error.path for error in errors if error.type == _EXTRA or _is_source(error)]
        if not found:
            break
        known.settle(found, {error.path for error in errors if error.type == _MISSING})
        errors = [*default_errors(data.get("defaults"))] if root is PipelineSpec else []
        try:
            root.model_validate(data)
        except ValidationError as error:
            errors += _errors(error)
    errors = [error for error in errors if error.path not in known.stood_for and not known.is_refused(error.path)]
    return [*known.problems(), *_problems(errors, document, root)]


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


def default_errors(defaults: object) -> Iterator[_Error]:
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


def _is_source(error: _Error) -> bool:
    """Whether the key `queue` of a subscriber names a queue, which is what `from` is for."""
    return error.path[:1] == ("subscribers",) and error.path[2:] == ("queue",) and _is_names(error.value)


def _is_names(value: object) -> bool:
    """Whether a value is a text, or a list of texts."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _problems(errors: list[_Error], document: Document, root: type[SpecModel]) -> Iterator[Problem]:
    """Yield one problem for each mistake. What an alias repeats is one."""
    seen = set()
    for error in errors:
        node = document.node(document.existing_prefix(error.path))
        mistake = (
            id(node),
            error.type,
            error.path[-1:] if error.type == _MISSING else (),
            error.context.get("message"),
        )
        if mistake in seen:
            continue
        seen.add(mistake)
        if error.type == _MISSING:
            yield _missing_key(error, document, root)
        elif error.type != _EXTRA and not (isinstance(node, ScalarNode) and node.is_broken):
            message = str(error.context.get("message"))
            if not any(key in message for key in _broken_beside(error.path, document)):
                yield _wrong_value(error, document)


def _broken_beside(path: KeyPath, document: Document) -> list[str]:
    """Return the keys beside a path whose values are not known, because their variables are not."""
    beside = document.node(path[:-1]) if path else None
    nodes = beside.nodes.items() if isinstance(beside, MappingNode) else ()
    return [key for key, (_, node) in nodes if key != path[-1] and isinstance(node, ScalarNode) and node.is_broken]


def conflicts(
    error: ValidationError, document: Document, removed: Set[KeyPath], checked: Set[KeyPath]
) -> Iterator[Problem]:
    """Yield the conflicts of options that errors have hidden, without those that name what was `removed` as wrong.

    A map whose conflicts are known is `checked`: those that appear later come of what was removed.
    """
    for found in _errors(error):
        if found.path[:-1] in checked:
            continue
        depth = len(found.path) - 1
        beside = {str(path[depth]) for path in removed if len(path) > depth and path[:depth] == found.path[:-1]}
        said = f"{found.context.get('message', '')} {found.context.get('help', '')}"
        if found.type == "conflicting-options" and not any(
            re.search(rf'"{key.removesuffix("s")}s?\b', said) for key in beside
        ):
            yield _wrong_value(found, document)


def self_dead_lettered(document: Document, spec: PipelineSpec, pipeline: str) -> list[Problem]:
    """Return a problem for each queue of a pipeline, by its name, that is its own dead-letter queue."""
    paths: list[tuple[KeyPath, QueueSpec, str]] = [
        (("queues", name), queue, name) for name, queue in spec.queues.items() if queue.dead_letter
    ]
    for name, subscriber in spec.subscribers.items():
        if subscriber.queue is not None and subscriber.queue.dead_letter:
            paths.append((("subscribers", name, "queue"), subscriber.queue, f"{pipeline}.{name}"))
    message, help_ = (
        "a queue cannot be its own dead-letter queue",
        "write another name, or false; `retry:` in a subscriber tries a message again",
    )
    return [
        document.problem("conflicting-options", at, message, help_)
        for path, queue, name in paths
        if queue.dead_letter == name and (at := (*path, "dead_letter"))
    ]


# Keys


_SOURCES = {
    "from": 'add "from:" with a queue or an event',
    "to": 'add "to:" with a queue or an event',
    "handler": 'add "handler: package.module:function", a function of yours',
}
"""The help for keys whose value only the author knows."""


def _names(document: Document) -> str:
    nodes = [document.node((section,)) for section in ("queues", "events")]
    names = [name for node in nodes if isinstance(node, MappingNode) for name in node.nodes]
    return f": {' or '.join(names[:5])}" if 0 < len(names) <= 5 else ""


def _missing_key(error: _Error, document: Document, root: type[SpecModel]) -> Problem:
    path, key = error.path[:-1], str(error.path[-1])
    examples = [
        field.examples for name, field in model_at(path, root).model_fields.items() if key in field_keys(name, field)
    ]
    example = examples[0][0] if examples and examples[0] else "…"
    help_ = f'add "{key}: {example}"'
    if key in _SOURCES and len(path) == 2:
        help_ = _SOURCES[key] + (_names(document) if key != "handler" else "")
    if len(path) == 2 and str(path[1])[:1] in (".", "_"):
        bare = str(path[1]).lstrip("._")
        help_ = f'move it to the top level as "x-{bare}:", which is ignored, if it only holds what an alias repeats'
    if key == "name" and "to" in path:
        help_ = f'add "name:" with a queue or an event{_names(document)}'
    if not path and key == "version":
        help_ = 'add "version: 1" as the first line'
    return document.problem("missing-key", path, f'missing key "{key}"', help_, on="key")


# Values


def _wrong_value(error: _Error, document: Document) -> Problem:
    path = document.existing_prefix(error.path)
    if bare := quoted_collection(error.value):
        message = f"this {'list' if bare[0] == '[' else 'map'} is in quotes"
        return document.problem("wrong-type", path, message, "remove the quotes", fix=document.replacement(path, bare))
    code, message, help_ = error_message(error.type, error.context, error.value)
    if isinstance(error.value, str) and (variable := _BARE_VARIABLE.fullmatch(error.value)):
        help_ = f'write "${{{variable[1]}}}" for the value of a variable'
    if help_ == "write a number, as in 10":
        help_ = _number_help(path, document)
    if isinstance(error.value, Interpolated) and not error.value.strip():
        name = error.value.expression.strip("${}")
        examples = re.findall(r"\d[\w/%]*", help_) or ["default"]
        example = examples[-1 if len(examples) < 3 else 1] if " to " not in help_ else examples[0]
        message = message.replace("the value of", "the empty value of")
        help_ = f"set it, or write a default, as in ${{{name}:-{example}}}"
    if code == "bad-name" and "to" in error.path and (names := _matching(str(error.value), document)):
        help_ = f"write {' or '.join(f'`to: {name}`' for name in names)}: an event is published by its whole name"
    is_here = len(error.path) - len(path) <= 1  # one more for a name that stands for a map
    source_text = document.source_text(path) if is_here and isinstance(error.value, int | float) else ""
    if help_.startswith('put it in quotes: "') and _NUMBER.fullmatch(source_text):
        help_ = f'put it in quotes: "{source_text}"'  # as it is written: 1.10 is the number 1.1
    if is_here and not document.source_text(path) and (comment := document.comment_behind(path)):
        help_ = f'"#" starts a comment: put the value in quotes, as in "{comment[:20]}"'
    fix, known = None, ""
    replacement = error.context.get("replacement")
    if len(error.path) - len(path) <= 1 and not isinstance(error.value, Interpolated):
        word = _foreign_value(path, error.value, code)
        if word is None and not replacement:
            word = _known_value(path, error.value, code, document)
        known, replacement = word or ("", replacement)
        known = _single(path, error.value, message) or known
        help_ = known or help_
    if error.context.get("is_quoting") and not known and _NUMBER.fullmatch(source_text):
        replacement = f'"{source_text}"'
    if replacement and len(error.path) - len(path) in (0, 1):
        fix = document.replacement(path, replacement)
    if error.path[-1:] == ("[key]",) and path and path == error.path[:-1]:  # the error is in the key itself
        return document.problem(code, path[:-1], message, help_, at=path, on="key")
    return document.problem(code, path, message, help_, fix=fix)


def _number_help(path: KeyPath, document: Document) -> str:
    """Return the help for a number, with the bounds that it has at a path of this file."""
    fields = model_at(path[:-1]).model_fields.items()
    rules = [rule for name, field in fields if path[-1] in field_keys(name, field) for rule in field.metadata]
    bounds = {key: getattr(rule, key) for rule in rules for key in ("ge", "le") if hasattr(rule, key)}
    queue = document.node((*path[:-1], "name"))
    if path[-1] == "priority" and isinstance(queue, ScalarNode):
        highest = document.node(("queues", str(queue.value), "max_priority"))
        bounds["le"] = highest.value if isinstance(highest, ScalarNode) else bounds.get("le")
    if bounds.get("le") not in (None, MAX_INTEGER):
        return f"write a number from {bounds.get('ge', 0)} to {bounds['le']}"
    return f"write a number, as in {5672 if path[-1:] == ('port',) else 10}"


def _single(path: KeyPath, value: object, message: str) -> str:
    """Return the help for a list of one in place of its item, "" for others. Secrets are not shown."""
    if (
        isinstance(value, list)
        and len(value) > 1
        and isinstance(path[-1], int)
        and message.startswith("must be a name")
    ):
        names = [item for item in value if isinstance(item, str) and re.match(r"\w", item)]
        return f"write {' and '.join(f'`- {item}`' for item in names)}, each on a line of its own" if names else ""
    if not isinstance(value, list) or len(value) != 1 or " a map" in message or not message.endswith("not a list"):
        return ""
    is_shown = isinstance(path[-1], str) and not isinstance(value[0], Interpolated | dict | list)
    if is_shown and isinstance(value[0], str) and not re.match(r"[\w./]", value[0]):
        return f'write `{path[-1]}: "{value[0]}"`'
    if isinstance(path[-1], int) and isinstance(value[0], str) and not isinstance(value[0], Interpolated):
        return f'write "{mask_passwords(value[0])}", without "- " or brackets of its own'
    return f'write "{path[-1]}: {value[0]}"' if is_shown else ""


def _foreign_value(path: KeyPath, value: object, code: str) -> tuple[str, str | None] | None:
    """Return the help for a value of another tool, and the value to write if that is certain."""
    if not path or value is None or code == "conflicting-options" or isinstance(path[-1], int) or _pairs(value):
        return None
    from runner.config.proposals import foreign_value, proposals, remark_on  # only for files with mistakes

    model, key = model_at(path[:-1]), str(path[-1])
    items = proposals(model, key, value) if isinstance(value, dict) else []
    is_certain = len(items) == 1 and items[0].is_whole and bool(items[0].text)
    remark = remark_on(model, key, value, str(path[-2]) if len(path) > 1 else "")
    if remark and not is_certain:
        return remark, None
    if (word := foreign_value(model, key, value)) is not None and not is_certain:
        return f'write "{key}: {word.key}"', word.key
    text = f"write `{key}: {items[0].text}` {items[0].condition}".rstrip() if items and items[0].text else ""
    return (mask_passwords(text), None) if text else None


def _known_value(path: KeyPath, value: object, code: str, document: Document) -> tuple[str, str | None] | None:
    """Return the help for a value whose meaning is known, and the value to write if that is certain."""
    if code == "wrong-type" and isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        merged = {key: inner for item in value for key, inner in item.items()}
        if {*merged} <= {*model_keys(model_at(path))}:
            return f'write "{path[-1]}: {{{", ".join(f"{key}: {inner}" for key, inner in merged.items())}}}"', None
    if isinstance(value, dict) and len(value) == 1 and path[-1:] in (("from",), ("store",)):
        key, inner = next(iter(value.items()))
        return (f'write "{path[-1]}: {inner or key}"', None) if isinstance(inner or key, str) else None
    keys = [*model_keys(model_at(path))]
    if code == "wrong-type" and type(value) in (int, float) and len(keys) == 1:
        from runner.config.proposals import proposals  # only for files with mistakes

        items = proposals(model_at(path), keys[0], value, "?")
        return (f'write "{path[-1]}: {{{keys[0]}: {items[0].text}}}"', None) if items else None
    if pairs := _pairs(value) if code == "wrong-type" else {}:
        return f'write "{path[-1]}: {{{", ".join(f"{key}: {inner}" for key, inner in pairs.items())}}}"', None
    if not isinstance(value, str):
        return None
    from runner.config.guesses import cron_at, function_in  # only for files with mistakes

    if path[-1:] == ("every",) and (line := cron_at(value)):
        return f'write `cron: "{line}"` in place of "every"', None
    if code == "bad-import-path" and (found := function_in((document.path.parent, Path()), value, str(path[-2]))):
        return f'write "{found}"', found
    if code != "wrong-type" or (len(path) == 2 and path[0] in ("subscribers", "producers")):
        return (_below_it(path, value), None) if code == "wrong-type" else None
    option = _option_of(model_at(path), value)
    return (f'write "{path[-1]}: {option}"', option) if option else (_below_it(path, value), None)


def _pairs(value: object) -> dict[str, str]:
    """Return the map that `name=value`, or a list of such texts, means; an empty one for other values."""
    items = value if isinstance(value, list) else [value]
    found = [re.fullmatch(r"(\w+)=(\S+)", item) if isinstance(item, str) else None for item in items]
    return {match[1]: match[2] for match in found if match} if all(found) else {}


def _matching(pattern: str, document: Document) -> list[str]:
    """Return the events of a document that a pattern means."""
    events = document.node(("events",))
    words = {"*": r"[^.]+", "#": r".*"}
    wanted = r"\.".join(words.get(word, re.escape(word)) for word in pattern.split("."))
    return [name for name in events.nodes if re.fullmatch(wanted, name)] if isinstance(events, MappingNode) else []


def _option_of(model: type[SpecModel], value: str) -> str:
    """Return the map that a text in place of a map means: the only key that takes this text, but not any text."""
    from runner.config.proposals import value_errors  # only for files with mistakes

    def takes(key: str, value: object) -> bool:
        return all(item["loc"][:1] != (key,) for item in value_errors(model, {key: value}))

    keys = model_keys(model)
    if value in keys and takes(value, True):
        return f"{{{value}: true}}"
    found = [key for key in keys if takes(key, value) and not takes(key, f"{value} {value}")]
    return f"{{{found[0]}: {value}}}" if len(found) == 1 else ""


def _below_it(path: KeyPath, value: str) -> str:
    """Return the help for a text in place of a section or of an item, "" for other places."""
    if len(path) == 1 and path[0] in ("queues", "events", "exchanges") and " " not in value:
        return f'write "{value}:" on a line below it, indented'
    if len(path) == 2 and path[1] in ("version", "name", "description", "owner", "broker"):
        return f'write "{path[1]}: {value}" at the left margin, above "{path[0]}:", if it is that of the pipeline'
    if len(path) == 2 and path[0] in ("queues", "events", "exchanges"):
        return f'write only "{path[1]}:", or its options below it, indented'
    if len(path) == 2 and path[0] in ("subscribers", "producers"):
        if path[1] in model_keys(model_at((path[0], "*"))):
            return 'write a name on a line above it, as in "ship:", and indent what is below'
        key = "handler" if ":" in value else "from" if path[0] == "subscribers" else "to"
        other = "handler" if key != "handler" else "from" if path[0] == "subscribers" else "to"
        return f'write "{key}: {value}" on a line below it, indented, and "{other}:" beside it'
    return ""


def _deduplicate(problems: Iterable[Problem]) -> list[Problem]:
    """Return each problem once. An error in a default or an anchor is found again in every item that uses it."""
    first: dict[tuple[str, str, str, int, int], Problem] = {}
    for problem in problems:
        first.setdefault((problem.code, problem.message, problem.file, problem.line, problem.column), problem)
    return list(first.values())
