"""Every log event of the runner, with its levels, fields and meaning. docs/reference/logs.md is generated from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

COMMON = {
    "timestamp": "when it was written: ISO 8601, UTC",
    "level": "`debug`, `info`, `warning`, `error` or `critical`",
    "event": "what happened: one of the names below, or the text of a line that your code logged",
    "worker": "which process of `--workers`",
    "pipeline": "the pipeline",
    "subscriber": "the subscriber whose message is being handled",
    "producer": "the producer that is running",
    "queue": "the queue that the message came from",
    "message_id": "the id of the message",
    "correlation_id": "the id of the first message of the flow",
    "attempt": "the number of the attempt, from 1",
    "trace_id": "the trace of the message, if it has a valid `traceparent`",
    "span_id": "the span of the attempt, with `telemetry: {traces: otlp}`",
    "messages": "the number of messages in the batch",
    "local_replay": "`true` if a dead letter is only tried, on the page or by `dead replay --local`",
    "payload": "the body of the message, only with `logging: {payloads: true}`",
    "logger": "the logger of the standard library that wrote the line",
    "exception": "a traceback; only its end if it is long",
}
"""Fields that a line of any event may have."""

TOTALS = {
    "handled": "deliveries that were handled and acknowledged, without duplicates that were only acknowledged",
    "retried": "attempts that failed and will be retried",
    "dead_lettered": "messages that were dead-lettered",
    "released": "deliveries that were given back to the broker, at a stop or a pause",
    "published": "messages of producers that the broker has confirmed, without results of handlers",
}
"""The counts in `pipeline.stopped`, in `workers.stopped`, and in the last line of `up`."""

_ERROR = {"error": "what is wrong"}
_OF_PAUSE = {"reason": "why it is, or was, paused"}
_FAILURE = {
    "error": "the error's message",
    "error_type": "its class",
    "at": "`file:line` of the innermost frame of your code",
}
_BROKER = {"broker": "the URL, without its password", "role": "the connection: `publish` or `consume`"}
_OF_STORE = {"store": "its name", "url": "its URL, without the password"}
_OF_CONSUMER = {"subscriber": "PIPELINE.SUBSCRIBER", "queue": "its queue"}


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of line."""

    name: str
    levels: tuple[str, ...]
    meaning: str
    fields: Mapping[str, str] = field(default_factory=dict)


