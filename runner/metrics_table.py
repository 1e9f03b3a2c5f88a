"""The table of all metrics, with types, labels and meanings: metrics_table.txt."""

from __future__ import annotations

from dataclasses import dataclass

from runner.tables import read_table


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: a counter, gauge or histogram.

    `merged` is how values of several processes with the same labels are combined: by their sum, max or min.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    merged: str
    buckets: tuple[float, ...]
    meaning: str


METRICS = tuple(
    Metric(name, kind, tuple(labels.split()), merged, tuple(map(float, buckets.split())), meaning)
    for name, kind, labels, merged, buckets, meaning in read_table("runner", "metrics_table.txt", 6)
)

_BY_NAME = {each.name: each for each in METRICS}


def metric(name: str) -> Metric:
    """Return the metric with this name."""
    return _BY_NAME[name]
