"""Assigns nodes to layers from left to right, in an order with few crossings.

Layers by the longest path, order by barycenters: K. Sugiyama, S. Tagawa, M. Toda, "Methods for visual understanding of
hierarchical system structures" (1981). An arrow over several layers passes through a point in each of those between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from runner.errors import RunnerError

Arrow = tuple[str, str]
ORDER_SWEEPS = 24
MAX_POINTS = 20_000
"""Maximum number of points that arrows pass through: such a drawing would be unreadable, and slow to lay out."""


class TooManyArrows(RunnerError):
    """The graph is too large to draw."""


@dataclass
class LayeredGraph:
    """Layers of nodes and points. `chains` are the nodes and points of each arrow, from left to right.

    `backward` are the arrows that run from right to left, because they close a cycle.
    """

    layers: list[list[str]] = field(default_factory=list)
    chains: dict[Arrow, list[str]] = field(default_factory=dict)
    backward: set[Arrow] = field(default_factory=set)

    def neighbours(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Return the left neighbours and the right neighbours of each node or point."""
        left: dict[str, list[str]] = {item: [] for layer in self.layers for item in layer}
        right: dict[str, list[str]] = {item: [] for layer in self.layers for item in layer}
        for chain in self.chains.values():
            for first, second in pairwise(chain):
                right[first].append(second)
                left[second].append(first)
        return left, right


def is_point(item: str) -> bool:
    """Whether this is a point where an arrow passes through a layer, not a node."""
    return "\0" in item


def connected_parts(nodes: Sequence[str], arrows: Iterable[Arrow]) -> list[list[str]]:
    """Return the connected components, in the order of their first nodes."""
    group = {node: [node] for node in nodes}
    for source, target in arrows:
        if group[source] is not group[target]:
            group[source] += group[target]
            for node in group[target]:
                group[node] = group[source]
    rank = {node: index for index, node in enumerate(nodes)}
    distinct = {id(members): members for members in group.values()}
    return sorted((sorted(members, key=rank.__getitem__) for members in distinct.values()), key=lambda m: rank[m[0]])


def assign_layers(nodes: Sequence[str], arrows: Sequence[Arrow]) -> LayeredGraph:
    """Return nodes in layers and in order. Arrows join two different nodes, each once. Raises TooManyArrows."""
    backward = _cycle_arrows(nodes, arrows)
    forward = {arrow: arrow[::-1] if arrow in backward else arrow for arrow in arrows}
    depth = _depths(nodes, [(source, target) for source, target in forward.values()])
    if sum(depth[target] - depth[source] for source, target in forward.values()) > MAX_POINTS:
        hint = "draw fewer pipelines together, or use --format dot or json"
        raise TooManyArrows(f"{len(arrows)} arrows over {max(depth.values())} layers are too many for a drawing", hint)
    made = LayeredGraph([[] for _ in range(max(depth.values(), default=-1) + 1)], {}, backward)
    for node in nodes:
        made.layers[depth[node]].append(node)
    for arrow, (source, target) in forward.items():
        points = [f"{source}\0{target}\0{level}" for level in range(depth[source] + 1, depth[target])]
        if arrow not in backward or (source, target) not in forward:  # otherwise the forward arrow has the same points
            for level, point in enumerate(points, start=depth[source] + 1):
                made.layers[level].append(point)
        made.chains[arrow] = [source, *points, target]
    _reduce_crossings(made)
    return made


def _cycle_arrows(nodes: Sequence[str], arrows: Sequence[Arrow]) -> set[Arrow]:
    """Return the arrows that close cycles, found by depth-first search."""
    onward: dict[str, list[str]] = {node: [] for node in nodes}
    for source, target in arrows:
        onward[source].append(target)
    fed = {target for _, target in arrows}
    found: set[Arrow] = set()
    done: set[str] = set()
    for start in [*(node for node in nodes if node not in fed), *nodes]:
        path: dict[str, list[str]] = {} if start in done else {start: list(onward[start])}
        while path:
            node, left = next(reversed(path.items()))
            if not left:
                done.add(node)
                del path[node]
                continue
            target = left.pop(0)
            if target in path:
                found.add((node, target))
            elif target not in done:
                path[target] = list(onward[target])
    return found


def _depths(nodes: Sequence[str], arrows: Sequence[Arrow]) -> dict[str, int]:
    """Return the layer of each node: one after its last predecessor; nodes without one are next to their target."""
    before: dict[str, list[str]] = {node: [] for node in nodes}
    after: dict[str, list[str]] = {node: [] for node in nodes}
    for source, target in arrows:
        before[target].append(source)
        after[source].append(target)
    depth: dict[str, int] = {}
    waiting = {node: len(before[node]) for node in nodes}
    ready = [node for node in nodes if not waiting[node]]
    for node in ready:  # grows while it is read
        depth[node] = max((depth[item] + 1 for item in before[node]), default=0)
        for target in after[node]:
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    for node in nodes:
        if not before[node] and after[node]:
            depth[node] = min(depth[target] for target in after[node]) - 1
    return depth


# Crossings


def _reduce_crossings(made: LayeredGraph) -> None:
    """Order the layers by their neighbours, sweeping forth and back, and keep the best order found."""
    left, right = made.neighbours()
    best, fewest = [list(layer) for layer in made.layers], count_crossings(made)
    for sweep in range(ORDER_SWEEPS):
        is_forth = sweep % 2 == 0
        for layer in made.layers[1:] if is_forth else reversed(made.layers[:-1]):
            _sort(layer, left if is_forth else right, made.layers)
        found = count_crossings(made)
        if found < fewest:
            best, fewest = [list(layer) for layer in made.layers], found
        if not fewest:
            break
    made.layers[:] = best


def _sort(layer: list[str], towards: Mapping[str, list[str]], layers: Sequence[Sequence[str]]) -> None:
    rank = {item: index for row in layers for index, item in enumerate(row)}
    middle = {
        item: sum(rank[other] for other in towards[item]) / len(towards[item]) if towards[item] else float(rank[item])
        for item in layer
    }
    layer.sort(key=lambda item: (middle[item], rank[item]))


def count_crossings(made: LayeredGraph) -> int:
    """Return the number of crossings of arrows."""
    rank = {item: index for layer in made.layers for index, item in enumerate(layer)}
    steps: dict[int, list[tuple[int, int]]] = {}
    level = {item: index for index, layer in enumerate(made.layers) for item in layer}
    for chain in made.chains.values():
        for first, second in pairwise(chain):
            steps.setdefault(level[first], []).append((rank[first], rank[second]))
    return sum(_inversions([second for _, second in sorted(pairs)]) for pairs in steps.values())


def _inversions(numbers: list[int]) -> int:
    """Return the number of inversions, by merge sort."""
    if len(numbers) < 2:
        return 0
    middle = len(numbers) // 2
    first, second = numbers[:middle], numbers[middle:]
    count = _inversions(first) + _inversions(second)
    first.sort()
    second.sort()
    index = 0
    for number in second:
        while index < len(first) and first[index] <= number:
            index += 1
        count += len(first) - index
    return count
