"""SVG: valid XML, and boxes that can be found by their nodes."""

from __future__ import annotations

from xml.etree import ElementTree

from runner.operations.graph import render
from tests.unit.operations.graph.graphs import HOSTILE, graph


def test_svg_is_xml_with_the_names_in_it() -> None:
    """Nothing in a name becomes markup."""
    text = render(graph(HOSTILE), "svg")
    root = ElementTree.fromstring(text)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "rect", "g", "text", "tspan", "path", "polygon"}
    found = [element.text for element in root.iter() if element.text]
    assert 'q"]--><b>&amp;\\\\' in found
    assert "</svg>" in found


def test_svg_boxes_can_be_found_by_their_nodes() -> None:
    """The page writes live figures on them."""
    found = graph(HOSTILE)
    root = ElementTree.fromstring(render(found, "svg"))
    boxes = [node for element in root.iter() if (node := element.get("data-node"))]
    assert sorted(boxes) == sorted(id_ for id_, node in found.nodes.items() if node.kind != "dead-letter")
