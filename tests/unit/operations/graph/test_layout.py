"""The layout: boxes do not overlap, arrows meet them."""

from __future__ import annotations

import pytest

from runner.operations.graph.layout import lay_out
from tests.unit.operations.graph.graphs import overlapping


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
