"""Where the samples of a profile stand, as a picture: callers above, what they call below, as wide as its time.

The picture begins below the event loop's iteration, so that what all stacks share takes no room. Colours are parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, ROW, TOP = 1200, 18, 44
LEAST = 0.003
"""A smaller share of the time is not drawn."""
CHARACTER = 6.6
COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#eeca3b", "#9d755d", "#bab0ac", "#ff9da6")
STYLE = "text { font: 11px ui-monospace, monospace; fill: #1f2328; } .head { font-size: 15px; } rect { stroke: #fff; }"

Frame = tuple[str, str]
"""A function, as in `module: function`, and the part that it belongs to."""


@dataclass(slots=True)
class Node:
    """One function under one caller; `samples` of all that stand in it or below it."""

    samples: int = 0
    below: dict[Frame, Node] = field(default_factory=dict)


def tree(stacks: Sequence[tuple[Sequence[Frame], int]]) -> Node:
    """Put stacks, whose outermost frame comes first, on each other."""
    root = Node()
    for frames, number in stacks:
        node = root
        node.samples += number
        for frame in frames:
            node = node.below.setdefault(frame, Node())
            node.samples += number
    return root


def draw(title: str, root: Node, cpu_us: float, parts: Mapping[str, float]) -> str:
    """Return the SVG; `parts` are those of the legend, with their microseconds."""
    colours = dict(zip(parts, COLOURS, strict=False))
    boxes = list(_boxes(root, root.samples, cpu_us, lambda part: colours.get(part, COLOURS[-1])))
    bottom = max((y for y, _ in boxes), default=0) + ROW + 8
    legend, x, y = [], 0.0, bottom
    for part, us in parts.items():
        text = f"{part} {us:.1f} µs"
        if x + len(text) * CHARACTER > WIDTH:
            x, y = 0.0, y + ROW
        legend.append(_rect(x, y, 10, 10, colours.get(part, COLOURS[-1])))
        legend.append(f'<text x="{x + 14:.0f}" y="{y + 9}">{escape(text)}</text>')
        x += 30 + len(text) * CHARACTER
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + ROW}" role="img">',
            f'<title>{escape(title)}</title><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
            f'<text class="head" x="4" y="20">{escape(title)}</text>',
            *(box for _, box in boxes),
            *legend,
            "</svg>",
            "",
        ]
    )


def _boxes(root: Node, total: int, cpu_us: float, colour: Callable[[str], str]) -> Iterator[tuple[int, str]]:
    waiting = [(root, 0.0, TOP)]
    while waiting:
        node, x, y = waiting.pop()
        for (name, part), child in sorted(node.below.items(), key=lambda item: -item[1].samples):
            share = child.samples / total
            if share < LEAST:
                break
            width = share * WIDTH
            text = name.rpartition(": ")[2][: max(0, int((width - 6) / CHARACTER))]
            box = _rect(x, y, width, ROW, colour(part))
            label = f'<text x="{x + 3:.1f}" y="{y + 13}">{escape(text)}</text>' if len(text) > 2 else ""
            hint = f"{name}: {share * cpu_us:.2f} µs, {share:.1%} ({part})"
            yield y, f"<g><title>{escape(hint)}</title>{box}{label}</g>"
            waiting.append((child, x, y + ROW))
            x += width


def _rect(x: float, y: int, width: float, height: int, colour: str) -> str:
    size = f'width="{width:.1f}" height="{height}"'
    return f'<rect x="{x:.1f}" y="{y}" {size} fill="{colour}" fill-opacity="0.6"/>'
