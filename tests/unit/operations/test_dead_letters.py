"""What a message in a dead-letter queue says of itself, whoever put it there, and what is sent back."""

from __future__ import annotations

import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import message as names
from runner.errors import PublishFailed
from runner.message import Envelope
from runner.operations.dead_letter_ops import replay_obstacle
from runner.operations.dead_letters import (
    DeadLetterFilter,
    DeadLetterMessage,
    DeadLetterQueue,
    parse_dead_letter,
    preserved_copy,
    replay_envelope,
)
from runner.outcome import DeadLetter as GivenUp
from runner.pipeline.partitioning import Partitioning
from runner.transports.amqp_limits import normalize_envelope
from runner.transports.base import Delivery, SubscriptionOptions
from runner.transports.failure_copies import dead_letter_copy
from tests.deliveries import delivery_of

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DLQ = DeadLetterQueue("orders.dead", frozenset({"orders", "shop.hear"}))
OPTIONS = SubscriptionOptions(
    queue="orders", prefetch=1, dead_letter="orders.dead", wait_prefix="shop.retry", subscriber="shop.handle"
)


def delivery(envelope: Envelope, exchange: str = "events", key: str = "order.paid") -> Delivery:
    return delivery_of(envelope, OPTIONS, exchange=exchange, routing_key=key)


def given_up(envelope: Envelope, **place: str) -> Envelope:
    """Return what the runner puts into the dead-letter queue."""
    outcome = GivenUp("exhausted", "ValueError", "no such order")
    return dead_letter_copy(delivery(envelope, **place), outcome, "orders.dead", NOW).envelope


def died(reason: str = "expired", queue: str = "orders", **headers: Any) -> Envelope:
    """Return what the broker puts into the dead-letter queue."""
    death = {
        "count": 1,
        "reason": reason,
        "queue": queue,
        "time": NOW,
        "exchange": "events",
        "routing-keys": ["order.paid"],
    }
    return Envelope(b"x", message_id="m", headers={"x-death": [death], "x-first-death-queue": queue, **headers})


def test_a_copy_of_ours_says_everything() -> None:
    """Reason, error, attempts, time, where it failed and where it was first published."""
    letter = parse_dead_letter(given_up(Envelope(b"body", message_id="m")), DLQ)
    assert (letter.by, letter.reason, letter.error_type, letter.error) == (
        "runner",
        "exhausted",
        "ValueError",
        "no such order",
    )
    assert (letter.id, letter.origin, letter.attempts, letter.size) == ("m", "orders", 1, 4)
    assert (letter.exchange, letter.routing_key, letter.subscriber) == ("events", "order.paid", "shop.handle")
    assert letter.age_s(NOW + timedelta(hours=1)) == 3600


def test_the_broker_tells_in_its_own_way() -> None:
    """Queue, reason, time and first destination are in `x-death`; it counts no attempts."""
    letter = parse_dead_letter(died("delivery_limit"), DLQ)
    assert (letter.by, letter.reason, letter.origin, letter.attempts) == ("broker", "delivery_limit", "orders", None)
    assert (letter.exchange, letter.routing_key, letter.since) == ("events", "order.paid", NOW)


def test_a_retry_that_the_broker_gave_up_keeps_its_first_destination() -> None:
    """It came by the default exchange, and its headers say from where it came before."""
    headers: dict[str, Any] = {
        names.ATTEMPT: 2,
        names.ORIGIN_EXCHANGE: "events",
        names.ORIGIN_KEY: "first",
        names.ORIGIN: "orders",
    }
    letter = parse_dead_letter(died("delivery_limit", **headers), DLQ)
    assert (letter.exchange, letter.routing_key, letter.by) == ("events", "first", "broker")


@pytest.mark.parametrize("origin", ["victim", "orders.dead", ""])
def test_a_queue_that_does_not_bury_here_is_no_origin(origin: str) -> None:
    """Whatever a message says of itself, it goes back only to a queue whose dead letters come here."""
    for envelope in (Envelope(b"", headers={names.REASON: "exhausted", names.ORIGIN: origin}), died(queue=origin)):
        letter = parse_dead_letter(envelope, DLQ)
        assert letter.origin is None
        assert replay_obstacle(letter)


def test_a_forged_origin_does_not_win_over_the_broker() -> None:
    """A foreign publisher can set the runner's headers; the broker's own header wins over them."""
    forged = {names.REASON: "exhausted", names.ORIGIN: "shop.hear"}
    assert parse_dead_letter(died(**forged), DLQ).origin == "orders"


