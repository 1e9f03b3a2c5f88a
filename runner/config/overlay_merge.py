"""Merges overlays into the documents of a pipeline, node by node, before defaults and included files are merged.

Maps are merged, lists and single values replace, `null` removes. Nodes keep their positions, so that a problem with a
value is reported in the overlay, and `config --origin` names it. An item that an included file defines is changed in
the document of that file, and gets its defaults.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from runner.config.document import (
    Document,
    KeyPath,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    child_of,
    is_empty,
    text_of,
)
from runner.config.include_merge import SECTIONS, moved
from runner.config.messages import closest, did_you_mean
from runner.config.models import model_at
from runner.config.positions import Span
from runner.config.spec_model import SpecModel, field_keys, model_keys
from runner.errors import Problem, Severity

_PATHS: Final = (("producers", "*", "file"), ("broker", "tls", "*"), ("python_path",), ("stores", "*"))
"""Values that are paths, relative to the file that they are written in."""


@dataclass(slots=True)
class OverlayProblems:
    """Problems of overlays: those of this pipeline, and those that another pipeline may solve, which has the name."""

    certain: list[Problem] = field(default_factory=list)
    elsewhere: list[Problem] = field(default_factory=list)


def merge_overlays(
    documents: Sequence[Document], groups: Sequence[Sequence[Document]], *, is_only: bool
) -> OverlayProblems:
    """Merge overlays, in order, into the documents of a pipeline: its own and those that it includes.

    An overlay comes after those that it includes, which are for no other pipelines than it. With `is_only`, no other
    pipeline is loaded. The documents of the overlays are empty afterwards.
    """
    found = OverlayProblems()
    for *included, overlay in groups:
        merge = _Merge(documents, overlay, found, is_only=is_only)
        if merge.is_meant():
            for part in (_Merge(documents, one, found, is_only=merge.is_certain) for one in included):
                if part.is_meant():
                    part.run()
            merge.run()
        for document in (*included, overlay):
            document.root = replace(document.root, nodes={})
    return found


def without_misspelt_items(document: Document, problems: Sequence[Problem]) -> Iterator[Problem]:
    """Yield problems; where an overlay misspells the name of an item, that and not what the item lacks."""
    for problem in problems:
        section, _, name = problem.path.partition(".")
        is_incomplete = problem.code in ("missing-key", "no-source") and section in SECTIONS
        items = document.node((section,)) if is_incomplete else None
        if isinstance(items, MappingNode) and name in items.nodes:
            span = items.nodes[name][0]
            names = [key for key, (other, _) in items.nodes.items() if not document.part(other).is_overlay]
            if document.part(span).is_overlay and (meant := closest(name, names)):
                message, help_ = _unknown(section, name), f'did you mean "{meant}"?'
                problem = replace(problem, code="unknown-item", message=message, help=help_)
        yield problem


class _Merge:
    """The merge of one overlay into one pipeline."""

    def __init__(
        self, documents: Sequence[Document], overlay: Document, found: OverlayProblems, *, is_only: bool
    ) -> None:
        self._documents = documents
        self._root = documents[0]
        self._overlay = overlay
        self._found = found
        self._is_selective = "pipeline" in overlay.root.nodes and not overlay.option
        self.is_certain = is_only or self._is_selective
        self._is_only = is_only

    def is_meant(self) -> bool:
        """Whether the overlay is for this pipeline."""
        if not self._is_selective:
            return True
        own = text_of(child_of(self._root.root, "name")) or self._root.path.stem
        named = list(self._named())
        for span, text in named:
            if text != own:
                message = f'there is no pipeline "{text}"' if text else "must be the name of a pipeline, or a list"
                help_ = did_you_mean(text, [own])
                problem = span.problem("unknown-pipeline", message, help_, path="pipeline", file=self._overlay.file)
                (self._found.certain if self._is_only else self._found.elsewhere).append(problem)
        return own in [text for _, text in named]

    def _named(self) -> Iterator[tuple[Span, str]]:
        """Yield the pipelines that the key `pipeline` names, with their spans; "" for what is no name."""
        span, node = self._overlay.root.nodes["pipeline"]
        for item in node.nodes if isinstance(node, SequenceNode) else [node]:
            yield item.span if item.span.length else span, text_of(item)

    def run(self) -> None:
        """Merge all keys."""
        for key, (span, node) in self._overlay.root.nodes.items():
            if key.startswith("x-") or key == "include" or (key == "pipeline" and self._is_selective):
                continue
            if key not in SECTIONS:
                self._merge_key(self._root.root, key, span, self._rebased(node, (key,), self._root), (key,))
            elif isinstance(node, MappingNode):
                for name, (name_span, item) in node.nodes.items():
                    self._merge_item(key, span, name, name_span, item)
            elif _is_null(node):
                for document in self._documents:
                    document.root.nodes.pop(key, None)
            elif not is_empty(node):
                self._root.root.nodes[key] = (span, node)  # validation reports it

    def _merge_item(self, section: str, section_span: Span, name: str, span: Span, item: Node) -> None:
        """Merge a queue, a subscriber and so on, where it is defined; an item without a definition is a new one."""
        owners = [document for document in self._documents if name in _items(document, section)]
        path: KeyPath = (section, name)
        is_change = bool(self._overlay.option) and isinstance(item, MappingNode) and not _is_written_map(item)
        if not owners and (_is_null(item) or is_change or not self.is_certain):
            self._report_unknown(section, name, span, is_removal=_is_null(item))
            return
        owner = owners[0] if owners else self._root
        if owners and is_empty(item) and not self._overlay.option:
            help_ = "write `null` to remove it, or remove this line"
            self._report(span, path, "unused-option", "nothing stands here, so nothing changes", help_, "warning")
        own_span, own = owner.root.nodes.get(section, (section_span, None))
        if isinstance(own, MappingNode):
            items = replace(own, nodes=dict(own.nodes))  # an alias may share it
        elif own is None or is_empty(own):
            items = MappingNode(replace(own_span, length=0), True)
        else:
            return  # validation reports it
        self._merge_key(items, name, span, self._rebased(item, path, owner), path)
        owner.root.nodes[section] = (own_span, items)

    def _merge_key(self, target: MappingNode, key: str, span: Span, node: Node, path: KeyPath) -> None:
        """Merge one key of a map into another map."""
        spellings = _spellings(path)
        if _is_null(node):
            if not any(target.nodes.pop(spelling, None) for spelling in spellings):
                self._check_removal(target, key, span, path)
            return
        if is_empty(node) and (_is_map(path) or (path[0] in SECTIONS and len(path) == 2)):
            node = MappingNode(span, True)  # as in a pipeline: a map whose lines are comments
        for spelling in spellings:
            if spelling != key:
                target.nodes.pop(spelling, None)
        old_span, old = target.nodes.get(key, (span, None))
        if not isinstance(node, MappingNode):
            target.nodes[key] = (span, node)
            return
        base = _expanded(old, path)
        if base is None and self._overlay.option and isinstance(old, SequenceNode):
            self._report(span, path, "bad-set", "a list is replaced as a whole", "write [one, two] after the path")
            return
        merged = replace(base, nodes=dict(base.nodes)) if base else MappingNode(node.span, node.is_block)
        for name, (child_span, child) in node.nodes.items():
            self._merge_key(merged, name, child_span, child, (*path, name))
        merged.weight, merged.height = merged.weight + node.weight, max(merged.height, node.height)
        target.nodes[key] = (old_span if base else span, merged)

    def _check_removal(self, target: MappingNode, key: str, span: Span, path: KeyPath) -> None:
        """Report the removal of a key that does not exist, unless the language knows it: then it has its default."""
        if key not in model_keys(model_at(path[:-1])):
            self._report(
                span, path, "nothing-to-remove", f'there is no "{key}" to remove', did_you_mean(key, target.nodes)
            )

    def _report_unknown(self, section: str, name: str, span: Span, *, is_removal: bool) -> None:
        names = list(dict.fromkeys(name for document in self._documents for name in _items(document, section)))
        code = "nothing-to-remove" if is_removal else "unknown-item"
        dotted = next((each for each in names if each.startswith(f"{name}.")), None) if self._overlay.option else None
        if dotted is not None:
            key = f'{section}."{dotted}"'
            setting = self._overlay.option.replace(f"{section}.{dotted}", key).partition(" ")[2]
            whole = f": write --set '{setting}'" if key in setting else ""
            help_ = f"a name with dots needs quotes: {key}{whole}"
        elif meant := closest(name, names):
            help_ = f'did you mean "{meant}"?'
        elif is_removal or self.is_certain:
            help_ = did_you_mean(name, names) or f"the pipeline has no {section}"
        else:
            help_ = 'add "pipeline: NAME" to the overlay to say which pipeline gets it'
        self._report(span, (section, name), code, _unknown(section, name), help_)

    def _report(
        self, span: Span, path: KeyPath, code: str, message: str, help_: str, severity: Severity = "error"
    ) -> None:
        dotted = ".".join(map(str, path))
        problem = span.problem(code, message, help_, path=dotted, file=self._overlay.file, severity=severity)
        (self._found.certain if self.is_certain or severity == "warning" else self._found.elsewhere).append(problem)

    def _rebased(self, node: Node, path: KeyPath, owner: Document) -> Node:
        """Return a node with its paths relative to the folder of `owner`; those of a `--set` are to the current one."""
        if not any(_is_prefix(path, paths) for paths in _PATHS):
            return node
        if isinstance(node, MappingNode):
            nodes = {
                key: (span, self._rebased(child, (*path, key), owner)) for key, (span, child) in node.nodes.items()
            }
            return replace(node, nodes=nodes)
        if isinstance(node, SequenceNode):
            return replace(node, nodes=[self._rebased(child, path, owner) for child in node.nodes])
        is_path = any(len(path) == len(paths) and _is_prefix(path, paths) for paths in _PATHS)
        return moved(node, os.path.relpath(self._overlay.path.parent, owner.path.parent)) if is_path else node


def _unknown(section: str, name: str) -> str:
    return f'there is no {section[:-1]} "{name}"'


def _items(document: Document, section: str) -> dict[str, tuple[Span, Node]]:
    node = child_of(document.root, section)
    return node.nodes if isinstance(node, MappingNode) else {}


def _is_null(node: Node) -> bool:
    """Whether a node is a written `null`."""
    return isinstance(node, ScalarNode) and node.value is None and node.start != node.end


def _is_written_map(node: MappingNode) -> bool:
    """Whether a map of a `--set` is a `{…}`, and not a part of the path before the "="."""
    return not node.is_block


def _is_map(path: KeyPath) -> bool:
    return model_at(path) is not SpecModel or (path[0] in SECTIONS and len(path) == 1)


def _is_prefix(path: KeyPath, paths: Sequence[str]) -> bool:
    return len(path) <= len(paths) and all(
        part in ("*", key) for key, part in zip(path, paths[: len(path)], strict=True)
    )


def _spellings(path: KeyPath) -> tuple[str, ...]:
    """Return all keys that mean the same as the last one of a path, as `url` and `urls`."""
    for name, one in model_at(path[:-1]).model_fields.items():
        if path[-1] in (keys := field_keys(name, one)):
            return keys
    return (str(path[-1]),)


def _expanded(node: Node | None, path: KeyPath) -> MappingNode | None:
    """Return a map, or that which a short form stands for; None for other nodes."""
    if isinstance(node, MappingNode):
        return node
    key = model_at(path).short_form
    if not key or not isinstance(node, ScalarNode) or isinstance(node.value, bool) or node.value in (None, "none"):
        return None
    return MappingNode(node.span, True, {key: (node.span, node)})
