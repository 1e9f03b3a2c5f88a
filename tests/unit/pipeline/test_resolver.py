"""A spec becomes what will run, or every problem that stands in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.config.loader import load_text
from runner.message import Address
from runner.pipeline.model import Pipeline
from runner.pipeline.resolver import Resolved, resolve
from runner.pipeline.topology import Binding, Exchange, Queue

HERE = "tests.unit.pipeline.sample_handlers"


def resolved(text: str, **environ: str) -> Resolved:
    """Resolve a pipeline called `shop`, with `version: 1` added and `H:` standing for the sample handlers' module."""
    text = "version: 1\nname: shop\n" + text.replace("H:", f"{HERE}:")
    return resolve(load_text(text, Path("shop.yaml"), environ))


def pipeline(text: str, **environ: str) -> Pipeline:
    found = resolved(text, **environ)
    assert found.pipeline is not None, found.problems
    return found.pipeline


def problems(text: str, severity: str = "error") -> list[tuple[str, str, str]]:
    return [(item.code, item.path, item.help) for item in resolved(text).problems if item.severity == severity]


def queue(found: Pipeline, name: str) -> Queue:
    return next(item for item in found.topology.queues if item.name == name)


SUBSCRIBER = "subscribers:\n  s: {from: q, handler: 'H:handle'}\n"


def test_a_quorum_queue_comes_with_dead_letters_and_waits() -> None:
    """Nothing but its name was written."""
    found = pipeline("queues: {q: }\n" + SUBSCRIBER)
    assert queue(found, "q").arguments == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "q.dead",
        "x-dead-letter-strategy": "at-least-once",
    }
    assert queue(found, "q.dead") == Queue("q.dead", arguments={"x-queue-type": "quorum"})
    assert queue(found, "shop.retry.1000").arguments["x-message-ttl"] == 1000
    assert [item.name for item in found.topology.queues if ".retry." in item.name] == [
        "shop.retry.1000",
        "shop.retry.2000",
    ]
    assert Exchange("shop.retry.1000", "fanout") in found.topology.exchanges


def test_a_plain_classic_queue_has_no_arguments() -> None:
    """It equals a plain queue_declare of any other client."""
    found = pipeline("queues: {q: {type: classic, durable: false}}\n" + SUBSCRIBER)
    assert queue(found, "q") == Queue("q", durable=False)
    assert queue(found, "q.dead").durable


def test_a_classic_queue_that_nobody_reads_here_brings_no_other_queue() -> None:
    """A pipeline that only sends to somebody else's queue declares that queue alone."""
    found = pipeline("queues: {q: {type: classic, durable: false}}\nproducers: {p: {handler: 'H:produce', to: q}}\n")
    assert found.topology.queues == (Queue("q", durable=False),)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ("type: classic, max_length: 5", {"x-max-length": 5, "x-overflow": "reject-publish"}),
        ("type: classic, max_bytes: 1kB", {"x-max-length-bytes": 1000, "x-overflow": "reject-publish"}),
        ("type: classic, max_priority: 5", {"x-max-priority": 5}),
        ("type: classic, single_active_consumer: true", {"x-single-active-consumer": True}),
        ("type: classic, arguments: {x-queue-mode: lazy}", {"x-queue-mode": "lazy"}),
        (
            "type: classic, message_ttl: 1m",
            {"x-message-ttl": 60_000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q.dead"},
        ),
        (
            "type: classic, dead_letter: lost",
            {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "lost"},
        ),
        ("dead_letter: false", {"x-queue-type": "quorum", "x-delivery-limit": 20, "x-overflow": "reject-publish"}),
        (
            "delivery_limit: 3, max_length: 5, overflow: drop-head",
            {
                "x-queue-type": "quorum",
                "x-delivery-limit": 3,
                "x-max-length": 5,
                "x-overflow": "drop-head",
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "q.dead",
            },
        ),
    ],
)
def test_typed_options_become_arguments(options: str, arguments: dict[str, Any]) -> None:
    """Each key, as RabbitMQ spells it."""
    assert queue(pipeline(f"queues: {{q: {{{options}}}}}\n" + SUBSCRIBER), "q").arguments == arguments


