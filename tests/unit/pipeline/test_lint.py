"""Options that are allowed, but probably not meant, are warnings."""

from __future__ import annotations

import pytest

from tests.unit.pipeline.shop_pipelines import SUBSCRIBER, problems, resolved


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
def test_options_that_are_probably_not_meant_are_warnings(text: str, code: str) -> None:
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
def test_a_binding_can_be_the_subscriber_of_an_event(bind: str, is_heard: bool) -> None:
    """To the exchange that it is published to, with a key that lets it through."""
    found = problems(
        "exchanges: {logs: topic}\nevents: {e: {exchange: logs, key: auth.error}}\n"
        f"queues: {{q: {{bind: [{bind}]}}}}\nproducers: {{p: {{handler: 'H:produce', to: e}}}}\n" + SUBSCRIBER,
        "warning",
    )
    assert [code for code, _, _ in found if code != "empty-key"] == ([] if is_heard else ["unheard-event"])


def test_a_queue_that_another_program_reads_is_not_warned_of() -> None:
    assert problems("queues: {q: , bookings: {unread: ignore}}\n" + SUBSCRIBER, "warning") == []
