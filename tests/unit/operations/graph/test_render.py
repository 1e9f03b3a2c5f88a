"""All formats: every node is in each, control characters in none."""

from __future__ import annotations

import pytest

from runner.operations.graph import Format, render
from runner.operations.graph.model import build_graph
from runner.operations.pipeline_files import read_specs
from tests.process import ROOT
from tests.unit.operations.graph.graphs import CYCLE, FORMATS, MAIL, SHOP, graph


def test_everything_is_in_every_format() -> None:
    """Each node's name, however it is connected."""
    found = graph(SHOP, MAIL, CYCLE)
    for style in FORMATS:
        text = render(found, style)
        for node in found.nodes.values():
            name = node.name.replace("*", "#42;") if style == "mermaid" else node.name
            assert name in text, f"{node.id} in {style}"


def test_control_characters_stay_out() -> None:
    """Of terminals and of XML."""
    found = graph('version: 1\nname: n\ndescription: "\\e[31mred\\x07"\nqueues: {q: }\n')
    for style in FORMATS:
        assert "\x1b" not in render(found, style)
        assert "\x07" not in render(found, style)


def test_nothing_at_all_is_a_picture_too() -> None:
    """A pipeline with nothing in it."""
    for style in FORMATS:
        assert render(graph("version: 1\nname: empty\n"), style)


@pytest.mark.parametrize("style", FORMATS)
def test_the_examples_together(style: Format) -> None:
    """A folder is one picture, the same each time."""
    first, again = (build_graph(read_specs([ROOT / "pipelines"], {})) for _ in range(2))
    assert render(first, style) == render(again, style)
