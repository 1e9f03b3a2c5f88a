"""A message's event: by its address, whoever publishes it, and by its type only beyond that."""

from __future__ import annotations

import pytest

from runner.message import Address
from runner.pipeline.event_names import event_of

EVENTS = {
    "order.paid": Address("events", "order.paid"),
    "order.shipped": Address("shop", "shipped"),
    "invoice.sent": Address("events", "sent"),
    "letter.sent": Address("events", "sent"),
}
JAVA = "com.example.OrderPaid"


@pytest.mark.parametrize(
    ("exchange", "key", "kind", "event"),
    [
        ("events", "order.paid", "order.paid", "order.paid"),
        ("events", "order.paid", None, "order.paid"),
        ("events", "order.paid", JAVA, "order.paid"),
        ("events", "order.paid", "order.shipped", "order.paid"),
        ("shop", "shipped", JAVA, "order.shipped"),
        ("events", "sent", "letter.sent", "letter.sent"),
        ("events", "sent", "invoice.sent", "invoice.sent"),
        ("events", "sent", JAVA, "invoice.sent"),
        ("events", "eu.order", "order.paid", "order.paid"),
        ("events", "order.refunded", JAVA, "order.refunded"),
        ("shop", "returned", None, "returned"),
        ("", "orders", "order.paid", "order.paid"),
        ("", "orders", JAVA, JAVA),
        ("", "orders", None, None),
        ("amq.topic", "sensor.1", None, None),
        ("amq.topic", "sensor.1", JAVA, JAVA),
    ],
)
def test_the_address_tells_the_event(exchange: str, key: str, kind: str | None, event: str | None) -> None:
    """Two events of one address are told apart by the type; another key on an exchange of events is a name."""
    assert event_of(EVENTS, "events")(exchange, key, kind) == event


def test_without_events_the_key_is_the_name_on_the_exchange_of_events() -> None:
    """A pattern hears what is declared in other pipelines."""
    find = event_of({}, "events")
    assert find("events", "order.paid", JAVA) == "order.paid"
    assert find("", "orders", JAVA) == JAVA
