"""The graph as text: what is expanded once, cycles, and depth."""

from __future__ import annotations

import re

import pytest

from runner.operations.graph import render
from runner.operations.graph.layers import TooManyArrows
from runner.operations.graph.layout import lay_out
from tests.unit.operations.graph.graphs import CYCLE, SHOP, graph


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


def test_long_chains_and_crowds_have_an_end() -> None:
    """Text continues in a second tree; a picture that is too large to read is refused with a hint."""
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
