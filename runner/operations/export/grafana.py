"""A Grafana dashboard for the metrics of the pipelines. Pure.

Source: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from string import ascii_uppercase
from typing import Any

from runner.pipeline.model import Pipeline
from runner.tables import read_table

COLUMNS = 24
"""Width of a dashboard in grid units."""

_DATA_SOURCE = {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}
_SOURCE = {"type": "prometheus", "uid": "${source}"}

SIZES = {"stat": (4, 4), "timeseries": (12, 8)}
"""Width and height of the kinds of panels, in grid units."""


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
        "templating": {"list": [_DATA_SOURCE, _pipeline(names)]},
        "panels": list(_panels()),
    }
    return json.dumps(board, indent=2, ensure_ascii=False) + "\n"


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
    """Yield the panels of `grafana_panels.txt`, packed into rows."""
    lines = read_table("runner.operations.export", "grafana_panels.txt", 6)
    x = y = row = 0
    for number, (about, found) in enumerate(groupby(lines, key=lambda line: line[:4]), start=1):
        title, kind, unit, description = about
        width, height = SIZES[kind]
        if x + width > COLUMNS:
            x, y = 0, y + row
        row = height
        targets = [
            {"refId": letter, "expr": expression, "legendFormat": called, "datasource": _SOURCE}
            for letter, (*_, called, expression) in zip(ascii_uppercase, found, strict=False)
        ]
        yield {
            "id": number,
            "type": kind,
            "title": title,
            "description": description,
            "datasource": _SOURCE,
            "gridPos": {"x": x, "y": y, "w": width, "h": height},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": targets,
        }
        x += width
