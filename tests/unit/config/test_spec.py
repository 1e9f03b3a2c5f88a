"""What a pipeline file may say: the long form that comes of it, and the words for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.config.loader import PipelineFile, load_text
from runner.config.producer_spec import ProducerSpec
from runner.config.queue_spec import BindSpec, ExchangeSpec, QueueSpec
from runner.config.spec import PipelineSpec, ResourceSpec
from runner.config.spec_model import SpecModel
from runner.config.subscriber_spec import BatchSpec, DedupeSpec, SubscriberSpec
from runner.config.target_spec import target_names
from runner.errors import Problem

MINIMAL = "version: 1\n"


def load(text: str) -> PipelineFile:
    return load_text(text, Path("a.yaml"), {})


def spec(text: str) -> PipelineSpec:
    loaded = load(MINIMAL + text)
    assert loaded.problems == []
    assert loaded.spec is not None
    return loaded.spec


def problems(text: str) -> list[Problem]:
    loaded = load(MINIMAL + text)
    assert loaded.spec is None
    return loaded.problems


# Long forms


def test_a_pipeline_has_every_default() -> None:
    """Only the version is required."""
    pipeline = spec("")
    assert pipeline.broker.urls == ()
    assert (pipeline.broker.connect_timeout, pipeline.broker.heartbeat, pipeline.broker.topology) == (60, 10, "manage")
    assert (pipeline.logging.format, pipeline.logging.level, pipeline.logging.messages) == ("auto", "info", "all")
    assert pipeline.logging.payloads is False
    assert pipeline.shutdown.grace == 30
    assert pipeline.queues == {} == pipeline.subscribers


def test_empty_sections_are_as_good_as_none() -> None:
    """A section whose every line is a comment stays valid."""
    names = "exchanges queues events producers subscribers logging shutdown defaults broker"
    assert spec("".join(f"{name}:\n" for name in names.split())) == spec("")


def test_top_level_keys_for_anchors_are_ignored() -> None:
    """`x-…` may hold anything."""
    assert spec("x-anything: {a: [1, {b: c}]}\nx-: 5\n") == spec("")


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("memory", ()),
        ("amqp://u:p@h/v", ("amqp://u:p@h/v",)),
        ("{url: amqp://u:p@h}", ("amqp://u:p@h",)),
        ("{urls: [amqp://u:p@h, amqp://u:p@i]}", ("amqp://u:p@h", "amqp://u:p@i")),
        ("{url: memory}", ()),
        ("{heartbeat: 5s}", ()),
    ],
)
def test_a_broker_is_memory_one_url_or_several(text: str, urls: tuple[str, ...]) -> None:
    """Every form ends as a tuple of URLs, empty for the in-process broker."""
    assert spec(f"broker: {text}\n").broker.urls == urls


def test_a_password_is_not_in_the_repr_of_a_spec() -> None:
    """A spec in a traceback or a log line gives nothing away."""
    assert "S3CR3T" not in repr(spec("broker: amqp://u:S3CR3T@h\n"))


def test_short_forms_are_written_out() -> None:
    """Exchanges, queues and events."""
    pipeline = spec(
        "exchanges: {a: fanout, b: }\nqueues: {q: }\nevents: {e: 'm:T', f: , g: {schema: 'm:T', exchange: amq.topic}}\n"
    )
    assert pipeline.exchanges == {
        "a": ExchangeSpec.model_validate({"type": "fanout"}),
        "b": ExchangeSpec.model_validate({}),
    }
    assert pipeline.queues == {"q": QueueSpec.model_validate({})}
    assert [event.schema_ for event in pipeline.events.values()] == ["m:T", None, "m:T"]
    assert pipeline.events["g"].exchange == "amq.topic"


def test_a_queue_in_full() -> None:
    """Durations become seconds, sizes bytes."""
    queue = spec(
        "queues:\n"
        "  q: {type: classic, durable: false, dead_letter: other, max_length: 5, max_bytes: 64kB,\n"
        "      overflow: drop-head, message_ttl: 1500ms, max_priority: 10, single_active_consumer: true,\n"
        "      exclusive: true, auto_delete: true, arguments: {x-expires: 5, deep: {a: [1.5, true, b]}},\n"
        "      events: 'order.*',\n"
        "      bind: [{exchange: amq.topic, key: '#'}, {exchange: h, headers: {kind: pdf}, match: any}],\n"
        "      schema: m:T, declare: false}\n"
    ).queues["q"]
    assert (queue.max_bytes, queue.message_ttl, queue.overflow) == (64_000, 1.5, "drop-head")
    assert queue.events == ("order.*",)
    assert queue.bind == (
        BindSpec.model_validate({"exchange": "amq.topic", "key": "#"}),
        BindSpec.model_validate({"exchange": "h", "headers": {"kind": "pdf"}, "match": "any"}),
    )
    assert queue.arguments == {"x-expires": 5, "deep": {"a": [1.5, True, "b"]}}
    assert (queue.schema_, queue.declare, queue.dead_letter) == ("m:T", False, "other")


@pytest.mark.parametrize(("text", "value"), [("false", False), ("dead", "dead"), ("null", None), ("'false'", False)])
def test_dead_letter_is_a_name_false_or_the_default(text: str, value: object) -> None:
    """`false` drops; nothing means the default name."""
    if text == "'false'":
        text = "${D:-false}"
    assert spec(f"queues:\n  q:\n    dead_letter: {text}\n").queues["q"].dead_letter == value


@pytest.mark.parametrize(
    ("text", "attempts", "delay"),
    [("none", 1, 1.0), ("5", 5, 1.0), ("{attempts: 2, delay: 250ms}", 2, 0.25), ("{}", 3, 1.0)],
)
def test_retry_is_none_a_number_or_a_map(text: str, attempts: int, delay: float) -> None:
    """The first try counts."""
    retry = spec(f"subscribers: {{s: {{from: q, handler: 'a:b', retry: {text}}}}}\n").subscribers["s"].retry
    assert (retry.attempts, retry.delay) == (attempts, delay)


def test_producers_and_subscribers_in_full() -> None:
    """One name or a list of them, keyword arguments, and exceptions to retry on."""
    pipeline = spec(
        "producers: {p: {handler: a.b:c, every: 5s, to: [q, e], with: {n: 1}, description: d}}\n"
        "subscribers:\n  s: {from: ['order.*', '#'], handler: a:b, to: q, concurrency: 1, prefetch: 2, timeout: 1m,\n"
        "      retry: {on: [TimeoutError, 'm:E']}, run_in: thread, queue: {max_length: 1}}\n"
    )
    producer, subscriber = pipeline.producers["p"], pipeline.subscribers["s"]
    assert (target_names(producer.to), producer.every, producer.with_) == (("q", "e"), 5.0, {"n": 1})
    assert (subscriber.from_, target_names(subscriber.to), subscriber.timeout) == (("order.*", "#"), ("q",), 60.0)
    assert subscriber.retry.on == ("TimeoutError", "m:E")
    assert subscriber.queue == QueueSpec.model_validate({"max_length": 1})


def producer(text: str) -> ProducerSpec:
    return spec(f"producers: {{p: {{to: q, {text}}}}}\n").producers["p"]


def subscriber(text: str) -> SubscriberSpec:
    return spec(S % text).subscribers["s"]


def test_a_producer_is_a_handler_a_file_or_an_http_path() -> None:
    """Each with what goes with it."""
    handler = producer("handler: 'a:b', cron: '0 6 * * mon-fri', timezone: Europe/Berlin, rate: 30/m, with: {n: 1}")
    assert (handler.handler, handler.file, handler.http) == ("a:b", None, None)
    assert (handler.cron, handler.timezone, handler.rate) == ("0 6 * * mon-fri", "Europe/Berlin", 0.5)
    file = producer("file: data/orders.jsonl, rate: 200/s")
    assert (file.file, file.rate, file.handler, file.timezone) == ("data/orders.jsonl", 200.0, None, None)
    assert producer("file: '-'").file == "-"
    assert producer("http: /orders/v1").http == "/orders/v1"


@pytest.mark.parametrize("text", ["200", "{size: 200}", "{size: 200, wait: 1s}", "'${B:-200}'", "{size: '${B:-200}'}"])
def test_batch_is_a_size_or_a_map(text: str) -> None:
    """A second's wait is the default."""
    assert subscriber(f"batch: {text}").batch == BatchSpec.model_validate({"size": 200})


