"""Writes a graph as a Mermaid flowchart, which GitHub and many wikis render.

Labels are quoted, with entities for every character that Mermaid or HTML could interpret. Source:
https://mermaid.js.org/syntax/flowchart.html#special-characters-that-break-syntax
"""

from __future__ import annotations

from collections.abc import Iterator

from runner.operations.graph.model import Edge, Graph, Node

_SHAPES = {
    "producer": ("([", "])"),
    "exchange": ("[/", "/]"),
    "event": ("{{", "}}"),
    "queue": ("[(", ")]"),
    "subscriber": ("[", "]"),
    "dead-letter": ("(", ")"),
}
_CLASSES = """\
  classDef producer fill:#e3f4e6,stroke:#2f8f46,color:#16391f
  classDef exchange fill:#eeeeee,stroke:#777777,color:#222222
  classDef event fill:#fdf1d0,stroke:#b7860b,color:#4a3500
  classDef queue fill:#dfeafc,stroke:#2f67b5,color:#12294a
  classDef subscriber fill:#ffffff,stroke:#444444,color:#222222
  classDef dead fill:#ffffff,stroke:#bbbbbb,color:#888888,stroke-dasharray:3 3
"""


def to_mermaid(graph: Graph) -> str:
    """Return a flowchart from left to right. With several pipelines, the nodes of each are in a frame."""
    ids = {node: f"n{index}" for index, node in enumerate(graph.nodes, start=1)}
    lines = ["flowchart LR"]
    framed: set[str] = set()
    if len(graph.pipelines) > 1:
        for index, pipeline in enumerate(graph.pipelines, start=1):
            inside = [node for node in graph.nodes.values() if node.pipelines == (pipeline.name,)]
            framed |= {node.id for node in inside}
            lines.append(f'  subgraph p{index} ["{_escape(pipeline.name)}"]')
            lines += [f"    {_node(graph, node, ids)}" for node in inside]
            lines.append("  end")
    lines += [f"  {_node(graph, node, ids)}" for node in graph.nodes.values() if node.id not in framed]
    lines += [f"  {_edge(edge, ids)}" for edge in graph.edges if edge.kind != "retry"]
    return "\n".join(lines) + "\n" + _CLASSES


def _node(graph: Graph, node: Node, ids: dict[str, str]) -> str:
    opening, closing = _SHAPES[node.kind]
    name = "dead" if node.kind == "dead-letter" else node.kind
    return f'{ids[node.id]}{opening}"{"<br/>".join(_lines(graph, node))}"{closing}:::{name}'


def _lines(graph: Graph, node: Node) -> Iterator[str]:
    yield f"✗ {_escape(node.name)}" if node.kind == "dead-letter" else _escape(node.name)
    retry = graph.label(node.id, "retry")
    for note in [*node.notes, f"↻ {retry}" if retry else "", node.description]:
        if note:
            yield f"<small>{_escape(note)}</small>"


def _edge(edge: Edge, ids: dict[str, str]) -> str:
    arrow = "-.->" if edge.kind == "dead-letter" else "-->"
    label = f'|"{_escape(edge.label)}"|' if edge.label else ""
    return f"{ids[edge.source]} {arrow}{label} {ids[edge.target]}"


def _escape(text: str) -> str:
    """Return text with every character except letters, digits and some punctuation as a numeric entity."""
    return "".join(
        character if character.isalnum() or character in " .,_-:" else f"#{ord(character)};" for character in text
    )