def test_a_queue_of_somebody_else_is_only_checked() -> None:
    """But what fails in our handler is kept in a dead-letter queue of ours."""
    found = pipeline("queues: {q: {declare: false}}\n" + SUBSCRIBER)
    assert not queue(found, "q").declare
    assert queue(found, "q.dead").declare


@pytest.mark.parametrize("written", ["", "{}", "{dead_letter: false}", "{schema: 'H:Order'}", "{type: quorum}"])
def test_a_dead_letter_queue_can_be_declared_when_it_exists(written: str) -> None:
    """Without options of its own it is what it is undeclared, so that it can be read on any broker."""
    alone = pipeline("queues: {q: {}}\n" + SUBSCRIBER)
    found = pipeline(f"queues: {{q: {{}}, q.dead: {written}}}\n" + SUBSCRIBER)
    assert queue(found, "q.dead") == queue(alone, "q.dead") == Queue("q.dead", arguments={"x-queue-type": "quorum"})
    assert {item.name: item for item in found.topology.queues} == {item.name: item for item in alone.topology.queues}
    assert "q.dead" in found.destinations


def test_a_named_dead_letter_queue_and_that_of_an_own_queue_can_be_declared_too() -> None:
    """Every dead-letter queue of the pipeline."""
    found = pipeline(
        "events: {e: }\nqueues: {q: {dead_letter: lost}, lost: , shop.hear.dead: , shop.q.dead: }\n"
        "subscribers: {s: {from: q, handler: 'H:handle'}, hear: {from: e, handler: 'H:handle'}}\n"
    )
    for name in ("lost", "shop.hear.dead"):
        assert queue(found, name) == Queue(name, arguments={"x-queue-type": "quorum"})
    assert "x-delivery-limit" in queue(found, "shop.q.dead").arguments  # nobody's dead letters go there


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("type: classic", {}),
        ("delivery_limit: 20", {"x-delivery-limit": 20, "x-dead-letter-routing-key": "q.dead.dead"}),
        ("max_length: 5, dead_letter: false", {"x-max-length": 5, "x-delivery-limit": 20}),
        ("dead_letter: more", {"x-dead-letter-routing-key": "more"}),
    ],
)
def test_what_is_written_of_a_dead_letter_queue_counts(written: str, expected: dict[str, Any]) -> None:
    """With an option it is a queue like any other."""
    arguments = queue(pipeline(f"queues: {{q: , q.dead: {{{written}}}}}\n" + SUBSCRIBER), "q.dead").arguments
    assert arguments.items() >= expected.items()
    assert arguments != {"x-queue-type": "quorum"}


def test_who_reads_a_dead_letter_queue_has_one_of_its_own() -> None:
    """What fails a second time is kept, too; the queue itself stays as it was."""
    reading = SUBSCRIBER + "  mend: {from: q.dead, handler: 'H:handle'}\n"
    found = pipeline("queues: {q: , q.dead: }\n" + reading)
    assert queue(found, "q.dead").arguments == {"x-queue-type": "quorum"}
    assert queue(found, "q.dead.dead").declare
    assert found.subscribers[1].dead_letter == "q.dead.dead"
    ordered = pipeline("queues: {q: , q.dead: }\n" + reading.replace("q.dead,", "q.dead, order_by: id,"))
    assert queue(ordered, "q.dead").arguments == {"x-queue-type": "quorum", "x-single-active-consumer": True}


