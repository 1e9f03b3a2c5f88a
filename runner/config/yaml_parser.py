"""Reads files and parses YAML into documents, whose nodes have their positions.

The events of PyYAML are composed here, not by PyYAML. So limits, duplicate keys, tags and the scalars of YAML 1.2 are
checked while parsing, and an alias bomb never expands.
"""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from runner.config import limits
from runner.config.document import (
    Document,
    KeyPath,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    dotted_path,
    is_empty,
    plain_data,
)
from runner.config.messages import closest
from runner.config.positions import Edit, Lines, Span
from runner.config.scalars import resolve_scalar
from runner.errors import Fix, PipelineInvalid, Problem
from runner.tables import filled, read_table

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PROPERTIES = re.compile(r"(?:[&!][^\s,\[\]{}]*\s+)+")
_TAG = re.compile(r"(?:&\S*\s+)?(![^\s,\[\]{}]*)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOO_DEEP = "exceeded maximum nesting depth"
"""The error of PyYAML's scanner since 6.0.4, which is raised before our own check."""
_ESCAPE = 'this "\\" does not start an escape that YAML knows'
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")


def read_text(path: Path) -> str:
    """Return the text of a file without a byte order mark. Raises PipelineInvalid."""
    try:
        if not is_file(path):
            raise _not_a_file(path)
        with path.open("rb") as file:
            content = file.read(limits.MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
        reason = getattr(error, "strerror", None) or "not a file name"
        raise _fatal(
            "unreadable-file", f"the file cannot be read: {reason.lower()}", "check its name and permissions"
        ) from None
    if len(content) > limits.MAX_BYTES:
        raise _fatal("too-large", "the file is larger than 1 MiB", "split it into several pipelines")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise _fatal("not-utf-8", "the file is UTF-16 text", "save it in the encoding UTF-8", Span(1, 1)) from None
        before = content[: error.start].decode("utf-8", "replace")
        span = Lines(before).span(len(before), len(before))
        raise _fatal("not-utf-8", "the file is not UTF-8 text", "save it in the encoding UTF-8", span) from None


def is_file(path: Path) -> bool:
    """Whether a path is a regular file. Raises OSError if that is unknown, which `Path.is_file` of 3.14 hides."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise


def _similar(path: Path) -> str:
    """Return the help for a file that does not exist: the one that is meant, or those in its folder."""
    try:
        found = [other for other in sorted(path.parent.iterdir()) if other.suffix in (".yaml", ".yml")]
    except OSError:
        found = []
    names = {other.stem: other.name if path.is_absolute() else str(other) for other in found}
    match = closest(path.stem, names)  # without the suffixes, which make all names similar
    there = f"; there are {', '.join([*names.values()][:4])}" if names and not path.is_absolute() else ""
    return f'did you mean "{names[match]}"?' if match else f"check the name{there}"


def _not_a_file(path: Path) -> PipelineInvalid:
    if path.is_dir():
        return _fatal("not-a-file", "this is a folder, not a file", "name a file in it")
    if not path.exists():
        return _fatal("no-such-file", "there is no such file", _similar(path))
    return _fatal("not-a-file", "this is not a regular file", "name a file")


def parse_yaml(
    text: str | Lines, path: Path = Path(), index: int = 0, *, max_nodes: int = limits.MAX_NODES
) -> tuple[Document, list[Problem]]:
    """Return the document of a text, and the problems that do not stop parsing. Raises PipelineInvalid for the others.

    `path` and `index` are the name and the number of the file, `max_nodes` is how many keys and values it may have. A
    text that was mended comes as its lines.
    """
    lines = text if isinstance(text, Lines) else Lines(text, index)
    lines.renumber(index)
    text = lines.text
    if match := _UNPRINTABLE.search(text):
        shown, escape = f"U+{ord(match[0]):04X}", f"\\x{ord(match[0]):02x}" if ord(match[0]) < 256 else ""
        span = lines.span(match.start(), match.end())
        raise _fatal(
            "yaml-syntax",
            f"the character {shown} is not allowed in YAML",
            f'remove it, or write it as "{escape}" in double quotes' if escape else "remove it",
            span,
        )
    composer = _Composer(text, lines, max_nodes)
    try:
        root = composer.document()
    except yaml.YAMLError as error:
        if getattr(error, "problem", None) == _TOO_DEEP:
            raise _too_deep() from None
        from runner.config.syntax_errors import explain_syntax_error  # only for files with mistakes

        raise PipelineInvalid([explain_syntax_error(error, text, lines)]) from None
    return Document(root, lines, text, path, index), composer.problems


def _too_deep(span: Span | None = None) -> PipelineInvalid:
    return _fatal("too-deep", f"nested more than {limits.MAX_DEPTH} deep", "flatten it", span)


class _Composer:
    """Builds nodes from events. The limits bound the recursion and the memory."""

    def __init__(self, text: str, lines: Lines, max_nodes: int) -> None:
        self.problems: list[Problem] = []
        self._max_nodes = max_nodes
        self._text = text
        self._lines = lines
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, Node | None] = {}  # None until the anchored node is complete
        self._count = 0

    def document(self) -> MappingNode:
        """Return the root of the only document."""
        next(self._events)
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise _fatal("empty-file", "the file is empty", 'a pipeline starts with the line "version: 1"', Span(1, 1))
        root = self._node(next(self._events), (), 1)
        next(self._events)
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._several(event)
        return self._root(root)

    def _several(self, event: Any) -> PipelineInvalid:
        """Return the error for a second document: another pipeline, the rest of this one, or nothing."""
        start, end = event.start_mark.index, event.end_mark.index
        behind = re.sub(r"^#.*", "", self._text[end:], flags=re.MULTILINE)
        help_, fix = 'remove this "---": what follows belongs to the same pipeline', None
        if re.search(r"^(version|apiVersion|name)[ \t]*:|^---", behind, re.MULTILINE):
            help_ = "move what follows into a file of its own; `runner up` and `runner validate` take several files"
        elif not behind.strip():
            help_, fix = (
                'remove this "---": nothing follows',
                self._lines.fix([Edit(start, len(self._text), "")]) if not self._text[end:].strip() else None,
            )
        span = self._lines.span(start, end)
        return PipelineInvalid([span.problem("multiple-documents", "a file holds one pipeline", help_, fix=fix)])

    def _root(self, root: Node) -> MappingNode:
        if isinstance(root, MappingNode):
            return root
        if isinstance(root, ScalarNode) and root.value is None:
            raise _fatal("empty-file", "the file is empty", 'a pipeline starts with the line "version: 1"', Span(1, 1))
        found = "a list" if isinstance(root, SequenceNode) else "one value"
        help_ = "give the file of a pipeline, with keys such as `version:` and `queues:`; `runner init` writes one"
        raise _fatal("wrong-type", f"a pipeline is a map of keys, not {found}", help_, root.span)

    def _node(self, event: Any, path: KeyPath, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, depth)
        self._check(event, depth)
        if event.tag is not None:
            self._report_tag(event, path)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event)
            node.is_broken = event.tag is not None  # the tag is reported, the value is not checked
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._items(event, path, depth)
        else:
            node = self._entries(event, path, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _check(self, event: Any, depth: int) -> None:
        self._count += 1
        if depth > limits.MAX_DEPTH:
            raise _too_deep(self._span_of(event))
        if self._count > self._max_nodes:
            message = f"the file has more than {self._max_nodes} keys and values"
            raise _fatal("too-large", message, "split it into several pipelines", self._span_of(event))

    def _alias(self, event: Any, path: KeyPath, depth: int) -> Node:
        span = self._span_of(event)
        if event.anchor not in self._anchors:
            help_ = f'write "&{event.anchor}" before the value it repeats, or put the "*" in quotes'
            if re.search(rf"&{re.escape(event.anchor)}(?!\S)", self._text):
                help_ = f'move the key with "&{event.anchor}" above this line'
            elif guess := closest(event.anchor, self._anchors):
                help_ = f'did you mean "*{guess}"?'
            raise _fatal("unknown-alias", f'there is no anchor "&{event.anchor}" above', help_, span, path)
        node = self._anchors[event.anchor]
        if node is None:
            raise _fatal("recursive-alias", f'"*{event.anchor}" contains itself', "remove it", span, path)
        if depth + node.height - 1 > limits.MAX_DEPTH:
            raise _fatal("too-deep", f"nested more than {limits.MAX_DEPTH} deep with its aliases", "flatten it", span)
        return node

    def _grow(self, parent: SequenceNode | MappingNode, child: Node, span: Span) -> None:
        parent.weight += child.weight
        parent.height = max(parent.height, child.height + 1)
        if parent.weight > limits.MAX_EXPANDED_NODES:
            message = f"with its aliases, the file has more than {limits.MAX_EXPANDED_NODES} keys and values"
            raise _fatal("too-large", message, "use fewer aliases", span)

    def _scalar(self, event: Any) -> ScalarNode:
        start, end = self._span(event)
        if event.style and not event.value.isascii() and _SURROGATE.search(event.value):
            # libyaml refuses surrogates, PyYAML's own parser does not
            index = max(start, self._text.find("\\u", start, end))
            raise _fatal(
                "yaml-syntax",
                _ESCAPE,
                "use single quotes, or write the backslash twice",
                self._lines.span(index, index + 2),
            )
        value = event.value if event.style else resolve_scalar(event.value)
        return ScalarNode(self._lines.span(start, end), value, start, end)

    def _items(self, event: Any, path: KeyPath, depth: int) -> SequenceNode:
        items = SequenceNode(self._span_of(event), not event.flow_style)
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            child = self._node(event, (*path, len(items.nodes)), depth + 1)
            items.nodes.append(child)
            self._grow(items, child, self._span_of(event))
        items.span = self._whole(items, event)
        return items

    def _entries(self, event: Any, path: KeyPath, depth: int) -> MappingNode:
        entries = MappingNode(self._span_of(event), not event.flow_style)
        merged: list[tuple[Node, Span]] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            is_merge = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and not event.style
            key_node = self._node(event, path, depth + 1)
            span = self._span_of(event)
            key = self._key(key_node, event, path)
            event = next(self._events)
            child = self._node(event, path if key is None else (*path, key), depth + 1)
            self._grow(entries, key_node, span)
            self._grow(entries, child, self._span_of(event))
            if key == "<<" and is_merge and merged:
                self._report_duplicate(key, merged[0][1], merged[0][0], child, span, path)
            elif is_merge:
                merged.append((child, span))
            elif key is not None and key in entries.nodes:
                self._report_duplicate(key, *entries.nodes[key], child, span, path)
                if is_empty(entries.nodes[key][1]):
                    entries.nodes[key] = (span, child)
            elif key is not None:
                entries.nodes[key] = (span, child)
        for child, span in merged:
            self._merge(entries, child, span, path)
        entries.span = self._whole(entries, event)
        return entries

    def _key(self, node: Node, event: Any, path: KeyPath) -> str | None:
        """Return the text of a key. A wrong key is reported: as it is written, None if it is none."""
        written, fix = None, None
        if isinstance(node, ScalarNode) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ScalarNode):
            written = self._text[node.start : node.end]
            help_ = f'put it in quotes: "{written}"' if written else 'write a name before the ":"'
            is_key = written and len(path) == 1 and not isinstance(event, yaml.AliasEvent)
            fix = self._lines.fix([Edit(node.start, node.end, f'"{written}"')]) if is_key else None
        else:
            help_ = 'write one name before the ":"; a value with { } or [ ] needs quotes'
        span = self._span_of(event) if isinstance(event, yaml.AliasEvent) else node.span
        self.problems.append(replace(_problem("bad-key", "a key must be text", help_, span, path), fix=fix))
        return written if len(path) == 1 else None  # a name, which others may use

    def _merge(self, entries: MappingNode, node: Node, span: Span, path: KeyPath) -> None:
        """Add the keys of a `<<` that the map does not have. Of several maps, the first wins."""
        sources = node.nodes if isinstance(node, SequenceNode) else [node]
        for source in sources:
            if not isinstance(source, MappingNode):
                text = source.value if isinstance(source, ScalarNode) else None
                name = text if text in self._anchors else "name"
                message, help_ = '"<<" takes a map or a list of maps', f'write "<<: *{name}"'
                self.problems.append(_problem("bad-merge", message, help_, span, path))
                return
            for key, entry in source.nodes.items():
                entries.nodes.setdefault(key, entry)

    def _report_duplicate(self, key: str, first: Span, other: Node, node: Node, span: Span, path: KeyPath) -> None:
        """Report a key that is there a second time. What the second of two sections has more is put into the first."""
        help_, fix = "keep one of the two", None
        if is_empty(other) or is_empty(node):
            line = first.line if is_empty(other) else span.line
            help_ = f"remove {'this line' if line == span.line else f'line {line}'}, which has nothing below it"
            fix = self._without_line(line, f"{key}:")
        elif key == "<<" and (merged := self._merged_aliases(first, span)):
            help_ = f"write one in place of both: <<: [{', '.join(merged)}]"
        elif plain_data(node) == plain_data(other):
            below = "" if isinstance(node, ScalarNode) or not node.is_block else " and what is below it"
            help_ = f"remove it{below}: it says the same again"
            fix = self._without_line(span.line, self._text.splitlines()[first.line - 1].strip()) if not below else None
        elif key in ("from", "to", "events") and isinstance(node, ScalarNode) and isinstance(other, ScalarNode):
            help_ = f"write both in one: {key}: [{other.value}, {node.value}], or keep one of the two"
        elif isinstance(node, MappingNode) and isinstance(other, MappingNode) and len(path) < 2:
            help_ = "give one of the two another name, or remove one"
            if not path:
                both = [f'"{name}"' for name in node.nodes if name in other.nodes]
                but = f", but for {' and '.join(both)}, which {'is' if len(both) == 1 else 'are'} there" if both else ""
                help_ = f'move what is below it under "{key}:" in line {first.line}{but}, and remove it'
                other.nodes |= {name: entry for name, entry in node.nodes.items() if name not in other.nodes}
        message = f'the key "{key}" is already written in line {first.line}'
        self.problems.append(replace(_problem("duplicate-key", message, help_, span, path), fix=fix))

    def _without_line(self, number: int, written: str) -> Fix | None:
        """Return the fix that removes a line, None if it is not written in this way, but for a comment."""
        lines = self._text.splitlines(keepends=True)
        start, is_so = sum(map(len, lines[: number - 1])), _bare(lines[number - 1]) == _bare(written)
        return self._lines.fix([Edit(start, start + len(lines[number - 1]), "")]) if is_so else None

    def _merged_aliases(self, *spans: Span) -> list[str]:
        """Return the aliases after some `<<`, as in `*slow`; none if one of them has something else."""
        lines = self._text.splitlines()
        found = [re.search(r"<<\s*:\s*(\*[\w-]+)", lines[span.line - 1]) for span in spans]
        return [match[1] for match in found if match] if all(found) else []

    def _report_tag(self, event: Any, path: KeyPath) -> None:
        """Report a tag, with what stands for it here; that a value is text or a number needs none, and is mended."""
        match = _TAG.match(self._text, event.start_mark.index)
        start, end = match.span(1) if match else self._span(event)
        value = str(event.value) if isinstance(event, yaml.ScalarEvent) else ""
        end = self._span(event)[1] if value else end
        is_name = re.fullmatch(r"[A-Za-z_ ${}][\w ./:{}-]{0,60}", value)  # other values may be secrets
        name = re.sub(r"\W+", "_", value.split(":")[0].strip(" ${}")) if is_name else "name"
        plain = f'"{value}"' if match and match[1] == "!!str" else value
        words = {"NAME": name.upper(), "name": name.lower(), "plain": plain, "ANY": "NAME"}
        is_plain = value and "password" not in path
        tag = match[1] if match and (is_plain or not match[1].startswith("!!")) else "!"
        rows = read_table("runner.config", "tags.txt", 2)
        help_ = next(filled(help_, words) for help_, pattern in rows if re.match(pattern, tag, re.IGNORECASE))
        fix = self._lines.fix([Edit(start, end, plain)]) if help_ == f"write {plain}" and '"' not in value else None
        problem = _problem("yaml-tag", "YAML tags (!…) are not allowed", help_, self._lines.span(start, end), path)
        self.problems.append(replace(problem, fix=fix))

    def _span(self, event: Any) -> tuple[int, int]:
        """Return the start and the end of an event's content, without its anchor and tag."""
        start, end = event.start_mark.index, event.end_mark.index
        if getattr(event, "anchor", None) and not isinstance(event, yaml.AliasEvent):
            match = _PROPERTIES.match(self._text, start, end)
            start = match.end() if match else start
        return start, end

    def _span_of(self, event: Any) -> Span:
        return self._lines.span(*self._span(event))

    def _whole(self, node: SequenceNode | MappingNode, end: Any) -> Span:
        """Return the span of a `[…]` or `{…}` from its first to its last character."""
        if node.is_block:
            return node.span
        span = self._lines.span(end.end_mark.index, end.end_mark.index)
        if span.line != node.span.line:
            return node.span
        return replace(node.span, length=span.column - node.span.column)


def _bare(line: str) -> str:
    return line.partition(" #")[0].strip()


def _problem(code: str, message: str, help_: str, span: Span, path: KeyPath = ()) -> Problem:
    return span.problem(code, message, help_, path=dotted_path(path))


def _fatal(code: str, message: str, help_: str, span: Span | None = None, path: KeyPath = ()) -> PipelineInvalid:
    """Return the error for a problem that stops parsing."""
    return PipelineInvalid([_problem(code, message, help_, span or Span(0, 0), path)])
