"""Samples in Prometheus' text format, with prometheus-client's samples of the process and of Python.

This module writes the text itself, because prometheus-client needs 5 µs for a line: a scrape of 1,000 busy subscribers
would cost a fifth of a second of CPU time. A test compares both texts. Source of the format:
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import accumulate

from runner.metrics import METRICS, Metric, Metrics, Samples, Value, metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def read(metrics: Metrics) -> Samples:
    """Return all samples of this process. Thread-safe."""
    found = metrics.samples()
    try:
        from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
    except ImportError:  # without the extra `http`, workers still report their counts when they end
        return found
    apart = CollectorRegistry()
    for collector in (ProcessCollector(registry=apart), GCCollector(apart), PlatformCollector(apart)):
        for family in collector.collect():
            for sample in family.samples:
                labels = metric(sample.name).labels
                found[sample.name][tuple(sample.labels[name] for name in labels)] = sample.value
    return found


def text(samples: Samples) -> bytes:
    """Return samples in Prometheus' text format. A histogram without values is left out."""
    lines: list[str] = []
    for each in METRICS:
        lines.append(f"# HELP {each.name} {each.meaning}\n# TYPE {each.name} {each.kind}\n")
        for values, value in samples.get(each.name, {}).items():
            lines += _lines(each, values, value)
    return "".join(lines).encode()


def _lines(each: Metric, values: tuple[str, ...], value: Value) -> Iterator[str]:
    labels = ",".join([f'{name}="{_escaped(text)}"' for name, text in zip(each.labels, values, strict=True) if text])
    if not isinstance(value, list):
        yield f"{each.name}{{{labels}}} {value}\n" if labels else f"{each.name} {value}\n"
        return
    *counts, total = value
    if any(counts):
        *below, count = accumulate(counts)
        for bound, number in zip(each.buckets, below, strict=True):
            yield f'{each.name}_bucket{{{labels},le="{bound}"}} {number}\n'
        yield f'{each.name}_bucket{{{labels},le="+Inf"}} {count}\n'
        yield f"{each.name}_sum{{{labels}}} {total}\n{each.name}_count{{{labels}}} {count}\n"


@functools.lru_cache(maxsize=4096)
def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)
