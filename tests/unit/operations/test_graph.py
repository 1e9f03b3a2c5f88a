"""Who talks to whom: what is connected, and that each format says it so that its readers understand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from runner.config.loader import load_text
from runner.operations.graph import Format, render
from runner.operations.graph.layers import TooManyArrows, assign_layers, count_crossings
from runner.operations.graph.layout import lay_out
from runner.operations.graph.model import Graph, build_graph
from runner.operations.pipeline_files import CheckedSpec, read_specs
from tests.process import ROOT

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
subscribers: {"订单 %% {{x}}": {from: 'q"]--><b>&amp;\\\\', handler: "h:f", description: "</svg>"}}
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


# What is connected


def test_messages_go_from_producers_to_places_to_subscribers() -> None:
    """Each `to`, each `from`, each `events` and `bind` is an arrow."""
    found = graph(SHOP)
    assert arrows(found, "publish") == {
        ("web", "order.placed"),
        ("partner", "orders"),
        ("partner", "order.placed"),
        ("charge", "payment.received"),
        ("repair", "orders"),
    }
    assert arrows(found, "bind") == {("order.placed", "orders"), ("erp", "imports")}
    assert arrows(found, "deliver") == {("orders", "charge"), ("imports", "restock"), ("failed", "repair")}


def test_failures_go_to_the_dead_letter_queue() -> None:
    """A declared one is a queue like others; one that is not has a node of its own; dropped ones go nowhere."""
    found = graph(SHOP)
    assert arrows(found, "dead-letter") == {("charge", "failed"), ("restock", "imports.dead")}
    assert found.nodes["dead-letter:imports.dead"].kind == "dead-letter"
    assert [(edge.source, edge.label) for edge in found.edges if edge.kind == "retry"] == [
        ("subscriber:shop.charge", "8 attempts from 2s")
    ]


def test_several_pipelines_meet_in_what_they_share() -> None:
    """In queues of one name and in events of one address: a pattern hears other pipelines' events, too."""
    found = graph(SHOP, MAIL)
    assert found.nodes["queue:orders"].pipelines == ("shop", "mail")
    assert found.nodes["event:order.placed"].pipelines == ("shop", "mail")
    assert ("order.placed", "notify") in arrows(found, "deliver")
    # the same name on another exchange is another event
    assert found.nodes["event:payments/payment.received"].pipelines == ("shop",)
    heard = {edge.source for edge in found.edges if edge.target == "subscriber:mail.archive" and edge.kind == "deliver"}
    assert heard == {"event:order.placed", "event:payment.received"}


def test_a_pattern_that_no_event_matches_is_shown_as_it_stands() -> None:
    """What another program publishes may match it."""
    found = graph(MAIL)
    assert found.nodes["event:refund.*"].notes == ("not declared here",)
    assert ("refund.*", "early") in arrows(found)


def test_two_pipelines_of_one_name_are_told_apart() -> None:
    """By their files."""
    first, second = specs(CYCLE, CYCLE)
    names = [pipeline.name for pipeline in build_graph([first, second]).pipelines]
    assert names == ["circle (pipeline.yaml)"] * 2


# Text


def test_text_follows_the_flow_and_cuts_what_was_shown() -> None:
    """From each producer down; a second mention says so."""
    text = render(graph(SHOP), "text")
    assert text.startswith("shop · pipeline.yaml · team-shop · Takes orders.\n\nweb ")
    tree = [
        line.split("  ")[0].rstrip() if not line.startswith(" ") else line[:25].rstrip() for line in text.splitlines()
    ]
    assert tree[2:5] == ["web", "└→ order.placed", "   └→ orders"]
    assert re.search(r"→ charge +subscriber · ↻ 8 attempts from 2s\n", text)
    assert re.search(r"└✗ failed +queue\n", text)
    assert re.search(r"→ orders ↺\n", text)
    assert re.search(r"partner +producer · once\n├→ orders +above\n└→ order.placed +above\n", text)
    assert re.search(r"erp +exchange\n└→ imports +queue · classic · bound by stock.#\n", text)


def test_a_circle_ends_where_it_began() -> None:
    """Nothing is shown for ever, and nothing is left out."""
    text = render(graph(CYCLE), "text")
    assert text.count("↺") == 1
    assert [name for name in ("a", "one", "b", "two") if not re.search(rf"\b{name}\b", text)] == []


def test_everything_is_in_every_format() -> None:
    """Each node's name, however it is connected."""
    found = graph(SHOP, MAIL, CYCLE)
    for style in FORMATS:
        text = render(found, style)
        for node in found.nodes.values():
            name = node.name.replace("*", "#42;") if style == "mermaid" else node.name
            assert name in text, f"{node.id} in {style}"


# Escaping


