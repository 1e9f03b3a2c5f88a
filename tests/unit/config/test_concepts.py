"""Keys that no table has: their words choose the option, and the value is converted for it."""

from __future__ import annotations

import pytest

from runner.config.concepts import meaning
from runner.config.document import plain_data
from runner.config.models import model_below
from runner.config.spec import PipelineSpec
from runner.config.spec_model import model_keys
from runner.config.validation import validate
from runner.config.yaml_parser import parse_yaml
from runner.operations.fixes import fixed_text
from runner.tables import read_table
from tests.unit.config.test_foreign_words import pipeline, refused

PLACES = {
    "subscriber": "subscribers: {{ship: {{from: orders, handler: app:ship, {}}}}}\n",
    "retry": "subscribers: {{ship: {{from: orders, handler: app:ship, retry: {{{}}}}}}}\n",
    "batch": "subscribers: {{ship: {{from: orders, handler: app:ship, batch: {{{}}}}}}}\n",
    "queue": "queues: {{orders: {{{}}}}}\n",
    "event": "events: {{order.placed: {{{}}}}}\n",
    "producer": "producers: {{place: {{handler: app:place, to: orders, {}}}}}\n",
    "target": "producers: {{place: {{handler: app:place, to: {{name: orders, {}}}}}}}\n",
    "pipeline": "{}\n",
    **{home: home + ": {{{}}}\n" for home in ("broker", "logging", "telemetry", "shutdown")},
}


def helps(place: str, key: str) -> list[str]:
    document, problems = parse_yaml(f"version: 1\n{PLACES[place].format(key)}")
    found = [*problems, *validate(document)[1]]
    return [problem.help for problem in found if problem.code == "unknown-key"]


@pytest.mark.parametrize(
    ("place", "key", "help_"),
    [
        ("subscriber", "maxParallelMessages: 8", 'write "concurrency: 8"'),
        ("subscriber", "handler_deadline_seconds: 20", 'write "timeout: 20s"'),
        ("subscriber", "max_processing_minutes: 2", 'write "timeout: 2m"'),
        ("subscriber", "max_processing_hours: 2", 'write "timeout: 2h"'),
        ("subscriber", "unacked_limit: 40", 'write "prefetch: 40"'),
        ("subscriber", "throttle_per_second: 50", 'write "rate: 50/s"'),
        ("subscriber", "retry_backoff_first_ms: 500", 'write "retry: {delay: 500ms}"'),
        ("subscriber", "x-maxretries-limit: 3", 'write "retry: {attempts: 4}" (attempts count the first try)'),
        ("subscriber", "bulk_linger_ms: 250", 'write "batch: {size: 200, wait: 250ms}"'),
        ("retry", "wait_ceiling: 60s", 'write "max_delay: 60s"'),
        ("retry", "tries_total: 4", 'write "attempts: 4"'),
        ("queue", "maximum_depth: 500", 'write "max_length: 500"'),
        ("queue", "size_limit_mb: 64", 'write "max_bytes: 64MB"'),
        ("queue", "keep_messages_days: 7", 'write "message_ttl: 7d"'),
        ("queue", "when_full: reject", 'write "overflow: reject-publish"'),
        ("event", "routing_pattern: order.new", 'write "key: order.new"'),
        ("producer", "refresh_interval_ms: 5000", 'write "every: 5s"'),
        ("target", "hold_ms: 500", 'write "delay: 500ms"'),
        ("broker", "keepalive_seconds: 20", 'write "heartbeat: 20s"'),
        ("pipeline", "minimum_log_level: warning", 'write "logging: {level: warning}"'),
        ("pipeline", "drain_wait_seconds: 20", 'write "shutdown: {grace: 20s}"'),
        ("shutdown", "drain_seconds: 20", 'write "grace: 20s"'),
        ("logging", "include_payload: true", 'write "payloads: true"'),
        ("telemetry", "bind_port: 9090", 'write `http: "127.0.0.1:9090"`'),
        ("subscriber", "max_unacked_messages_per_consumer: 20", 'write "prefetch: 20"'),
        ("retry", "randomize_delay: true", 'write "jitter: 20%"'),
        ("retry", "randomize_delay: 0.3", 'write "jitter: 30%"'),
        ("telemetry", "tracing_enabled: true", 'write "traces: otlp"'),
        ("broker", "host: h, tls_ca_file: ca.pem", 'write "tls: {ca: ca.pem}"'),
        ("producer", "endpoint_path: /orders", 'write "http: /orders"'),
        # of two readings of a number, the one that goes with the other options
        ("retry", "retry_wait_time: 500", 'for the delay before the first retry, write "delay: 500ms"'),
        # a unit alone is no hint
        (
            "queue",
            "archive_after_days: 3",
            "write one of: delivery_limit, max_length, max_bytes, message_ttl, max_priority, partitions, compress",
        ),
        # the option stands elsewhere
        (
            "pipeline",
            "worker_concurrency: 4",
            "write `defaults: {subscriber: {concurrency: 4}}` for all subscribers, or `concurrency: 4` in one, "
            "in place of it",
        ),
        (
            "queue",
            "parallel_tasks: 4",
            "write `concurrency: 4` in the subscriber that reads this queue, in place of it",
        ),
        (
            "queue",
            "retry_wait_seconds: 4",
            "write `retry: {delay: 4s}` in the subscriber that reads this queue, in place of it",
        ),
        ("producer", "message_expiry_seconds: 60", "write `to: {name: orders, expires: 60s}` here, in place of it"),
        # likely: a word is not known
        (
            "subscriber",
            "frobnication_timeout: 5s",
            'for how long one attempt may take, write "timeout: 5s"',
        ),
        # unknown: the keys that take such a value
        ("queue", "zzz: true", "write one of: durable, single_active_consumer, exclusive, auto_delete, declare"),
        (
            "subscriber",
            "zzz: 5",
            "write one of: concurrency, prefetch, timeout, retry, trip, batch, rate, dedupe, offset",
        ),
        ("shutdown", "zzz: 5", "write `grace:` (how long running handlers may take to finish)"),
    ],
)
def test_the_words_of_a_key_choose_the_option(place: str, key: str, help_: str) -> None:
    found = helps(place, key)
    assert len(found) == 1
    assert found[0].startswith(help_.partition(', in place of "from')[0])


