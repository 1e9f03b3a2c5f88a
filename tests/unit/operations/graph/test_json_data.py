"""JSON: the documented shape."""

from __future__ import annotations

import json

from runner.operations.graph import render
from tests.unit.operations.graph.graphs import SHOP, graph


def test_json_is_what_its_description_says() -> None:
    """Stable ids, and edges between nodes that are there."""
    found = json.loads(render(graph(SHOP), "json"))
    assert list(found) == ["version", "pipelines", "nodes", "edges"]
    assert found["pipelines"] == [
        {"name": "shop", "path": "pipeline.yaml", "description": "Takes orders.", "owner": "team-shop"}
    ]
    nodes = {node["id"]: node for node in found["nodes"]}
    assert nodes["producer:shop.web"] == {
        "id": "producer:shop.web",
        "kind": "producer",
        "name": "web",
        "pipelines": ["shop"],
        "description": "",
        "notes": ["every 5s"],
        "handler": "h:web",
    }
    assert all(edge["source"] in nodes and edge["target"] in nodes for edge in found["edges"])
    assert {"source": "exchange:erp", "target": "queue:imports", "kind": "bind", "label": "stock.#"} in found["edges"]
