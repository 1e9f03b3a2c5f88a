"""Draws pipelines as a graph of producers, events, queues and subscribers, in several formats."""

from __future__ import annotations

from typing import Literal

from runner.operations.graph.model import Graph

Format = Literal["text", "mermaid", "dot", "svg", "json"]


def render(graph: Graph, style: Format) -> str:
    """Return a graph in one of the formats; ends with a line break."""
    match style:
        case "text":
            from runner.operations.graph.tree import to_text as write
        case "mermaid":
            from runner.operations.graph.mermaid import to_mermaid as write
        case "dot":
            from runner.operations.graph.dot import to_dot as write
        case "svg":
            from runner.operations.graph.svg import to_svg as write
        case "json":
            from runner.operations.graph.model import to_json as write
    return write(graph)
