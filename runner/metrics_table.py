"""Every metric, with its type, labels and meaning. docs/reference/metrics.md is generated from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HANDLER_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WAIT_BUCKETS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
"""From a second on: the time of a publication travels in whole seconds."""

PUBLISH_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `merged` is how the values of several processes with the same labels become one."""

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
        "Deliveries that have ended. `handled`: the handler returned, and the message is acknowledged. `retried`: the "
        "attempt failed, and there will be another one. `dead_lettered`: the message was given up on. `released`: it "
        "was given back untouched, because the process stops. `duplicate`: its work was done before, and it was only "
        "acknowledged.",
    ),
    Metric(
        "runner_handler_seconds",
        "histogram",
        _SUBSCRIBER,
        "How long a call of the handler took, without the publishing of its results. A batch is one call. It is there "
        "after the first call.",
        buckets=HANDLER_BUCKETS,
    ),
    Metric(
        "runner_queue_wait_seconds",
        "histogram",
        _SUBSCRIBER,
        "How long a message waited from its publication to its handler, on its first attempt. The time of publication "
        "is the AMQP property `timestamp`, which has whole seconds; messages without one are not counted. It is there "
        "after the first message.",
        buckets=WAIT_BUCKETS,
    ),
    Metric(
        "runner_handler_errors_total",
        "counter",
        (*_SUBSCRIBER, "error_type"),
        "Attempts that failed, by the class of the error, messages that cannot be read included: as many as `retried` "
        "and `dead_lettered` together. After 50 classes, further ones are counted as `other`.",
    ),
    Metric("runner_messages_in_flight", "gauge", _SUBSCRIBER, "Messages that handlers are at work on."),
    Metric(
        "runner_concurrency",
        "gauge",
        _SUBSCRIBER,
        "How many messages may be handled at once; 0 while the broker sends none to this subscriber.",
    ),
    Metric("runner_paused", "gauge", _SUBSCRIBER, "1 while the subscriber is paused.", "max"),
    Metric(
        "runner_published_total",
        "counter",
        _PUBLISHED,
        "Attempts to publish, of a producer's messages or of a subscriber's results. `confirmed`: the broker has the "
        "message. `unroutable`: no queue takes it, and one has to. `refused`: a full queue refuses it. `failed`: "
        "anything else, such as a lost connection. What was refused or failed may be published again, and is counted "
        "again. `to` is `(reply)` for answers to a caller.",
    ),
    Metric(
        "runner_publish_seconds",
        "histogram",
        _PUBLISHED,
        "How long the broker took to answer an attempt to publish. It is there after the first one.",
        buckets=PUBLISH_BUCKETS,
    ),
    Metric(
        "runner_queue_oldest_seconds",
        "gauge",
        ("pipeline", "queue"),
        "The age of the oldest message on its first attempt that this process has held within the last half minute to "
        "a minute; 0 where there was none. Messages that no process has taken yet are not seen.",
        "max",
    ),
    Metric("runner_broker_connected", "gauge", (), "1 while all connections to the broker stand.", "min"),
    Metric(
        "runner_broker_blocked",
        "gauge",
        (),
        "1 while the broker is short of memory or disk and takes no messages.",
        "max",
    ),
    Metric(
        "runner_broker_reconnects_total",
        "counter",
        (),
        "Connections that were made again after a loss. There are two to the broker: to publish and to consume.",
    ),
    Metric(
        "runner_consumer_lost_total",
        "counter",
        _SUBSCRIBER,
        "How often the broker stopped sending messages to a subscriber while the connection stood.",
    ),
    Metric("runner_leader", "gauge", ("pipeline",), "1 in the process that runs the pipeline's producers.", "max"),
    Metric(
        "runner_producer_last_run_timestamp_seconds",
        "gauge",
        ("pipeline", "producer"),
        "When the producer last ran to its end, in seconds since 1970. It is there in the process that runs it.",
        "max",
    ),
    Metric(
        "runner_producer_failures_total",
        "counter",
        ("pipeline", "producer"),
        "Runs of a producer that failed: its handler raised, or what it gave cannot be published.",
    ),
    Metric(
        "runner_info",
        "gauge",
        ("version", "release", "pipeline", "fingerprint"),
        "1. The version of the runner, the release of your code, and a fingerprint "
        "of everything that the file says, includes and variables resolved, but for `broker:`.",
        "max",
    ),
    Metric(
        "runner_loop_lag_seconds",
        "gauge",
        (),
        "How late the event loop was at the worst, within the last half minute to a minute: handlers block it.",
        "max",
    ),
    Metric("process_cpu_seconds_total", "counter", (), "CPU time that was spent, in seconds."),
    Metric("process_resident_memory_bytes", "gauge", (), "Memory that is used, in bytes."),
    Metric("process_virtual_memory_bytes", "gauge", (), "Address space that is used, in bytes."),
    Metric("process_open_fds", "gauge", (), "Open file descriptors."),
    Metric("process_max_fds", "gauge", (), "How many file descriptors a process may open.", "min"),
    Metric("process_start_time_seconds", "gauge", (), "When the process started, in seconds since 1970.", "min"),
    Metric(
        "python_gc_objects_collected_total",
        "counter",
        ("generation",),
        "Objects that the garbage collector freed.",
    ),
    Metric(
        "python_gc_objects_uncollectable_total", "counter", ("generation",), "Objects that it found and cannot free."
    ),
    Metric("python_gc_collections_total", "counter", ("generation",), "Runs of the garbage collector."),
    Metric("python_info", "gauge", ("version", "implementation", "major", "minor", "patchlevel"), "1.", "max"),
)
"""What is counted by prometheus-client comes last: `process_…` and `python_…`."""

_BY_NAME = {each.name: each for each in METRICS}


def metric(name: str) -> Metric:
    """Return the metric with this name."""
    return _BY_NAME[name]