def test_each_subscriber_of_an_event_has_a_queue_of_its_own() -> None:
    """Named after the pipeline and the subscriber, bound to the event."""
    found = pipeline(
        "events: {order.paid: , order.sent: {exchange: other, key: k.e.y}}\n"
        "subscribers:\n"
        "  one: {from: order.paid, handler: 'H:handle', queue: {type: classic}}\n"
        "  all: {from: 'order.*', handler: 'H:handle'}\n"
        "  two: {from: [order.paid, order.sent], handler: 'H:handle'}\n"
    )
    assert queue(found, "shop.one").arguments == {}
    assert Binding("events", "shop.one", "order.paid") in found.topology.bindings
    heard = {(item.exchange, item.key) for item in found.topology.bindings if item.queue == "shop.all"}
    assert heard == {("events", "order.*"), ("other", "k.e.y")}
    heard = {(item.exchange, item.key) for item in found.topology.bindings if item.queue == "shop.two"}
    assert heard == {("events", "order.paid"), ("other", "k.e.y")}
    assert all(Exchange(name) in found.topology.exchanges for name in ("events", "other"))
    assert found.destinations["order.sent"].address == Address("other", "k.e.y")
    assert [item.event_patterns for item in found.subscribers] == [
        ("order.paid",),
        ("order.paid", "order.sent"),
        ("order.paid", "order.sent"),
    ]


def test_queues_can_be_bound_to_exchanges_of_other_programs() -> None:
    """By key, and by headers."""
    found = pipeline(
        "exchanges: {erp: topic, hdr: {type: headers, declare: false}}\n"
        "queues:\n  q:\n    bind: [{exchange: erp, key: 'stock.#'}, {exchange: hdr, headers: {kind: pdf}, match: any}]\n"
        + SUBSCRIBER
    )
    assert Binding("erp", "q", "stock.#") in found.topology.bindings
    assert Binding("hdr", "q", "", {"kind": "pdf", "x-match": "any"}) in found.topology.bindings
    assert Exchange("hdr", "headers", declare=False) in found.topology.exchanges


def test_defaults_and_derived_values() -> None:
    """What is not written is filled in, once, here."""
    found = pipeline("defaults: {subscriber: {concurrency: 4, timeout: 5s}}\nqueues: {q: }\n" + SUBSCRIBER)
    subscriber = found.subscribers[0]
    assert (subscriber.concurrency, subscriber.prefetch, subscriber.timeout_s) == (4, 8, 5.0)
    assert subscriber.retry.attempts == 3
    assert subscriber.dead_letter == "q.dead"
    assert found.broker.is_memory
    assert found.grace_s == 30.0


def test_the_brokers_password_is_in_no_repr() -> None:
    """Whoever prints a Pipeline prints no secret."""
    found = pipeline("broker: '${URL}'\nqueues: {q: }\n" + SUBSCRIBER, URL="amqp://user:s3cret@host/v")
    assert found.broker.urls == ("amqp://user:s3cret@host/v",)
    assert "s3cret" not in repr(found)
    assert found.broker.shown() == "amqp://user:***@host/v"


