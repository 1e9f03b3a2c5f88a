"""Alerting rules for Prometheus. Pure.

Source: https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from runner.operations.yaml_writer import to_yaml
from runner.pipeline.model import Pipeline
from runner.schedule import Schedule
from runner.units import format_duration

OLDEST_S = 300
ERROR_RATIO = 0.1

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
    own = {"pipeline": pipeline.name}
    subscribers = [item for item in pipeline.subscribers if item.is_enabled]
    producers = [item for item in pipeline.producers if item.is_enabled]
    if subscribers:
        yield from _of_messages(own)
    for subscriber in subscribers:
        one = {**own, "subscriber": subscriber.name}
        concurrency, paused = _series("runner_concurrency", one), _series("runner_paused", one)
        yield _rule(
            "RunnerNoConsumer",
            f"(sum by (pipeline, subscriber) ({concurrency}) == 0 or absent({concurrency})) "
            f"unless max by (pipeline, subscriber) ({paused}) == 1",
            "2m",
            {"severity": "critical", **one},
            "{{ $labels.pipeline }}: no process takes messages for {{ $labels.subscriber }}",
        )
    if any(producer.handler is not None for producer in producers):
        leader = _series("runner_leader", own)
        yield _rule(
            "RunnerNoLeader",
            f"max by (pipeline) ({leader}) == 0 or absent({leader})",
            "5m",
            {"severity": "critical", **own},
            "{{ $labels.pipeline }}: no process runs the producers",
        )
    for producer in producers:
        if producer.schedule is not None:
            one = {**own, "producer": producer.name}
            pause_s = longest_pause_s(producer.schedule, now)
            last = _series("runner_producer_last_run_timestamp_seconds", one)
            yield _rule(
                "RunnerProducerMissed",
                f"time() - max by (pipeline, producer) ({last}) > {round(pause_s * (1 + LATE_SHARE) + LATE_S)}",
                "0m",
                {"severity": "warning", **one},
                "{{ $labels.pipeline }}: {{ $labels.producer }} has not run to its end for "
                f"{{{{ $value | humanizeDuration }}}}: at most {format_duration(pause_s)} are between two times",
            )


def _of_messages(own: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the rules for all subscribers of a pipeline."""
    warning = {"severity": "warning", **own}
    dead = _series("runner_messages_total", own, 'outcome="dead_lettered"')
    yield _rule(
        "RunnerDeadLetters",
        f"sum by (pipeline, queue) (increase({dead}[5m])) > 0",
        "0m",
        warning,
        "{{ $labels.pipeline }}: messages of {{ $labels.queue }} were given up on: see them with `runner dead list`",
    )
    yield _rule(
        "RunnerLag",
        f"max by (pipeline, queue) ({_series('runner_queue_oldest_seconds', own)}) > {OLDEST_S}",
        "5m",
        warning,
        "{{ $labels.pipeline }}: messages of {{ $labels.queue }} wait for {{ $value | humanizeDuration }}",
    )
    failed, ended = (
        f"sum by (pipeline, subscriber) (rate({_series('runner_messages_total', own, outcome)}[5m]))"
        for outcome in ('outcome=~"retried|dead_lettered"', 'outcome=~"handled|retried|dead_lettered"')
    )
    yield _rule(
        "RunnerErrorRatio",
        f"{failed} / {ended} > {ERROR_RATIO}",
        "5m",
        warning,
        "{{ $labels.pipeline }}: {{ $value | humanizePercentage }} of the attempts of {{ $labels.subscriber }} fail",
    )
    yield _rule(
        "RunnerPaused",
        f"max by (pipeline, subscriber) ({_series('runner_paused', own)}) == 1",
        "30m",
        warning,
        "{{ $labels.pipeline }}: {{ $labels.subscriber }} is paused",
    )


def _series(name: str, labels: Mapping[str, str], *matchers: str) -> str:
    """Return a PromQL selector. Its strings have the syntax of Go, which JSON strings satisfy."""
    return f"{name}{{{','.join([*(f'{key}={json.dumps(value)}' for key, value in labels.items()), *matchers])}}}"


def _rule(name: str, expression: str, for_: str, labels: dict[str, str], summary: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expression,
        "for": for_,
        "labels": labels,
        "annotations": {"summary": summary},
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
