"""DOT: texts cannot change the syntax."""

from __future__ import annotations

import re

from runner.operations.graph import render
from tests.unit.operations.graph.graphs import HOSTILE, graph


def test_dot_texts_are_closed() -> None:
    """A backslash or a quote in a name does not end its label."""
    for line in render(graph(HOSTILE), "dot").splitlines():
        assert re.sub(r'"(?:[^"\\]|\\.)*"', "", line).count('"') == 0, line
