"""Draws a graph as SVG 1.1, without external programs."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from runner.operations.graph.layout import Box, Layout, lay_out
from runner.operations.graph.model import Edge, Graph, Node, PipelineLabel
from runner.redaction import escape_controls

FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif"
NAME, SMALL, LINE, PAD, MARGIN = 13, 10.5, 15.0, 12.0, 28.0
LONGEST, SLANT = 44, 9.0

FILLS = {
    "producer": ("#e3f4e6", "#2f8f46"),
    "exchange": ("#eeeeee", "#777777"),
    "event": ("#fdf1d0", "#b7860b"),
    "queue": ("#dfeafc", "#2f67b5"),
    "subscriber": ("#ffffff", "#444444"),
}
OWNERS = ("#7a3e9d", "#0b7285", "#b3541e", "#5c6b00", "#a61e4d", "#364fc7")
"""Colours of the pipelines, if there are several."""


def to_svg(graph: Graph) -> str:
    """Return a drawing from left to right. Retries and dead letters are small grey lines in their subscribers.

    Each box has the id of its node in `data-node`, and classes with which a page can colour it.
    """
    nodes = {id_: node for id_, node in graph.nodes.items() if node.kind != "dead-letter"}
    edges = {(e.source, e.target): e for e in reversed(graph.edges) if e.target in nodes and e.kind != "retry"}
    sizes = {id_: _size(graph, node) for id_, node in nodes.items()}
    arrows = {pair: _width(_label_text(graph, e), SMALL) for pair, e in sorted(edges.items())}
    layout = lay_out(sizes, arrows)
    colours = {pipeline.name: OWNERS[index % len(OWNERS)] for index, pipeline in enumerate(graph.pipelines)}
    head = list(_head(graph.pipelines, colours))
    top = MARGIN + LINE * 1.5 * len(head)
    kinds = [kind for kind in FILLS if any(node.kind == kind for node in nodes.values())]
    height = top + layout.height + MARGIN + 2.4 * LINE
    text_width = max((_width(title, NAME) * 1.08 for title, _ in _titles(graph.pipelines)), default=0.0)
    width = max(layout.width, text_width, 90.0 * len(kinds)) + 2 * MARGIN
    body = [*_arrows(graph, edges, layout), *_boxes(graph, nodes.values(), layout, colours)]
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family={quoteattr(FONT)} font-size="{NAME}">\n',
            f"<title>{_clean(', '.join(pipeline.name for pipeline in graph.pipelines))}</title>\n",
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff" class="paper"/>\n',
            *head,
            f'<g transform="translate({MARGIN:.0f} {top:.0f})">\n',
            *body,
            "</g>\n",
            *_legend(kinds, height - MARGIN),
            "</svg>\n",
        ]
    )


# Text


def _head(pipelines: Iterable[PipelineLabel], colours: Mapping[str, str]) -> Iterator[str]:
    for index, (title, name) in enumerate(_titles(pipelines)):
        y = MARGIN + LINE * 1.5 * index + 4
        rest = title[len(name) :]
        yield (
            f'<text x="{MARGIN:.0f}" y="{y:.0f}" fill="#666666" xml:space="preserve" class="head">'
            f'<tspan font-weight="bold" fill="{colours[name]}">{_clean(name)}</tspan>{_clean(rest)}</text>\n'
        )


def _titles(pipelines: Iterable[PipelineLabel]) -> Iterator[tuple[str, str]]:
    for pipeline in pipelines:
        rest = [part for part in (pipeline.description, pipeline.owner) if part]
        yield " · ".join([pipeline.name, *rest]), pipeline.name


def _lines(graph: Graph, node: Node) -> list[str]:
    """Return the small lines below the name in a box."""
    patterns = graph.patterns_of(node.id)
    lines = [_short(" · ".join(node.notes)), f"events {_short(patterns)}" if patterns else "", _short(node.description)]
    if len(graph.pipelines) > 1 and node.kind in ("producer", "subscriber"):
        lines.insert(0, _short(", ".join(node.pipelines)))
    if retry := graph.label(node.id, "retry"):
        lines.append(f"↻ {_short(retry)}")
    if dead := graph.dead_letter(node.id):
        lines.append(f"✗ {_short(dead)}")
    return [line for line in lines if line]


def _size(graph: Graph, node: Node) -> tuple[float, float]:
    lines = _lines(graph, node)
    widths = [_width(_short(node.name), NAME) * 1.08, *(_width(line, SMALL) for line in lines)]
    extra = 14.0 if node.kind in ("event", "queue", "exchange") else 0.0
    return max(84.0, max(widths) + 2 * PAD + extra), 2 * PAD + LINE * (1 + 0.9 * len(lines)) - 5


def _width(text: str, size: float) -> float:
    """Estimate the width of a text: the reader's font is unknown."""
    units = sum(1.0 if unicodedata.east_asian_width(character) in "WF" else _unit(character) for character in text)
    return units * size