@pytest.mark.parametrize("text", ["1h", "{window: 60m}", "'${W:-1h}'"])
def test_dedupe_is_a_window_or_a_map(text: str) -> None:
    """A duration."""
    assert subscriber(f"dedupe: {text}").dedupe == DedupeSpec.model_validate({"window": "1h"})


@pytest.mark.parametrize("text", ["id", "customer.id", "_a.b_2.0.c"])
def test_order_by_is_a_dotted_path(text: str) -> None:
    """Items of lists are numbers."""
    assert subscriber(f"order_by: {text}").order_by == text


def test_subscribers_have_limits_and_a_place_to_run() -> None:
    """None of them by default."""
    limited = subscriber("rate: 5/s, run_in: process")
    assert (limited.rate, limited.run_in) == (5.0, "process")
    plain = subscriber("")
    assert (plain.batch, plain.order_by, plain.rate, plain.dedupe, plain.run_in) == (None, None, None, None, None)


def test_a_resource_is_a_factory_or_a_map() -> None:
    """With keyword arguments for the factory."""
    resources = spec("resources: {db: handlers.db:connect, cache: {factory: 'a:b', with: {size: 5}}}\n").resources
    assert resources == {
        "db": ResourceSpec.model_validate({"factory": "handlers.db:connect"}),
        "cache": ResourceSpec.model_validate({"factory": "a:b", "with": {"size": 5}}),
    }
    assert resources["cache"].with_ == {"size": 5}


