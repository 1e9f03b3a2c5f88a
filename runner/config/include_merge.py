"""Merges the documents of included files into that of the pipeline's own file. Nodes keep their positions.

Queues, events and so on are merged; each name may be defined once. Settings of the whole pipeline (its name, broker,
logging, …) are allowed in its own file only. Paths in an included file are relative to that file; here they become
relative to the pipeline's own file. `version` is optional in an included file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from runner.config.document import Document, Interpolated, MappingNode, Node, ScalarNode, SequenceNode, child_of
from runner.config.positions import Span
from runner.config.store_urls import SQLITE
from runner.errors import Problem

SECTIONS: Final = ("exchanges", "queues", "events", "producers", "subscribers", "resources", "stores")
ROOT_ONLY: Final = frozenset({"name", "description", "owner", "broker", "logging", "telemetry", "shutdown", "redact"})


def merge_documents(documents: Sequence[Document], overlays: Sequence[Document] = ()) -> list[Problem]:
    """Merge the included documents into the first one. Nodes that cannot be merged stay, and are validated there.

    The overlays and the defaults have been merged already.
    """
    root, *parts = documents
    root.parts = [*parts, *overlays]
    if not parts:
        return []
    for section in SECTIONS:
        node = child_of(root.root, section)
        if isinstance(node, MappingNode):  # an alias may share it with another section
            span = root.root.nodes[section][0]
            root.root.nodes[section] = (span, replace(node, nodes=dict(node.nodes)))
    return [problem for part in parts for problem in _merge_part(root, part)]


def _merge_part(root: Document, part: Document) -> Iterator[Problem]:
    folder = os.path.relpath(part.path.parent, root.path.parent)
    for section in SECTIONS:
        found = child_of(part.root, section)
        if isinstance(found, MappingNode):
            span, _ = part.root.nodes.pop(section)
            items = _rebased(found, folder) if section == "producers" else found
            if section == "stores":
                stores = {name: (at, moved(node, folder)) for name, (at, node) in found.nodes.items()}
                items = replace(found, nodes=stores)
            yield from _merge_section(root, part, section, span, items)
        elif isinstance(found, ScalarNode) and found.value is None:
            del part.root.nodes[section]
    _merge_python_path(root, part, folder)
    for key in ROOT_ONLY & part.root.nodes.keys():
        span, _ = part.root.nodes.pop(key)
        message = f'"{key}" is allowed only in the pipeline\'s own file'
        help_ = f'move it to "{root.path.name}"'
        if "version" in part.root.nodes:  # a whole pipeline, which is to stay one
            help_ += ", or move what both need to a file that both include"
        yield span.problem("root-only", message, help_, path=key, file=str(part.path))


def _merge_section(root: Document, part: Document, section: str, span: Span, items: MappingNode) -> Iterator[Problem]:
    """Add the items of one section to those of the root. Each name may be defined once."""
    target = child_of(root.root, section)
    if target is None or (isinstance(target, ScalarNode) and target.value is None):
        target = MappingNode(replace(span, length=0), True)
        root.root.nodes[section] = (span, target)
    if not isinstance(target, MappingNode):
        return  # validation reports it
    for name, (name_span, node) in items.nodes.items():
        if name in target.nodes:
            first = target.nodes[name][0]
            where = _shown(root.part(first), first)
            message = f'the {section[:-1]} "{name}" is already defined in {where}'
            help_ = "rename or remove one of the two"
            yield name_span.problem("duplicate-name", message, help_, path=f"{section}.{name}", file=str(part.path))
        else:
            target.nodes[name] = (name_span, node)


def _merge_python_path(root: Document, part: Document, folder: str) -> None:
    """Append the folders of `python_path` of a part to those of the root."""
    found = part.root.nodes.get("python_path")
    if found is None or not _is_texts(found[1]):
        return
    span, node = part.root.nodes.pop("python_path")
    own = child_of(root.root, "python_path")
    if own is not None and not _is_texts(own):
        return
    nodes = [*_items(own), *(moved(item, folder) for item in _items(node))]
    key_span = root.root.nodes["python_path"][0] if own is not None else span
    root.root.nodes["python_path"] = (key_span, SequenceNode(own.span if own is not None else node.span, True, nodes))


def _rebased(producers: MappingNode, folder: str) -> MappingNode:
    """Return producers with the paths of their files relative to the root's folder."""
    nodes = dict(producers.nodes)
    for name, (span, node) in nodes.items():
        if isinstance(node, MappingNode) and "file" in node.nodes:
            file_span, file = node.nodes["file"]
            options = {**node.nodes, "file": (file_span, moved(file, folder))}
            nodes[name] = (span, replace(node, nodes=options))
    return replace(producers, nodes=nodes)


def moved(node: Node, folder: str) -> Node:
    """Return a relative path from another folder, also behind `sqlite:`; other nodes, and URLs, unchanged."""
    if not isinstance(node, ScalarNode) or not isinstance(node.value, str) or node.value in ("", "-") or folder == ".":
        return node
    if "://" in node.value:
        return node
    scheme = SQLITE if node.value.startswith(SQLITE) else ""
    path = f"{scheme}{os.path.join(folder, node.value.removeprefix(scheme))}"
    if isinstance(node.value, Interpolated):
        path = Interpolated(path, node.value.expression)
    return replace(node, value=path)


def _is_texts(node: Node) -> bool:
    return isinstance(node, SequenceNode) or (isinstance(node, ScalarNode) and isinstance(node.value, str))


def _items(node: Node | None) -> list[Node]:
    if isinstance(node, SequenceNode):
        return node.nodes
    return [] if node is None else [node]


def _shown(document: Document, span: Span) -> str:
    from runner.config.diagnostics import display_line  # only for files with mistakes

    return display_line(document.file, span.line)
