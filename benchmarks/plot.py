"""The picture of `throughput`'s results: bars by scenario, as an SVG that reads well on light and on dark ground.

    python -m benchmarks.plot           # writes benchmarks/results/throughput-LINE.svg for each throughput-LINE.json

Bars are medians, thin lines go from the smallest to the largest run. Each scenario has a scale of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.quotes import RESULTS, lines, read

WIDTH = 900
LEFT, RIGHT = 230, 200
BAR, GAP, HEAD, SPACE, TOP = 16, 6, 26, 16, 56
OURS = "mqrunner"
TITLE = "Messages a second; more is better"

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 17px; font-weight: 600; }
  .scenario { font-weight: 600; }
  .note { font-size: 12px; fill: #59636e; }
  .number { font-variant-numeric: tabular-nums; }
  .ours { fill: #0969da; } .peer { fill: #8c959f; } .limit { fill: none; stroke: #8c959f; stroke-dasharray: 3 2; }
  .spread { stroke: #1f2328; stroke-width: 1.2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .note { fill: #9198a1; } .spread { stroke: #e6edf3; }
    .ours { fill: #4493f8; } .peer { fill: #656c76; } .limit { stroke: #656c76; }
  }
"""


def draw(results: Sequence[Mapping[str, Any]], machine: Mapping[str, Any]) -> str:
    """Return the SVG of a list of rows."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in results:
        groups.setdefault(row["scenario"], []).append(row)
    parts: list[str] = []
    at = TOP
    for scenario, rows in groups.items():
        parts += _scenario(scenario, rows, at)
        at += HEAD + len(rows) * (BAR + GAP) + SPACE
    runs = max(len(row["runs"]) for row in results)
    broker = f"RabbitMQ {machine['rabbitmq']}, " if machine.get("rabbitmq") else ""
    note = (
        f"median and spread of {runs} runs; × is to the first line of a scenario; client and broker share"
        f" {machine['cores']} cores; {broker}Python {machine['python']}, {machine['at'][:10]}"
    )
    size = f'viewBox="0 0 {WIDTH} {at}" width="{WIDTH}" height="{at}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{TITLE}</title>",
            f"<style>{STYLE}</style>",
            _text(0, 20, TITLE, "title"),
            _text(0, 40, note, "note"),
            *parts,
            "</svg>",
            "",
        ]
    )


def _scenario(name: str, rows: Sequence[Mapping[str, Any]], top: int) -> Iterator[str]:
    yield _text(0, top + 14, name, "scenario")
    largest = max((row["rate"]["max"] for row in rows if row["rate"]), default=1.0)
    scale = (WIDTH - LEFT - RIGHT) / largest
    for number, row in enumerate(rows):
        y = top + HEAD + number * (BAR + GAP)
        yield _text(LEFT - 8, y + 13, row["entry"], "entry", "end")
        yield from _bar(row, y, scale)


def _bar(row: Mapping[str, Any], y: int, scale: float) -> Iterator[str]:
    if row["failure"] or not row["rate"]:
        yield _text(LEFT, y + 13, "not installed" if row.get("missing") else "failed", "note")
        return
    median, low, high = (row["rate"][name] for name in ("median", "min", "max"))
    kind = "ours" if row["entry"].startswith(OURS) else "limit" if "limit" in row["entry"] else "peer"
    yield f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{median * scale:.1f}" height="{BAR}" rx="2"/>'
    middle = y + BAR / 2
    ends = f'x1="{LEFT + low * scale:.1f}" x2="{LEFT + high * scale:.1f}"'
    yield f'<line class="spread" {ends} y1="{middle}" y2="{middle}"/>'
    factor = "" if row["ratio"] is None else f"  ×{row['ratio']:.2g}" if row["ratio"] < 10 else f"  ×{row['ratio']:.0f}"
    mark = "  too busy" if "BUSY" in row.get("disturbed", "") else ""
    yield _text(LEFT + high * scale + 6, y + 13, f"{median:,.0f}/s{factor}{mark}", "number")


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def main() -> None:
    """Draw the results of each line of RabbitMQ."""
    for line in lines("throughput"):
        said = read(f"throughput-{line}")
        (RESULTS / f"throughput-{line}.svg").write_text(draw(said["results"], said["machine"]))


if __name__ == "__main__":
    main()