EVENTS = (
    Event(
        "broker.blocked",
        ("warning",),
        "The broker accepts no messages, because memory or disk space is low.",
        {**_BROKER, "reason": "what the broker says, or the disk"},
    ),
    Event(
        "broker.connected",
        ("info",),
        "A connection is established, at the start or after a loss.",
        {
            **_BROKER,
            "product": "name and version",
            "features": "the features of this RabbitMQ version that the runner uses and that 3.10 lacks",
        },
    ),
    Event(
        "broker.connecting",
        ("info",),
        "The first connection takes longer than a second. The runner keeps waiting.",
        _BROKER,
    ),
    Event(
        "broker.file_lost",
        ("error",),
        "The file of the broker is damaged, was deleted or replaced. The runner stops.",
        {**_BROKER, **_ERROR, "hint": "What to do."},
    ),
    Event("broker.lost", ("warning",), "A connection was lost. The runner reconnects.", {**_BROKER, **_ERROR}),
    Event(
        "broker.refusing",
        ("warning",),
        "The broker has refused every message to an address for a while. The runner tries another channel.",
        {**_BROKER, "to": "the address"},
    ),
    Event(
        "broker.slow_path",
        ("warning",),
        "Messages go through the client library instead of the fast path. The results are the same, the throughput "
        "is lower.",
        {"broker": _BROKER["broker"], "reason": "why", "hint": "how to get the fast path back"},
    ),
    Event(
        "broker.stalled",
        ("warning",),
        "No confirm has arrived for 30 s. The channel is reopened, and its messages are published again.",
        {**_BROKER, "waiting": "how many publications were waiting"},
    ),
    Event("broker.unblocked", ("info",), "The broker accepts messages again.", _BROKER),
    Event(
        "broker.unreachable",
        ("warning",),
        "The broker cannot be reached. The runner retries, and logs again only if the error changes.",
        {**_BROKER, **_ERROR},
    ),
    Event(
        "consumer.careful",
        ("warning",),
        "A message was redelivered several times without being settled. The subscriber takes one message at a time "
        "now.",
        {**_OF_CONSUMER, "message_id": "the message", "crashes": "how often it was redelivered"},
    ),
    Event(
        "consumer.lost",
        ("warning", "error"),
        "A subscriber receives no messages. It is registered again; at `error` the broker refuses that.",
        {**_OF_CONSUMER, **_ERROR},
    ),
    Event(
        "consumer.resumed",
        ("info",),
        "A subscriber receives messages again.",
        {**_OF_CONSUMER, "prefetch": "how many unsettled messages it may have"},
    ),
    Event(
        "dead_letters.forgotten",
        ("warning",),
        "The in-process broker dropped its oldest dead letters, because it keeps a limited number.",
        {"queue": "the dead-letter queue", "forgotten": "how many since the start", "kept": "how many are kept"},
    ),
    Event(
        "dedupe.forgets",
        ("warning",),
        "More messages arrive within the window of `dedupe` than are remembered, so the window is shorter. Logged "
        "once.",
        {"remembered": "how many messages", "window_s": "the actual window", "asked_s": "the configured window"},
    ),
    Event(
        "handler.slow",
        ("warning",),
        "A handler blocks the event loop, has run for a minute, or has exceeded its timeout.",
        {
            "running_s": "how long it has been running",
            "blocked_s": "how long the event loop has been blocked",
            "error": "why it is reported",
            "at": "`file:line` of the line that it executes",
            "stack": "its stack",
        },
    ),
    Event(
        "http.listening",
        ("info",),
        "The HTTP server is listening.",
        {"address": "host and port; the actual port if 0 was configured", "paths": "its paths"},
    ),
    Event(
        "http.overloaded",
        ("warning",),
        "HTTP connections are refused. At most once a minute.",
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
        "The broker does not answer a request about the leadership. The runner retries.",
        {"queue": "PIPELINE.producers", **_ERROR},
    ),
    Event(
        "leadership.won",
        ("info",),
        "This process runs the producers.",
        {"queue": "PIPELINE.producers", "term": "a number that grows with each leader"},
    ),
    Event(
        "log.failed",
        ("warning",),
        "A line of a handler could not be made: its arguments do not fit its format.",
        {**_ERROR, "text": "the format and the arguments", "at": "the file and line"},
    ),
    Event(
        "message.dead_lettered",
        ("error",),
        "A message was moved to the dead-letter queue.",
        {
            **_FAILURE,
            "reason": "`exhausted`, `rejected`, `invalid`, `too-large`, `unreadable` or `invalid-result`",
            "dead_letter": "the dead-letter queue; null if the message was dropped",
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
            "duplicate": "true if the message was handled before and only acknowledged now",
        },
    ),
    Event(
        "message.published",
        ("info", "debug"),
        "The broker has confirmed a message of a producer; at `debug` for one with `every` or `cron`.",
        {"to": "the queue or event"},
    ),
    Event("message.released", ("info",), "A message was given back to the broker as it was, at a stop or a pause."),
    Event(
        "message.retry",
        ("warning",),
        "An attempt failed. The message is retried.",
        {
            **_FAILURE,
            "delay_ms": "the delay before the next attempt",
            "attempts": "the maximum number of attempts",
            "duration_ms": "how long the attempt took",
        },
    ),
    Event(
        "message.settle_lost",
        ("warning",),
        "An attempt failed, and its outcome could not be sent to the broker. The message is redelivered; this "
        "attempt is not counted.",
        {**_FAILURE, "outcome": "the outcome: `retry` or `dead_letter`"},
    ),
    Event(
        "message.summary",
        ("info",),
        "How many messages of a subscriber or producer have ended since the last such line, with "
        "`logging: {messages: summary}`; where none has, there is no line.",
        {
            "during_s": "how many seconds it stands for",
            **TOTALS,
            "duplicate": "deliveries that were handled before and only acknowledged now",
        },
    ),
    Event(
        "messages.scheduled",
        ("info",),
        "With `up --until-idle`: delayed messages have not arrived yet, and are not awaited.",
        {"messages": "how many"},
    ),
    Event(
        "outbox.given_up",
        ("error",),
        "The broker can never take a message of a publisher's outbox. It stays in the file, with the error.",
        {"to": "the queue or event", "message_id": "the id of the message", **_ERROR},
    ),
    Event(
        "outbox.held_back",
        ("warning",),
        "A destination takes no messages of a publisher's outbox. They are published again, in their order.",
        {"to": "the queue or event", "message_id": "the id of its first message", **_ERROR},
    ),
    Event("outbox.waiting", ("warning",), "The messages of a publisher's outbox cannot be sent now.", _ERROR),
    Event(
        "partition.handed_over",
        ("info",),
        "This process leaves a partition to another one, because it is active in more than its share.",
        {**_OF_CONSUMER, "processes": "how many processes share the partitions"},
    ),
    Event(
        "pauses.unavailable",
        ("warning",),
        "The broker does not let this process read the pauses of a pipeline. Its subscribers run, and `runner pause` "
        "does not reach them. It asks again, at last every five minutes.",
        {"queue": "PIPELINE.pauses", **_ERROR},
    ),
    Event(
        "pipeline.draining",
        ("info",),
        "The pipeline is stopping: it takes no new messages.",
        {"running": "how many handlers are running", "grace_s": "how long they may take"},
    ),
    Event(
        "pipeline.name_shared",
        ("warning",),
        "Another process runs a different pipeline under the same name on the same virtual host.",
        {"other": "its file, host and process", "hint": "what that can mean"},
    ),
    Event(
        "pipeline.started",
        ("info",),
        "All subscribers and producers of a pipeline are running.",
        {
            "subscribers": "how many",
            "producers": "how many",
            "queues": "how many, including dead-letter and wait queues",
            "version": "the version of the runner",
            "release": "the release of your code, if the pipeline names one",
        },
    ),
    Event("pipeline.stopped", ("info",), "All subscribers and producers of a pipeline have stopped.", TOTALS),
    Event(
        "producer.failed",
        ("error",),
        "A producer's handler failed, or its messages could not be published. It starts again, or waits for its next "
        "tick.",
        _FAILURE,
    ),
    Event(
        "producer.finished",
        ("info", "debug"),
        "A producer's handler has ended and all its messages are confirmed; at `debug` for a tick without messages. "
        "For a producer with `every` or `cron` this is the only line of a tick.",
        {"published": "how many messages", "message_id": "the id, if a tick published exactly one message"},
    ),
    Event(
        "producer.interrupted",
        ("warning",),
        "A producer was stopped before all its messages were confirmed. They may have arrived.",
        {"unconfirmed": "how many"},
    ),
    Event(
        "producers.standby",
        ("info",),
        "This process is on standby: another process runs the producers, or the broker cannot be reached.",
    ),
    Event(
        "publish.waiting",
        ("warning",),
        "A destination, such as a full queue, refuses messages. They are published again.",
        {"to": "the queue or event", **_ERROR},
    ),
    Event(
        "reply.given_up",
        ("info",),
        "An answer is not sent again: the queue of its caller refuses it, or a direct reply was not confirmed.",
        {"to": "the address of the caller", **_ERROR},
    ),
    Event("resource.failed", ("error",), "Closing a resource failed.", {"resource": "its name", **_FAILURE}),
    Event(
        "result.dropped",
        ("warning",),
        "A handler returned a value that goes nowhere: its subscriber has no `to`. Logged once.",
        {"hint": "what to write"},
    ),
    Event(
        "result.retry",
        ("warning",),
        "A result cannot be published now. It is kept and published again, without another call of the handler.",
        {
            **_ERROR,
            "error_type": "its class",
            "delay_ms": "the delay before the next attempt",
            "publish_attempt": "how often it has been tried",
            "attempts": "the maximum number of attempts",
        },
    ),
    Event(
        "settle.waiting",
        ("warning",),
        "A retry or a dead letter cannot be published. The message is kept, and the runner tries again.",
        {**_OF_CONSUMER, **_ERROR},
    ),
    Event("stdout", ("info",), "Your code or a library printed a line.", {"text": "the line"}),
    Event(
        "store.available",
        ("info",),
        "A store can be used again.",
        {**_OF_STORE, "away_s": "for how many seconds it could not"},
    ),
    Event(
        "store.unavailable",
        ("warning",),
        "A store cannot be used. Subscribers with `dedupe` in it hold their messages until it can. Logged once.",
        {**_OF_STORE, "error": "why"},
    ),
    Event(
        "subscriber.paused",
        ("warning",),
        "A subscriber takes no more messages, and finishes those that are being handled. They wait in its queue.",
        {**_OF_PAUSE, "since": "when the pause began: ISO 8601, UTC"},
    ),
    Event(
        "subscriber.resumed",
        ("info",),
        "A subscriber takes messages again.",
        {**_OF_PAUSE, "paused_s": "how many seconds the pause has lasted"},
    ),
    Event(
        "topology.mismatch", ("error",), "After a reconnect the broker's topology differs from the pipeline.", _ERROR
    ),
    Event(
        "traces.lost",
        ("warning",),
        "Spans were dropped, because the collector does not accept them. At most once a minute; messages are not "
        "delayed.",
        {"lost": "how many since the start, as far as known", **_ERROR},
    ),
    Event(
        "worker.exited",
        ("info", "error"),
        "A worker has ended; at `error` if unexpectedly.",
        {
            "pid": "its process id",
            "exit_code": "how it ended",
            "signal": "the signal that ended it, if any",
            "uptime_ms": "how long it ran",
            "restart_in_ms": "when it is restarted",
            **_ERROR,
        },
    ),
    Event(
        "worker.started",
        ("info",),
        "A worker is running.",
        {"pid": "its process id", "took_ms": "how long its start took"},
    ),
    Event(
        "workers.stopped",
        ("info",),
        "All workers have ended, with the sums of their counts.",
        {"workers": "how many there were", **TOTALS},
    ),
)