def test_a_stream_has_its_own_options() -> None:
    """Limits by size and age, and what every queue has."""
    text = "type: stream, max_bytes: 1GB, message_ttl: 2d, arguments: {x-stream-filter-size-bytes: 32}"
    queue = spec(Q % f"{text}, events: e, bind: [{{exchange: amq.topic}}], schema: 'm:T', declare: false").queues["q"]
    assert (queue.type, queue.max_bytes, queue.message_ttl) == ("stream", 10**9, 172_800.0)


def test_every_field_has_a_description() -> None:
    """The reference and the JSON Schema are made of them."""
    models = SpecModel.__subclasses__()
    assert PipelineSpec in models
    fields = [(f"{model.__name__}.{name}", field) for model in models for name, field in model.model_fields.items()]
    assert [name for name, field in fields if not field.description] == []


def test_the_json_schema_knows_the_short_forms() -> None:
    """An editor does not underline `retry: 5` or `broker: memory`."""
    schema: dict[str, Any] = PipelineSpec.model_json_schema()
    retry = schema["$defs"]["SubscriberSpec"]["properties"]["retry"]
    assert {"type": "integer"} in retry["anyOf"]
    assert {"type": "integer"} in schema["$defs"]["SubscriberSpec"]["properties"]["batch"]["anyOf"]
    assert {"type": "string"} in schema["properties"]["broker"]["anyOf"]
    assert {"url", "urls"} <= set(schema["$defs"]["BrokerSpec"]["properties"])


# Wrong values: one problem each

Q = "queues: {q: {%s}}\n"
S = "subscribers: {s: {from: q, handler: 'a:b', %s}}\n"
P = "producers: {p: {handler: 'a:b', to: q, %s}}\n"
F = "producers: {p: {file: x, to: q, %s}}\n"
H = "producers: {p: {http: /x, to: q, %s}}\n"