def _unit(character: str) -> float:
    if character in "il.,:;'|!()[] jtfI":
        return 0.38
    return 0.9 if character in "mwMW@%" else 0.68 if character.isupper() else 0.6


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _clean(text: str) -> str:
    """Return text that is valid in XML, which forbids most control characters."""
    return escape(escape_controls(text)).replace("\ufffe", "").replace("\uffff", "")


# Boxes


def _boxes(graph: Graph, nodes: Iterable[Node], layout: Layout, colours: Mapping[str, str]) -> Iterator[str]:
    for node in nodes:
        box = layout.boxes[node.id]
        fill, stroke = FILLS[node.kind]
        yield f'<g class="node {node.kind}" data-node={quoteattr(escape_controls(node.id))}>'
        yield f"<title>{_clean(_tooltip(node))}</title>\n{_outline(node.kind, box, fill, stroke)}\n"
        lines = _lines(graph, node)
        x = box.x + (box.width - (10 if node.kind == "queue" else 0)) / 2
        y = box.middle - LINE * 0.9 * len(lines) / 2 + 4.5
        yield f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" fill="#222222">{_clean(_short(node.name))}</text>\n'
        is_owned = len(graph.pipelines) > 1 and node.kind in ("producer", "subscriber")
        for index, line in enumerate(lines):
            y += LINE * 0.9
            colour = colours[node.pipelines[0]] if is_owned and not index else _line_colour(line)
            yield (
                f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" font-size="{SMALL}" fill="{colour}" class="small">'
                f"{_clean(line)}</text>\n"
            )
        yield "</g>\n"


def _line_colour(line: str) -> str:
    if line.startswith("events "):
        return "#8a6500"
    return "#9a9a9a" if line.startswith(("↻", "✗")) else "#5f5f5f"


def _tooltip(node: Node) -> str:
    parts = [f"{node.kind} {node.name}", node.handler, *node.notes, node.description]
    return " · ".join(part for part in parts if part)


def _outline(kind: str, box: Box, fill: str, stroke: str) -> str:
    """Return the outline of a box, whose shape depends on its kind."""
    x, y, right, bottom = box.x, box.y, box.right, box.y + box.height
    look = f'fill="{fill}" stroke="{stroke}" stroke-width="1.2"'
    if kind == "event":
        upper = [(x + SLANT, y), (right - SLANT, y), (right, box.middle)]
        return _polygon([*upper, (right - SLANT, bottom), (x + SLANT, bottom), (x, box.middle)], look)
    if kind == "exchange":
        return _polygon([(x + SLANT, y), (right, y), (right - SLANT, bottom), (x, bottom)], look)
    radius = {"producer": box.height / 2, "subscriber": 5.0}.get(kind, 2.0)
    shape = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        f'rx="{min(radius, 18.0):.1f}" {look}/>'
    )
    if kind == "queue":  # the bars suggest messages in a row
        bars = "".join(f"M{right - step:.1f} {y:.1f}V{bottom:.1f}" for step in (5, 10))
        shape += f'<path d="{bars}" stroke="{stroke}" stroke-width="1" fill="none"/>'
    return shape


