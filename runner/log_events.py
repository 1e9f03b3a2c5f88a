"""Vocabulary: every log event of the runner, with levels, fields and meaning. docs/reference/logs.md is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

COMMON = {
    "timestamp": "when it was written: ISO 8601, UTC",
    "level": "`debug`, `info`, `warning`, `error` or `critical`",
    "event": "what happened: one of the names below, or the text of a line that your code has logged",
    "worker": "which process of `--workers`",
    "pipeline": "the pipeline",
    "subscriber": "the subscriber, while one of its messages is handled",
    "producer": "the producer, while it runs",
    "queue": "the queue that the message came from",
    "message_id": "the id of the message",
    "correlation_id": "the id of the message at which the flow began",
    "attempt": "which attempt this is, from 1",
    "trace_id": "the trace that the message belongs to, where it has a valid `traceparent`",
    "span_id": "the span of the attempt, with `telemetry: {traces: otlp}`",
    "messages": "how many messages a batch has",
    "local_replay": "`true` where a dead letter is only tried: on the page, or by `dead replay --local`",
    "payload": "the body of the message, only with `logging: {payloads: true}`",
    "logger": "the logger of the standard library that wrote the line",
    "exception": "a traceback, its end where it is long",
}
"""Fields that a line of any event may have."""

TOTALS = {
    "handled": "deliveries whose handler returned, and which were acknowledged; duplicates that were only acknowledged "
    "are not counted",
    "retried": "attempts that failed and were handed to the broker for another one",
    "dead_lettered": "messages that were given up on",
    "released": "deliveries that were given back untouched, because the process stopped",
    "published": "publications of producers that the broker has confirmed; results of handlers are not counted",
}
"""The numbers of `pipeline.stopped` and `workers.stopped`, and of the last line of `up`."""

_ERROR = {"error": "what is wrong"}
_FAILURE = {
    "error": "the error's own words",
    "error_type": "its class",
    "at": "`file:line` of the innermost frame of your code",
}
_BROKER = {"broker": "the URL, without its password", "role": "which of our two connections: `publish` or `consume`"}
_OF_CONSUMER = {"subscriber": "PIPELINE.SUBSCRIBER", "queue": "its queue"}


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of line."""

    name: str
    levels: tuple[str, ...]
    meaning: str
    fields: Mapping[str, str] = field(default_factory=dict)


