"""Words of other tools: the language takes each value that a help for one of them says to write."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from runner.config import foreign_files
from runner.config.broker_spec import BrokerSpec, TlsSpec
from runner.config.document import plain_data
from runner.config.foreign_words import foreign_word, normal
from runner.config.guesses import address, calendar, event_pattern
from runner.config.positions import Lines
from runner.config.producer_spec import ProducerSpec
from runner.config.proposals import is_refused, proposals, refusal, value_of, written
from runner.config.queue_spec import BindSpec, ExchangeSpec, QueueSpec
from runner.config.spec import EventSpec, LoggingSpec, PipelineSpec, ResourceSpec, ShutdownSpec, TelemetrySpec
from runner.config.spec_model import SpecModel, model_keys
from runner.config.subscriber_spec import BatchSpec, DedupeSpec, RetrySpec, SubscriberSpec, TripSpec
from runner.config.suite_spec import (
    CaseSpec,
    DeadSpec,
    ExpectSpec,
    PublishedSpec,
    PublishSpec,
    ReplacementSpec,
    SuiteSpec,
)
from runner.config.target_spec import TargetSpec
from runner.config.validation import validate
from runner.config.yaml_parser import parse_yaml
from runner.errors import PipelineInvalid, Problem
from runner.operations.fixes import fixed_text
from runner.tables import read_table

ROWS = read_table("runner.config", "foreign_words.txt", 5)
MODELS: tuple[type[SpecModel], ...] = (
    *(PipelineSpec, SubscriberSpec, QueueSpec, ProducerSpec, EventSpec, TargetSpec, ExchangeSpec, RetrySpec, BatchSpec),
    *(TripSpec, DedupeSpec, BrokerSpec, TlsSpec, BindSpec, LoggingSpec, TelemetrySpec, ShutdownSpec, ResourceSpec),
)
MODELS_OF_TESTS: tuple[type[SpecModel], ...] = (
    *(SuiteSpec, CaseSpec, ReplacementSpec, ExpectSpec, PublishSpec, PublishedSpec, DeadSpec),
)
ITEMS = {
    "queue": "queues:\n",
    "event": "events:\n",
    "exchange": "exchanges:\n",
    "subscriber": "subscribers:\n",
    "producer": "producers:\n",
}
"""Where the items with the words of a place stand. The others are maps in a subscriber or a producer."""
INNER = {
    "retry": "retry: {%s}",
    "batch": "batch: {size: 5, %s}",
    "dedupe": "dedupe: {window: 1h, %s}",
    "trip": "trip: {%s}",
}
NEEDED = {"subscriber": "from: orders, handler: app:ship, ", "producer": "handler: app:place, to: orders, "}
VALUES = ("5", "60000", '"60000"', "true", "false", "PT2S", "1m30s", "orders", "0.2", "[1, 5, 15]", "{limit: 10, x: y}")
"""What other tools give their words: counts, durations in many forms, switches, names, lists and maps."""
_SNIPPET = re.compile(r"`([\w-]+: [^`]+)`|\"([\w-]+: [^\"`]+)\"")
_PLACEHOLDER = re.compile(r"…|\b[A-Z]{1,5}\b|<queue>|[{\[](?:\w+)[}|\]]")


def snippets(help_: str) -> Iterator[tuple[str, object]]:
    """Yield each key with the value that a help has for it."""
    for match in _SNIPPET.finditer(help_):
        text = match[1] or match[2]
        if not _PLACEHOLDER.search(text) and not text.endswith(":"):
            try:
                yield from plain_data(parse_yaml(text)[0].root).items()
            except PipelineInvalid:
                raise AssertionError(f"not YAML: {text}, in: {help_}") from None


def refused(help_: str) -> list[str]:
    """Return the keys and values in a help that no map of the language takes."""
    return [
        f"{key}: {value}"
        for key, value in snippets(help_)
        if (homes := [model for model in MODELS if key in model_keys(model)])
        and all(refusal(model, key, value) is not None for model in homes)
    ]


def pipeline(place: str, words: list[str], value: str) -> str:
    """Return a pipeline with an item for each word, which has the value."""
    home = place if place in ITEMS else "subscriber"
    text = f"version: 1\n{ITEMS[home]}"
    for index, word in enumerate(words):
        own = f"{word}: {value}"
        text += f"  item{index}: {{{NEEDED.get(home, '')}{INNER[place] % own if place in INNER else own}}}\n"
    return text


def problems_of(text: str) -> list[Problem]:
    document, problems = parse_yaml(text)
    return [*problems, *validate(document)[1]]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("place", [*ITEMS, *INNER])
def test_the_language_takes_what_a_help_says_to_write(place: str, value: str) -> None:
    """For the first word of each row, and for a fix: its problem is gone, and there is no error at its place."""
    words = [row[1].split()[0] for row in ROWS if row[0] == place]
    words = [word for word in words if not re.search(r"[=&:]", word)]
    text = pipeline(place, words, value)
    found = problems_of(text)
    assert [item.help for item in found if item.code == "unknown-key" and refused(item.help)] == []
    if value[0] in "[{":
        return  # what is wrong in it is a problem of its own
    fixes = [item for item in found if item.fix is not None and item.code == "unknown-key"]
    conflicts = ("conflicting-options", "several-sources")
    left = problems_of(fixed_text(text, fixes)[0])
    wrong = {(item.line, item.path) for item in left if item.severity == "error" and item.code not in conflicts}
    assert [item.help for item in fixes if any(line == item.line for line, _ in wrong)] == []


def test_the_language_takes_what_the_remarks_say_to_write() -> None:
    remarks = {remark: re.sub(r"\{=?\w+\|([^}]*)\}", r"\1", remark.replace("{=value}", "5")) for *_, remark in ROWS}
    wrong = {remark: found for remark, filled in remarks.items() if (found := refused(filled))}
    assert wrong == {}


def test_the_language_takes_what_the_help_for_a_file_says_to_write() -> None:
    wrong = {tool.name: found for tool in foreign_files.tools() if (found := refused(tool.help))}
    assert wrong == {}


def test_rows_name_keys_of_the_language() -> None:
    """A renamed key is one of the map of its place, or of the map below it."""
    places = {model.__name__.removesuffix("Spec").lower(): model for model in (*MODELS, *MODELS_OF_TESTS)}
    for place, words, key, how, _ in ROWS:
        if place in places and key != "-" and how not in ("!", "items"):
            assert key.partition(".")[0] in model_keys(places[place]), f"{place}: {words.split()[0]}"


def test_no_word_stands_in_two_rows_of_a_place() -> None:
    seen: set[tuple[str, str]] = set()
    for place, words, *_ in ROWS:
        for word in words.split() if "." not in place else ():
            assert (place, normal(word)) not in seen
            seen.add((place, normal(word)))


@pytest.mark.parametrize(
    ("model", "key", "value", "how", "texts"),
    [
        (RetrySpec, "delay", "PT2S", "?", ["2s"]),
        (ShutdownSpec, "grace", "1m30s", "?", ["90s"]),
        (TargetSpec, "expires", "60000", "ms", ["60s"]),
        (RetrySpec, "delay", 500, "?", ["500s", "500ms"]),
        (RetrySpec, "delay", {"seconds": 90}, "?", ["90s"]),
        (RetrySpec, "delay", [10, 20], "?", []),
        (RetrySpec, "attempts", 5, "retries", ["6"]),
        (RetrySpec, "attempts", "5", "tries", ["5"]),
        (RetrySpec, "attempts", "no_limits", "tries", []),
        (SubscriberSpec, "prefetch", {"prefetch_count": 50}, "=", ["50"]),
        (SubscriberSpec, "rate", {"max": 10, "duration": 1000}, "rate", ["10/s"]),
        (SubscriberSpec, "rate", {"limit": 600, "period": "1m"}, "rate", ["600/m"]),
        (LoggingSpec, "level", "INFO", "=", ["info"]),
        (LoggingSpec, "level", "WARN", "=", ["warning"]),
        (BrokerSpec, "vhost", "/prod", "vhost", ["prod"]),
        (ProducerSpec, "cron", {"hour": 3, "minute": 30}, "=", ['"30 3 * * *"']),
        (ProducerSpec, "enabled", "yes", "not", ["false"]),
        (ProducerSpec, "every", "rate(5 minutes)", "?", ["5m"]),
        (ProducerSpec, "file", {"path": "a.jsonl", "codec": "json"}, "=", ["a.jsonl"]),
    ],
)
def test_a_value_is_converted_by_its_key(
    model: type[SpecModel], key: str, value: object, how: str, texts: list[str]
) -> None:
    found = proposals(model, key, value, how)
    assert [item.text for item in found] == texts
    assert not any(is_refused(model, key, value_of(text)) for text in texts)


def test_what_a_value_leaves_out_is_said() -> None:
    """And it is no fix then."""
    (item,) = proposals(SubscriberSpec, "prefetch", {"prefetch_count": 50, "global": False})
    assert (item.text, item.condition, item.is_whole) == ("50", 'without "global"', False)


@pytest.mark.parametrize("value", ["a", "5", "a: b", "#a", "[x]", True, None, 5, 0.5, ["a", 1], {"a": {"b": "*"}}])
def test_a_value_is_written_as_yaml(value: object) -> None:
    assert plain_data(parse_yaml(f"x: {written(value)}")[0].root) == {"x": value}


@pytest.mark.parametrize(
    ("place", "word", "value", "siblings", "key", "how"),
    [
        ("subscriber", "ack_policy", "reject_on_error", (), "retry", ":none/none"),
        ("subscriber", "ack_policy", "manual", (), "", "!"),
        ("subscriber", "pool", "prefork", (), "run_in", ":process/process"),
        ("subscriber", "max_retries", 4, (), "retry.attempts", "retries"),
        ("subscriber", "max_retries", 4, ("retry_on_error",), "retry.attempts", "tries"),
        ("queue", "assert", False, (), "declare", "="),
        ("queue", "external", True, (), "declare", ":false/false"),
        ("broker", "protocol", "amqps", (), "tls", ":true/true"),
    ],
)
def test_a_value_and_its_neighbours_give_a_word_its_meaning(
    place: str, word: str, value: object, siblings: tuple[str, ...], key: str, how: str
) -> None:
    found = foreign_word(place, word, value, siblings)
    assert found is not None
    assert (found.key, found.how) == (key, how)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("order.>", "order.#"),
        ("order/+", "order.*"),
        ("order/#", "order.#"),
        (r"order\..*", "order.#"),
        (r"^order\.[^.]+$", "order.*"),
        ("order.**", "order.#"),
        ("orders", ""),
        ("order.*", ""),
        ("https://a/b", ""),
    ],
)
def test_patterns_of_other_brokers(text: str, pattern: str) -> None:
    assert event_pattern(text) == pattern


@pytest.mark.parametrize(
    ("text", "help_"),
    [
        ("https://sqs.eu-central-1.amazonaws.com/123/orders", 'write "orders": a name, not an address'),
        ("arn:aws:sqs:eu:1:orders", 'write "orders": a name, not an address'),
        ("projects/shop/topics/orders", 'write "orders": a name, not an address'),
        ("#/channels/orders", 'write "orders": a name, not an address'),
        (
            "camel:x?queues=orders&consumers=5",
            'write "orders" and "concurrency: 5": a name, not an address',
        ),
        ("https://host/other", "write the name of a queue or of an event, not an address"),
        ("orders", ""),
        ("order.placed", ""),
    ],
)
def test_addresses_in_place_of_names(text: str, help_: str) -> None:
    assert address(text, ["orders", "order.placed"]) == help_


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Mon..Fri *-*-* 06:30:00", "30 6 * * mon-fri"),
        ("*-*-01 00:00:00", "0 0 1 * *"),
        ("*:0/15", "*/15 * * * *"),
        ("weekdays at 6:30", "30 6 * * mon-fri"),
        ("every Monday 9am", "0 9 * * mon"),
        ("mon and thu 12:30 pm", "30 12 * * mon,thu"),
        ("daily 23:05", "5 23 * * *"),
        ("May 5:00", ""),
        ("0 6 * *", ""),
        ("25:00", ""),
    ],
)
def test_days_and_times_in_words(text: str, line: str) -> None:
    assert calendar(text) == line


SUBSCRIBER = "version: 1\nsubscribers:\n  ship: {{from: orders, handler: app:ship, {}}}\n"
PRODUCER = "version: 1\nproducers:\n  place: {{handler: app:place, to: orders, {}}}\n"
BROKER = "version: 1\nbroker: {{{}}}\n"
QUEUE = "version: 1\nqueues:\n  orders: {{{}}}\n"


@pytest.mark.parametrize(
    ("text", "helps"),
    [
        (
            SUBSCRIBER.format("retry_delay_seconds: [10, 20, 40], retries: 3"),
            [
                "there is no list of delays: write `attempts: 4`, `delay: 10s` and `max_delay: 40s` under `retry:` "
                '(the delay doubles), or `raise RetryLater(after="10s")` in the handler',
                'write "retry: {attempts: 4}" (attempts count the first try)',
            ],
        ),
        (
            SUBSCRIBER.format("delivery: {retry: 5, backoffPolicy: exponential, backoffDelay: PT2S}"),
            [
                'write "retry: {attempts: 6, backoff: exponential, delay: 2s}" (attempts count the first try), in '
                'place of "delivery"'
            ],
        ),
        (SUBSCRIBER.format("qos: {prefetch_count: 50}"), ['write "prefetch: 50"']),
        (
            SUBSCRIBER.format("messages_per_minute: 50"),
            ['write "rate: 50/m"'],
        ),
        (
            SUBSCRIBER.format("kill_after: 30"),
            ['write "timeout: 30s"'],
        ),
        (
            SUBSCRIBER.format("redelivery_pause: 5s, max_tries_per_message: 4"),
            ['write "retry: {delay: 5s, attempts: 4}", in place of "max_tries_per_message", too'],
        ),
        (
            SUBSCRIBER.format("on_failure: {retries: 3, workers: 4}"),
            [
                'remove "on_failure:", and move what is below it one level up',
                'write "retry: {attempts: 4}" (attempts count the first try)',
                'write "concurrency: 4"',
            ],
        ),
        (PRODUCER.format("schedule: {interval: 30, unit: seconds}"), ['write "every: 30s"']),
        (PRODUCER.format("OnCalendar: Mon..Fri 06:30:00"), ['write `cron: "30 6 * * mon-fri"`']),
        (
            SUBSCRIBER.format("concurrency: 8, prefetch_multiplier: 4"),
            ["write `prefetch:` with 4 times the concurrency, which is 8, in place of it"],
        ),
        (
            "version: 1\nproducers:\n  a: {handler: app:a, to: {exchange: '', routing_key: orders}}\n",
            ['write "to: orders": the default exchange has each queue by its name, in place of "routing_key", too'],
        ),
        (
            "version: 1\ntelemetry:\n  traces: {exporter: otlp, endpoint: 'http://collector:4318'}\n",
            [
                'write "traces: otlp", in place of the map; the variable '
                "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 says where to"
            ],
        ),
        (SUBSCRIBER.format("limiter: {max: 10, duration: 1000}"), ['write "rate: 10/s"']),
        (SUBSCRIBER.format("ack_policy: reject_on_error"), ['write "retry: none"']),
        (SUBSCRIBER.format("sessionId: customer"), ['write "order_by: customer" (a dotted path into the payload)']),
        (
            SUBSCRIBER.format("retry: {backoff: {type: exponential, delay: 1000}}"),
            [
                'write "backoff: exponential" and "delay: …" in place of it '
                "(1s if these are milliseconds, 1000s if seconds)"
            ],
        ),
        (
            SUBSCRIBER.format("batchSize: 10, maximumBatchingWindow: 5s"),
            ['write "batch: {size: 10, wait: 5s}", in place of "maximumBatchingWindow", too'],
        ),
        (SUBSCRIBER.format("batch_wait: 5s"), ['write "batch: {size: 200, wait: 5s}"']),
        (QUEUE.format("redeliveries: {limit: 10}"), ['write "delivery_limit: 10", in place of "redeliveries"']),
        (QUEUE.format("assert: false"), ['write "declare: false"']),
        (
            QUEUE.format("failure_ttl: 604800"),
            [
                "write it in the dead-letter queue, in place of it: `orders.dead: {message_ttl: …}` under `queues:` "
                "(604800ms if these are milliseconds, 604800s if seconds)"
            ],
        ),
        (
            QUEUE.format("requiresDuplicateDetection: true, duplicateDetectionHistoryTimeWindow: PT10M"),
            ["write `dedupe: 10m` in the subscriber that reads this queue, in place of it"] * 2,
        ),
        (
            "version: 1\nsubscribers: {}\nservices: {rabbit: {image: rabbitmq}}\n",
            ["remove it: these are containers; `runner export compose` writes such a file from a pipeline"],
        ),
        ("version: 1\nloglevel: INFO\n", ['write "logging: {level: info}"']),
        (
            "version: 1\nlogging: {level: {root: WARN, app: DEBUG}}\n",
            ['write "level: warning" and "levels: {app: debug}", the levels of single loggers'],
        ),
        (
            "version: 1\nbroker_url: amqp://u:S3CR3T@localhost//\n",
            ['write it as "broker: …", with another value: write one "/" at its end, for the virtual host "/"'],
        ),
        (
            BROKER.format("nodes: [a, b], credentials: {username: shop, password: x}"),
            [
                'remove "credentials:", and move what is below it one level up',
                "write `urls: [amqp://shop:***@a/, amqp://shop:***@b/]` with your password in place of ***, in place "
                'of "username" and "password", too',
            ],
        ),
        (
            QUEUE.format("limits: {max_messages: 100, max_size_mb: 5}"),
            [
                'remove "limits:", and move what is below it one level up',
                'write "max_length: 100"',
                'write "max_bytes: 5MB"',
            ],
        ),
        (
            SUBSCRIBER.format("kafka: {group.id: ship, max.poll.records: 10}"),
            [
                'remove "kafka:", and move what is below it one level up',
                "remove it: the processes of one subscriber share the messages; each other subscriber of an event gets "
                "a copy of its own",
                'write "prefetch: 10"',
            ],
        ),
        (
            SUBSCRIBER.format("options: {concurrency: 4, prefetch: 30}"),
            ['remove "options:", and move what is below it one level up'],
        ),
        (SUBSCRIBER.format("options: {concurrency: 4, limit: 30}"), ['write "with:"']),
        (
            SUBSCRIBER.format("batching: {max: 10, wait: 5s}"),
            ['write "batch:"', 'write "size: 10"'],
        ),
    ],
)
def test_what_is_to_be_written_is_said_at_once(text: str, helps: list[str]) -> None:
    found = [item.help for item in problems_of(text) if item.code in ("unknown-key", "bad-choice")]
    assert found == helps


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"nodes": [], "connections": {}}', "an n8n workflow"),
        ('{\n  "vhosts": {"/": {"queues": ["orders"]}}\n}', "a Rascal config"),
        ("nightly:\n  default_args: {}\n  tasks:\n    a:\n      operator: x", "a DAG file of Airflow"),
        ("deployments:\n  - name: a\n    entrypoint: app.py:report", "a prefect.yaml"),
        ("service: {flush: 1}\npipeline:\n  inputs: []", "a Fluent Bit config"),
        ("Resources:\n  Orders:\n    Type: AWS::SQS::Queue", "a CloudFormation template"),
        ("apiVersion: keda.sh/v1alpha1\nkind: ScaledObject", "a KEDA object"),
        ("apiVersion: argoproj.io/v1alpha1\nkind: Workflow", "an Argo workflow"),
        ("apiVersion: tekton.dev/v1\nkind: Pipeline", "a Tekton pipeline"),
        ("- route:\n    from: {uri: x}", "Camel routes"),
        ("- hosts: all\n  tasks: []", "an Ansible playbook"),
        ("input {\n  rabbitmq { }\n}", "a Logstash config"),
        (":concurrency: 10\n:queues:\n  - default", "a Sidekiq config"),
        ("persistence: {}\nservices: {frontend: {}}", "a Temporal config"),
        ("jetstream {\n  store_dir: x\n}", "a NATS configuration"),
        ("bootstrap.servers=localhost:9092", "Kafka's properties"),
        ('{"name": "x", "config": {"connector.class": "y"}}', "a Kafka Connect config"),
        ("spring:\n  rabbitmq: {host: x}", "a Spring configuration"),
        ('resource "rabbitmq_queue" "orders" {\n}', "a Terraform configuration"),
        ("worker: celery -A shop worker", "a Procfile"),
        ("[program:shop]\ncommand=x", "a supervisord config"),
        ("[Unit]\nDescription=x", "a systemd unit"),
        ("0 3 * * * python report.py", "a crontab"),
        ("version: 1\nrelease: 1.10\nsubscribers:\n  a: {}", None),
        ("version: 1\nrelease: abc def", None),
    ],
)
def test_a_file_of_another_tool_is_known_by_its_marks(text: str, name: str | None) -> None:
    found = foreign_files.foreign_file(Lines(text + "\n"))
    assert (found.message if found else None) == (f"this looks like {name}, not a pipeline" if name else None)
