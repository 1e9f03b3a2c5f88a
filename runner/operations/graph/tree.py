"""Writes a graph as text for a terminal: a tree for each producer, down to where its messages end.

A node that was expanded before is marked `above`, a cycle ends with `↺`, and a branch that is too deep continues as a
tree of its own (`below`). Every node appears at least once.
"""

from __future__ import annotations

from runner.operations.graph.model import Edge, Graph, Node
from runner.redaction import escape_controls
from runner.text_width import display_width, pad

_WIDEST = 60
_DEEPEST = 20

Row = tuple[str, str]


def to_text(graph: Graph) -> str:
    """Return the trees, with details in a second column."""
    head = [(_title(graph, index), "") for index in range(len(graph.pipelines))]
    groups = _Trees(graph).groups()
    rows = [row for group in groups for row in group]
    width = min(max((display_width(tree) for tree, _ in rows), default=0), _WIDEST)
    blocks = ["\n".join(tree for tree, _ in head)]
    blocks += ["\n".join(_row(tree, detail, width) for tree, detail in group) for group in groups]
    return "\n\n".join(blocks) + "\n"


def _row(tree: str, detail: str, width: int) -> str:
    return f"{pad(tree, width)}  {detail}".rstrip()


def _title(graph: Graph, index: int) -> str:
    pipeline = graph.pipelines[index]
    parts = [pipeline.name, pipeline.path, pipeline.owner, pipeline.description]
    return escape_controls(" · ".join(part for part in parts if part))


class _Trees:
    """Builds the trees; remembers which nodes were expanded."""

    def __init__(self, graph: Graph) -> None:
        self._flow = graph
        self._shown: set[str] = set()

    def groups(self) -> list[list[Row]]:
        """Return a tree for each producer, then for the remaining nodes, those without incoming edges first."""
        nodes = [node for node in self._flow.nodes.values() if node.kind != "dead-letter"]
        fed = {edge.target for edge in self._flow.edges if edge.kind not in ("retry", "dead-letter")}
        producers = [node for node in nodes if node.kind == "producer"]
        unfed = [node for node in nodes if node.id not in fed]
        groups: list[list[Row]] = []
        for node in [*producers, *unfed, *nodes]:
            if node.id not in self._shown:
                root = (escape_controls(node.name), self._detail(node))
                groups.append([root, *self._below(node, "", (node.id,))])
        return groups

    def _below(self, node: Node, indent: str, path: tuple[str, ...]) -> list[Row]:
        self._shown.add(node.id)
        rows: list[Row] = []
        edges = self._outgoing(node)
        for index, edge in enumerate(edges):
            child = self._flow.nodes[edge.target]
            is_last = index == len(edges) - 1
            arrow = "✗" if edge.kind == "dead-letter" else "→"
            tree = f"{indent}{'└' if is_last else '├'}{arrow} {escape_controls(child.name)}"
            below = f"{indent}{' ' if is_last else '│'}  "
            if child.id in path:
                rows.append((f"{tree} ↺", ""))
            elif child.id in self._shown:
                rows.append((tree, "above"))
            elif len(path) >= _DEEPEST and self._outgoing(child):
                rows.append((tree, "below"))
            else:
                rows.append((tree, self._detail(child)))
                rows += self._below(child, below, (*path, child.id))
        return rows

    def _outgoing(self, node: Node) -> list[Edge]:
        """Return the edges to show below a node. Dead letters only if the pipeline declares their queue."""
        edges = self._flow.outgoing(node.id, "publish", "bind", "deliver")
        dead = self._flow.outgoing(node.id, "dead-letter")
        return edges + [edge for edge in dead if self._flow.nodes[edge.target].kind == "queue"]

    def _detail(self, node: Node) -> str:
        is_shared = len(self._flow.pipelines) > 1
        kind = f"{node.kind} of {node.pipelines[0]}" if is_shared and node.handler and node.pipelines else node.kind
        parts = [kind, *node.notes]
        if patterns := self._flow.patterns_of(node.id):
            parts.append(f"events {patterns}")
        bound = (edge for edge in self._flow.incoming(node.id) if self._flow.nodes[edge.source].kind == "exchange")
        if keys := [edge.label for edge in bound if edge.label]:
            parts.append(f"bound by {', '.join(keys)}")
        if retry := self._flow.label(node.id, "retry"):
            parts.append(f"↻ {retry}")
        if dead := self._flow.dead_letter(node.id):
            parts.append(f"✗ {dead}")
        return escape_controls(" · ".join(part for part in [*parts, node.description] if part))
