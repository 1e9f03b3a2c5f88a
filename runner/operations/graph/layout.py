"""Lays out a graph: the position of each box, and the points of each arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runner.operations.graph.layers import Arrow, LayeredGraph, assign_layers, connected_parts, is_point

GAP, ROW, POINT, PORTS = 60.0, 22.0, 8.0, 12.0
"""Gap between layers; gap between boxes of a layer; height of a passing arrow; gap between arrows at a box."""

ROW_SWEEPS = 60


@dataclass
class Box:
    """A rectangle; `x` and `y` are its upper left corner."""

    width: float
    height: float
    x: float = 0.0
    y: float = 0.0

    @property
    def middle(self) -> float:
        """The y coordinate of its middle."""
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        """The x coordinate of its right side."""
        return self.x + self.width


@dataclass
class Layout:
    """The positions of all boxes, and the points of each arrow, from its source to its target."""

    boxes: dict[str, Box] = field(default_factory=dict)
    routes: dict[Arrow, list[tuple[float, float]]] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0


def lay_out(sizes: Mapping[str, tuple[float, float]], labels: Mapping[Arrow, float]) -> Layout:
    """Return a layout for boxes of these sizes and arrows with labels of these widths (0: no label).

    Parts that are not connected are placed below each other.
    """
    whole = Layout()
    top = 0.0
    for members in connected_parts(list(sizes), labels):
        inside = {node: sizes[node] for node in members}
        part = _place_part(inside, [arrow for arrow in labels if arrow[0] in inside], labels)
        _move(part, top)
        whole.boxes |= part.boxes
        whole.routes |= part.routes
        whole.width = max(whole.width, part.width)
        top += part.height + 2 * ROW
    whole.height = max(0.0, top - 2 * ROW)
    return whole


def _move(part: Layout, down: float) -> None:
    for box in part.boxes.values():
        box.y += down
    part.routes = {arrow: [(x, y + down) for x, y in points] for arrow, points in part.routes.items()}


def _place_part(
    sizes: Mapping[str, tuple[float, float]], arrows: Sequence[Arrow], labels: Mapping[Arrow, float]
) -> Layout:
    made = assign_layers(list(sizes), arrows)
    boxes = {item: Box(*sizes.get(item, (0.0, POINT))) for layer in made.layers for item in layer}
    _columns(made, boxes, labels)
    _rows(made, boxes)
    part = Layout({node: boxes[node] for node in sizes})
    part.routes = _routes(made, boxes)
    top = min(box.y for box in boxes.values())
    part.width = max(box.right for box in boxes.values())
    part.height = max(box.y + box.height for box in boxes.values()) - top
    _move(part, -top)
    return part


def _columns(made: LayeredGraph, boxes: Mapping[str, Box], labels: Mapping[Arrow, float]) -> None:
    """Set the x coordinate of each layer, with space for the labels before it."""
    wants: dict[str, float] = {}
    for arrow, chain in made.chains.items():
        wants[chain[-1]] = max(labels[arrow], wants.get(chain[-1], 0.0))
    x = 0.0
    for layer in made.layers:
        widest = max(boxes[item].width for item in layer)
        wanted = max(wants.get(item, 0.0) for item in layer)
        x += max(GAP, wanted + 30) if x else 0.0
        for item in layer:
            boxes[item].x = x
            if boxes[item].width == 0.0:
                boxes[item].width = widest
        x += widest


def _rows(made: LayeredGraph, boxes: Mapping[str, Box]) -> None:
    """Move boxes up and down towards their neighbours, keeping their order and the gaps between them."""
    left, right = made.neighbours()
    for layer in made.layers:
        _stack(layer, boxes, [(0.0, 1.0)] * len(layer))
    for sweep in range(ROW_SWEEPS):
        is_forth = sweep % 2 == 0
        is_last = sweep >= ROW_SWEEPS // 2
        for layer in made.layers if is_forth else reversed(made.layers):
            wanted = []
            for item in layer:
                near = left[item] + right[item] if is_last else (left if is_forth else right)[item]
                wanted.append(_wanted(item, near or left[item] + right[item], boxes))
            _stack(layer, boxes, wanted)


def _wanted(item: str, near: Sequence[str], boxes: Mapping[str, Box]) -> tuple[float, float]:
    """Return the preferred y of a box or point, and its weight: long arrows should be straight."""
    if not near:
        return boxes[item].middle, 1.0
    pulls = [(16.0 if is_point(item) and is_point(other) else 1.0) for other in near]
    height = sum(pull * boxes[other].middle for pull, other in zip(pulls, near, strict=True)) / sum(pulls)
    return height, sum(pulls)


def _stack(layer: Sequence[str], boxes: Mapping[str, Box], wanted: Sequence[tuple[float, float]]) -> None:
    """Move a layer's boxes as close to their preferred y as order and gaps allow: weighted least squares.

    Method: pool adjacent violators, applied to the preferred y minus the space that is needed above.
    """
    room, needed = 0.0, []
    for index, item in enumerate(layer):
        if index:
            above = layer[index - 1]
            gap = ROW / 3 if is_point(above) and is_point(item) else ROW
            room += (boxes[above].height + boxes[item].height) / 2 + gap
        needed.append(room)
    pools: list[tuple[float, float, int]] = []  # the sum of heights by weight, the weights, how many
    for (height, weight), offset in zip(wanted, needed, strict=True):
        pool = ((height - offset) * weight, weight, 1)
        while pools and pools[-1][0] / pools[-1][1] > pool[0] / pool[1]:
            last = pools.pop()
            pool = (last[0] + pool[0], last[1] + pool[1], last[2] + pool[2])
        pools.append(pool)
    level = [total / weight for total, weight, count in pools for _ in range(count)]
    for item, height, offset in zip(layer, level, needed, strict=True):
        boxes[item].y = height + offset - boxes[item].height / 2


# Arrows


def _routes(made: LayeredGraph, boxes: Mapping[str, Box]) -> dict[Arrow, list[tuple[float, float]]]:
    """Return the points of each arrow. Arrows at the same side of a box are spread out."""
    leave = _ports(made, boxes, is_left=False)
    reach = _ports(made, boxes, is_left=True)
    routes = {}
    for arrow, chain in made.chains.items():
        points = [(boxes[chain[0]].right, leave[arrow])]
        for point in chain[1:-1]:
            box = boxes[point]
            points += [(box.x, box.middle), (box.right, box.middle)]
        points.append((boxes[chain[-1]].x, reach[arrow]))
        routes[arrow] = points[::-1] if arrow in made.backward else points
    return routes


def _ports(made: LayeredGraph, boxes: Mapping[str, Box], *, is_left: bool) -> dict[Arrow, float]:
    """Return the y at which each arrow meets the left side of its right box, or the right side of its left box."""
    at: dict[str, list[tuple[float, Arrow]]] = {}
    for arrow, chain in made.chains.items():
        node, other = (chain[-1], chain[-2]) if is_left else (chain[0], chain[1])
        at.setdefault(node, []).append((boxes[other].middle, arrow))
    found = {}
    for node, ends in at.items():
        step = min(PORTS, (boxes[node].height - 10) / max(1, len(ends)))
        for index, (_, arrow) in enumerate(sorted(ends)):
            found[arrow] = boxes[node].middle + step * (index - (len(ends) - 1) / 2)
    return found
