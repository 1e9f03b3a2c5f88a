"""The origin of a value of a pipeline: a line, an option, a variable or a default."""

from __future__ import annotations

from typing import Final

from runner.config.diagnostics import display_line
from runner.config.document import Document, KeyPath, ScalarNode
from runner.config.models import model_at

DEFAULT: Final = "default"


def origin(document: Document, path: KeyPath) -> str:
    """Return the origin of the value at a path, as in `orders.yaml:14 (defaults, ${N})`, or `default`."""
    if path[:2] == ("broker", "urls") and document.node(("broker", "url")) is not None:
        path = ("broker", "url", *path[2:])
    existing = document.existing_prefix(path)
    if not _is_short_form(document, existing, path[len(existing) :]):
        return DEFAULT
    span, node = document.span(existing), document.node(existing)
    remarks = ["defaults"] if document.is_default(existing) else []
    if isinstance(node, ScalarNode):
        remarks += [f"${{{name}}}" for name in node.origins]
    where = display_line(document.part(span).file, span.line)
    return f"{where} ({', '.join(remarks)})" if remarks else where


def _is_short_form(document: Document, existing: KeyPath, rest: KeyPath) -> bool:
    """Whether the value at the written prefix of a path is a short form of the value at the whole path."""
    if not rest:
        return True
    node = document.node(existing)
    if not existing or not isinstance(node, ScalarNode) or node.value is None:
        return False
    if isinstance(rest[0], int):
        return len(rest) == 1  # one name for a list of one
    return rest[0] == model_at(existing).short_form and len(rest) <= 2
