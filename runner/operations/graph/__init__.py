"""Operations: specs into a picture of who talks to whom."""

from __future__ import annotations

from typing import Literal

from runner.operations.graph.flow import Flow

Format = Literal["text", "mermaid", "dot", "svg", "json"]


def render(flow: Flow, style: Format) -> str:
    """Return a flow as text of one of the formats; ends with a line break."""
    match style:
        case "text":
            from runner.operations.graph.tree import as_text as write
        case "mermaid":
            from runner.operations.graph.mermaid import as_mermaid as write
        case "dot":
            from runner.operations.graph.dot import as_dot as write
        case "svg":
            from runner.operations.graph.svg import as_svg as write
        case "json":
            from runner.operations.graph.data import as_json as write
    return write(flow)
