"""What a retry or a dead letter carries along, and what it leaves behind."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import message as names
from runner.message import Envelope
from runner.outcome import DeadLetter, Retry
from runner.transports.amqp_limits import normalize_envelope
from runner.transports.base import Delivery, SubscriptionOptions
from runner.transports.failure_copies import (
    MAX_HEADER_BYTES,
    MAX_TRACEBACK_BYTES,
    dead_letter_copy,
    foreign_headers,
    printable,
    printable_lines,
    retry_copy,
)
from tests.deliveries import delivery_of as made

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
OPTIONS = SubscriptionOptions(
    queue="orders", prefetch=10, dead_letter="orders.dead", wait_prefix="shop.retry", subscriber="handle"
)


def delivery_of(exchange: str = "events", key: str = "order.paid", **envelope: Any) -> Delivery:
    """Return a delivery of an envelope with these properties."""
    return made(Envelope(b"body", **envelope), OPTIONS, exchange=exchange, routing_key=key)


def test_a_retry_goes_to_the_wait_queue_of_its_delay_with_the_way_back_as_its_key() -> None:
    """The delay is rounded up to two digits, the key names the queue to return to."""
    copy = retry_copy(delivery_of(), Retry(1.234, "ValueError", "broke"), NOW)
    assert (copy.address.exchange, copy.address.key) == ("shop.retry.1300", "orders")
    assert copy.envelope.headers == {
        names.ATTEMPT: 2,
        names.ERROR_TYPE: "ValueError",
        names.ERROR: "broke",
        names.FIRST_FAILED_AT: "2026-11-23T12:00:00+00:00",
        names.ORIGIN: "orders",
        names.ORIGIN_EXCHANGE: "events",
        names.ORIGIN_KEY: "order.paid",
        names.SUBSCRIBER: "handle",
    }


def test_everything_else_of_the_message_stays_as_it_was() -> None:
    """A retry is the same message: body, id and properties are those that were published."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    properties: dict[str, Any] = {
        "message_id": "1",
        "correlation_id": "2",
        "type": "order.paid",
        "app_id": "shop",
        "timestamp": moment,
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "reply_to": "answers",
        "priority": 4,
    }
    for copy in (
        retry_copy(delivery_of(**properties), Retry(1), NOW),
        dead_letter_copy(delivery_of(**properties), DeadLetter("rejected"), "orders.dead", NOW),
    ):
        assert copy.envelope._replace(headers={}) == Envelope(b"body", **properties, headers={})


@pytest.mark.parametrize(
    "header",
    [
        *("x-death", "x-first-death-queue", "x-last-death-reason", "x-delivery-count", "x-acquired-count"),
        *("CC", "BCC", "cc", "Bcc", "x-runner-forged", "x-runner-reason"),
    ],
)
def test_what_lost_a_message_or_let_it_escape_is_left_behind(header: str) -> None:
    """The broker's own headers, and those that send a message elsewhere, do not travel with a copy."""
    delivery = delivery_of(headers={header: ["victim"], "tenant": "x"}, expiration_ms=5)
    copy = retry_copy(delivery, Retry(1), NOW)
    assert header not in copy.envelope.headers
    assert (copy.envelope.headers["tenant"], copy.envelope.expiration_ms) == ("x", None)


def test_a_later_copy_keeps_where_the_message_came_from_and_when_it_first_failed() -> None:
    """After a retry the exchange and key are the wait queue's; those that count are carried along."""
    first = retry_copy(delivery_of(), Retry(1), NOW)
    second = delivery_of(exchange="", key="orders", headers=first.envelope.headers)
    copy = dead_letter_copy(second, DeadLetter("exhausted", "KeyError", "x"), "orders.dead", NOW + timedelta(hours=1))
    headers = copy.envelope.headers
    assert (copy.address.exchange, copy.address.key) == ("", "orders.dead")
    assert (headers[names.ATTEMPT], headers[names.REASON]) == (2, "exhausted")
    assert (headers[names.ORIGIN_EXCHANGE], headers[names.ORIGIN_KEY]) == ("events", "order.paid")
    assert headers[names.FIRST_FAILED_AT] == "2026-11-23T12:00:00+00:00"


