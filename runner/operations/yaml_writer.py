"""Writes plain data as YAML; a value may have a comment after it.

PyYAML cannot write comments, and it follows YAML 1.1. Texts that YAML 1.1 or 1.2 would read as another type (yes, 010,
12:30, 2024-01-01) are quoted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runner.redaction import escape_controls


class Interpolated(str):
    """A text in which `${…}` is a variable for the reader of the document, not literal text."""


@dataclass(frozen=True)
class Leaf:
    """A value with a comment after it."""

    value: Any
    comment: str = ""


Tree = dict[str, "Tree"] | list["Tree"] | Leaf | str | float | None

_WIDEST: Final = 100
_COMMENTS_AT_MOST: Final = 56
_LONGEST_KEY: Final = 1000
"""YAML allows at most 1024 characters in a key without `? `."""

_PLAIN: Final = re.compile(
    r"[^\W\d][\w./+@()\"'=&%;?!~…–—→-]*(?:[ :][\w./+@(\"'=&%;?!~…–—→-][\w./+@()\"'=&%;?!~…–—→-]*)*"
)
_UNIT: Final = re.compile(r"\d+(?:\.\d+)?(?:ms|s|m|h|d|B|kB|MB|GB|KiB|MiB|GiB|/s|/m|/h|/d)")
_WORDS: Final = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"])


def to_yaml(tree: Mapping[str, Any], *, has_variables: bool = True) -> str:
    """Return the text of a document, with aligned comments. `has_variables`: `${…}` is a variable for its reader."""
    lines = list(_Writer(has_variables).map(tree, ""))
    widths = [len(text) for text, comment in lines if comment]
    column = min(max(widths, default=0), _COMMENTS_AT_MOST)
    return "".join(f"{text:<{column}}  # {comment}\n" if comment else f"{text}\n" for text, comment in lines)


def format_scalar(value: Any, *, has_variables: bool = True) -> str:
    """Write one value. `$` in a text is doubled if `${…}` is a variable when the text is read."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int():
            return str(value) if value < 10**100 else hex(value)
        case float():
            return _number(value)
        case Interpolated():
            return _text(value)
        case _:
            return _text(str(value).replace("$", "$$") if has_variables else str(value))


def _number(value: float) -> str:
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")


def _text(text: str) -> str:
    is_word = _PLAIN.fullmatch(text) is not None and text.lower() not in _WORDS and text.isprintable()
    if is_word or _UNIT.fullmatch(text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(character if character.isprintable() else _escape(character) for character in quoted)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


Lines = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class _Writer:
    """Yields the lines of a document, each with its comment."""

    has_variables: bool

    def map(self, tree: Mapping[str, Tree], indent: str) -> Lines:
        for name, node in tree.items():
            written = _text(name)
            head = f"{indent}{written}:" if len(written) <= _LONGEST_KEY else f"{indent}? {written}\n{indent}:"
            yield from self._under(head, node, indent)

    def _under(self, head: str, node: Tree, indent: str) -> Lines:
        """Yield a node after its key, or on the lines below it."""
        if not isinstance(node, dict | list):
            yield f"{head} {self._scalar(node)}", _comment([node])
        elif not node:
            yield f"{head} {'{}' if isinstance(node, dict) else '[]'}", ""
        elif isinstance(node, dict):
            yield head, ""
            yield from self.map(node, f"{indent}  ")
        elif (short := self._flow(node)) and len(head) + len(short) < _WIDEST:
            yield f"{head} {short}", _comment(node)
        else:
            yield head, ""
            yield from self._items(node, f"{indent}  ")

    def _items(self, nodes: list[Tree], indent: str) -> Lines:
        for node in nodes:
            if isinstance(node, dict) and node:
                lines = list(self.map(node, f"{indent}  "))
                yield f"{indent}- {lines[0][0].removeprefix(f'{indent}  ')}", lines[0][1]
                yield from lines[1:]
            else:
                yield from self._under(f"{indent}-", node, indent)

    def _flow(self, nodes: list[Tree]) -> str:
        """Return a list of single values in brackets; empty for other lists."""
        is_flat = not any(isinstance(node, dict | list) for node in nodes)
        return f"[{', '.join(map(self._scalar, nodes))}]" if is_flat else ""

    def _scalar(self, node: Tree) -> str:
        return format_scalar(node.value if isinstance(node, Leaf) else node, has_variables=self.has_variables)


def _comment(nodes: list[Tree]) -> str:
    comments = dict.fromkeys(node.comment for node in nodes if isinstance(node, Leaf) and node.comment)
    return escape_controls(", ".join(comments))
