"""Counts, and how the counts of several processes are merged."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from runner.metrics import (
    MAX_ERROR_TYPES,
    METRICS,
    RECENT_S,
    Histogram,
    Metrics,
    PipelineCounts,
    ProducerCounts,
    RecentMax,
    SubscriberCounts,
    SubscriberState,
    as_json,
    counted,
    from_json,
    merged,
    metric,
    quantile,
)


def example(handled: int = 3) -> Metrics:
    """Return the counts of one process with a subscriber and a producer."""
    metrics = Metrics("1.0", is_timed=True)
    ship, tick = SubscriberCounts("ship", "orders", ["shipped"]), ProducerCounts("tick", ["orders"])
    metrics.pipelines["shop"] = PipelineCounts("shop", "r7", "f00", {"ship": ship}, {"tick": tick}, lambda: True)
    ship.handled, ship.retried, ship.dead_lettered = handled, 2, 1
    for error in ("ValueError", "ValueError", "KeyError"):
        ship.note_error(error)
    ship.handler_seconds.observe(0.02)
    ship.note_sent(datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=3), time.perf_counter())
    ship.state = lambda: SubscriberState(2, 10, 7.5)
    ship.published.note("shipped", "confirmed", 0.004)
    tick.published.note("orders", "confirmed", 0.004)
    tick.published.note("orders", "refused", 0.001)
    return metrics


def test_a_value_falls_into_the_first_bucket_whose_bound_it_does_not_exceed() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.0, 0.1, 0.11, 1.0, 1.5):
        histogram.observe(seconds)
    assert histogram.counts == [2, 2, 1]
    assert histogram.count == 5
    assert histogram.read() == [2, 2, 1, pytest.approx(2.71)]


def test_the_largest_recent_value_is_forgotten_after_half_a_minute_to_a_minute() -> None:
    recent = RecentMax()
    recent.note(1000.0, 5.0)
    recent.note(1001.0, 2.0)
    assert recent.read(1000.0 + RECENT_S - 1) == 5.0
    recent.note(1000.0 + RECENT_S + 1, 1.0)
    assert recent.read(1000.0 + RECENT_S + 2) == 5.0
    assert recent.read(1000.0 + 2 * RECENT_S + 2) == 1.0
    assert recent.read(1000.0 + 9 * RECENT_S) == 0.0


def test_error_types_are_bounded_in_number() -> None:
    counts = SubscriberCounts("ship", "orders")
    for number in range(3 * MAX_ERROR_TYPES):
        counts.note_error(f"Error{number}")
    counts.note_error("Error0")
    assert len(counts.errors) == MAX_ERROR_TYPES + 1
    assert counts.errors["other"] == 2 * MAX_ERROR_TYPES
    assert counts.errors["Error0"] == 2


def test_totals_are_sums_of_the_same_counts() -> None:
    totals = example().totals
    assert totals.as_fields() == {"handled": 3, "retried": 2, "dead_lettered": 1, "released": 0, "published": 1}


def test_samples_have_the_labels_of_the_table() -> None:
    samples = example().samples()
    for name, series in samples.items():
        assert all(len(labels) == len(metric(name).labels) for labels in series), name
    assert samples["runner_messages_total"]["shop", "ship", "orders", "handled"] == 3
    assert samples["runner_handler_errors_total"] == {
        ("shop", "ship", "ValueError"): 2,
        ("shop", "ship", "KeyError"): 1,
    }
    assert samples["runner_published_total"]["shop", "tick", "", "orders", "refused"] == 1
    assert samples["runner_published_total"]["shop", "", "ship", "shipped", "unroutable"] == 0
    assert samples["runner_queue_oldest_seconds"] == {("shop", "orders"): 7.5}
    assert samples["runner_info"] == {("1.0", "r7", "shop", "f00"): 1}


def test_processes_are_merged_as_the_table_says() -> None:
    one, other = example(3), example(4)
    one.broker.is_connected = lambda: True
    one.broker.note("broker.blocked", "publish")
    whole = merged([one.samples(), other.samples()])
    assert whole["runner_messages_total"]["shop", "ship", "orders", "handled"] == 7
    assert whole["runner_concurrency"]["shop", "ship"] == 20
    assert whole["runner_queue_oldest_seconds"]["shop", "orders"] == 7.5
    assert whole["runner_broker_connected"][()] == 0, "one of them is not connected"
    assert whole["runner_broker_blocked"][()] == 1
    waits = whole["runner_queue_wait_seconds"]["shop", "ship"]
    assert isinstance(waits, list)
    assert waits[-1] == 6.0
    assert sum(waits[:-1]) == 2


def test_samples_can_be_converted_to_json_and_back() -> None:
    samples = {name: series for name, series in example().samples().items() if series}
    assert from_json(json.loads(json.dumps(as_json(samples)))) == samples


def test_the_counters_of_a_process_that_has_ended_remain() -> None:
    left = counted(example().samples())
    assert {metric(name).kind for name in left} == {"counter", "histogram"}


@pytest.mark.parametrize(
    ("event", "blocked", "reconnects"),
    [("broker.blocked", 1, 0), ("broker.lost", 0, 0), ("broker.unblocked", 0, 0), ("broker.connected", 1, 1)],
)
def test_the_state_of_the_broker_comes_from_log_events(event: str, blocked: int, reconnects: int) -> None:
    metrics = example()
    metrics.note_event("broker.blocked", {"role": "publish"})
    metrics.note_event(event, {"role": "publish"})
    assert metrics.samples()["runner_broker_blocked"][()] == blocked
    assert metrics.samples()["runner_broker_reconnects_total"][()] == reconnects


def test_a_lost_consumer_is_counted_where_it_belongs() -> None:
    metrics = example()
    metrics.note_event("consumer.lost", {"subscriber": "shop.ship", "queue": "orders"})
    metrics.note_event("consumer.lost", {"subscriber": "shop.other", "queue": "orders"})
    assert metrics.samples()["runner_consumer_lost_total"] == {("shop", "ship"): 1}


def test_a_quantile_is_estimated_within_its_bucket() -> None:
    buckets = metric("runner_handler_seconds").buckets
    counts = [0] * (len(buckets) + 1)
    assert quantile("runner_handler_seconds", [*counts, 0.0], 0.5) is None
    counts[5] = 10  # above 0.05 s, up to 0.1 s
    assert quantile("runner_handler_seconds", [*counts, 0.7], 0.5) == pytest.approx(0.075)
    assert quantile("runner_handler_seconds", [*counts, 0.7], 1.0) == pytest.approx(0.1)
    counts = [0] * len(buckets) + [1]
    assert quantile("runner_handler_seconds", [*counts, 99.0], 0.5) == buckets[-1]


def test_names_follow_the_conventions_of_prometheus() -> None:
    for each in METRICS:
        assert (each.kind == "counter") == each.name.endswith("_total"), each.name
        assert (each.kind == "histogram") == bool(each.buckets), each.name
        assert list(each.buckets) == sorted(set(each.buckets)), each.name