@pytest.mark.parametrize(
    ("text", "code", "path", "hint"),
    [
        ("queues: {q: }\nevents: {q: }\n" + SUBSCRIBER, "name-clash", "events.q", "rename"),
        ("queues: {qu: }\n" + SUBSCRIBER, "unknown-name", "subscribers.s.from", 'did you mean "qu"?'),
        ("queues: {other_one: }\n" + SUBSCRIBER, "unknown-name", "subscribers.s.from", "add it under"),
        ("queues: {q: }\nproducers: {p: {handler: 'H:produce', to: [q, qq]}}", "unknown-name", "producers.p.to.1", '"q"'),
        ("queues: {q: {events: [nope]}}\n" + SUBSCRIBER, "unknown-name", "queues.q.events.0", "events:"),
        ("queues: {q: {bind: [{exchange: nope}]}}\n" + SUBSCRIBER, "unknown-name", "queues.q.bind.0.exchange", "exchanges:"),
        ("queues: {a: , b: }\nsubscribers: {s: {from: [a, b], handler: 'H:handle'}}", "bad-source", "subscribers.s.from.0", "one"),
        ("queues: {q: }\nsubscribers: {s: {from: q, queue: {type: classic}, handler: 'H:handle'}}", "bad-source", "subscribers.s.queue", "queues: q:"),
        ("queues: {shop.s: }\nevents: {e: }\nsubscribers: {s: {from: e, handler: 'H:handle'}}", "name-clash", "subscribers.s", "rename"),
        ("exchanges: {f: fanout}\nevents: {e: {exchange: f}}\nsubscribers: {s: {from: e, handler: 'H:handle'}}", "bad-exchange", "events.e.exchange", "topic"),
        ("queues: {q: }\nsubscribers: {s: {from: q, handler: 'H:handel'}}", "attribute-not-found", "subscribers.s.handler", '"handle"'),
        ("queues: {q: }\nsubscribers: {s: {from: q, handler: 'H:handle', with: {a: 1}}}", "wrong-parameters", "subscribers.s.handler", "with"),
        ("queues: {q: {schema: 'H:NotASchema'}}\n" + SUBSCRIBER, "bad-schema", "queues.q.schema", "model"),
        ("queues: {q: {schema: 'H:Order'}}\nsubscribers: {s: {from: q, handler: 'H:takes_other'}}", "schema-mismatch", "subscribers.s.handler", "Order"),
        ("events: {a: 'H:Order', b: 'H:Other'}\nsubscribers: {s: {from: [a, b], handler: 'H:takes_other'}}", "schema-mismatch", "subscribers.s.handler", "with Order | Other"),
        ("queues: {q: {schema: 'H:Order'}}\nsubscribers: {s: {from: q, handler: 'H:handle', order_by: customer.id}}", "bad-payload-path", "subscribers.s.order_by", "one of: id"),
        ("exchanges: {x: topic}\nqueues: {q: }\nproducers: {p: {handler: 'H:produce', to: x}}\n" + SUBSCRIBER, "unknown-name", "producers.p.to", "exchange: x"),
        ("exchanges: {x: topic}\nsubscribers: {s: {from: x, handler: 'H:handle'}}", "unknown-name", "subscribers.s.from", "bind"),
        ("resources: {db: 'H:produce'}", "bad-factory", "resources.db.factory", "@contextlib.contextmanager"),
        ("resources: {db: 'H:produce_async'}", "bad-factory", "resources.db.factory", "@contextlib.asynccontextmanager"),
        ("resources: {db: {factory: 'H:needs', with: {path: '${NOPE}'}}}", "unset-variable", "resources.db.with.path", ""),
        ("queues: {q: }\nsubscribers: {s: {from: q, handler: 'H:handle', run_in: thread}}", "bad-run-in", "subscribers.s.run_in", "def"),
        ("queues: {q: }\nsubscribers: {s: {from: q, handler: 'H:handle', retry: {on: ['H:Order']}}}", "not-an-exception", "subscribers.s.retry.on.0", "Exception"),
    ],
)  # fmt: skip
def test_a_name_that_leads_nowhere_is_an_error(text: str, code: str, path: str, hint: str) -> None:
    """With its place, and what to write."""
    (found,) = problems(text)
    assert found[:2] == (code, path)
    assert hint in found[2]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("queues: {q: , unread: }\n" + SUBSCRIBER, "unread-queue"),
        ("queues: {q: }\nevents: {e: }\n" + SUBSCRIBER, "unheard-event"),
        ("queues: {q: }\nevents: {e: }\nproducers: {p: {handler: 'H:produce', to: q}}\nsubscribers: {s: {from: q, handler: 'H:handle'}, t: {from: e, handler: 'H:handle'}}", "unpublished-event"),
        ("queues: {q: , r: }\nsubscribers: {s: {from: q, to: r, handler: 'H:handle'}, t: {from: r, to: q, handler: 'H:handle'}}", "cycle"),
        ("queues: {q: {dead_letter: false}}\n" + SUBSCRIBER, "drops-failures"),
        ("broker: amqp://u:p@h\nqueues: {q: }\n" + SUBSCRIBER, "plain-password"),
        ("broker: {urls: ['amqp://h:1', 'amqp://u:p@h']}\nqueues: {q: }\n" + SUBSCRIBER.replace("amqp://h:1", "x"), "plain-password"),
        ("queues: {q: }\nsubscribers: {s: {from: q, timeout: 1h, handler: 'H:handle'}}", "long-timeout"),
        ("events: {e: }\nsubscribers: {s: {from: 'other.*', handler: 'H:handle'}, t: {from: e, handler: 'H:handle'}}", "unmatched-pattern"),
    ],
)  # fmt: skip
def test_the_legal_but_odd_is_a_warning(text: str, code: str) -> None:
    """It does not stop `up`, and says what would surprise."""
    if "amqp://h:1" in text:
        text = text.replace("amqp://h:1", "amqp://localhost")
    assert code in [found[0] for found in problems(text, "warning")]
    assert not problems(text)


