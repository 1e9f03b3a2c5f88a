"""Promises 1, 2, 11, 12 and 16: what is published arrives, where it should, once the broker has taken it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from runner.errors import PublishFailed
from runner.message import MAX_BODY_BYTES, Address, Envelope
from runner.outcome import Retry
from runner.pipeline.topology import Binding
from tests.conformance.harness import Harness, bodies, text, to_queue

FULL = Envelope(
    bytes(range(256)),
    message_id="b6c1-1",
    correlation_id="order-7",
    type="order.paid",
    app_id="shop",
    timestamp=datetime(2026, 11, 23, 12, 30, 15, tzinfo=UTC),
    content_type="application/json",
    content_encoding="utf-8",
    reply_to="answers",
    priority=3,
    headers={"tenant": "münchen"},
)

TOPICS = [
    ("logs.#", "logs", True),
    ("#.error", "error", True),
    ("a.#.z", "a.z", True),
    ("a.#.z", "a.b.c.z", True),
    ("a.#.z", "a.z.b", False),
    ("#.#", "a", True),
    ("a.#.b.#", "a.x.b", True),
    ("a.#.b.#.c", "a.b.b.c.c", True),
    ("#", "", True),
    ("#", "a.b.c.d", True),
    ("", "", True),
    ("", "a", False),
    ("*", "", False),
    ("*", "a", True),
    ("*", "a.b", False),
    ("*.x", ".x", True),
    ("*.*", ".", True),
    ("a.*", "a.", True),
    ("a.*", "a", False),
    ("a.*.b", "a..b", True),
    ("a.b", "a..b", False),
    ("*.#", "", False),
    ("#.*", "a", True),
    ("*.#.*", "a", False),
    ("#.a.#.a", "a", False),
    ("#.a.#.a", "a.a", True),
    (".#", "", False),
    (".#", ".a", True),
    ("a*", "ab", False),
    ("a*", "a*", True),
    ("##", "a", False),
    ("order.paid", "Order.Paid", False),
]

HEADERS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"kind": "pdf", "size": 1}, {"kind": "pdf", "size": 1, "more": True}, True),
    ({"x-match": "all", "kind": "pdf", "size": 1}, {"kind": "pdf"}, False),
    ({"x-match": "any", "kind": "pdf", "size": 1}, {"size": 1}, True),
    ({"x-match": "any", "kind": "pdf", "size": 1}, {"size": 2}, False),
    ({"x-match": "all", "x-kind": "pdf"}, {}, True),
    ({"x-match": "any", "x-kind": "pdf"}, {"x-kind": "pdf"}, False),
    ({"x-match": "all-with-x", "x-kind": "pdf"}, {}, False),
    ({"x-match": "all-with-x", "x-kind": "pdf"}, {"x-kind": "pdf"}, True),
    ({"x-match": "any-with-x", "x-kind": "pdf", "a": 1}, {"x-kind": "pdf"}, True),
    ({"kind": None}, {"kind": "anything"}, True),
    ({"kind": None}, {"other": 1}, False),
    ({"size": 1}, {"size": "1"}, False),
    ({"size": 1}, {"size": True}, False),
    ({"size": 1.5}, {"size": 1.5}, True),
    ({"list": [1]}, {"list": [1]}, True),
    ({"list": [1]}, {"list": [1.0]}, False),
    ({"map": {"a": 1}}, {"map": {"a": 1.0}}, False),
    ({"size": 70_000}, {"size": 70_000}, True),
    ({"Kind": "pdf"}, {"kind": "pdf"}, False),
    ({"x-match": "any"}, {"a": 1}, False),
    ({}, {}, True),
]


@pytest.mark.parametrize(
    "envelope",
    [FULL, Envelope(b""), Envelope(b"\x00" * 1_000_000, message_id="big"), text("no id")],
    ids=["full", "empty", "one-megabyte", "bare"],
)
async def test_01_what_is_published_arrives_with_equal_bytes_and_properties(
    harness: Harness, envelope: Envelope
) -> None:
    """A message arrives byte for byte, with every property that it was sent with and no other."""
    session, queue, inbox = await harness.one_inbox("work")
    await session.publish(to_queue(queue), envelope)
    delivery = await inbox.next()
    arrived = delivery.envelope._replace(headers=dict(delivery.envelope.headers))
    if envelope.message_id is None:  # RabbitMQ's client gives an id to a message that has none
        arrived = arrived._replace(message_id=None)
    assert arrived == envelope._replace(headers=dict(envelope.headers))
    assert (delivery.exchange, delivery.routing_key) == ("", queue.name)
    assert (delivery.attempt, delivery.is_redelivered, delivery.failed_deliveries) == (1, False, 0)


@pytest.mark.parametrize(
    "value",
    [
        "text ✓",
        "",
        True,
        False,
        0,
        -129,
        70_000,
        2**63 - 1,
        -(2**63),
        0.5,
        Decimal("12.50"),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        None,
        [],
        [1, "two", [3.0, None]],
        {"deep": {"er": [True]}},
        b"\xff\x00",
        Decimal("-12.50"),
    ],
    ids=repr,
)
async def test_01_each_kind_of_header_arrives_as_it_was_sent(harness: Harness, value: Any) -> None:
    """A header keeps its value and its type."""
    session, queue, inbox = await harness.one_inbox("work")
    await session.publish(to_queue(queue), text("x", headers={"value": value}))
    arrived = (await inbox.next()).envelope.headers["value"]
    assert arrived == value
    assert type(arrived) is type(value)


async def test_01_a_number_in_a_header_keeps_its_precision(harness: Harness) -> None:
    """A header of 0.1 arrives as 0.1."""
    harness.needs("doubles")
    session, queue, inbox = await harness.one_inbox("work")
    await session.publish(to_queue(queue), text("x", headers={"value": 0.1}))
    assert (await inbox.next()).envelope.headers["value"] == 0.1


async def test_01_times_arrive_in_whole_seconds_utc(harness: Harness) -> None:
    """A timestamp has the resolution of AMQP: whole seconds, UTC."""
    session, queue, inbox = await harness.one_inbox("work")
    moment = datetime(2026, 11, 23, 12, 30, 15, 999_999, tzinfo=UTC)
    await session.publish(to_queue(queue), text("x", timestamp=moment))
    assert (await inbox.next()).envelope.timestamp == moment.replace(microsecond=0)


async def test_01_a_publisher_that_changes_its_headers_later_changes_no_message(harness: Harness) -> None:
    """What is published is what was given at that moment."""
    session, queue = await harness.one_queue("work")
    headers: dict[str, Any] = {"list": [1], "map": {"a": 1}}
    await session.publish(to_queue(queue), text("x", headers=headers))
    headers["list"].append(2)
    headers["map"]["a"] = 2
    inbox = await harness.collect(session, queue)
    assert dict((await inbox.next()).envelope.headers) == {"list": [1], "map": {"a": 1}}


async def test_02_an_event_reaches_every_queue_whose_pattern_matches_and_no_other(harness: Harness) -> None:
    """`*` is exactly one word, `#` any number of words, none included."""
    session, exchange = await harness.session(), harness.exchange("events")
    queues = {pattern: harness.queue(f"q{number}") for number, (pattern, *_) in enumerate(TOPICS)}
    bindings = [Binding(exchange.name, queue.name, pattern) for pattern, queue in queues.items()]
    catch_all = harness.queue("all")
    await harness.declare(
        session, exchange, *queues.values(), catch_all, *bindings, Binding(exchange.name, catch_all.name, "#")
    )
    keys = list(dict.fromkeys(key for _, key, _ in TOPICS))
    for key in keys:
        await session.publish(Address(exchange.name, key), text(f"key:{key}"))
    for pattern, queue in queues.items():
        await session.publish(to_queue(queue), text("end"))
        inbox = await harness.collect(session, queue, prefetch=100)
        arrived: list[str] = []
        while (body := (await inbox.next()).envelope.body.decode()) != "end":
            arrived.append(body)
        for key in (key for known, key, _ in TOPICS if known == pattern):
            is_wanted = (pattern, key, True) in TOPICS
            assert (f"key:{key}" in arrived) is is_wanted, f"{pattern!r} and {key!r}"
        assert len(arrived) == len(set(arrived))


async def test_02_a_headers_exchange_looks_at_the_headers(harness: Harness) -> None:
    """`x-match` all or any, with or without the headers that start with `x-`."""
    session, _ = await harness.one_queue("fallback")
    numbers = ({"size": 1}, {"size": 1.0}, harness.line < (4, 0))  # RabbitMQ compares their types, too, since 4.0
    for number, (arguments, headers, is_wanted) in enumerate([*HEADERS, numbers]):
        exchange, queue = harness.exchange(f"headers{number}", "headers"), harness.queue("work")
        await harness.declare(session, exchange, queue, Binding(exchange.name, queue.name, "", arguments))
        try:
            await session.publish(Address(exchange.name, "any.key"), text("x", headers=headers))
            has_arrived = True
        except PublishFailed as failure:
            if failure.reason != "unroutable":
                raise
            has_arrived = False
        assert has_arrived is is_wanted, f"{arguments} and {headers}"


async def test_02_direct_and_fanout_exchanges(harness: Harness) -> None:
    """A direct exchange compares the whole key, a fanout exchange does not look at it."""
    session = await harness.session()
    direct, fanout = harness.exchange("direct", "direct"), harness.exchange("fanout", "fanout")
    one, two = harness.queue("one"), harness.queue("two")
    await harness.declare(
        session,
        *(direct, fanout, one, two),
        Binding(direct.name, one.name, "a.b"),
        Binding(direct.name, two.name, "a.*"),
        Binding(fanout.name, one.name, "ignored"),
        Binding(fanout.name, two.name, ""),
    )
    await session.publish(Address(direct.name, "a.b"), text("direct"))
    await session.publish(Address(fanout.name, "whatever"), text("fanout"))
    assert bodies(await (await harness.collect(session, one)).take(2)) == ["direct", "fanout"]
    assert bodies(await (await harness.collect(session, two)).take(1)) == ["fanout"]


async def test_02_a_queue_bound_twice_gets_each_message_once(harness: Harness) -> None:
    """Two patterns that both match bring one copy."""
    session, exchange, queue = await harness.session(), harness.exchange("events"), harness.queue("work")
    await harness.declare(
        session, exchange, queue, Binding(exchange.name, queue.name, "a.#"), Binding(exchange.name, queue.name, "#.b")
    )
    await session.publish(Address(exchange.name, "a.b"), text("once"))
    await session.publish(Address(exchange.name, "a.c"), text("marker"))
    assert bodies(await (await harness.collect(session, queue)).take(2)) == ["once", "marker"]


async def test_11_publish_returns_only_after_the_broker_has_taken_the_message(harness: Harness) -> None:
    """Once `publish` has returned, the publisher may vanish: the messages are there."""
    (publisher, queue), reader = await harness.one_queue("work"), await harness.session()
    await asyncio.gather(*(publisher.publish(to_queue(queue), text(f"{number}")) for number in range(100)))
    await publisher.close()
    inbox = await harness.collect(reader, queue, prefetch=100)
    assert sorted(bodies(await inbox.take(100)), key=int) == [f"{number}" for number in range(100)]


async def test_12_a_message_that_no_queue_takes_is_unroutable(harness: Harness) -> None:
    """A message for a queue that is not there, or an event that nobody hears, is an error and never silence."""
    session, exchange, queue = await harness.session(), harness.exchange("events"), harness.queue("work")
    await harness.declare(session, exchange, queue, Binding(exchange.name, queue.name, "order.*"))
    for address in (Address("", f"{harness.unique}.nowhere"), Address(exchange.name, "invoice.paid")):
        with pytest.raises(PublishFailed) as caught:
            await session.publish(address, text("lost", message_id="one"))
        assert caught.value.reason == "unroutable"
    await session.publish(Address(exchange.name, "order.paid"), text("found", message_id="one"))
    assert bodies(await (await harness.collect(session, queue)).take(1)) == ["found"]


@pytest.mark.parametrize("message_id", [None, "", "\udcfc"], ids=["none", "empty", "not UTF-8"])
async def test_12_a_returned_message_is_recognized_by_any_id(harness: Harness, message_id: str | None) -> None:
    """Copies of messages from other programs keep their ids, also one that is empty or not UTF-8."""
    session = await harness.session()
    with pytest.raises(PublishFailed) as caught:
        await session.publish(Address("", f"{harness.unique}.nowhere"), Envelope(b"lost", message_id=message_id))
    assert caught.value.reason == "unroutable"


async def test_12_an_exchange_that_is_missing_is_unavailable(harness: Harness) -> None:
    """It may be there later; the connection and everybody else on it live on."""
    session, queue = await harness.one_queue("work")
    with pytest.raises(PublishFailed) as caught:
        await session.publish(Address(f"{harness.unique}.missing", "key"), text("x"))
    assert caught.value.reason == "unavailable"
    await session.publish(to_queue(queue), text("next"))
    assert bodies(await (await harness.collect(session, queue)).take(1)) == ["next"]


@pytest.mark.parametrize(
    ("address", "envelope"),
    [
        (Address("", "k" * 256), text("x")),
        (Address("", "{queue}"), Envelope(b"x" * (MAX_BODY_BYTES + 1))),
        (Address("", "{queue}"), text("x", headers={"big": "x" * 100_000})),
        (Address("", "{queue}"), text("x", headers={"set": {1, 2}})),
        (Address("", "{queue}"), text("x", headers={"huge": 2**63})),
        (Address("", "{queue}"), text("x", headers={"n" * 256: 1})),
        (Address("", "{queue}"), text("x", headers={"surrogate": "\ud800"})),
        (Address("", "{queue}"), text("x", message_id="m" * 256)),
        (Address("", "{queue}"), text("x", priority=256)),
    ],
    ids=[
        *("long-key", "large-body", "large-headers", "set-header", "huge-integer", "long-name"),
        *("surrogate", "long-id", "priority-256"),
    ],
)
async def test_12_what_can_never_be_published_is_invalid_and_harms_nobody(
    harness: Harness, address: Address, envelope: Envelope
) -> None:
    """One bad message is refused for itself; the connection and everybody else on it live on."""
    session, queue, inbox = await harness.one_inbox("work")
    address = address._replace(key=address.key.replace("{queue}", queue.name))
    with pytest.raises(PublishFailed) as caught:
        await session.publish(address, envelope)
    assert caught.value.reason == "invalid"
    await session.publish(to_queue(queue), text("next"))
    assert bodies(await inbox.take(1)) == ["next"]
    # A slow machine waits for its first connection, and the client's public way is warned of.
    assert {change.event for change in harness.changes} <= {"broker.connecting", "broker.slow_path"}


async def test_16_cancelling_a_publish_loses_no_message_that_was_taken(harness: Harness) -> None:
    """Every publish that returned has its message delivered, whatever happened to those beside it."""
    session, queue = await harness.one_queue("work")
    tasks = [asyncio.create_task(session.publish(to_queue(queue), text(f"{number}"))) for number in range(60)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    taken = {f"{number}" for number, result in enumerate(results) if result is None}
    assert {number for number in map(str, range(60)) if int(number) % 3} <= taken
    await session.publish(to_queue(queue), text("end"))
    arrived: list[str] = []
    inbox = await harness.collect(session, queue, prefetch=100)
    while (body := (await inbox.next()).envelope.body.decode()) != "end":
        arrived.append(body)
    assert taken <= set(arrived)
    assert len(arrived) == len(set(arrived))


async def test_16_cancelling_a_settle_loses_no_message(harness: Harness) -> None:
    """A retry that is cut off in the middle leaves the original or its copy, never neither."""
    session, queue = await harness.one_queue("work")
    await session.publish(to_queue(queue), text("precious"))
    delivery = await (await harness.collect(session, queue)).next()
    task = asyncio.create_task(session.settle(delivery, Retry(harness.delay(0.1))))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await session.close()
    survivor = await harness.session()
    assert bodies(await (await harness.collect(survivor, queue)).take(1)) == ["precious"]