def test_what_is_sent_back_is_as_it_first_came() -> None:
    """No error, no attempt, no deaths, no expiration; marked and counted, with its own headers and properties."""
    envelope = given_up(Envelope(b"body", message_id="m", type="order.paid", expiration_ms=5, headers={"mine": 1}))
    back = replay_envelope(parse_dead_letter(envelope, DLQ), NOW)
    assert back._replace(headers={}) == Envelope(b"body", message_id="m", type="order.paid")
    assert back.headers == {
        "mine": 1,
        names.ORIGIN_EXCHANGE: "events",
        names.ORIGIN_KEY: "order.paid",
        names.REPLAYED_AT: "2026-11-23T12:00:00+00:00",
        names.REPLAYS: 1,
    }


def test_replays_are_counted_on_and_the_first_destination_stays() -> None:
    """However often it fails again, after retries or at once."""
    envelope = Envelope(b"body", message_id="m")
    place = {"exchange": "events", "key": "order.paid"}
    for replays in range(1, 4):
        letter = parse_dead_letter(given_up(envelope, **place), DLQ)
        assert (letter.replays, letter.exchange, letter.routing_key) == (replays - 1, "events", "order.paid")
        envelope = replay_envelope(letter, NOW)
        assert envelope.headers[names.REPLAYS] == replays
        place = {"exchange": "", "key": "orders"}


@pytest.mark.parametrize("envelope", [given_up(Envelope(b"x", message_id="m")), died("maxlen")], ids=["ours", "broker"])
def test_the_copy_that_takes_its_place_says_the_same(envelope: Envelope) -> None:
    """But for who said it first, nothing is lost, also where RabbitMQ ignores an `x-death` that is published."""
    letter = parse_dead_letter(envelope, DLQ)
    copy = preserved_copy(letter)
    assert not [name for name in copy.headers if "death" in name]
    again = parse_dead_letter(copy, DLQ)
    for name in ("id", "by", "reason", "error_type", "error", "since", "origin", "exchange", "routing_key", "attempts"):
        assert getattr(again, name) == getattr(letter, name), name


_HEADERS = st.dictionaries(
    st.sampled_from(
        [names.REASON, names.ORIGIN, names.ATTEMPT, names.FIRST_FAILED_AT, names.REPLAYS, names.ERROR, "x-death", "CC"]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary() | st.datetimes(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["queue", "time", "reason"]), inner)
        ),
        max_leaves=8,
    ),
)


@given(headers=_HEADERS, body=st.binary(max_size=20))
def test_garbage_is_never_trusted_and_never_breaks_anything(headers: dict[str, Any], body: bytes) -> None:
    """Any headers make a dead letter that can be filtered, and that can be sent back if it says where it comes from."""
    letter: DeadLetterMessage = parse_dead_letter(Envelope(body, headers=headers), DLQ)
    assert letter.origin in (None, *DLQ.origins)
    assert letter.id.startswith("~")
    age_s = letter.age_s(NOW)
    assert age_s is None or age_s >= 0
    DeadLetterFilter(error="x", older_than_s=3.0).matches(letter, NOW)
    back = replay_envelope(letter, NOW)
    assert back.headers[names.REPLAYS] >= 1
    assert not {"x-death", "CC", names.REASON, names.ATTEMPT} & set(back.headers)
    assert normalize_envelope(back).body == body


@pytest.mark.parametrize(
    ("filters", "is_meant"),
    [
        (DeadLetterFilter(), True),
        (DeadLetterFilter(ids=frozenset({"m"})), True),
        (DeadLetterFilter(ids=frozenset({"n"})), False),
        (DeadLetterFilter(error="valueerror: NO SUCH"), True),
        (DeadLetterFilter(error="exhaust"), True),
        (DeadLetterFilter(error="timeout"), False),
        (DeadLetterFilter(older_than_s=60), True),
        (DeadLetterFilter(older_than_s=7200), False),
        (DeadLetterFilter(origin="orders"), True),
        (DeadLetterFilter(origin="shop.hear"), False),
        (DeadLetterFilter(ids=frozenset({"m"}), error="timeout"), False),
    ],
)
def test_all_filters_must_fit(filters: DeadLetterFilter, is_meant: bool) -> None:
    """An error is found in its type, its text or the reason, in any case."""
    letter = parse_dead_letter(given_up(Envelope(b"", message_id="m")), DLQ)
    assert filters.matches(letter, NOW + timedelta(hours=1)) is is_meant


ORDER = Envelope(
    b'{"customer": {"id": 7, "vip": true}, "items": [{"sku": "a"}]}',
    message_id="m",
    type="order.paid",
    headers={"tenant": "north", "n": 3},
)


