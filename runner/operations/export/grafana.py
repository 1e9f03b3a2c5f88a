"""A Grafana dashboard for the metrics of the pipelines, from `grafana.yaml` and `grafana_panels.txt`. Pure.

Source: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from string import ascii_uppercase
from typing import Any

from runner.operations.export.templates import fill_template
from runner.pipeline.model import Pipeline
from runner.tables import read_table

COLUMNS = 24
"""Width of a dashboard in grid units."""

_SOURCE = {"type": "prometheus", "uid": "${source}"}

SIZES = {"stat": (4, 4), "timeseries": (12, 8)}
"""Width and height of the kinds of panels, in grid units."""


def grafana(pipelines: Sequence[Pipeline]) -> str:
    """Return the dashboard as JSON text, for import."""
    names = [pipeline.name for pipeline in pipelines]
    words = {
        "uid": blake2b("\n".join(names).encode(), digest_size=10).hexdigest(),
        "names": ", ".join(names),
        "query": ",".join(names),
        "options": [{"text": name, "value": name, "selected": True} for name in names],
        "all": names,
        "panels": list(_panels()),
    }
    return json.dumps(fill_template("grafana.yaml", words), indent=2, ensure_ascii=False) + "\n"


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