WRONG = [
    # values of each type
    (S % "concurrency: many", "wrong-type", "subscribers.s.concurrency", 'must be a whole number, not the text "many"'),
    (S % "concurrency: 1.0", "wrong-type", "subscribers.s.concurrency", "must be a whole number, not the number 1.0"),
    (S % "concurrency: true", "wrong-type", "subscribers.s.concurrency", "must be a whole number, not true"),
    (S % "concurrency: ", "wrong-type", "subscribers.s.concurrency", "must be a whole number, not empty"),
    (S % "concurrency: [1]", "wrong-type", "subscribers.s.concurrency", "must be a whole number, not a list"),
    (S % "concurrency: 0", "out-of-range", "subscribers.s.concurrency", "must be at least 1, not the number 0"),
    (S % "concurrency: 10001", "out-of-range", "subscribers.s.concurrency", None),
    (S % "prefetch: 65536", "out-of-range", "subscribers.s.prefetch", "must be at most 65535, not the number 65536"),
    (S % "timeout: 30", "bad-duration", "subscribers.s.timeout", "must be a duration with a unit, not the number 30"),
    (S % "timeout: .nan", "bad-duration", "subscribers.s.timeout", None),
    (S % "timeout: 5 min", "bad-duration", "subscribers.s.timeout", 'must be a duration, not the text "5 min"'),
    (S % "timeout: -1s", "bad-duration", "subscribers.s.timeout", None),
    (S % "timeout: 0s", "out-of-range", "subscribers.s.timeout", None),
    (S % f"timeout: {'9' * 400}s", "out-of-range", "subscribers.s.timeout", None),
    (S % "timeout: {a: b}", "bad-duration", "subscribers.s.timeout", "must be a duration, not a map"),
    (Q % "max_bytes: 5", "bad-size", "queues.q.max_bytes", "must be a size with a unit, not the number 5"),
    (Q % "max_bytes: 5 bytes", "bad-size", "queues.q.max_bytes", 'must be a size, not the text "5 bytes"'),
    (Q % "max_bytes: 0B", "out-of-range", "queues.q.max_bytes", None),
    (Q % f"max_bytes: {'9' * 400}GB", "bad-size", "queues.q.max_bytes", None),
    (Q % "declare: yes", "wrong-type", "queues.q.declare", 'must be true or false, not the text "yes"'),
    (Q % "declare: 'true'", "wrong-type", "queues.q.declare", 'must be true or false, not the text "true"'),
    (Q % "declare: 1", "wrong-type", "queues.q.declare", "must be true or false, not the number 1"),
    ("owner: 5\n", "wrong-type", "owner", "must be text, not the number 5"),
    ("description: [a]\n", "wrong-type", "description", "must be text, not a list"),
    # choices
    (Q % "type: clasic", "bad-choice", "queues.q.type", 'must be one of quorum, classic, stream, not "clasic"'),
    (Q % "type: 5", "bad-choice", "queues.q.type", None),
    (Q % "max_length: 1, overflow: x", "bad-choice", "queues.q.overflow", None),
    ("exchanges: {e: topik}\n", "bad-choice", "exchanges.e", None),
    ("logging: {levels: {a: loud}}\n", "bad-choice", "logging.levels.a", None),
    ("broker: {topology: x}\n", "bad-choice", "broker.topology", None),
    # maps and lists
    ("queues: [a, b]\n", "wrong-type", "queues", "must be a map, not a list"),
    ("queues: {q: text}\n", "wrong-type", "queues.q", 'must be a map, not the text "text"'),
    ("subscribers: {s: }\n", "wrong-type", "subscribers.s", None),
    ("logging: debug\n", "wrong-type", "logging", None),
    ("logging: {levels: x}\n", "wrong-type", "logging.levels", None),
    ("broker: {tls: x}\n", "wrong-type", "broker.tls", None),
    ("broker: 5\n", "wrong-type", "broker", "must be memory, a URL or a map, not the number 5"),
    ("events: {e: 5}\n", "wrong-type", "events.e", None),
    (Q % "bind: x", "wrong-type", "queues.q.bind", None),
    (Q % "bind: [x]", "wrong-type", "queues.q.bind.0", None),
    (Q % "arguments: [x]", "wrong-type", "queues.q.arguments", None),
    (Q % "events: {a: b}", "wrong-type", "queues.q.events", "must be one name or a list, not a map"),
    (S % "to: 5", "wrong-type", "subscribers.s.to", None),
    (S % "to: [a, 5]", "wrong-type", "subscribers.s.to.1", "must be a name, not the number 5"),
    (S % "to: [a, [b]]", "wrong-type", "subscribers.s.to.1", None),
    (S % "queue: x", "wrong-type", "subscribers.s.queue", None),
    (S % "with: 5", "wrong-type", "subscribers.s.with", None),
    (S % "retry: often", "wrong-type", "subscribers.s.retry", None),
    (S % "retry: '5'", "wrong-type", "subscribers.s.retry", 'must be a whole number, not the text "5"'),
    (S % "retry: true", "wrong-type", "subscribers.s.retry", None),
    (S % "retry: 0", "wrong-type", "subscribers.s.retry", "must be none, a number from 1 or a map, not the number 0"),
    (S % "retry: {on: []}", "empty-list", "subscribers.s.retry.on", None),
    ("defaults: {queue: x}\n", "wrong-type", "defaults.queue", None),
    ("defaults: x\n", "wrong-type", "defaults", None),
    # names
    ("queues: {'': }\n", "bad-name", "queues", 'the name "" must not be empty'),
    ("queues: {' a': }\n", "bad-name", "queues", None),
    ("queues: {amq.x: }\n", "bad-name", "queues", None),
    ("queues: {'a#': }\n", "bad-name", "queues", None),
    ("queues: {'order.*': }\n", "bad-name", "queues", None),
    ('queues: {"a\\0b": }\n', "bad-name", "queues", None),
    ("queues: {'${A}': }\n", "bad-name", "queues", None),
    (f"queues: {{{'é' * 128}: }}\n", "bad-name", "queues", None),
    (S % "to: amq.x", "bad-name", "subscribers.s.to", None),
    (S % "to: 'a.*'", "bad-name", "subscribers.s.to", None),
    ("subscribers: {s: {from: 'a*', handler: 'a:b'}}\n", "bad-name", "subscribers.s.from", None),
    ("subscribers: {s: {from: [], handler: 'a:b'}}\n", "empty-list", "subscribers.s.from", None),
    ("name: amq.x\n", "bad-name", "name", None),
    (Q % "dead_letter: ''", "bad-name", "queues.q.dead_letter", None),
    (Q % "dead_letter: true", "wrong-type", "queues.q.dead_letter", None),
    (f"events: {{e: {{key: {'k' * 256}}}}}\n", "bad-name", "events.e.key", None),
    # import paths
    (P.replace("a:b", "a.b.c") % "", "bad-import-path", "producers.p.handler", None),
    (P.replace("a:b", "a:b.") % "", "bad-import-path", "producers.p.handler", None),
    (P.replace("a:b", "a:b\\n") % "", "bad-import-path", "producers.p.handler", None),
    (P.replace("'a:b'", "5") % "", "bad-import-path", "producers.p.handler", None),
    ("events: {e: Model}\n", "bad-import-path", "events.e", None),
    (S % "retry: {on: [TimeoutErrr]}", "bad-import-path", "subscribers.s.retry.on.0", None),
    (S % "retry: {on: print}", "bad-import-path", "subscribers.s.retry.on", None),
    # brokers
    ("broker: amqp://u:S3CR3T@h:x\n", "bad-url", "broker", None),
    ("broker: ''\n", "bad-url", "broker", None),
    ("broker: {url: }\n", "bad-url", "broker.url", None),
    ("broker: {url: 5}\n", "wrong-type", "broker.url", None),
    ("broker: {urls: [amqp://u:p@h, 'amqp://u:S3CR3T@']}\n", "bad-url", "broker.urls.1", None),
    ("broker: {urls: [memory, amqp://u:p@h]}\n", "bad-url", "broker.urls.0", None),
    ("broker: {url: amqp://u:p@h, urls: []}\n", "conflicting-options", "broker.url", None),
    ("broker: {url: amqp://u:p@h, tls: {ca: x}}\n", "conflicting-options", "broker.tls", None),
    ("broker: {tls: {ca: x}}\n", "conflicting-options", "broker.tls", None),
    ("broker: {url: amqps://u:p@h, tls: {key: x}}\n", "conflicting-options", "broker.tls.key", None),
    ("broker: {heartbeat: 0s}\n", "out-of-range", "broker.heartbeat", None),
    # options that do not go together
    (Q % "durable: false", "conflicting-options", "queues.q.durable", "a quorum queue is always durable"),
    (Q % "exclusive: true", "conflicting-options", "queues.q.exclusive", None),
    (Q % "auto_delete: true", "conflicting-options", "queues.q.auto_delete", None),
    (Q % "max_priority: 5", "conflicting-options", "queues.q.max_priority", None),
    (Q % "type: classic, delivery_limit: 5", "conflicting-options", "queues.q.delivery_limit", None),
    (Q % "overflow: drop-head", "conflicting-options", "queues.q.overflow", None),
    (Q % "max_length: 5, overflow: reject-publish-dlx", "conflicting-options", "queues.q.overflow", None),
    (Q % "bind: [{exchange: e, match: any}]", "conflicting-options", "queues.q.bind.0.match", None),
    (S % "queue: {durable: false}", "conflicting-options", "subscribers.s.queue.durable", None),
    (S % "retry: {delay: 10m}", "conflicting-options", "subscribers.s.retry.delay", None),
    (
        Q % "dead_letter: q",
        "conflicting-options",
        "queues.q.dead_letter",
        "a queue cannot be its own dead-letter queue",
    ),
    ("name: n\n" + S % "queue: {dead_letter: n.s}", "conflicting-options", "subscribers.s.queue.dead_letter", None),
    # streams
    (Q % "type: stream, durable: false", "conflicting-options", "queues.q.durable", "a stream is always durable"),
    (Q % "type: stream, exclusive: true", "conflicting-options", "queues.q.exclusive", None),
    (Q % "type: stream, auto_delete: true", "conflicting-options", "queues.q.auto_delete", None),
    (Q % "type: stream, max_priority: 5", "conflicting-options", "queues.q.max_priority", None),
    (Q % "type: stream, single_active_consumer: true", "conflicting-options", "queues.q.single_active_consumer", None),
    (Q % "type: stream, delivery_limit: 5", "conflicting-options", "queues.q.delivery_limit", None),
    (Q % "type: stream, dead_letter: d", "conflicting-options", "queues.q.dead_letter", None),
    (Q % "type: stream, dead_letter: false", "conflicting-options", "queues.q.dead_letter", None),
    (Q % "type: stream, max_length: 5", "conflicting-options", "queues.q.max_length", None),
    (Q % "type: stream, overflow: drop-head", "conflicting-options", "queues.q.overflow", None),
    # lists
    (S % "to: [a, b, a]", "duplicate-entry", "subscribers.s.to.2", "this name is in the list twice"),
    (P.replace("to: q", "to: [q, q]") % "", "duplicate-entry", "producers.p.to.1", None),
    (S.replace("from: q", "from: [e, e]") % "", "duplicate-entry", "subscribers.s.from.1", None),
    (Q % "events: [e.*, e.*]", "duplicate-entry", "queues.q.events.1", None),
    # sources of producers
    ("producers: {p: {to: q}}\n", "no-source", "producers.p", 'a producer needs one of "handler", "file" and "http"'),
    (P % "file: x", "several-sources", "producers.p.file", None),
    (
        P % "http: /x",
        "several-sources",
        "producers.p.http",
        'a producer has one source, and this one has "handler" already',
    ),
    (
        F % "every: 5s",
        "conflicting-options",
        "producers.p.every",
        '"every" is for handlers, and this producer has "file"',
    ),
    (F % "cron: '* * * * *'", "conflicting-options", "producers.p.cron", None),
    (F % "with: {a: 1}", "conflicting-options", "producers.p.with", None),
    (H % "every: 5s", "conflicting-options", "producers.p.every", None),
    (H % "rate: 5/s", "conflicting-options", "producers.p.rate", None),
    (P % "every: 5s, cron: '* * * * *'", "conflicting-options", "producers.p.cron", None),
    (P % "timezone: UTC", "conflicting-options", "producers.p.timezone", '"timezone" needs "cron"'),
    ("producers: {p: {file: '', to: q}}\n", "bad-file", "producers.p.file", None),
    ("producers: {p: {file: 5, to: q}}\n", "wrong-type", "producers.p.file", None),
    (H.replace("/x", "x") % "", "bad-http-path", "producers.p.http", 'must start with a slash, not "x"'),
    (H.replace("/x", "/x?a=1") % "", "bad-http-path", "producers.p.http", '"/x?a=1" has a query or fragment in it'),
    (H.replace("/x", "'/x#a'") % "", "bad-http-path", "producers.p.http", None),
    (H.replace("/x", "/x y") % "", "bad-http-path", "producers.p.http", None),
    (
        H.replace("/x", "/healthz") % "",
        "bad-http-path",
        "producers.p.http",
        '"/healthz" is a path of the runner itself',
    ),
    (H.replace("/x", "/readyz/") % "", "bad-http-path", "producers.p.http", None),
    (H.replace("/x", "/metrics") % "", "bad-http-path", "producers.p.http", None),
    # rates
    (S % "rate: 5", "bad-rate", "subscribers.s.rate", "must be a rate with a unit, not the number 5"),
    (S % "rate: 5/w", "bad-rate", "subscribers.s.rate", 'must be a rate, not the text "5/w"'),
    (S % "rate: [5/s]", "bad-rate", "subscribers.s.rate", "must be a rate, not a list"),
    (S % "rate: true", "bad-rate", "subscribers.s.rate", None),
    (S % "rate: 0/s", "out-of-range", "subscribers.s.rate", 'must be more than 0, not the text "0/s"'),
    (P % "rate: 1000001/s", "out-of-range", "producers.p.rate", None),
    # batches, order, duplicates
    (S % "batch: 0", "out-of-range", "subscribers.s.batch", "must be at least 1, not the number 0"),
    (S % "batch: 10001", "out-of-range", "subscribers.s.batch", None),
    (S % "batch: '5'", "wrong-type", "subscribers.s.batch", None),
    (S % "batch: true", "wrong-type", "subscribers.s.batch", None),
    (S % "batch: [5]", "wrong-type", "subscribers.s.batch", "must be a number or a map, not a list"),
    (S % "batch: {wait: 1s}", "missing-key", "subscribers.s.batch", 'missing key "size"'),
    (S % "batch: {size: 5, wait: 5}", "bad-duration", "subscribers.s.batch.wait", None),
    (S % "batch: 5, order_by: a", "conflicting-options", "subscribers.s.order_by", None),
    (S % "batch: 5, prefetch: 4", "conflicting-options", "subscribers.s.prefetch", None),
    (S % "order_by: a..b", "bad-payload-path", "subscribers.s.order_by", None),
    (S % "order_by: 5", "wrong-type", "subscribers.s.order_by", None),
    (S % "order_by: '$.a'", "bad-payload-path", "subscribers.s.order_by", None),
    (S % "dedupe: {}", "missing-key", "subscribers.s.dedupe", 'missing key "window"'),
    (S % "dedupe: 5", "bad-duration", "subscribers.s.dedupe", None),
    (S % "dedupe: true", "bad-duration", "subscribers.s.dedupe", "must be a duration, not true"),
    (S % "dedupe: 0s", "out-of-range", "subscribers.s.dedupe", None),
    (S % "run_in: proces", "bad-choice", "subscribers.s.run_in", None),
    # resources
    ("resources: {class: 'a:b'}\n", "bad-name", "resources", None),
    ("resources: {my-db: 'a:b'}\n", "bad-name", "resources", None),
    ("resources: {db: connect}\n", "bad-import-path", "resources.db", None),
    ("resources: {db: }\n", "missing-key", "resources.db", 'missing key "factory"'),
    ("resources: {db: {factory: 'a:b', wit: {}}}\n", "unknown-key", "resources.db", None),
    ("resources: [db]\n", "wrong-type", "resources", None),
    # arguments
    (Q % "arguments: {x-message-ttl: 5}", "modelled-argument", "queues.q.arguments.x-message-ttl", None),
    (Q % "arguments: {x-queue-type: stream}", "modelled-argument", "queues.q.arguments.x-queue-type", None),
    (Q % "arguments: {a: .inf}", "out-of-range", "queues.q.arguments.a", None),
    (Q % "arguments: {a: [1, null]}", "out-of-range", "queues.q.arguments.a", None),
    (Q % f"arguments: {{a: {2**63}}}", "out-of-range", "queues.q.arguments.a", None),
    (Q % f"arguments: {{{'a' * 129}: 1}}", "bad-name", None, None),
    # not yet, and never
    ("telemetry: {http: here}\n", "bad-address", "telemetry.http", '"here" is not an address to listen on'),
    ("brokers: {}\n", "reserved-key", "", '"brokers" is a reserved word'),
    ("middleware: []\n", "reserved-key", "", None),
    ("profiles: {}\n", "reserved-key", "", None),
    ("tests: []\n", "reserved-key", "", None),
    # keys
    ("queue: {}\n", "unknown-key", "", 'unknown key "queue"'),
    (Q % "from_: x", "unknown-key", "queues.q", None),
    (S % "from_: x", "unknown-key", "subscribers.s", None),
    (S % "with_: {}", "unknown-key", "subscribers.s", None),
    ("broker: {uri: 'amqp://localhost'}\n", "unknown-key", "broker", None),
    (Q % "bind: [{exchange: e, kee: x}]", "unknown-key", "queues.q.bind.0", None),
    (Q % "bind: [{key: x}]", "missing-key", "queues.q.bind.0", 'missing key "exchange"'),
    ("subscribers: {s: {handler: 'a:b'}}\n", "missing-key", "subscribers.s", 'missing key "from"'),
    ("producers: {p: {handler: 'a:b'}}\n", "missing-key", "producers.p", 'missing key "to"'),
]

