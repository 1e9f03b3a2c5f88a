"""Input: a path of a pipeline into the words that tell where its value comes from: a line, a variable, a default."""

from __future__ import annotations

from typing import Final

from runner.config.diagnostics import display_path
from runner.config.document import Document, KeyPath, ScalarNode
from runner.config.validation import model_at

DEFAULT: Final = "default"


def origin(document: Document, path: KeyPath) -> str:
    """Return where the value at a path is written, as in `orders.yaml:14 (defaults, ${N})`; or `default`."""
    if path[:2] == ("broker", "urls") and document.node(("broker", "url")) is not None:
        path = ("broker", "url", *path[2:])
    existing = document.existing_prefix(path)
    if not _is_meant(document, existing, path[len(existing) :]):
        return DEFAULT
    span, node = document.span(existing), document.node(existing)
    remarks = ["defaults"] if document.is_default(existing) else []
    if isinstance(node, ScalarNode):
        remarks += [f"${{{name}}}" for name in node.origins]
    where = f"{display_path(str(document.part(span).path))}:{span.line}"
    return f"{where} ({', '.join(remarks)})" if remarks else where


def _is_meant(document: Document, existing: KeyPath, rest: KeyPath) -> bool:
    """Whether what is written at the beginning of a path is, in its short form, the value at the path itself."""
    if not rest:
        return True
    node = document.node(existing)
    if not existing or not isinstance(node, ScalarNode) or node.value is None:
        return False
    if isinstance(rest[0], int):
        return len(rest) == 1  # one name for a list of one
    return rest[0] == model_at(existing).short_form and len(rest) <= 2