def test_mermaid_labels_have_no_sign_that_means_something() -> None:
    """Quotes, brackets, tags and entities come as numbers; ids are ours."""
    label = r'"(?:[\w .,:✗-]|#\d+;|<br/>|</?small>)*"'
    node, edge = rf"n\d+[\[(){{}}/]+{label}[\](){{}}/]+:::\w+", rf"n\d+ -\.?->(?:\|{label}\|)? n\d+"
    lines = [line.strip() for line in render(graph(HOSTILE, SHOP), "mermaid").splitlines()]
    ours = [line for line in lines if re.match(r"n\d", line)]
    assert len(ours) > 20
    assert [line for line in ours if not re.fullmatch(f"{node}|{edge}", line)] == []


def test_dot_texts_are_closed() -> None:
    """A backslash or a quote in a name does not end its label."""
    for line in render(graph(HOSTILE), "dot").splitlines():
        assert re.sub(r'"(?:[^"\\]|\\.)*"', "", line).count('"') == 0, line


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


def test_control_characters_stay_out() -> None:
    """Of terminals and of XML."""
    found = graph('version: 1\nname: n\ndescription: "\\e[31mred\\x07"\nqueues: {q: }\n')
    for style in FORMATS:
        assert "\x1b" not in render(found, style)
        assert "\x07" not in render(found, style)


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


# Layout


def overlapping(sizes: Mapping[str, tuple[float, float]], arrows: Mapping[tuple[str, str], float]) -> list[str]:
    boxes = lay_out(sizes, arrows).boxes
    return [
        f"{first} and {second}"
        for (first, a), (second, b) in combinations(boxes.items(), 2)
        if a.x < b.right and b.x < a.right and a.y < b.y + b.height and b.y < a.y + a.height
    ]


@pytest.mark.parametrize("seed", range(8))
def test_boxes_do_not_overlap_and_arrows_meet_them(seed: int) -> None:
    """Also with circles, in parts that are not connected, and with arrows over many layers."""
    names = [f"n{index}" for index in range(40)]
    sizes = {name: (60.0 + 7 * (index % 9), 25.0 + 9 * (index % 5)) for index, name in enumerate(names)}
    pairs = [(index * 7 + seed, index * 11 + seed * index) for index in range(50)]
    arrows = {(names[a % 40], names[b % 40]): 10.0 * (a % 3) for a, b in pairs if a % 40 != b % 40}
    assert overlapping(sizes, arrows) == []
    layout = lay_out(sizes, arrows)
    assert set(layout.routes) == set(arrows)
    for (source, target), points in layout.routes.items():
        for node, (x, y) in ((source, points[0]), (target, points[-1])):
            box = layout.boxes[node]
            assert x in (pytest.approx(box.x), pytest.approx(box.right))
            assert box.y <= y <= box.y + box.height
    assert all(box.x >= 0 and box.y >= -0.01 and box.right <= layout.width + 0.01 for box in layout.boxes.values())
    assert max(box.y + box.height for box in layout.boxes.values()) <= layout.height + 0.01


def test_arrows_run_from_left_to_right_but_for_circles() -> None:
    """Only what closes a circle runs back."""
    made = assign_layers(["a", "b", "c", "d"], [("a", "b"), ("b", "c"), ("c", "b"), ("a", "d"), ("d", "c")])
    assert made.backward == {("c", "b")}
    layout = lay_out(dict.fromkeys("abcd", (80.0, 30.0)), dict.fromkeys(made.chains, 0.0))
    assert layout.boxes["a"].x < layout.boxes["b"].x < layout.boxes["c"].x


def test_crossings_that_need_not_be_are_taken_away() -> None:
    """The order in the file is not the order on the page."""
    made = assign_layers(["a", "b", "x", "y"], [("a", "y"), ("b", "x")])
    assert count_crossings(made) == 0


def test_nothing_at_all_is_a_picture_too() -> None:
    """A pipeline with nothing in it."""
    for style in FORMATS:
        assert render(graph("version: 1\nname: empty\n"), style)


@pytest.mark.parametrize("style", FORMATS)
def test_the_examples_together(style: Format) -> None:
    """A folder is one picture, the same each time."""
    first, again = (build_graph(read_specs([ROOT / "pipelines"], {})) for _ in range(2))
    assert render(first, style) == render(again, style)


def test_long_chains_and_crowds_have_an_end() -> None:
    """Text goes on in a tree of its own; a picture that nobody could read is refused with a hint."""
    chain = "".join(f"  s{index}: {{from: q{index}, handler: 'h:f', to: q{index + 1}}}\n" for index in range(900))
    queues = "".join(f"  q{index}:\n" for index in range(901))
    found = graph(f"version: 1\nname: chain\nqueues:\n{queues}subscribers:\n{chain}")
    text = render(found, "text")
    assert max(len(line) for line in text.splitlines()) < 150
    assert all(re.search(rf"^[│ ]*[├└]?→? ?q{index}\b", text, re.MULTILINE) for index in range(0, 901, 50))
    assert render(found, "svg")
    pairs = [(f"n{index}", f"n{other}") for index in range(60) for other in range(index + 1, 60)]
    with pytest.raises(TooManyArrows) as caught:
        lay_out({f"n{index}": (10.0, 10.0) for index in range(60)}, dict.fromkeys(pairs, 0.0))
    assert "--format dot" in caught.value.hint
