"""A Grafana dashboard for the metrics of the pipelines. Pure.

Source: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from runner.pipeline.model import Pipeline

COLUMNS = 24
"""Width of a dashboard in grid units."""

_SOURCE = {"type": "prometheus", "uid": "${source}"}
_OURS = 'pipeline=~"$pipeline"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `lines` are PromQL expressions, each with the legend of its lines."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    description: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height in grid units."""
        return (4, 4) if self.kind == "stat" else (12, 8)


def _rate(name: str, labels: str = "") -> str:
    return f"rate({name}{{{_OURS}{labels}}}[$__rate_interval])"


def _ended(outcomes: str) -> str:
    return _rate("runner_messages_total", f', outcome=~"{outcomes}"')


def _quantiles(name: str) -> tuple[tuple[str, str], ...]:
    by = "pipeline, subscriber, le"
    return tuple(
        (f"histogram_quantile({share}, sum by ({by}) ({_rate(f'{name}_bucket')}))", f"{{{{subscriber}}}} {called}")
        for share, called in ((0.5, "p50"), (0.99, "p99"))
    )


_FAILED, _ALL = _ended("retried|dead_lettered"), _ended("handled|retried|dead_lettered")
_IN_A_DAY = f'increase(runner_messages_total{{{_OURS}, outcome="dead_lettered"}}[24h])'

PANELS = (
    Panel("Handled", "ops", ((f"sum({_ended('handled')})", ""),), "stat"),
    Panel("Failed attempts", "percentunit", ((f"sum({_FAILED}) / sum({_ALL})", ""),), "stat"),
    Panel("Dead letters, 24 h", "short", ((f"sum({_IN_A_DAY})", ""),), "stat"),
    Panel("Oldest message", "s", ((f"max(runner_queue_oldest_seconds{{{_OURS}}})", ""),), "stat"),
    Panel("Paused", "short", ((f"sum(max by (pipeline, subscriber) (runner_paused{{{_OURS}}}))", ""),), "stat"),
    Panel("Processes", "short", ((f"count(count by (instance) (runner_info{{{_OURS}}}))", ""),), "stat"),
    Panel(
        "Deliveries",
        "ops",
        ((f"sum by (pipeline, subscriber, outcome) ({_rate('runner_messages_total')})", "{{subscriber}} {{outcome}}"),),
    ),
    Panel(
        "Errors",
        "ops",
        (
            (
                f"sum by (subscriber, error_type) ({_rate('runner_handler_errors_total')})",
                "{{subscriber}} {{error_type}}",
            ),
        ),
    ),
    Panel("Time of a handler", "s", _quantiles("runner_handler_seconds")),
    Panel(
        "Time from publication to handler",
        "s",
        _quantiles("runner_queue_wait_seconds"),
        description="First attempts. Times of publications have whole seconds.",
    ),
    Panel(
        "In flight, and how many there may be",
        "short",
        (
            (f"sum by (pipeline, subscriber) (runner_messages_in_flight{{{_OURS}}})", "{{subscriber}}"),
            (f"sum by (pipeline, subscriber) (runner_concurrency{{{_OURS}}})", "{{subscriber}} at most"),
        ),
    ),
    Panel(
        "Age of the oldest message",
        "s",
        ((f"max by (pipeline, queue) (runner_queue_oldest_seconds{{{_OURS}}})", "{{queue}}"),),
    ),
    Panel(
        "Published",
        "ops",
        (
            (
                f"sum by (producer, subscriber, to, outcome) ({_rate('runner_published_total')})",
                "{{producer}}{{subscriber}} to {{to}} {{outcome}}",
            ),
        ),
    ),
    Panel(
        "Time since a producer ran",
        "s",
        (
            (
                f"time() - max by (pipeline, producer) (runner_producer_last_run_timestamp_seconds{{{_OURS}}})",
                "{{producer}}",
            ),
        ),
    ),
    Panel(
        "Broker",
        "short",
        (
            ("min by (instance) (runner_broker_connected)", "{{instance}} connected"),
            ("max by (instance) (runner_broker_blocked)", "{{instance}} blocked"),
        ),
    ),
    Panel("Event loop is late by", "s", (("max by (instance) (runner_loop_lag_seconds)", "{{instance}}"),)),
)


def grafana(pipelines: Sequence[Pipeline]) -> str:
    """Return the dashboard as JSON text, for import."""
    names = [pipeline.name for pipeline in pipelines]
    board = {
        "uid": blake2b("\n".join(names).encode(), digest_size=10).hexdigest(),
        "title": f"runner: {', '.join(names)}",
        "tags": ["runner"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_data_source(), _pipeline(names)]},
        "panels": list(_panels()),
    }
    return json.dumps(board, indent=2, ensure_ascii=False) + "\n"


def _data_source() -> dict[str, Any]:
    return {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _pipeline(names: Sequence[str]) -> dict[str, Any]:
    return {
        "name": "pipeline",
        "label": "Pipeline",
        "type": "custom",
        "query": ",".join(names),
        "options": [{"text": name, "value": name, "selected": True} for name in names],
        "current": {"text": list(names), "value": list(names)},
        "multi": True,
        "includeAll": False,
    }


def _panels() -> Iterator[dict[str, Any]]:
    """Yield the panels, packed into rows."""
    x = y = row = 0
    for number, panel in enumerate(PANELS, start=1):
        width, height = panel.size
        if x + width > COLUMNS:
            x, y = 0, y + row
        row = height
        targets = [
            {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": called, "datasource": _SOURCE}
            for index, (expression, called) in enumerate(panel.lines)
        ]
        yield {
            "id": number,
            "type": panel.kind,
            "title": panel.title,
            "description": panel.description,
            "datasource": _SOURCE,
            "gridPos": {"x": x, "y": y, "w": width, "h": height},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "targets": targets,
        }
        x += width
