"""Generates docs/reference/metrics.md from the table of metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runner.metrics import METRICS, Metric


def metric_reference() -> str:
    """Return the text of the document."""
    text = Path(__file__).with_suffix(".md").read_text("utf-8")
    for place, lines in (("metrics", _metrics()), ("buckets", _buckets())):
        text = text.replace(f"<!-- {place} -->", "\n".join(lines))
    return text


def _metrics() -> Iterator[str]:
    yield from ("| metric | type | labels | meaning | workers |", "|---|---|---|---|---|")
    yield from map(_row, METRICS)


def _row(each: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in each.labels)
    return f"| `{each.name}` | {each.kind} | {labels} | {each.meaning} | {each.merged} |"


def _buckets() -> Iterator[str]:
    for each in METRICS:
        if each.buckets:
            yield f"- `{each.name}`: {', '.join(f'{bound:g}' for bound in each.buckets)}"


if __name__ == "__main__":
    print(metric_reference(), end="")
