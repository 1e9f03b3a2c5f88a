"""Writes a graph in the DOT language of Graphviz. Source: https://graphviz.org/doc/info/lang.html."""

from __future__ import annotations

from runner.operations.graph.model import Edge, Graph, Node

_STYLES = {
    "producer": 'shape=box, style="rounded,filled", fillcolor="#e3f4e6", color="#2f8f46"',
    "exchange": 'shape=parallelogram, style=filled, fillcolor="#eeeeee", color="#777777"',
    "event": 'shape=hexagon, style=filled, fillcolor="#fdf1d0", color="#b7860b"',
    "queue": 'shape=cylinder, style=filled, fillcolor="#dfeafc", color="#2f67b5"',
    "subscriber": 'shape=box, color="#444444"',
    "dead-letter": 'shape=box, style=dashed, color="#bbbbbb", fontcolor="#888888", fontsize=9',
}


def to_dot(graph: Graph) -> str:
    """Return a digraph from left to right. With several pipelines, the nodes of each are a cluster."""
    lines = [
        "digraph pipelines {",
        "  rankdir=LR",
        '  node [fontname="Helvetica,Arial,sans-serif", fontsize=11]',
        '  edge [fontname="Helvetica,Arial,sans-serif", fontsize=9, color="#555555"]',
    ]
    framed: set[str] = set()
    if len(graph.pipelines) > 1:
        for index, pipeline in enumerate(graph.pipelines):
            inside = [node for node in graph.nodes.values() if node.pipelines == (pipeline.name,)]
            framed |= {node.id for node in inside}
            lines += [f"  subgraph cluster_{index} {{", f"    label={_quote(pipeline.name)}", '    color="#cccccc"']
            lines += [f"    {_node(graph, node)}" for node in inside]
            lines.append("  }")
    lines += [f"  {_node(graph, node)}" for node in graph.nodes.values() if node.id not in framed]
    lines += [f"  {_edge(edge)}" for edge in graph.edges if edge.kind != "retry"]
    return "\n".join(lines) + "\n}\n"


def _node(graph: Graph, node: Node) -> str:
    retry = graph.label(node.id, "retry")
    name = f"✗ {node.name}" if node.kind == "dead-letter" else node.name
    lines = [name, *node.notes, *([f"↻ {retry}"] if retry else [])]
    tooltip = f", tooltip={_quote(node.description)}" if node.description else ""
    return f"{_quote(node.id)} [label={_quote(*lines)}, {_STYLES[node.kind]}{tooltip}]"


def _edge(edge: Edge) -> str:
    attributes = [f"label={_quote(edge.label)}"] if edge.label else []
    if edge.kind == "dead-letter":
        attributes += ["style=dashed", 'color="#bbbbbb"', "arrowsize=0.6"]
    suffix = f" [{', '.join(attributes)}]" if attributes else ""
    return f"{_quote(edge.source)} -> {_quote(edge.target)}{suffix}"


def _quote(*lines: str) -> str:
    """Return lines as one quoted text. Backslashes are doubled, because they start escapes in labels."""
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") for line in lines)
    joined = "\\n".join(escaped)
    return f'"{joined}"'
