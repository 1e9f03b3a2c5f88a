"""The nodes of YAML files, with the position of each key and value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from runner.config.positions import LINE_BREAK, Edit, Lines, Span
from runner.config.scalars import ScalarValue
from runner.errors import Fix, Problem

KeyPath = tuple[str | int, ...]
KeyOrValue = Literal["key", "value"]


class Interpolated(str):
    """A text that comes from `${…}`, at least in part. The schema decides its type, and messages do not show it."""

    __slots__ = ("expression",)
    expression: str

    def __new__(cls, text: str, expression: str) -> Interpolated:
        self = super().__new__(cls, text)
        self.expression = expression
        return self


@dataclass(slots=True, eq=False)
class ScalarNode:
    """A single value. `start` and `end` are its indexes in the text, quotes included.

    `origins` are the names of the variables and files that it comes from. The error in a broken value is reported.
    """

    span: Span
    value: ScalarValue
    start: int = 0
    end: int = 0
    origins: tuple[str, ...] = ()
    is_broken: bool = False
    weight: int = 1
    height: int = 1


@dataclass(slots=True, eq=False)
class SequenceNode:
    """A list. `weight` is the number of its nodes with all aliases expanded, `height` the depth of their nesting."""

    span: Span
    is_block: bool
    nodes: list[Node] = field(default_factory=list)
    weight: int = 1
    height: int = 1


@dataclass(slots=True, eq=False)
class MappingNode:
    """A map. `nodes` has the position of each key and the node of its value."""

    span: Span
    is_block: bool
    nodes: dict[str, tuple[Span, Node]] = field(default_factory=dict)
    weight: int = 1
    height: int = 1


Node = ScalarNode | SequenceNode | MappingNode


@dataclass(slots=True)
class Document:
    """A parsed file or `--set` option: its nodes and its text.

    `parts` of the pipeline's own file are the documents of the files that it includes, then those of overlays. Their
    nodes are merged into it. `option` is the whole text of a `--set`, which has no file.
    """

    root: MappingNode
    lines: Lines
    text: str
    path: Path = Path()
    index: int = 0
    parts: list[Document] = field(default_factory=list)
    option: str = ""
    is_overlay: bool = False

    @property
    def file(self) -> str:
        """The file of problems in this document: its name, or the whole text of a `--set`."""
        return self.option or str(self.path)

    def part(self, span: Span) -> Document:
        """Return the document of the file that a span is in."""
        return self if span.file == self.index else self.parts[span.file - 1]

    def node(self, path: KeyPath) -> Node | None:
        """Return the node at a path, None if it is not in the file."""
        node: Node | None = self.root
        for part in path:
            node = None if node is None else _child(node, part)[1]
        return node

    def existing_prefix(self, path: KeyPath) -> KeyPath:
        """Return the longest prefix of a path that is in the file."""
        node: Node | None = self.root
        for index, part in enumerate(path):
            node = None if node is None else _child(node, part)[1]
            if node is None:
                return path[:index]
        return path

    def span(self, path: KeyPath, on: KeyOrValue = "value") -> Span:
        """Return the position of the key or value at a path, or of its nearest parent in the file.

        The position of a value of several lines, or of an empty one, is that of its key.
        """
        node: Node = self.root
        key = value = replace(self.root.span, length=1)
        for part in path:
            key_span, child = _child(node, part)
            if child is None:
                return value if isinstance(node, ScalarNode) else key
            node = child
            key = key_span or _start(node)
            value = key if _has_no_span(node) else node.span
        return key if on == "key" else value

    def problem(
        self,
        code: str,
        path: KeyPath,
        message: str,
        help: str,
        *,
        at: KeyPath | None = None,
        on: KeyOrValue = "value",
        fix: Fix | None = None,
    ) -> Problem:
        """Return a problem about the key at `path`; it is reported where `at` is written, by default there."""
        span = self.span(path if at is None else at, on)
        return span.problem(code, message, help, path=dotted_path(path), file=self.part(span).file, fix=fix)

    def replacement(self, path: KeyPath, written: str) -> Fix | None:
        """Return the fix that writes other YAML in place of the scalar at a path.

        None if the scalar is not written there: it comes from an alias, from the defaults, or has an anchor.
        """
        node = self.node(path)
        if not isinstance(node, ScalarNode) or node.end == node.start or self.is_default(path):
            return None
        part = self.part(node.span)
        if part.option:
            return None
        before = part.text[: node.start].rpartition("\n")[2].split()
        is_shared = part.text.startswith("*", node.start) or (before and before[-1].startswith("&"))
        end = node.start + len(part.text[node.start : node.end].rstrip())  # a text after "|" ends with its line break
        return None if is_shared else part.lines.fix([Edit(node.start, end, written)])

    def rewriting(self, path: KeyPath, key: str, written: str | None = None) -> Fix | None:
        """Return the fix that writes another key at a path, and other YAML for its scalar unless `written` is None."""
        span = self.span(path, "key")
        start, end = (span.line, span.column), (span.line, span.column + span.length)
        if self.is_default(path) or self.part(span).option:
            return None
        if written is None:
            return Fix(start, end, key)
        value = self.replacement(path, written)
        return Fix(start, value.end, f"{key}: {written}") if value and value.start[0] == span.line else None

    def comment_behind(self, path: KeyPath) -> str:
        """Return the comment after a value without quotes, "" if there is none."""
        node = self.node(path)
        if not isinstance(node, ScalarNode):
            return ""
        text = self.part(node.span).text
        line = LINE_BREAK.split(text[node.end :], maxsplit=1)[0]
        is_plain = text[node.start : node.start + 1] not in ("'", '"', "|", ">", "*")
        behind = line.strip()
        return behind if is_plain and behind.startswith("#") else ""

    def source_text(self, path: KeyPath) -> str:
        """Return the text of a scalar in the file, quotes included; "" for other nodes."""
        node = self.node(path)
        return self.part(node.span).text[node.start : node.end] if isinstance(node, ScalarNode) else ""

    def is_default(self, path: KeyPath) -> bool:
        """Whether the value at a path comes from `defaults`."""
        node: Node | None = self.root
        for part in path:
            if node is None:
                return False
            span, node = _child(node, part)
            if span is not None and span.is_default:
                return True
        return False

    def interpolated(self) -> dict[KeyPath, tuple[str, ...]]:
        """Return the path of each value that comes from `${…}`, with the names of its variables and files."""
        return {
            path: node.origins for path, node in walk_nodes(self.root) if isinstance(node, ScalarNode) and node.origins
        }


def _child(node: Node, part: str | int) -> tuple[Span | None, Node | None]:
    if isinstance(node, MappingNode) and isinstance(part, str):
        return node.nodes.get(part, (None, None))
    if isinstance(node, SequenceNode) and isinstance(part, int) and 0 <= part < len(node.nodes):
        return None, node.nodes[part]
    if isinstance(node, MappingNode) and part == 0:  # one map stands for a list of one
        return None, node
    return None, None


def _has_no_span(node: Node) -> bool:
    return node.span.length == 0 or (not isinstance(node, ScalarNode) and node.is_block)


def _start(node: Node) -> Span:
    return node.span if not _has_no_span(node) else replace(node.span, length=1)


def child_of(node: Node | None, key: str) -> Node | None:
    """Return the value of a key, None if there is none."""
    return node.nodes[key][1] if isinstance(node, MappingNode) and key in node.nodes else None


def is_empty(node: Node) -> bool:
    """Whether there is nothing after a key."""
    return isinstance(node, ScalarNode) and node.value is None and node.start == node.end


def text_of(node: Node | None) -> str:
    """Return the text of a node, "" if it is none."""
    return node.value if isinstance(node, ScalarNode) and isinstance(node.value, str) else ""


def walk_nodes(node: Node, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Node]]:
    """Yield each node with its path, a shared node once for each path. The limits bound their depth and number."""
    yield path, node
    if isinstance(node, MappingNode):
        for key, (_, child) in node.nodes.items():
            yield from walk_nodes(child, (*path, key))
    elif isinstance(node, SequenceNode):
        for index, child in enumerate(node.nodes):
            yield from walk_nodes(child, (*path, index))


def plain_data(node: Node) -> Any:
    """Return the data of a node: dicts, lists and scalars."""
    if isinstance(node, MappingNode):
        return {key: plain_data(child) for key, (_, child) in node.nodes.items()}
    if isinstance(node, SequenceNode):
        return [plain_data(child) for child in node.nodes]
    return node.value


def dotted_path(path: KeyPath) -> str:
    """Return a path with dots, as in `subscribers.process_orders.to.1`."""
    return ".".join(str(part) for part in path)


def value_at(data: Any, path: KeyPath) -> Any:
    """Return the value at a path, None if there is none. One map stands for a list of one."""
    for part in path:
        if isinstance(data, dict):
            data = data if part == 0 else data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        else:
            return None
    return data
