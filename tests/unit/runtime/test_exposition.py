"""The text of /metrics equals that of prometheus-client for the same values."""

from __future__ import annotations

import gc
import gzip
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest

from runner.metrics import METRICS, Metrics, PipelineCounts, Samples, SubscriberCounts
from runner.runtime import exposition
from tests.scraping import parse
from tests.unit.test_metrics import example


class Reference:
    """A collector for prometheus-client with the same samples."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        for each in METRICS:
            family = Metric(each.name.removesuffix("_total"), each.meaning, each.kind)
            for values, value in self._samples.get(each.name, {}).items():
                labels = {name: text for name, text in zip(each.labels, values, strict=True) if text}
                if not isinstance(value, list):
                    family.add_sample(each.name, labels, value)
                elif any(value[:-1]):
                    bounds = [*map(str, each.buckets), "+Inf"]
                    for bound, count in zip(bounds, accumulate(value[:-1]), strict=True):
                        family.add_sample(f"{each.name}_bucket", {**labels, "le": bound}, count)
                    family.add_sample(f"{each.name}_sum", labels, value[-1])
                    family.add_sample(f"{each.name}_count", labels, sum(value[:-1]))
            yield family


def written_by_prometheus_client(samples: Samples) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Reference(samples))
    return generate_latest(registry).decode()


def shape(text: str) -> list[Any]:
    """Return each line without its value (`3` and `3.0` are equal), and with its labels sorted."""
    found: list[Any] = []
    for line in text.splitlines():
        place = line if line.startswith("#") else line.rpartition(" ")[0]
        found.append(sorted(place.replace("{", ",").replace("}", "").split(",")))
    return found


def test_the_text_is_that_of_prometheus_client() -> None:
    metrics = example()
    samples = exposition.read(metrics)
    mine, theirs = exposition.text(samples).decode(), written_by_prometheus_client(samples)
    assert parse(mine) == parse(theirs)
    assert shape(mine) == shape(theirs)


def test_label_values_are_escaped() -> None:
    metrics = example()
    metrics.pipelines["shop"].subscribers["ship"].note_error('odd\\ "type"\n')
    samples = metrics.samples()
    assert parse(exposition.text(samples).decode()) == parse(written_by_prometheus_client(samples))


def test_a_metric_without_values_has_no_line() -> None:
    text = exposition.text(Metrics().samples()).decode()
    assert "# TYPE runner_handler_seconds histogram\n" in text
    named = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    assert named == {
        "runner_broker_blocked",
        "runner_broker_connected",
        "runner_broker_reconnects_total",
        "runner_loop_lag_seconds",
    }


def test_the_process_and_python_are_there() -> None:
    gc.collect()
    samples = exposition.read(Metrics())
    theirs = [each for each in METRICS if not each.name.startswith("runner_")]
    assert theirs
    for each in theirs:
        assert samples[each.name], each.name


MANY = 1000


def test_a_scrape_of_a_thousand_busy_subscribers_takes_little_of_the_processor() -> None:
    """Its time, some 30 ms, grows with the subscribers, not with their square; it is a fraction of a megabyte."""
    metrics = Metrics()
    names = [f"subscriber_{number}" for number in range(MANY)]
    subscribers = {name: SubscriberCounts(name, f"queue_of_{name}") for name in names}
    metrics.pipelines["shop"] = PipelineCounts("shop", subscribers=subscribers)
    for counts in subscribers.values():
        counts.handler_seconds.observe(0.1)
        counts.note_sent(datetime.now(UTC), time.perf_counter())
    times = []
    for _ in range(5):
        began = time.thread_time()
        text = exposition.text(exposition.read(metrics))
        times.append(time.thread_time() - began)
    assert text.count(b"\nrunner_handler_seconds_count{") == MANY
    assert min(times) < 0.3
    assert len(gzip.compress(text)) < 200_000
