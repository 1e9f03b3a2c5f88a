"""Alerting rules for Prometheus, from the table in `alerts.toml`. Pure.

Source: https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from importlib.resources import files
from itertools import islice
from typing import Any

from runner.operations.yaml_writer import to_yaml
from runner.pipeline.model import Pipeline
from runner.schedule import Schedule
from runner.tables import filled
from runner.units import format_duration

TICKS = 1000
LOOK_AHEAD = timedelta(days=366)
"""How far ahead a schedule is searched for its longest pause."""

LATE_S = 60.0
LATE_SHARE = 0.1
"""How late a producer may be: a minute plus a tenth of the pause between two runs."""


def alerts(pipelines: Sequence[Pipeline], now: datetime) -> str:
    """Return the text of a rules file with one group per pipeline. Schedules are evaluated from `now` on."""
    groups = [{"name": f"runner-{each.name}", "rules": list(_rules(each, now))} for each in pipelines]
    return _HEADING + to_yaml({"groups": groups}, has_variables=False)


_HEADING = """\
# Alerting rules of Prometheus: name this file under rule_files, and check it with: promtool check rules FILE
# The limits fit many pipelines, and not all: change them here.
"""


def _rules(pipeline: Pipeline, now: datetime) -> Iterator[dict[str, Any]]:
    """Yield the rules of one pipeline. Rules with the same name have different labels, as promtool requires."""
    places = _places(pipeline, now)
    text = files("runner.operations.export").joinpath("alerts.toml").read_text("utf-8")
    for name, rule in tomllib.loads(text).items():
        for labels, words in places[rule["of"]]:
            # The strings of PromQL have the syntax of Go, which JSON strings satisfy.
            own = ",".join(f"{key}={json.dumps(value)}" for key, value in labels.items())
            yield {
                "alert": name,
                "expr": filled(rule["expr"], {"own": own, **words}),
                "for": rule["for"],
                "labels": {"severity": rule["severity"], **labels},
                "annotations": {"summary": filled(rule["summary"], words)},
            }


def _places(pipeline: Pipeline, now: datetime) -> dict[str, list[tuple[dict[str, str], dict[str, str]]]]:
    """Return what rules are made for, by the word in the table: labels, and words for its texts."""
    own = {"pipeline": pipeline.name}
    subscribers = [item for item in pipeline.subscribers if item.is_enabled]
    producers = [item for item in pipeline.producers if item.is_enabled]
    pauses = {item.name: longest_pause_s(item.schedule, now) for item in producers if item.schedule is not None}
    return {
        "subscribers": [(own, {})] if subscribers else [],
        "subscriber": [({**own, "subscriber": item.name}, {}) for item in subscribers],
        "producers": [(own, {})] if any(item.handler is not None for item in producers) else [],
        "schedule": [
            (
                {**own, "producer": name},
                {"late_s": str(round(pause_s * (1 + LATE_SHARE) + LATE_S)), "pause": format_duration(pause_s)},
            )
            for name, pause_s in pauses.items()
        ],
    }


def longest_pause_s(schedule: Schedule, now: datetime) -> float:
    """Return the longest time between two runs of a schedule, in seconds, within the next year."""
    longest, last = 0.0, schedule.next(now)
    for due in islice(_times(schedule, last), TICKS):
        longest, last = max(longest, (due - last).total_seconds()), due
        if due - now > LOOK_AHEAD:
            break
    return longest


def _times(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    while True:
        after = schedule.next(after)
        yield after
