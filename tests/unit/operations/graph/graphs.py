"""Pipelines whose graphs are tested, and their graphs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from runner.config.loader import load_text
from runner.operations.graph import Format
from runner.operations.graph.layout import lay_out
from runner.operations.graph.model import Graph, build_graph
from runner.operations.pipeline_files import CheckedSpec

SHOP = """
version: 1
name: shop
description: Takes orders.
owner: team-shop
events: {order.placed: {description: A customer has ordered.}, payment.received: {exchange: payments}}
exchanges: {erp: topic}
queues:
  imports: {type: classic, bind: [{exchange: erp, key: "stock.#"}]}
  failed: {dead_letter: false}
  orders: {events: [order.placed], dead_letter: failed}
producers:
  web: {handler: "h:web", every: 5s, to: order.placed}
  partner: {handler: "h:partner", to: [orders, order.placed]}
subscribers:
  charge: {from: orders, handler: "h:charge", to: payment.received, retry: {attempts: 8, delay: 2s}}
  restock: {from: imports, handler: "h:restock", retry: none}
  repair: {from: failed, handler: "h:repair", to: orders, retry: none}
"""


MAIL = """
version: 1
name: mail
events: {order.placed: , payment.received: }
queues: {orders: {events: [order.placed], dead_letter: failed}, failed: {dead_letter: false}}
subscribers:
  notify: {from: "order.*", handler: "h:notify", retry: {backoff: fixed, delay: 30s}}
  archive: {from: "#", handler: "h:archive", retry: {backoff: linear}}
  early: {from: "refund.*", handler: "h:early"}
"""


CYCLE = """
version: 1
name: circle
queues: {a: , b: }
subscribers:
  one: {from: a, handler: "h:f", to: b}
  two: {from: b, handler: "h:f", to: a}
"""


HOSTILE = """
version: 1
name: "hostile"
description: "</text><script>alert(1)</script> \\"]; end --> `x` 订单"
queues: {'q"]--><b>&amp;\\\\': , "a\\\\": , "subgraph": , "end": }
producers: {"p|{x}": {handler: "h:f", to: ['q"]--><b>&amp;\\\\', "a\\\\", end, subgraph], description: '"quoted" \\n'}}
subscribers: {"订单 %% {{x} }": {from: 'q"]--><b>&amp;\\\\', handler: "h:f", description: "</svg>"}}
"""


FORMATS: tuple[Format, ...] = ("text", "mermaid", "dot", "svg", "json")


def specs(*texts: str) -> list[CheckedSpec]:
    found = []
    for text in texts:
        loaded = load_text(text, Path("pipeline.yaml"), {})
        assert loaded.spec is not None, [problem.message for problem in loaded.problems]
        found.append((loaded, loaded.spec))
    return found


def graph(*texts: str) -> Graph:
    return build_graph(specs(*texts))


def arrows(graph: Graph, *kinds: str) -> set[tuple[str, str]]:
    """Return arrows as pairs of names."""
    return {
        (graph.nodes[edge.source].name, graph.nodes[edge.target].name)
        for edge in graph.edges
        if not kinds or edge.kind in kinds
    }


def overlapping(sizes: Mapping[str, tuple[float, float]], arrows: Mapping[tuple[str, str], float]) -> list[str]:
    boxes = lay_out(sizes, arrows).boxes
    return [
        f"{first} and {second}"
        for (first, a), (second, b) in combinations(boxes.items(), 2)
        if a.x < b.right and b.x < a.right and a.y < b.y + b.height and b.y < a.y + a.height
    ]
