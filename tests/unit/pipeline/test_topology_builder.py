"""The queues, exchanges and bindings of a spec, with their arguments."""

from __future__ import annotations

from typing import Any

import pytest

from runner.message import Address
from runner.pipeline.topology import Binding, Exchange, Queue
from tests.unit.pipeline.shop_pipelines import SUBSCRIBER, pipeline, queue


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


def test_a_classic_queue_without_a_subscriber_brings_no_other_queue() -> None:
    """A pipeline that only sends to a foreign queue declares only that queue."""
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


def test_a_queue_of_another_program_is_only_checked() -> None:
    """Messages that fail in the handler are kept in a dead-letter queue of the pipeline."""
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
    assert "x-delivery-limit" in queue(found, "shop.q.dead").arguments  # no queue dead-letters to it


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


def test_a_subscriber_of_a_dead_letter_queue_has_its_own_dead_letter_queue() -> None:
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


def test_partitions_are_queues_with_one_dead_letter_queue_and_a_queue_for_their_number() -> None:
    """The queue itself does not exist; the number is compared by the broker, as every other argument."""
    found = pipeline("queues: {q: {partitions: 3, partition_by: id, message_ttl: 1h}}\n" + SUBSCRIBER)
    parts = [queue(found, f"q.{number}") for number in range(3)]
    assert [item.name for item in found.topology.queues if ".retry." not in item.name] == [
        "q.dead",
        "q.partitions",
        *(part.name for part in parts),
    ]
    assert queue(found, "q.partitions").arguments == {"x-queue-type": "quorum", "x-max-length": 3}
    assert parts[0].arguments == parts[2].arguments
    assert parts[0].arguments["x-single-active-consumer"] is True
    assert parts[0].arguments["x-dead-letter-routing-key"] == "q.dead"
    (subscriber,) = found.subscribers
    assert (subscriber.queue, subscriber.queues, subscriber.prefetch) == ("q", ("q.0", "q.1", "q.2"), 33)
    assert subscriber.key_of is not None