@pytest.mark.parametrize("garbage", [0, -1, 10**9, "2", None, True, [1], 1.5])
def test_a_forged_attempt_counts_as_the_first(garbage: Any) -> None:
    """Garbage in our headers is ignored, never trusted."""
    delivery = delivery_of(headers={names.ATTEMPT: garbage, names.ORIGIN_KEY: "forged", names.FIRST_FAILED_AT: 7})
    headers = retry_copy(delivery, Retry(1), NOW).envelope.headers
    assert headers[names.ATTEMPT] == 2
    assert (headers[names.ORIGIN_KEY], headers[names.FIRST_FAILED_AT]) == ("order.paid", "2026-11-23T12:00:00+00:00")


@pytest.mark.parametrize("letter", ["x", "京", "🦀"])
def test_headers_that_would_not_fit_are_left_behind(letter: str) -> None:
    """A copy never has more bytes of headers than a broker takes, whatever a foreign publisher sent."""
    kept = foreign_headers({f"h{number}": letter * 1000 for number in range(100)})
    assert 0 < len(kept) < 100
    assert sum(len(name) + len(value.encode()) for name, value in kept.items()) <= MAX_HEADER_BYTES


@given(text=st.text(st.characters(exclude_categories=()), max_size=3000))
def test_error_texts_are_one_printable_line_that_any_broker_carries(text: str) -> None:
    """Control characters cannot reach a terminal or a log, and the text fits, whatever an exception says."""
    shown = printable(text)
    assert len(shown.encode()) <= 1024
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in shown)


@given(
    text=st.text(st.characters(exclude_categories=()), max_size=50),
    headers=st.dictionaries(st.text(max_size=20), st.text(max_size=20) | st.integers(-(2**63), 2**63 - 1), max_size=5),
)
def test_every_copy_can_be_published(text: str, headers: dict[str, Any]) -> None:
    """No error text and no header keeps a message from being retried."""
    copy = retry_copy(delivery_of(headers=headers), Retry(1, text, text), NOW)
    assert normalize_envelope(copy.envelope).body == b"body"


def test_what_was_sent_back_keeps_its_first_destination_and_is_counted() -> None:
    """`runner dead replay` puts it into its queue by name: when it fails again, that is not where it first went."""
    headers = {
        names.REPLAYS: 2,
        names.REPLAYED_AT: "2026-11-23T12:00:00+00:00",
        names.ORIGIN_EXCHANGE: "events",
        names.ORIGIN_KEY: "order.paid",
    }
    for copy in (
        retry_copy(delivery_of("", "orders", headers=headers), Retry(1.0, "E", "e"), NOW),
        dead_letter_copy(delivery_of("", "orders", headers=headers), DeadLetter("exhausted"), "orders.dead", NOW),
    ):
        assert {name: copy.envelope.headers[name] for name in headers} == headers


def test_a_count_of_replays_that_is_none_is_ignored() -> None:
    """Anybody may write a header."""
    for count in ("2", -1, True, None, 2**40):
        copy = retry_copy(delivery_of(headers={names.REPLAYS: count, names.ORIGIN_KEY: "forged"}), Retry(1.0), NOW)
        assert names.REPLAYS not in copy.envelope.headers
        assert copy.envelope.headers[names.ORIGIN_KEY] == "order.paid"


def test_a_dead_letter_carries_the_end_of_its_traceback() -> None:
    """Where it failed stands at the end; a retry and what is sent back carry none."""
    text = "Traceback (most recent call last):\n" + "  a frame\n" * 1000 + "KeyError: \x1b[31m amqp://u:S3CR3T@host"
    copy = dead_letter_copy(delivery_of(), DeadLetter("exhausted", traceback=text), "orders.dead", NOW)
    kept = copy.envelope.headers[names.TRACEBACK]
    assert kept.endswith("  a frame\nKeyError: \\x1b[31m amqp://u:***@host")
    assert len(kept.encode()) <= MAX_TRACEBACK_BYTES
    assert names.TRACEBACK not in dead_letter_copy(delivery_of(), DeadLetter("rejected"), "d", NOW).envelope.headers
    assert foreign_headers(copy.envelope.headers) == {}


@given(text=st.text(st.characters(exclude_categories=()), max_size=3000))
def test_tracebacks_are_printable_lines_that_any_broker_carries(text: str) -> None:
    lines = printable_lines(text)
    assert len(lines.encode()) <= MAX_TRACEBACK_BYTES
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in lines.replace("\n", ""))
