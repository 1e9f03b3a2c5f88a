"""Writes a graph as JSON for other programs.

{"version": 1,
 "pipelines": [{"name", "path", "description", "owner"}],
 "nodes": [{"id", "kind", "name", "pipelines", "description", "notes", "handler"}],
 "edges": [{"source", "target", "kind", "label"}]}

Ids are stable: `producer:<pipeline>.<name>`, `subscriber:<pipeline>.<name>`, `queue:<name>`, `dead-letter:<name>`,
`exchange:<name>`, and `event:<routing key>`, with `<exchange>/` before the key unless it is the default one.
Kinds of edges: `publish` (to a queue or event), `bind` (event or exchange to queue), `deliver` (to a subscriber),
`retry` (a subscriber to itself) and `dead-letter`. Keys may be added; `version` increases if one changes.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from runner.operations.graph.model import Graph


def to_json(graph: Graph) -> str:
    """Return the JSON document, in the order of the files."""
    found = {
        "version": 1,
        "pipelines": [asdict(pipeline) for pipeline in graph.pipelines],
        "nodes": [asdict(node) for node in graph.nodes.values()],
        "edges": [asdict(edge) for edge in graph.edges],
    }
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
