"""Rates and durations of the last 15 seconds, and totals since the start, calculated from samples of the metrics."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from runner.metrics import Samples, as_number, quantile

WINDOW_S = 15.0
"""Length of the window that rates and durations cover."""

SPACING_S = 2.5
"""Minimum time between two samples that are kept: with 1,000 subscribers each takes megabytes."""

MAX_ERRORS = 5
"""Maximum number of error classes per subscriber, the most frequent first."""

FAILURES = ("retried", "dead_lettered")
_KEPT = ("runner_messages_total", "runner_handler_seconds", "runner_published_total", "runner_handler_errors_total")


class Figures:
    """The figures of a system, from successive samples. `now` is a monotonic clock in seconds.

    A rate needs two samples; it is None before the second one.
    """

    def __init__(self) -> None:
        self._earlier: deque[tuple[float, Samples]] = deque()
        self._samples: Samples = {}
        self._base: Samples = {}
        self._seconds = 0.0

    def add(self, samples: Samples, now: float) -> None:
        """Add the samples of the moment `now`."""
        earlier = self._earlier
        while earlier and now - earlier[0][0] > WINDOW_S:
            earlier.popleft()
        self._samples = samples
        self._base = earlier[0][1] if earlier else {}
        self._seconds = now - earlier[0][0] if earlier else 0.0
        if not earlier or now - earlier[-1][0] >= SPACING_S:
            earlier.append((now, {name: samples.get(name, {}) for name in _KEPT}))

    def subscribers(self) -> list[dict[str, Any]]:
        """Return a row for each subscriber, in the order of the pipelines."""
        totals: dict[tuple[str, ...], dict[str, float]] = {}
        rates: dict[tuple[str, ...], dict[str, float | None]] = {}
        for labels, value in self._samples.get("runner_messages_total", {}).items():
            *place, outcome = labels
            totals.setdefault(tuple(place), {})[outcome] = as_number(value)
            rates.setdefault(tuple(place), {})[outcome] = self._rate("runner_messages_total", labels)
        errors = self._errors()
        return [
            {
                "pipeline": pipeline,
                "name": name,
                "queue": queue,
                "rate": rates[pipeline, name, queue].get("handled"),
                "failure_rate": _sum(rates[pipeline, name, queue].get(outcome) for outcome in FAILURES),
                "p50": self._time("runner_handler_seconds", (pipeline, name), 0.5),
                "p99": self._time("runner_handler_seconds", (pipeline, name), 0.99),
                "in_flight": self._gauge("runner_messages_in_flight", (pipeline, name)),
                "concurrency": self._gauge("runner_concurrency", (pipeline, name)),
                "paused": bool(self._gauge("runner_paused", (pipeline, name))),
                "oldest": self._gauge("runner_queue_oldest_seconds", (pipeline, queue)),
                "totals": counts,
                "errors": errors.get((pipeline, name), []),
            }
            for (pipeline, name, queue), counts in totals.items()
        ]

    def producers(self, names: Mapping[tuple[str, str], Any]) -> list[dict[str, Any]]:
        """Return a row for each of these producers, by pipeline and name."""
        published = self._published(lambda labels: labels[:2])
        return [
            {
                "pipeline": pipeline,
                "name": name,
                "rate": published.get((pipeline, name), (None, 0))[0],
                "published": published.get((pipeline, name), (None, 0))[1],
                "failures": self._gauge("runner_producer_failures_total", (pipeline, name)) or 0,
                "last_run": self._gauge("runner_producer_last_run_timestamp_seconds", (pipeline, name)),
            }
            for pipeline, name in names
        ]

    def destinations(self) -> dict[tuple[str, ...], float | None]:
        """Return the messages per second that are published to each queue and event, by pipeline and name."""
        published = self._published(lambda labels: (labels[0], labels[3]))
        return {place: rate for place, (rate, _) in published.items()}

    def _published(self, place_of: Callable[[tuple[str, ...]], tuple[str, ...]]) -> dict[tuple[str, ...], Any]:
        """Return rates and totals of confirmed publications, added up by the key that `place_of` returns."""
        found: dict[tuple[str, ...], tuple[float | None, float]] = {}
        for labels, value in self._samples.get("runner_published_total", {}).items():
            if labels[-1] == "confirmed":
                rate, total = found.get(place_of(labels), (None, 0.0))
                rates = (rate, self._rate("runner_published_total", labels))
                found[place_of(labels)] = _sum(rates), total + as_number(value)
        return found

    def _errors(self) -> dict[tuple[str, ...], list[tuple[str, float]]]:
        """Return the classes of errors and their counts, by subscriber."""
        found: dict[tuple[str, ...], list[tuple[str, float]]] = {}
        for (*place, error_type), value in self._samples.get("runner_handler_errors_total", {}).items():
            found.setdefault(tuple(place), []).append((error_type, as_number(value)))
        return {place: sorted(all_, key=lambda each: -each[1])[:MAX_ERRORS] for place, all_ in found.items()}

    def _rate(self, name: str, labels: tuple[str, ...]) -> float | None:
        """Return the growth of a counter per second; 0 if it shrank, because a new process counts from 0."""
        before = self._base.get(name, {}).get(labels)
        if before is None or not self._seconds:
            return None
        return max(0.0, as_number(self._samples[name][labels]) - as_number(before)) / self._seconds

    def _time(self, name: str, labels: tuple[str, ...], share: float) -> float | None:
        now, before = self._samples.get(name, {}).get(labels), self._base.get(name, {}).get(labels)
        if not isinstance(now, list) or not isinstance(before, list):
            return None
        return quantile(name, [max(0.0, a - b) for a, b in zip(now, before, strict=True)], share)

    def _gauge(self, name: str, labels: tuple[str, ...]) -> float | None:
        value = self._samples.get(name, {}).get(labels)
        return None if value is None else as_number(value)


def _sum(rates: Any) -> float | None:
    """Return the sum of the known rates; None if no rate is known."""
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None