PYDANTIC_WORDS = (
    "Input should",
    "valid ",
    "Field required",
    "Extra inputs",
    "not permitted",
    "unable to",
    "should be",
    "should match",
    "Value error",
    "instance of",
    "dictionary",
    "integer",
    "string",
    "boolean",
)


@pytest.mark.parametrize(("text", "code", "path", "message"), WRONG)
def test_one_wrong_thing_is_one_problem_in_our_words(
    text: str, code: str, path: str | None, message: str | None
) -> None:
    """The problem has its code, its dotted path, a place in the file, and no words of libraries."""
    (problem,) = problems(text)
    assert problem.code == code
    assert path is None or problem.path == path
    assert message is None or problem.message == message
    assert problem.line > 1
    assert problem.column > 0
    assert not any(word in problem.message + problem.help for word in PYDANTIC_WORDS)
    assert "S3CR3T" not in problem.message + problem.help


@pytest.mark.parametrize(
    ("text", "help_"),
    [
        (S % "concurrency: '16'", "remove the quotes: 16"),
        (Q % "declare: 'True'", "remove the quotes: true"),
        (Q % "declare: yes", "write true"),
        ("owner: 5\n", 'put it in quotes: "5"'),
        ("owner: true\n", 'put it in quotes: "true"'),
        ("release: 1.10\n", 'put it in quotes: "1.10"'),
        ("release: 0x1F # hex\n", 'put it in quotes: "0x1F"'),
        ("release: &r 1.10\nowner: *r\n", 'put it in quotes: "1.10"'),
        (S % "timeout: 30", "write its unit: 30s"),
        (S % "timeout: 5min", 'write "5m"'),
        (Q % "type: clasic", 'did you mean "classic"?'),
        (P.replace("a:b", "a.b.c") % "", 'write a colon before the name: "a.b:c"'),
        (P.replace("a:b", "abc") % "", 'name its module as well, as in "package.module:abc"'),
        (S % "retry: {on: [TimeoutErrr]}", 'did you mean "TimeoutError"?'),
        (Q % "arguments: {x-message-ttl: 5}", 'write "message_ttl: 5ms" in the queue instead'),
        ("queus: {}\n", 'did you mean "queues"?'),
        (S % "batch: '5'", "remove the quotes: 5"),
        (S % "rate: 5", "write its unit: 5/s per second, 5/m per minute, 5/h per hour"),
        (S % "rate: 5/day", 'did you mean "5/d"?'),
        (S % "rate: 5/month", "write it as in 100/s, 10/m, 5/h or 20/d"),
        (S % "batch: {}", 'add "size: 200"'),
        (S % "run_in: proces", 'did you mean "process"?'),
        ("producers: {p: {to: q}}\n", 'add "handler: handlers.orders:place_orders"'),
        ("producers: {p: {to: q, hanlder: 'a:b'}}\n", 'did you mean "handler"?'),
        ("resources: {db: }\n", 'add "factory: handlers.db:connect"'),
        (Q % "type: stream, max_length: 5", 'write "max_bytes" or "message_ttl" instead'),
        ("shutdown: {zzz: 1}\n", "write `grace:` (how long running handlers may take to finish)"),
        ("producers: {p: {handler: 'a:b'}}\n", 'add "to:" with a queue or an event'),
    ],
)
def test_the_help_says_what_to_write(text: str, help_: str) -> None:
    """Concrete, and to be copied."""
    assert [problem.help for problem in problems(text)] == [help_]