EVENTS = (
    Event("broker.blocked", ("warning",), "The broker takes nothing, for lack of memory or disk.", _BROKER),
    Event(
        "broker.connected",
        ("info",),
        "There is a connection, at the start or again.",
        {
            **_BROKER,
            "product": "name and version",
            "features": "what this line of RabbitMQ has that the runner uses and 3.10 lacks",
        },
    ),
    Event("broker.connecting", ("info",), "The first connection is not there after a second: we wait for it.", _BROKER),
    Event("broker.lost", ("warning",), "A connection is gone. Another one is made.", {**_BROKER, **_ERROR}),
    Event(
        "broker.refusing",
        ("warning",),
        "The broker has refused everything for an address for a while: another channel is tried.",
        {**_BROKER, "to": "the address"},
    ),
    Event(
        "broker.slow_path",
        ("warning",),
        "Messages take the client library's own way, with the same results and fewer messages a second.",
        {"broker": _BROKER["broker"], "reason": "why", "hint": "how to get the fast path back"},
    ),
    Event(
        "broker.stalled",
        ("warning",),
        "A confirm has not come for 30 s: the channel is opened again, and its messages are sent again.",
        {**_BROKER, "waiting": "how many publications waited"},
    ),
    Event("broker.unblocked", ("info",), "The broker takes messages again.", _BROKER),
    Event(
        "broker.unreachable",
        ("warning",),
        "A connection cannot be made. It is tried again; only another error is a line again.",
        {**_BROKER, **_ERROR},
    ),
    Event(
        "consumer.careful",
        ("warning",),
        "A message came back several times from processes that ended: the subscriber takes one message at a time.",
        {**_OF_CONSUMER, "message_id": "the message", "crashes": "how often it came back"},
    ),
    Event(
        "consumer.lost",
        ("warning", "error"),
        "A subscriber gets no messages. It is registered again; at `error` the broker does not let it.",
        {**_OF_CONSUMER, **_ERROR},
    ),
    Event(
        "consumer.resumed",
        ("info",),
        "A subscriber gets messages again.",
        {**_OF_CONSUMER, "prefetch": "how many at once"},
    ),
    Event(
        "dead_letters.forgotten",
        ("warning",),
        "The in-process broker keeps a bounded number of dead letters, and dropped the oldest.",
        {"queue": "the dead-letter queue", "forgotten": "how many since the start", "kept": "how many are there"},
    ),
    Event(
        "dedupe.forgets",
        ("warning",),
        "More messages came within the window of `dedupe` than are remembered: the window is shorter. It is said once.",
        {"remembered": "how many messages", "window_s": "how long the window is", "asked_s": "how long it was to be"},
    ),
    Event(
        "handler.slow",
        ("warning",),
        "A handler blocks the event loop, or has run for a minute, or for longer than its timeout.",
        {
            "running_s": "for how long it has run",
            "blocked_s": "for how long nothing else has run",
            "error": "that it blocks the event loop",
            "at": "`file:line` of what it does",
            "stack": "where it is",
        },
    ),
    Event(
        "http.listening",
        ("info",),
        "HTTP is answered.",
        {"address": "host and port, the real one of port 0", "paths": "what is answered"},
    ),
    Event(
        "http.overloaded",
        ("warning",),
        "Connections are refused. Once a minute at most.",
        {"error": "why", "connections": "how many are open", "limit": "how many may be open"},
    ),
    Event(
        "leadership.lost",
        ("warning",),
        "Another process may run the producers now.",
        {"queue": "PIPELINE.producers", **_ERROR},
    ),
    Event(
        "leadership.waiting",
        ("warning",),
        "The broker does not answer a question about the leadership. It is asked again.",
        {"queue": "PIPELINE.producers", **_ERROR},
    ),
    Event(
        "leadership.won",
        ("info",),
        "This process runs the producers.",
        {"queue": "PIPELINE.producers", "term": "a number that grows with each leader"},
    ),
    Event(
        "message.dead_lettered",
        ("error",),
        "A message was given up on. It is in the dead-letter queue.",
        {
            **_FAILURE,
            "reason": "`exhausted`, `rejected`, `invalid`, `too-large`, `unreadable` or `invalid-result`",
            "dead_letter": "the queue that it is in; null: dropped",
            "duration_ms": "how long the attempt took",
        },
    ),
    Event(
        "message.handled",
        ("info",),
        "A message was handled and acknowledged.",
        {
            "duration_ms": "how long it took, from decoding to the acknowledgement",
            "published": "how many results were published and confirmed",
            "duplicate": "true where the work was done before, and the message was only acknowledged",
        },
    ),
    Event(
        "message.published",
        ("info", "debug"),
        "The broker has confirmed a message of a producer; at `debug` for one with `every` or `cron`.",
        {"to": "the queue or event"},
    ),
    Event("message.released", ("info",), "A message was given back untouched, because we stop."),
    Event(
        "message.retry",
        ("warning",),
        "An attempt failed, and there will be another one.",
        {
            **_FAILURE,
            "delay_ms": "after how long",
            "attempts": "how many there are in all",
            "duration_ms": "how long the attempt took",
        },
    ),
    Event(
        "message.settle_lost",
        ("warning",),
        "An attempt failed, and the broker could not be told: the message comes again, this attempt uncounted.",
        {**_FAILURE, "outcome": "what would have become of it: `retry` or `dead_letter`"},
    ),
    Event(
        "message.summary",
        ("info",),
        "How many messages of a subscriber or producer have ended since the last such line, with "
        "`logging: {messages: summary}`; where none has, there is no line.",
        {
            "during_s": "how many seconds it stands for",
            **TOTALS,
            "duplicate": "deliveries whose work was done before, and which were only acknowledged",
        },
    ),
    Event(
        "pipeline.draining",
        ("info",),
        "The end has begun: nothing new is taken.",
        {"running": "how many handlers run", "grace_s": "how long they may take"},
    ),
    Event(
        "pipeline.name_shared",
        ("warning",),
        "A process that runs something else takes part under the same pipeline name, on the same virtual host.",
        {"other": "its file, host and process", "hint": "what that can mean"},
    ),
    Event(
        "pipeline.started",
        ("info",),
        "Everything of a pipeline runs.",
        {
            "subscribers": "how many",
            "producers": "how many",
            "queues": "how many it has, dead-letter and wait queues too",
            "version": "the version of the runner",
            "release": "the release of your code, where the pipeline names one",
        },
    ),
    Event("pipeline.stopped", ("info",), "Everything of a pipeline has ended.", TOTALS),
    Event(
        "producer.failed",
        ("error",),
        "A producer's handler raised, or what it gave cannot be published. It begins again, or waits for its tick.",
        _FAILURE,
    ),
    Event(
        "producer.finished",
        ("info", "debug"),
        "A producer's handler has ended, and all it gave is confirmed; at `debug` for a tick that gave nothing. For a "
        "producer with `every` or `cron` it is the one line of a tick.",
        {"published": "how many messages", "message_id": "the id, where a tick published one message"},
    ),
    Event(
        "producer.interrupted",
        ("warning",),
        "A producer was stopped while messages had no confirm yet: they may arrive all the same.",
        {"unconfirmed": "how many"},
    ),
    Event(
        "producers.standby",
        ("info",),
        "This process does not lead: another one runs the producers of this pipeline, or the broker is away.",
    ),
    Event(
        "publish.waiting",
        ("warning",),
        "A destination refuses messages, as a full queue does. They are offered again.",
        {"to": "the queue or event", **_ERROR},
    ),
    Event(
        "reply.given_up",
        ("info",),
        "It is not known whether a direct reply has arrived, and it is not sent again: its caller may have gone.",
        {"to": "the address of the caller", **_ERROR},
    ),
    Event("resource.failed", ("error",), "A resource cannot be closed.", {"resource": "its name", **_FAILURE}),
    Event(
        "result.retry",
        ("warning",),
        "A result cannot be published now. It is kept and offered again; the handler is not called again.",
        {
            **_ERROR,
            "error_type": "its class",
            "delay_ms": "after how long",
            "publish_attempt": "how often it has been offered",
            "attempts": "how often it is offered in all",
        },
    ),
    Event(
        "settle.waiting",
        ("warning",),
        "A retry or a dead letter cannot be published. The message is kept, and it is tried again.",
        {**_OF_CONSUMER, **_ERROR},
    ),
    Event("stdout", ("info",), "Your code, or a library, has printed a line.", {"text": "the line"}),
    Event(
        "topology.mismatch", ("error",), "After a reconnect the broker's topology differs from the pipeline.", _ERROR
    ),
    Event(
        "traces.lost",
        ("warning",),
        "Spans were dropped, because the collector does not take them. Once a minute at most; messages do not wait.",
        {"lost": "how many since the start, as far as it is known", **_ERROR},
    ),
    Event(
        "worker.exited",
        ("info", "error"),
        "A worker has ended; at `error` not as it should.",
        {
            "pid": "its process",
            "exit_code": "how it ended",
            "signal": "by which signal, where it was one",
            "uptime_ms": "how long it ran",
            "restart_in_ms": "when it is started again",
            **_ERROR,
        },
    ),
    Event("worker.started", ("info",), "A worker runs.", {"pid": "its process", "took_ms": "how long its start took"}),
    Event(
        "workers.stopped", ("info",), "All workers have ended: the sums.", {"workers": "how many there were", **TOTALS}
    ),
)
