"""Mermaid: labels cannot change the syntax."""

from __future__ import annotations

import re

from runner.operations.graph import render
from tests.unit.operations.graph.graphs import HOSTILE, SHOP, graph


def test_mermaid_labels_have_no_sign_that_means_something() -> None:
    """Quotes, brackets, tags and entities come as numbers; ids are ours."""
    label = r'"(?:[\w .,:✗-]|#\d+;|<br/>|</?small>)*"'
    node, edge = rf"n\d+[\[(){{}}/]+{label}[\](){{}}/]+:::\w+", rf"n\d+ -\.?->(?:\|{label}\|)? n\d+"
    lines = [line.strip() for line in render(graph(HOSTILE, SHOP), "mermaid").splitlines()]
    ours = [line for line in lines if re.match(r"n\d", line)]
    assert len(ours) > 20
    assert [line for line in ours if not re.fullmatch(f"{node}|{edge}", line)] == []