def test_good_examples_have_no_problems() -> None:
    """No warning cries wolf."""
    assert not resolved("queues: {q: }\n" + SUBSCRIBER).problems
    assert not resolved("broker: '${U}'\nqueues: {q: }\n" + SUBSCRIBER, U="amqp://u:p@h").problems
    heard = (
        "events: {a: 'H:Order', b: 'H:Other', c: }\nsubscribers: {s: {from: [a, b], handler: 'H:handle', order_by: id}}"
    )
    assert not [item for item in resolved(heard).problems if item.path != "events.c"]


@pytest.mark.parametrize(
    ("bind", "is_heard"),
    [
        ("{exchange: logs, key: '*.error'}", True),
        ("{exchange: logs, key: auth.error}", True),
        ("{exchange: logs, key: '*.info'}", False),
        ("{exchange: logs}", False),
        ("{exchange: amq.topic, key: '#'}", False),
    ],
)
def test_an_event_is_heard_by_a_binding(bind: str, is_heard: bool) -> None:
    """To the exchange that it is published to, with a key that lets it through."""
    found = problems(
        "exchanges: {logs: topic}\nevents: {e: {exchange: logs, key: auth.error}}\n"
        f"queues: {{q: {{bind: [{bind}]}}}}\nproducers: {{p: {{handler: 'H:produce', to: e}}}}\n" + SUBSCRIBER,
        "warning",
    )
    assert [code for code, _, _ in found if code != "empty-key"] == ([] if is_heard else ["unheard-event"])


def test_all_problems_are_reported_at_once() -> None:
    """Names and imports too, not only the first kind."""
    text = (
        "queues: {q: {schema: 'H:Nope', tipe: classic}}\n"
        "producers: {p: {handler: 'nowhere:f', to: r}}\n"
        "subscribers: {s: {from: x, handler: 'H:nothing_like_it', timeout: 5, retry: {on: ['H:Nope']}}}\n"
    )
    assert len(problems(text)) == 8


def test_the_content_hash_changes_with_any_value_but_the_broker() -> None:
    """Two machines that run the same file against different brokers have the same one; another limit is another file."""
    text = f"broker: amqp://a:one@first\nqueues: {{q: {{}}}}\n{SUBSCRIBER}"
    first = pipeline(text)
    assert pipeline(text).content_hash == first.content_hash
    assert pipeline(text.replace("a:one@first", "b:two@second")).content_hash == first.content_hash
    other = pipeline(text.replace("from: q,", "from: q, concurrency: 3,"))
    assert other.fingerprint == first.fingerprint
    assert other.content_hash != first.content_hash
    variable = text.replace("from: q,", "from: q, concurrency: '${N}',")
    assert pipeline(variable, N="3").content_hash == other.content_hash
