"""The table of all metrics, with types, labels and meanings. docs/reference/metrics.md is generated from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HANDLER_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WAIT_BUCKETS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
"""The first bound is 1 s, because the time of a publication travels in whole seconds."""

PUBLISH_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `merged` is how values of several processes with the same labels are combined."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    merged: Literal["sum", "max", "min"] = "sum"
    buckets: tuple[float, ...] = ()


_SUBSCRIBER = ("pipeline", "subscriber")
_PUBLISHED = ("pipeline", "producer", "subscriber", "to", "outcome")

METRICS = (
    Metric(
        "runner_messages_total",
        "counter",
        (*_SUBSCRIBER, "queue", "outcome"),
        "Deliveries that have ended. `handled`: the handler returned, and the message was acknowledged. `retried`: the "
        "attempt failed, and another one follows. `dead_lettered`: the message was given up on. `released`: the "
        "message returned to its queue untouched, at a stop or a pause. `duplicate`: the message was already "
        "handled, and was only acknowledged.",
    ),
    Metric(
        "runner_handler_seconds",
        "histogram",
        _SUBSCRIBER,
        "Duration of a call of the handler, without the publishing of its results. A batch is one call. The metric "
        "appears after the first call.",
        buckets=HANDLER_BUCKETS,
    ),
    Metric(
        "runner_queue_wait_seconds",
        "histogram",
        _SUBSCRIBER,
        "Time from the publication of a message to the first call of its handler. The time of publication is the AMQP "
        "property `timestamp`, which has whole seconds; messages without it are not counted. The metric appears after "
        "the first message.",
        buckets=WAIT_BUCKETS,
    ),
    Metric(
        "runner_handler_errors_total",
        "counter",
        (*_SUBSCRIBER, "error_type"),
        "Failed attempts by the class of the error, including messages that cannot be read. Their number is that of "
        "`retried` and `dead_lettered` together. After 50 classes, further ones count as `other`.",
    ),
    Metric("runner_messages_in_flight", "gauge", _SUBSCRIBER, "Messages that handlers are working on."),
    Metric(
        "runner_concurrency",
        "gauge",
        _SUBSCRIBER,
        "Maximum number of messages that are handled at once; 0 while the broker sends this subscriber no messages.",
    ),
    Metric("runner_paused", "gauge", _SUBSCRIBER, "1 while the subscriber is paused.", "max"),
    Metric(
        "runner_published_total",
        "counter",
        _PUBLISHED,
        "Attempts to publish a producer's messages or a subscriber's results. `confirmed`: the broker has taken over "
        "the message. `unroutable`: no queue receives it, although one must. `refused`: a full queue refused it. "
        "`failed`: any other failure, such as a lost connection. An attempt after `refused` or `failed` counts again. "
        "`to` is `(reply)` for replies to a caller.",
    ),
    Metric(
        "runner_publish_seconds",
        "histogram",
        _PUBLISHED,
        "Time until the broker answered an attempt to publish. The metric appears after the first attempt.",
        buckets=PUBLISH_BUCKETS,
    ),
    Metric(
        "runner_queue_oldest_seconds",
        "gauge",
        ("pipeline", "queue"),
        "Age of the oldest message on its first attempt that this process has held within the last 30 to 60 seconds; 0 "
        "without such a message. Messages that wait in the queue are not included.",
        "max",
    ),
    Metric("runner_broker_connected", "gauge", (), "1 while all connections to the broker are open.", "min"),
    Metric(
        "runner_broker_blocked",
        "gauge",
        (),
        "1 while the broker accepts no messages, because it is short of memory or disk.",
        "max",
    ),
    Metric(
        "runner_broker_reconnects_total",
        "counter",
        (),
        "Reconnections after a loss. There are two connections to the broker: one to publish and one to consume.",
    ),
    Metric(
        "runner_consumer_lost_total",
        "counter",
        _SUBSCRIBER,
        "Number of times that the broker ended a subscriber's consumer while the connection was open.",
    ),
    Metric("runner_leader", "gauge", ("pipeline",), "1 in the process that runs the pipeline's producers.", "max"),
    Metric(
        "runner_producer_last_run_timestamp_seconds",
        "gauge",
        ("pipeline", "producer"),
        "When the last complete run of the producer ended, in seconds since 1970. Only the process that runs the "
        "producer has this metric.",
        "max",
    ),
    Metric(
        "runner_producer_failures_total",
        "counter",
        ("pipeline", "producer"),
        "Failed runs of a producer: its handler raised an error, or its result cannot be published.",
    ),
    Metric(
        "runner_info",
        "gauge",
        ("version", "release", "pipeline", "fingerprint"),
        "Always 1. The labels have the version of the runner, the release of your code, and a fingerprint of the "
        "pipeline file with includes and variables resolved, without `broker:`.",
        "max",
    ),
    Metric(
        "runner_loop_lag_seconds",
        "gauge",
        (),
        "Longest delay of the event loop within the last 30 to 60 seconds. Handlers that block the loop cause it.",
        "max",
    ),
    Metric("process_cpu_seconds_total", "counter", (), "CPU time of the process, in seconds."),
    Metric("process_resident_memory_bytes", "gauge", (), "Resident memory, in bytes."),
    Metric("process_virtual_memory_bytes", "gauge", (), "Virtual memory, in bytes."),
    Metric("process_open_fds", "gauge", (), "Open file descriptors."),
    Metric("process_max_fds", "gauge", (), "Maximum number of open file descriptors.", "min"),
    Metric("process_start_time_seconds", "gauge", (), "When the process started, in seconds since 1970.", "min"),
    Metric(
        "python_gc_objects_collected_total",
        "counter",
        ("generation",),
        "Objects that the garbage collector freed.",
    ),
    Metric(
        "python_gc_objects_uncollectable_total",
        "counter",
        ("generation",),
        "Objects that the garbage collector found but cannot free.",
    ),
    Metric("python_gc_collections_total", "counter", ("generation",), "Runs of the garbage collector."),
    Metric("python_info", "gauge", ("version", "implementation", "major", "minor", "patchlevel"), "Always 1.", "max"),
)
"""The metrics of prometheus-client come last: `process_…` and `python_…`."""

_BY_NAME = {each.name: each for each in METRICS}


def metric(name: str) -> Metric:
    """Return the metric with this name."""
    return _BY_NAME[name]
