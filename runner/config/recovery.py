"""Recovers a spec from a file with errors, so that its names and imports are checked in the same run.

The spec never runs. It must not cause false errors: a queue or an event with wrong options is kept without them, a
resource is kept with another factory, and a handler or source that is wrong by one that is never looked for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner.config.document import Document, KeyPath, ScalarNode, value_at, walk_nodes
from runner.config.fields import item_name
from runner.config.scalars import resolve_scalar
from runner.config.spec import PipelineSpec
from runner.config.validation import conflicts, document_data
from runner.errors import Problem

MAX_PASSES = 8
"""Removing a value can cause another error. More passes than a file has levels are not needed."""

UNKNOWN = "unknown:unknown"
"""A name and an import path in place of a wrong or missing one. It is never looked for."""

_REPLACEMENTS: dict[str, Any] = {
    "queues": {},
    "events": {},
    "exchanges": {},
    "resources": {"factory": "builtins:object"},
    "stores": "sqlite:unknown.db",
}
"""Replacements for wrong items, whose names may be used elsewhere."""

_NEEDED = {"window": "1h", "name": UNKNOWN}
"""Values in place of missing keys, without which the other keys of their maps would not be read."""


def recover_spec(document: Document) -> tuple[PipelineSpec | None, list[Problem]]:
    """Return a spec of the valid parts of a document, None if there are none, and the conflicts that errors hide.

    Its defaults have been merged, and unknown keys renamed or removed, by `validate`.
    """
    data = {**document_data(document), "version": 1}
    for section in ("exchanges", "queues", "events"):
        if not isinstance(names := data.get(section), dict | list | None):
            data[section] = re.split(r"[,\s]+", names) if isinstance(names, str) else []
    removed: set[KeyPath] = set()
    for path, node in walk_nodes(document.root):
        is_opaque = "with" in path[2:-1]  # any value is valid there
        if isinstance(node, ScalarNode) and node.is_broken and not is_opaque:
            _remove(data, path)
            removed.add(path)
    hidden: list[Problem] = []
    checked: set[KeyPath] = set()
    for count in range(MAX_PASSES):
        try:
            return PipelineSpec.model_validate(data), hidden
        except ValidationError as error:
            if count:
                hidden += conflicts(error, document, removed, checked)
            items = error.errors(include_url=False)
            meant = {item["loc"]: str(item.get("ctx", {}).get("replacement") or "") for item in items}
            paths = [item["loc"] for item in items if item["type"] == "bad-import-path"]
            meant |= {path: "" for path in paths if not _is_there(meant[path], document.path.parent)}
            wrong = [(item["type"], item["loc"]) for item in items if not _write(data, item["loc"], meant, count)]
            checked |= {path[:-1] for kind, path in wrong if kind == "conflicting-options"}
            _repair(data, wrong)
            removed |= {path for _, path in wrong}
    return None, hidden


def _is_there(path: str, folder: Path) -> bool:
    """Whether the module of an import path is a file below a folder."""
    module = path.strip('"').partition(":")[0]
    return bool(module) and folder.joinpath(*module.split(".")).with_suffix(".py").is_file()


def _write(data: dict[str, Any], path: KeyPath, meant: dict[KeyPath, str], count: int) -> bool:
    """Write the value that is meant by a wrong one, if it is known; in the first pass only, as it may be wrong too."""
    parent, written = value_at(data, path[:-1]), meant[path]
    if count or not written or not isinstance(parent, dict) or path[-1] not in parent:
        return False
    parent[path[-1]] = written[1:-1] if written.startswith('"') else resolve_scalar(written)
    return True


def _repair(data: dict[str, Any], errors: list[tuple[str, KeyPath]]) -> None:
    """Replace or remove wrong values; from the end of lists, so that indexes stay valid."""
    missing = {path for kind, path in errors if kind == "missing"}
    for path in missing:
        item = value_at(data, path[:-1])
        if path[-1] in _NEEDED and isinstance(item, dict):
            item[path[-1]] = _NEEDED[str(path[-1])]
        elif _is_replaceable(path) and isinstance(item, dict):
            item[path[-1]] = UNKNOWN
    wrong = {path for kind, path in errors if kind != "missing"}
    removed = {path[:-1] for path in missing if not _is_replaceable(path) and path[-1] not in _NEEDED}
    for path in sorted(wrong | removed, key=_depth, reverse=True):
        _remove(data, path)


def _replacement(path: KeyPath) -> Any:
    item = _REPLACEMENTS[str(path[0])]
    return {**item} if isinstance(item, dict) else item


def _is_replaceable(path: KeyPath) -> bool:
    return len(path) == 3 and path[0] in ("producers", "subscribers") and path[2] in ("from", "handler", "to")


def _depth(path: KeyPath) -> tuple[int, tuple[str, ...]]:
    return len(path), tuple(f"{part:08}" if isinstance(part, int) else part for part in path)


def _remove(data: dict[str, Any], path: KeyPath) -> None:
    """Remove the value at a path, or its nearest parent that exists. A queue or an event keeps its name.

    An item whose name is wrong, which pydantic marks with `[key]`, is removed with its name.
    """
    if path[-1:] == ("[key]",):
        named = value_at(data, path[:-2])
        if isinstance(named, dict):
            named.pop(path[-2], None)
        return
    section = data.get(str(path[0])) if path else None
    if path and path[0] in _REPLACEMENTS and isinstance(section, list):  # a list of names in place of a map
        data[str(path[0])] = {name: _replacement(path) for name in map(item_name, section) if name}
        return
    if len(path) == 2 and path[0] in _REPLACEMENTS and isinstance(section, dict) and section.get(path[1], {}) is None:
        section[path[1]] = _replacement(path)
        return
    while path and (value_at(data, path) is None or value_at(data, path) is value_at(data, path[:-1])):
        path = path[:-1]
    if not path:
        return
    if _is_replaceable(path) and isinstance(item := value_at(data, path[:2]), dict) and item[path[2]] != UNKNOWN:
        item[path[2]] = UNKNOWN
        return
    parent, key = value_at(data, path[:-1]), path[-1]
    if isinstance(parent, list) and path[-2] in ("on", "not_on") and parent[int(key)] != UNKNOWN:
        parent[int(key)] = UNKNOWN  # those after it keep their index, which is their place
    elif (
        len(path) == 2
        and path[0] in _REPLACEMENTS
        and isinstance(parent, dict)
        and parent[key] != _REPLACEMENTS[str(path[0])]
    ):
        parent[key] = _replacement(path)
    elif isinstance(parent, dict | list):
        del parent[key]  # type: ignore[arg-type]  # value_at() has followed it