def test_only_a_certain_meaning_is_a_fix() -> None:
    text = f"version: 1\n{PLACES['subscriber'].format('parallel_tasks: 4, frobnication_timeout: 5s')}"
    document, problems = parse_yaml(text)
    fixed, _ = fixed_text(text, [*problems, *validate(document)[1]])
    (ship,) = plain_data(parse_yaml(fixed)[0].root)["subscribers"].values()
    assert {*ship} == {"from", "handler", "concurrency", "frobnication_timeout"}


def test_rows_name_options_of_the_language_and_known_concepts() -> None:
    rows = read_table("runner.config", "concepts.txt", 5)
    concepts = {row[1] for row in rows if row[0] == "="}
    homes = {
        **{item: (f"{item}s", "*") for item in ("subscriber", "producer", "queue", "event")},
        **{inner: ("subscribers", "*", inner) for inner in ("retry", "batch", "dedupe", "trip")},
        **{"target": ("producers", "*", "to", 0), "tls": ("broker", "tls"), "pipeline": ()},
    }
    for home, key, _, words, _ in rows:
        if home != "=":
            assert {*words.replace(",", " ").split()} <= concepts, f"{home}: {key}"
            models = [model_below(PipelineSpec, homes.get(item, (item,))) for item in home.split()]
            assert key == "-" or all(key in model_keys(model) for model in models), f"{home}: {key}"


@pytest.mark.parametrize(
    ("place", "key", "value", "meant"),
    [
        ("subscriber", "simultaneous_jobs", 5, "concurrency"),
        ("subscriber", "maxUnackedMessages", 20, "prefetch"),
        ("subscriber", "kill_after", 30, "timeout"),
        ("subscriber", "redelivery_pause", "5s", "retry.delay"),
        ("subscriber", "max_tries_per_message", 4, "retry.attempts"),
        ("subscriber", "one_at_a_time_by", "customer", "order_by"),
        ("subscriber", "messages-per-second", 20, "rate"),
        ("retry", "longest_pause", "1m", "max_delay"),
        ("queue", "keep_messages_for", 3600, "message_ttl"),
        ("queue", "when_full", "drop-head", "overflow"),
        ("queue", "fails_go_to", "bad", "dead_letter"),
        ("producer", "run_each", "30s", "every"),
        ("producer", "publish_into", "orders", "to"),
        ("subscriber", "colour_of_the_day", "red", None),
        ("subscriber", "max_messages_per", 5, None),  # words that say little
    ],
)
def test_the_option_that_is_meant(place: str, key: str, value: object, meant: str | None) -> None:
    free = ["concurrency", "prefetch", "timeout", "order_by", "rate", "delay", "max_delay", "attempts", "message_ttl"]
    found = meaning(place, key, value, [*free, "overflow", "dead_letter", "every", "to"])
    assert (found and found.word.key) == meant


@pytest.mark.parametrize("value", ["5", "false", "[1, 5]", "{limit: 10, x: y}"])
@pytest.mark.parametrize("place", ["queue", "subscriber", "producer"])
def test_the_language_takes_what_the_help_for_a_key_says_to_write(place: str, value: str) -> None:
    """For a key of the first word of each concept that a set of concepts has."""
    rows = read_table("runner.config", "concepts.txt", 5)
    first = {row[1]: row[3].split()[0] for row in reversed(rows) if row[0] == "="}
    sets = dict.fromkeys(words for row in rows if row[0] != "=" for words in row[3].split(", "))
    keys = ["_".join(first[concept] for concept in words.split()) for words in sets]
    document, problems = parse_yaml(pipeline(place, keys, value))
    found = [*problems, *validate(document)[1]]
    assert [problem.help for problem in found if problem.code == "unknown-key" and refused(problem.help)] == []
