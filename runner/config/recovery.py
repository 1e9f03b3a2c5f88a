"""Recovers a spec from a file with errors, so that its names and imports are checked in the same run.

The spec never runs. It must not cause false errors: a queue or an event with wrong options is kept without them, a
resource is kept with another factory, and a misspelt key is replaced by the right one.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from runner.config.document import Document, KeyPath, MappingNode, ScalarNode, walk_nodes
from runner.config.messages import closest
from runner.config.spec import PipelineSpec
from runner.config.spec_model import model_keys
from runner.config.validation import document_data, model_at

MAX_PASSES = 8
"""Removing a value can cause another error. More passes than a file has levels are not needed."""

_REPLACEMENTS: dict[str, dict[str, Any]] = {
    "queues": {},
    "events": {},
    "exchanges": {},
    "resources": {"factory": "builtins:object"},
}
"""Replacements for wrong items, whose names may be used elsewhere."""


def recover_spec(document: Document) -> PipelineSpec | None:
    """Return a spec of the valid parts of a document, None if there are none. Its defaults have been merged.

    Misspelt keys are renamed in the document as well, so that problems with their values have positions.
    """
    data = {**document_data(document), "version": 1}
    if any(not isinstance(data.get(section), dict | list | None) for section in ("exchanges", "queues", "events")):
        return None  # its names are not known, and would be reported as unknown where they are used
    for path, node in walk_nodes(document.root):
        is_opaque = "with" in path[2:-1]  # any value is valid there
        if isinstance(node, ScalarNode) and node.is_broken and not is_opaque:
            _remove(data, path)
    for _ in range(MAX_PASSES):
        try:
            return PipelineSpec.model_validate(data)
        except ValidationError as error:
            _repair(data, document, [(item["type"], item["loc"]) for item in error.errors(include_url=False)])
    return None


def _repair(data: dict[str, Any], document: Document, errors: list[tuple[str, KeyPath]]) -> None:
    """Rename misspelt keys, and remove other wrong values; from the end of lists, so that indexes stay valid."""
    missing = {path for kind, path in errors if kind == "missing"}
    for kind, path in errors:
        if kind != "extra_forbidden":
            continue
        wanted = [str(other[-1]) for other in missing if other[:-1] == path[:-1]]
        meant = closest(str(path[-1]), wanted) or closest(str(path[-1]), _missing_keys(data, path[:-1]))
        if meant is None:
            _remove(data, path)
        else:
            _rename(data, document, path, meant)
            missing.discard((*path[:-1], meant))
    wrong = [path for kind, path in errors if kind not in ("missing", "extra_forbidden")]
    for path in sorted({*wrong, *(path[:-1] for path in missing)}, key=_depth, reverse=True):
        _remove(data, path)


def _missing_keys(data: dict[str, Any], path: KeyPath) -> list[str]:
    """Return the keys that the map at a path can have, but does not. Of `one_of`, none if it has one already."""
    model, has = model_at(path), _at(data, path) or {}
    others = set() if not any(key in has for key in model.one_of) else set(model.one_of)
    return [key for key in model_keys(model) if key not in has and key not in others]


def _depth(path: KeyPath) -> tuple[int, tuple[str, ...]]:
    return len(path), tuple(f"{part:08}" if isinstance(part, int) else part for part in path)


def _rename(data: dict[str, Any], document: Document, path: KeyPath, meant: str) -> None:
    parent, node = _at(data, path[:-1]), document.node(path[:-1])
    if isinstance(parent, dict) and path[-1] in parent:
        parent[meant] = parent.pop(path[-1])
    if isinstance(node, MappingNode) and path[-1] in node.nodes:
        node.nodes[meant] = node.nodes.pop(str(path[-1]))


def _remove(data: dict[str, Any], path: KeyPath) -> None:
    """Remove the value at a path, or its nearest parent that exists. A queue or an event keeps its name.

    An item whose name is wrong, which pydantic marks with `[key]`, is removed with its name.
    """
    if path[-1:] == ("[key]",):
        named = _at(data, path[:-2])
        if isinstance(named, dict):
            named.pop(path[-2], None)
        return
    section = data.get(str(path[0])) if path else None
    if path and path[0] in _REPLACEMENTS and isinstance(section, list):  # a list of names in place of a map
        data[str(path[0])] = {item: dict(_REPLACEMENTS[str(path[0])]) for item in section if isinstance(item, str)}
        return
    if len(path) == 2 and path[0] in _REPLACEMENTS and isinstance(section, dict) and section.get(path[1], {}) is None:
        section[path[1]] = dict(_REPLACEMENTS[str(path[0])])
        return
    while path and _at(data, path) is None:
        path = path[:-1]
    if not path:
        return
    parent, key = _at(data, path[:-1]), path[-1]
    if (
        len(path) == 2
        and path[0] in _REPLACEMENTS
        and isinstance(parent, dict)
        and parent[key] != _REPLACEMENTS[str(path[0])]
    ):
        parent[key] = dict(_REPLACEMENTS[str(path[0])])
    elif isinstance(parent, dict | list):
        del parent[key]  # type: ignore[arg-type]  # _at() has followed it


def _at(data: Any, path: KeyPath) -> Any:
    """Return the value at a path, None if there is none."""
    for part in path:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        else:
            return None
    return data
