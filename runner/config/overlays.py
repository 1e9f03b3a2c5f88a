"""Reads overlays: the files of `--overlay`, and the `--set KEY=VALUE` options, which become documents as files do.

A file that an overlay includes is an overlay too, which is applied before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from runner.config import limits
from runner.config.document import Document, MappingNode, Node, SequenceNode
from runner.config.includes import IncludedFiles, load_includes
from runner.config.interpolation import interpolate
from runner.config.positions import OPTION, Lines, Span
from runner.config.yaml_parser import parse_yaml, read_text
from runner.errors import PipelineInvalid, Problem

_KEY = re.compile(r""""((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s.="']+)""")
_FORM = 'write it as in --set subscribers.ship.concurrency=20; a key with a dot needs quotes, as in events."order.paid"'


@dataclass(frozen=True, slots=True)
class Setting:
    """The `KEY=VALUE` of a `--set`."""

    text: str


Overlay = Path | Setting
"""A change to pipelines that is given beside them: a file, or one value."""


@dataclass(slots=True)
class OverlayDocuments:
    """The documents of overlays, and the problems in them. `is_complete` is false if one is missing.

    `groups` has a list for each overlay: the documents that it includes, in the order in which they apply, and its own.
    """

    documents: list[Document] = field(default_factory=list)
    groups: list[list[Document]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    is_complete: bool = True


def read_overlays(
    overlays: Sequence[Overlay], environ: Mapping[str, str], index: int, mended: Mapping[Path, Lines]
) -> OverlayDocuments:
    """Return the documents of overlays, numbered from `index` on. `mended` is that of `load_includes`."""
    found = OverlayDocuments()
    for overlay in overlays:
        try:
            read = _read(overlay, environ, index + len(found.documents), mended)
        except PipelineInvalid as error:
            file = str(overlay) if isinstance(overlay, Path) else OPTION + overlay.text
            found.problems += (_about_overlay(problem, file) for problem in error.problems)
            found.is_complete = False
            found.files += [overlay] if isinstance(overlay, Path) else []
            continue
        for document in read.documents:
            document.is_overlay = True
        found.documents += read.documents
        found.groups.append(read.ordered)
        found.problems += read.problems
        found.files += read.files
        found.is_complete = found.is_complete and read.is_complete
    return found


def _about_overlay(problem: Problem, file: str) -> Problem:
    is_empty = problem.code in ("empty-file", "wrong-type")  # its help is about pipelines
    help_ = "write the keys that it changes, as in the pipeline" if is_empty else problem.help
    return replace(problem, file=problem.file or file, help=help_)


def _read(overlay: Overlay, environ: Mapping[str, str], index: int, mended: Mapping[Path, Lines]) -> IncludedFiles:
    """Return the documents of one overlay. Raises PipelineInvalid."""
    if isinstance(overlay, Path):
        return load_includes(mended.get(overlay) or read_text(overlay), overlay, environ, index, mended)
    document, problems = parse_setting(overlay.text, index)
    problems += interpolate(document, environ, Path())
    located = [replace(problem, file=document.file) for problem in problems]
    return IncludedFiles([document], located, ordered=[document])


def parse_setting(text: str, index: int = 0) -> tuple[Document, list[Problem]]:
    """Return the document of a `KEY=VALUE`, whose value is a scalar, a `[…]` or a `{…}` of YAML, and its problems.

    Raises PipelineInvalid if it is none.
    """
    option = OPTION + text
    lines = Lines(option, index)
    if help_ := _meant(text):
        raise _bad_setting(lines.span(len(OPTION), len(option)), "this is not KEY=VALUE", help_)
    keys, start = _keys(option, lines)
    # The value keeps its place in the option: blanks and the key of a map stand before it, where the path was.
    document, problems = parse_yaml(f"{'v: ':>{start}}{option[start:]}", Path(), index)
    node = document.root.nodes["v"][1]
    _check_value(option, start, node, document, lines)
    for key, span in reversed(keys):
        node = MappingNode(span, True, {key: (span, node)}, node.weight + 1, node.height + 1)
    assert isinstance(node, MappingNode)
    if node.height > limits.MAX_DEPTH:
        raise _bad_setting(lines.span(len(OPTION), start), f"nested more than {limits.MAX_DEPTH} deep", "flatten it")
    if keys[0][0] == "include":
        raise _bad_setting(keys[0][1], '"include" cannot be set', "write it in a file, and pass that with --overlay")
    return replace(document, root=node, lines=lines, option=option), problems


def _meant(text: str) -> str:
    """Return the help for several settings in one, and for keys with slashes or in brackets; "" for others."""
    key, _, value = text.partition("=")
    several = re.split(r""",\s*(?=[\w-]+(?:\.[\w"'-]+)+=)""", text)
    if len(several) > 1 and value[:1] not in ("{", "[", '"', "'"):
        return f"write {' '.join(f'--set {each}' for each in several)}"
    if re.fullmatch(r"[a-z_]+[\[/][^=\"']*", key):
        dotted = re.sub(r"[/\[\]]+", ".", key).strip(".").replace("..", ".")
        return f"write --set {dotted}={value}"
    return ""


def _keys(option: str, lines: Lines) -> tuple[list[tuple[str, Span]], int]:
    """Return the keys before the "=" with their spans, and the index of the value."""
    keys: list[tuple[str, Span]] = []
    position = len(OPTION)
    while match := _KEY.match(option, position):
        double, single, plain = match.groups()
        key = re.sub(r"\\(.)", r"\1", double) if double is not None else single if single is not None else plain
        keys.append((key, lines.span(*match.span())))
        position = match.end() + 1
        if option[match.end() : position] == "=":
            return keys, position
        if option[match.end() : position] != ".":
            position -= 1
            break
    where = position if position < len(option) else len(OPTION)
    written = re.fullmatch(r"([\w.-]+)\s*(?:[:=]\s*(.*))?", option[len(OPTION) :].strip())
    help_ = f"write --set {written[1]}={written[2] or 'VALUE'}" if written else _FORM
    raise _bad_setting(lines.span(where, len(option)), "this is not KEY=VALUE", help_)


def _check_value(option: str, start: int, node: Node, document: Document, lines: Lines) -> None:
    """Check that the value is one that fits on a command line, and that all of it was read."""
    value = lines.span(start, len(option))
    if not option[start:].strip():
        where = lines.span(start - 1, start)
        raise _bad_setting(where, "there is no value", 'write null to remove the key, or "" for an empty text')
    if isinstance(node, MappingNode | SequenceNode):
        if node.is_block:
            raise _bad_setting(value, "a map or a list is written in brackets here", "write {a: b} or [a, b]")
    elif document.text[node.end :].strip():  # an anchor has been read; only a comment can follow
        raise _bad_setting(value, '"#" starts a comment here', "put the value in quotes of YAML")


def _bad_setting(span: Span, message: str, help_: str) -> PipelineInvalid:
    return PipelineInvalid([span.problem("bad-set", message, help_)])
