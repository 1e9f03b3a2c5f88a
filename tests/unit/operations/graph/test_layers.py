"""Layers: arrows run from left to right, with few crossings."""

from __future__ import annotations

from runner.operations.graph.layers import assign_layers, count_crossings
from runner.operations.graph.layout import lay_out


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
