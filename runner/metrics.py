"""Counts of what pipelines do, and the table of all metrics, `metrics_table.txt`: types, labels and meanings."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, NamedTuple

from runner.tables import read_table

MAX_ERROR_TYPES = 50
OTHER_ERRORS = "other"

RECENT_S = 30.0
"""`RecentMax` keeps a value for at least this long and at most twice as long."""

REPLY = "(reply)"
"""The label `to` of all replies to callers."""

PUBLISH_OUTCOMES = ("confirmed", "unroutable", "refused", "failed")

Value = float | list[float]
"""A number. For a histogram: the count of each bucket (not cumulative; the last has no upper bound), and the sum."""

Samples = dict[str, dict[tuple[str, ...], Value]]
"""Values by metric name and label values, in the order of METRICS."""


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


@dataclass(slots=True)
class Totals:
    """The counts of one pipeline in one process: deliveries by outcome, and messages published by producers."""

    handled: int = 0
    retried: int = 0
    dead_lettered: int = 0
    released: int = 0
    published: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    def as_fields(self) -> dict[str, int]:
        """Return the counts by name, for a log line."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


class Histogram:
    """Counts of seconds in fixed buckets."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Add a value."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def read(self) -> list[float]:
        """Return the histogram as a sample."""
        return [*self.counts, self.total]


class RecentMax:
    """The largest value of the last 30 to 60 seconds."""

    __slots__ = ("_before", "_ends", "_largest")

    def __init__(self) -> None:
        self._largest = self._before = self._ends = 0.0

    def note(self, now: float, value: float) -> None:
        """Add a value. `now` is a monotonic clock in seconds."""
        if now >= self._ends:
            self._start_period(now)
        if value > self._largest:
            self._largest = value

    def read(self, now: float) -> float:
        """Return the largest recent value; 0 if there is none."""
        if now >= self._ends:
            self._start_period(now)
        return max(self._largest, self._before)

    def _start_period(self, now: float) -> None:
        self._before = self._largest if now < self._ends + RECENT_S else 0.0
        self._largest, self._ends = 0.0, now + RECENT_S


class Publications:
    """Counts and durations of one producer's or subscriber's publications, by destination and outcome."""

    def __init__(self, destinations: Iterable[str]) -> None:
        self._by_place: dict[tuple[str, str], Histogram] = {}
        self._confirmed: dict[str, Histogram] = {}
        for to in destinations:
            for outcome in PUBLISH_OUTCOMES:
                self._of(to, outcome)

    def note(self, to: str, outcome: str, seconds: float) -> None:
        """Count a publication that has ended."""
        self._of(to, outcome).observe(seconds)

    def note_confirmed(self, to: str, seconds: float) -> None:
        """Count a confirmed publication. Nearly all are confirmed, so this path is shorter than `note`."""
        found = self._confirmed.get(to) or self._of(to, "confirmed")
        found.counts[bisect_left(found.bounds, seconds)] += 1
        found.total += seconds

    @property
    def confirmed(self) -> int:
        """The number of confirmed publications."""
        return sum(item.count for item in self._confirmed.values())

    def items(self) -> Iterator[tuple[str, str, Histogram]]:
        """Yield destination, outcome, and the durations of the publications."""
        for (to, outcome), item in list(self._by_place.items()):
            yield to, outcome, item

    def _of(self, to: str, outcome: str) -> Histogram:
        found = self._by_place.get((to, outcome))
        if found is None:
            found = self._by_place[to, outcome] = Histogram(metric("runner_publish_seconds").buckets)
            if outcome == "confirmed":
                self._confirmed[to] = found
        return found


class SubscriberState(NamedTuple):
    """The current state of a subscriber. `concurrency` is 0 while the broker sends it no messages."""

    in_flight: int = 0
    concurrency: int = 0
    oldest_s: float = 0.0


class SubscriberCounts:
    """The counts of one subscriber. `state` returns its current state."""

    def __init__(self, name: str, queue: str, destinations: Iterable[str] = ()) -> None:
        self.name = name
        self.queue = queue
        self.handled = 0
        self.retried = 0
        self.dead_lettered = 0
        self.released = 0
        self.duplicate = 0
        self.errors: dict[str, int] = {}
        self.handler_seconds = Histogram(metric("runner_handler_seconds").buckets)
        self.queue_wait = Histogram(metric("runner_queue_wait_seconds").buckets)
        self.recent_wait = RecentMax()
        self._last_sent: object = None
        self._until = self._wait_s = 0.0
        self._wait_bucket = 0
        self.published = Publications(destinations)
        self.is_paused = False
        self.consumer_lost = 0
        self.state: Callable[[], SubscriberState] = SubscriberState

    def note_sent(self, sent: object, now: float) -> None:
        """Count how long a message has waited since it was sent; `now` is `time.perf_counter()`.

        The time of a publication has whole seconds, so the wall clock is cut to whole seconds, too: otherwise messages
        would seem to wait half a second longer on average. Messages that were published in one second and are handled
        in one second therefore have equal waits, so the result is reused.
        """
        waits = self.queue_wait
        if sent != self._last_sent or now >= self._until:
            seconds = sent_at(sent)
            if seconds is None:
                return
            wall = time.time()
            self._wait_s = max(0.0, wall // 1 - seconds)
            self._wait_bucket = bisect_left(waits.bounds, self._wait_s)
            self._last_sent, self._until = sent, now + 1.0 - wall % 1
            self.recent_wait.note(now, self._wait_s)
        waits.counts[self._wait_bucket] += 1
        waits.total += self._wait_s

    def note_error(self, error_type: str) -> None:
        """Count a failed attempt by the class of its error. After 50 classes, further ones count as `other`."""
        if error_type not in self.errors and len(self.errors) >= MAX_ERROR_TYPES:
            error_type = OTHER_ERRORS
        self.errors[error_type] = self.errors.get(error_type, 0) + 1

    def outcomes(self) -> dict[str, int]:
        """Return the number of ended deliveries, by outcome."""
        names = ("handled", "retried", "dead_lettered", "released", "duplicate")
        return {name: getattr(self, name) for name in names}


class ProducerCounts:
    """The counts of one producer. `last_run_at` is the end of its last run, in seconds since 1970."""

    def __init__(self, name: str, destinations: Iterable[str] = ()) -> None:
        self.name = name
        self.published = Publications(destinations)
        self.failures = 0
        self.last_run_at: float | None = None


@dataclass
class PipelineCounts:
    """The counts of one pipeline in this process. `is_leader` returns whether its producers run here."""

    name: str
    release: str = ""
    fingerprint: str = ""
    subscribers: dict[str, SubscriberCounts] = field(default_factory=dict)
    producers: dict[str, ProducerCounts] = field(default_factory=dict)
    is_leader: Callable[[], bool] | None = None
    """None if no producer needs a leader."""
    scheduled: int | None = None
    """How many messages wait for their delay on the broker; None if that is not counted."""

    @property
    def totals(self) -> Totals:
        """The sums of these counts, for the log."""
        own = self.subscribers.values()
        return Totals(
            handled=sum(each.handled for each in own),
            retried=sum(each.retried for each in own),
            dead_lettered=sum(each.dead_lettered for each in own),
            released=sum(each.released for each in own),
            published=sum(each.published.confirmed for each in self.producers.values()),
        )


class BrokerCounts:
    """The state of the connections to the broker, from the events that the transport logs."""

    def __init__(self) -> None:
        self.reconnects = 0
        self.blocked: set[str] = set()
        self.is_connected: Callable[[], bool] = lambda: False

    def note(self, event: str, role: str) -> None:
        """Take an event of the connection with the role `publish` or `consume`."""
        match event:
            case "broker.connected":
                self.reconnects += 1
            case "broker.blocked":
                self.blocked.add(role)
            case "broker.unblocked" | "broker.lost":
                self.blocked.discard(role)


class Metrics:
    """All counts of this process. `is_timed` is whether durations of messages are measured."""

    def __init__(self, version: str = "", *, is_timed: bool = False) -> None:
        self.is_timed = is_timed
        self.pipelines: dict[str, PipelineCounts] = {}
        self.broker = BrokerCounts()
        self.loop_lag = RecentMax()
        self._version = version

    @property
    def totals(self) -> Totals:
        """The sums over all pipelines."""
        return sum((pipeline.totals for pipeline in self.pipelines.values()), Totals())

    def note_event(self, event: str, about: Mapping[str, Any]) -> None:
        """Count an event of the transport, which is also logged."""
        if event == "consumer.lost":
            for pipeline in self.pipelines.values():
                for subscriber in pipeline.subscribers.values():
                    subscriber.consumer_lost += f"{pipeline.name}.{subscriber.name}" == about["subscriber"]
        elif "role" in about:
            self.broker.note(event, about["role"])

    def samples(self) -> Samples:
        """Return all current values. Thread-safe, because it iterates over copies."""
        found: Samples = {item.name: {} for item in METRICS}
        found["runner_broker_connected"][()] = int(self.broker.is_connected())
        found["runner_broker_blocked"][()] = int(bool(self.broker.blocked))
        found["runner_broker_reconnects_total"][()] = self.broker.reconnects
        found["runner_loop_lag_seconds"][()] = self.loop_lag.read(time.monotonic())
        for pipeline in self.pipelines.values():
            info = (self._version, pipeline.release, pipeline.name, pipeline.fingerprint)
            found["runner_info"][info] = 1
            if pipeline.is_leader is not None:
                found["runner_leader"][pipeline.name,] = int(pipeline.is_leader())
            if pipeline.scheduled is not None:
                found["runner_scheduled"][pipeline.name,] = pipeline.scheduled
            for subscriber in pipeline.subscribers.values():
                _read_subscriber(pipeline.name, subscriber, found)
            for producer in pipeline.producers.values():
                place = (pipeline.name, producer.name)
                found["runner_producer_failures_total"][place] = producer.failures
                if producer.last_run_at is not None:
                    found["runner_producer_last_run_timestamp_seconds"][place] = producer.last_run_at
                _read_published((*place, ""), producer.published, found)
        return found


def sent_at(timestamp: object) -> float | None:
    """Return when a message was published, in seconds since 1970; None without a valid timestamp."""
    return timestamp.timestamp() if isinstance(timestamp, datetime) else None


def _read_subscriber(pipeline: str, counts: SubscriberCounts, found: Samples) -> None:
    place = (pipeline, counts.name)
    for outcome, number in counts.outcomes().items():
        found["runner_messages_total"][*place, counts.queue, outcome] = number
    for error_type, number in list(counts.errors.items()):
        found["runner_handler_errors_total"][*place, error_type] = number
    found["runner_handler_seconds"][place] = counts.handler_seconds.read()
    found["runner_queue_wait_seconds"][place] = counts.queue_wait.read()
    state = counts.state()
    found["runner_messages_in_flight"][place] = state.in_flight
    found["runner_concurrency"][place] = state.concurrency
    found["runner_paused"][place] = int(counts.is_paused)
    oldest = found["runner_queue_oldest_seconds"]
    queue = (pipeline, counts.queue)
    recent_s = counts.recent_wait.read(time.perf_counter())
    oldest[queue] = max(as_number(oldest.get(queue, 0.0)), recent_s, state.oldest_s)
    found["runner_consumer_lost_total"][place] = counts.consumer_lost
    _read_published((pipeline, "", counts.name), counts.published, found)


def _read_published(place: tuple[str, str, str], published: Publications, found: Samples) -> None:
    for to, outcome, seconds in published.items():
        found["runner_published_total"][*place, to, outcome] = seconds.count
        found["runner_publish_seconds"][*place, to, outcome] = seconds.read()


def merged(parts: Iterable[Samples]) -> Samples:
    """Return the samples of several processes as one: counters are added, and gauges are merged as the table says."""
    found: Samples = {item.name: {} for item in METRICS}
    for part in parts:
        for name, series in part.items():
            whole, how = found[name], metric(name)
            for labels, value in series.items():
                whole[labels] = _merge_values(how, whole[labels], value) if labels in whole else value
    return found


def counted(samples: Samples) -> Samples:
    """Return only the counters and histograms, which stay valid after the process has ended."""
    return {name: series for name, series in samples.items() if metric(name).kind != "gauge"}


def _merge_values(how: Metric, one: Value, other: Value) -> Value:
    if isinstance(one, list) and isinstance(other, list):
        return [a + b for a, b in zip(one, other, strict=True)]
    numbers = as_number(one), as_number(other)
    if how.merged == "sum":
        return sum(numbers)
    return max(numbers) if how.merged == "max" else min(numbers)


def as_number(value: Value) -> float:
    """Return a value that is a number, not a histogram."""
    assert not isinstance(value, list)
    return value


def quantile(name: str, value: Sequence[float], share: float) -> float | None:
    """Return the quantile of a histogram in seconds, such as the p99 for the share 0.99; None if it has no values.

    `value` is a sample of the metric, or the difference of two. The estimate is that of Prometheus: values are spread
    evenly within a bucket, and a quantile above the last bound is that bound.
    """
    *counts, _ = value
    wanted, below, low = share * sum(counts), 0.0, 0.0
    for bound, count in zip(metric(name).buckets, counts, strict=False):
        if count and below + count >= wanted:
            return low + (bound - low) * (wanted - below) / count
        below, low = below + count, bound
    return low if sum(counts) else None


def as_json(samples: Samples) -> dict[str, Any]:
    """Return samples as plain JSON data."""
    return {name: [[*labels, value] for labels, value in series.items()] for name, series in samples.items() if series}


def from_json(data: Mapping[str, Any]) -> Samples:
    """Return the samples that `as_json` has converted."""
    return {name: {tuple(labels): value for *labels, value in series} for name, series in data.items()}