def test_a_missing_version_is_to_be_the_first_line() -> None:
    """Whatever else is missing."""
    (problem,) = load("# a comment\nqueues: {}\n").problems
    assert (problem.code, problem.message) == ("missing-key", 'missing key "version"')
    assert problem.help == 'add "version: 1" as the first line'
    assert problem.line == 2


@pytest.mark.parametrize("version", ["2", "'1'", "true", "1.0", "", "[1]"])
def test_another_version_is_not_known(version: str) -> None:
    """There is one version of the language."""
    (problem,) = load(f"version: {version}\n").problems
    assert (problem.code, problem.help) == ("bad-version", 'write "version: 1"')


def test_a_key_missing_and_misspelt_is_one_problem() -> None:
    """At the misspelt key."""
    text = "subscribers: {s: {form: q, handlr: 'a:b'}}\nverion: 1\n"
    found = load(text).problems
    assert [(problem.message, problem.help) for problem in found] == [
        ('unknown key "form"', 'did you mean "from"?'),
        ('unknown key "handlr"', 'did you mean "handler"?'),
        ('unknown key "verion"', 'did you mean "version"?'),
    ]


def test_all_problems_of_a_queue_are_told_at_once() -> None:
    """Three options that a quorum queue does not have, and a modelled argument in another queue."""
    found = problems(
        "queues:\n  a: {durable: false, exclusive: true, overflow: drop-head}\n"
        "  b: {arguments: {x-overflow: a, x-max-length: 5}}\n"
    )
    assert [problem.path for problem in found] == [
        "queues.a.durable",
        "queues.a.exclusive",
        "queues.a.overflow",
        "queues.b.arguments.x-overflow",
        "queues.b.arguments.x-max-length",
    ]


def test_a_bad_name_is_reported_at_the_key_and_its_value_too() -> None:
    """A key and its value are two things."""
    found = problems("queues:\n  amq.x: {typ: classic}\n")
    assert [(problem.code, problem.line, problem.column) for problem in found] == [
        ("bad-name", 3, 3),
        ("unknown-key", 3, 11),
    ]


def test_a_name_that_looks_like_pydantics_sign_for_a_key_is_a_name() -> None:
    """pydantic writes `[key]` where it means a key."""
    (problem,) = problems("queues: {'[key]': {type: 5}}\n")
    assert problem.path == "queues.[key].type"
    (problem,) = problems("logging: {levels: {'[key]': 5}}\n")
    assert problem.path == "logging.levels.[key]"


def test_all_options_that_exclude_each_other_are_reported_at_once() -> None:
    retry = "{delay: 10m, on: [OSError], not_on: [OSError]}"
    found = problems(f"subscribers: {{s: {{from: q, handler: 'a:b', retry: {retry}}}}}")
    assert [problem.path for problem in found] == ["subscribers.s.retry.delay", "subscribers.s.retry.not_on"]