@pytest.mark.parametrize(
    ("filters", "is_meant"),
    [
        (DeadLetterFilter(event="order.paid"), True),
        (DeadLetterFilter(event="order.*"), True),
        (DeadLetterFilter(event="order"), False),
        (DeadLetterFilter(headers=(("tenant", "north"), ("n", "3"))), True),
        (DeadLetterFilter(headers=(("tenant", None),)), True),
        (DeadLetterFilter(headers=(("tenant", "south"),)), False),
        (DeadLetterFilter(headers=(("region", None),)), False),
        (DeadLetterFilter(body=(("customer.id", "7"), ("customer.vip", "true"), ("items.0.sku", "a"))), True),
        (DeadLetterFilter(body=(("customer.id", "8"),)), False),
        (DeadLetterFilter(body=(("items.1.sku", "a"),)), False),
        (DeadLetterFilter(body=(("customer.name", "null"),)), False),
        (DeadLetterFilter(body=(("customer", '{"id": 7, "vip": true}'),)), True),
    ],
)
def test_filters_look_into_the_message(filters: DeadLetterFilter, is_meant: bool) -> None:
    """Its event, its headers, and values at paths of a JSON body; a body that is not JSON has none."""
    letter = parse_dead_letter(given_up(ORDER), DLQ)
    assert filters.matches(letter, NOW) is is_meant
    assert not filters.selects_all
    other = parse_dead_letter(given_up(Envelope(b"\xff not JSON"), key="other"), DLQ)
    assert not filters.matches(other, NOW)


def test_it_says_where_and_in_which_release_it_failed() -> None:
    """The host is that of the process; there is no release where the pipeline has none."""
    letter = parse_dead_letter(given_up(ORDER), DLQ)
    assert (letter.host, letter.release) == (socket.gethostname(), "")
    released = delivery_of(ORDER, replace(OPTIONS, release="v1.4"), exchange="events", routing_key="order.paid")
    copy = dead_letter_copy(released, GivenUp("rejected"), "orders.dead", NOW).envelope
    assert parse_dead_letter(copy, DLQ).release == "v1.4"


def test_what_is_edited_or_redirected_keeps_its_id_and_says_so() -> None:
    """A retry of it keeps the mark; elsewhere it does not claim the address of its first publication."""
    letter = parse_dead_letter(given_up(ORDER), DLQ)
    edited = replay_envelope(letter, NOW, edited=b"{}")
    assert (edited.body, edited.message_id) == (b"{}", "m")
    packed = replace(letter, envelope=letter.envelope._replace(content_encoding="gzip"))
    assert replay_envelope(packed, NOW).content_encoding == "gzip"
    assert replay_envelope(packed, NOW, edited=b"{}").content_encoding is None
    assert edited.headers[names.EDITED_AT] == NOW.isoformat()
    retried = dead_letter_copy(delivery(edited), GivenUp("exhausted"), "orders.dead", NOW + timedelta(days=1)).envelope
    again = replay_envelope(parse_dead_letter(retried, DLQ), NOW + timedelta(days=2))
    assert again.headers[names.EDITED_AT] == NOW.isoformat()
    redirected = replay_envelope(letter, NOW, is_redirected=True)
    assert names.EDITED_AT not in redirected.headers
    assert names.ORIGIN_KEY not in redirected.headers


def test_without_a_time_it_is_older_than_nothing() -> None:
    """The age of a message that the runner did not dead-letter is unknown."""
    assert not DeadLetterFilter(older_than_s=0.0).matches(parse_dead_letter(Envelope(b""), DLQ), NOW)


def test_a_dead_letter_of_a_partition_is_one_of_its_queue_and_goes_to_the_partition_of_its_key() -> None:
    """Also if the broker dead-lettered it, and from a partition that is not there any more."""
    partitioned = replace(DLQ, partitionings=(Partitioning("orders", 4, "customer"),))
    for claimed in ("orders.0", "orders.11"):
        letter = parse_dead_letter(died(queue=claimed), partitioned)
        assert (letter.origin, letter.claimed, letter.by) == ("orders", "orders", "broker")
    assert parse_dead_letter(died(queue="orders.x"), partitioned).origin is None
    assert partitioned.address_of("orders", Envelope(b'{"customer": "c-1"}')) == ("", "orders.2")
    assert partitioned.address_of("shop.hear", Envelope(b"x")) == ("", "shop.hear")
    with pytest.raises(PublishFailed, match="no key"):
        partitioned.address_of("orders", Envelope(b"x"))