def _polygon(corners: Iterable[tuple[float, float]], look: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f'<polygon points="{points}" {look}/>'


# Arrows


def _label_text(graph: Graph, edge: Edge) -> str:
    """Return the label of an arrow: only binding keys of exchanges; patterns of events are in the boxes."""
    return _short(edge.label) if graph.nodes[edge.source].kind == "exchange" else ""


def _arrows(graph: Graph, edges: Mapping[tuple[str, str], Edge], layout: Layout) -> Iterator[str]:
    for pair, edge in edges.items():
        points = _touching(graph, pair, layout)
        is_dead = edge.kind == "dead-letter"
        is_back = points[0][0] > points[-1][0]
        colour = "#bbbbbb" if is_dead else "#c2571a" if is_back else "#6b6b6b"
        dashes = ' stroke-dasharray="4 3"' if is_dead else ""
        yield f'<path d="{_curve(points)}" fill="none" stroke="{colour}" stroke-width="1.3"{dashes}/>\n'
        yield _head_of_arrow(points, colour)
        if text := _label_text(graph, edge):
            yield _label(points, text)


def _touching(graph: Graph, pair: tuple[str, str], layout: Layout) -> list[tuple[float, float]]:
    """Return an arrow's points, with its ends moved from the bounding boxes to the slanted sides of the shapes."""
    points = list(layout.routes[pair])
    is_back = points[0][0] > points[-1][0]
    for index, node in ((0, pair[0]), (-1, pair[1])):
        x, y = points[index]
        box, is_left = layout.boxes[node], (index == 0) == is_back
        inset = _inset(graph.nodes[node].kind, box, y, is_left=is_left)
        points[index] = (x + inset if is_left else x - inset, y)
    return points


def _inset(kind: str, box: Box, y: float, *, is_left: bool) -> float:
    if kind == "event":
        return SLANT * abs(y - box.middle) / (box.height / 2)
    if kind == "exchange":
        down = (y - box.y) / box.height
        return SLANT * (1 - down if is_left else down)
    return 0.0


def _curve(points: list[tuple[float, float]]) -> str:
    """Return a curve that is horizontal at every point."""
    pieces = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x, y), (to_x, to_y) in pairwise(points):
        if abs(y - to_y) < 0.05:
            pieces.append(f"H{to_x:.1f}")
        else:
            middle = (x + to_x) / 2
            pieces.append(f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}")
    return "".join(pieces)


def _head_of_arrow(points: list[tuple[float, float]], colour: str) -> str:
    x, y = points[-1]
    back = 7 if x > points[0][0] else -7
    return _polygon([(x, y), (x - back, y - 3.5), (x - back, y + 3.5)], f'fill="{colour}"') + "\n"


def _label(points: list[tuple[float, float]], text: str) -> str:
    x, y = points[-1]
    is_forward = x > points[0][0]
    x, anchor = (x - 11, "end") if is_forward else (x + 11, "start")
    look = f'font-size="{SMALL}" text-anchor="{anchor}"'
    halo = 'stroke="#ffffff" stroke-width="3" stroke-linejoin="round" class="halo"'
    at = f'x="{x:.1f}" y="{y - 4:.1f}"'
    return f'<text {at} {look} {halo}>{_clean(text)}</text><text {at} {look} fill="#7a5c00">{_clean(text)}</text>\n'


def _legend(kinds: Iterable[str], y: float) -> Iterator[str]:
    x = MARGIN
    for kind in kinds:
        box = Box(22.0, 13.0, x, y - 10.5)
        yield f'<g class="{kind}">{_outline(kind, box, *FILLS[kind])}</g>'
        yield f'<text x="{x + 28:.0f}" y="{y:.0f}" font-size="{SMALL}" fill="#5f5f5f">{kind}</text>\n'
        x += 28 + _width(kind, SMALL) + 24
