"""The in-process broker, where it goes beyond what the conformance suite asks of every transport."""

from __future__ import annotations

import asyncio
import contextvars
from datetime import UTC, datetime
from typing import Any

import pytest

from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown, TopologyMismatch
from runner.message import Address, Envelope
from runner.outcome import ACK, RELEASE, Retry
from runner.pipeline.topology import Binding, Exchange, Queue, Topology
from runner.transports.base import Delivery
from runner.transports.memory import MemoryBroker, MemoryTransport
from tests.unit.transports.memory.memory_sessions import (
    bodies,
    connected,
    declared,
    drained,
    opened,
    options,
    put,
    queue,
    turns,
)
from tests.unit.transports.virtual_time import virtual_time


async def test_it_says_what_it_is() -> None:
    """The name is shown at the start, and that nothing outlives the process."""
    session = MemoryTransport()
    assert await session.connect() == "in-process broker"
    assert (session.capabilities.name, session.capabilities.is_persistent) == ("memory", False)
    await session.close()


async def test_before_connect_nothing_works() -> None:
    """A session that is not connected says so."""
    session = MemoryTransport()
    with pytest.raises(BrokerUnavailable):
        await declared(session, queue("q"))
    with pytest.raises(BrokerUnavailable):
        await session.subscribe(options("q"), print)
    with pytest.raises(PublishUnknown):
        await put(session, "q", "x")
    await session.close()


async def test_two_transports_are_two_brokers_unless_they_share_one() -> None:
    """By default a transport has a broker of its own."""
    one, two = await connected(), await connected()
    await declared(one, queue("q"))
    with pytest.raises(PublishFailed):
        await put(two, "q", "x")
    await one.close()
    await two.close()


async def test_messages_outlive_their_sessions() -> None:
    """Messages stay in a broker that is still referenced, and the next session finds them."""
    broker = MemoryBroker()
    first = await connected(broker)
    await declared(first, queue("q"))
    await put(first, "q", "kept")
    await first.close()
    second = await connected(broker)
    assert bodies(await drained(second, "q")) == ["kept"]
    await second.close()


@virtual_time
async def test_a_broker_without_sessions_sets_no_timers_and_goes_on_with_the_next() -> None:
    """Closing the last session stops the clock; what is overdue comes with the next one."""
    broker = MemoryBroker()
    session = await connected(broker)
    await declared(session, queue("dead"), queue("q", message_ttl=1000, dead_letter_exchange=""), queue("q2"))
    await session.publish(Address("", "q"), Envelope(b"x"))
    await turns()
    await session.close()
    handles = [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    assert handles == []
    await asyncio.sleep(5)
    session = await connected(broker)
    assert await session.count_pending([options("q")]) == 1
    await turns()
    assert await session.count_pending([options("q")]) == 0
    await session.close()


@pytest.mark.parametrize("body", ["text", bytearray(b"x"), None, memoryview(b"x")])
async def test_a_body_must_be_bytes(body: Any) -> None:
    """What would only work in memory does not work in memory either."""
    async with opened(queue("q")) as session:
        with pytest.raises(TypeError, match="bytes"):
            await session.publish(Address("", "q"), Envelope(body))


async def test_no_subscriber_sees_what_another_does_to_the_headers() -> None:
    """Each delivery has headers of its own, the second of the same message too."""
    async with opened(Exchange("e", "fanout"), queue("a"), queue("b"), Binding("e", "a"), Binding("e", "b")) as session:
        await session.publish(Address("e", ""), Envelope(b"x", headers={"list": [1], "map": {"deep": [1]}}))
        [first] = await drained(session, "a")
        first.envelope.headers["list"].append(2)
        first.envelope.headers["map"]["deep"].append(2)
        await session.settle(first, RELEASE)
        for name in ("a", "b"):
            [delivery] = await drained(session, name)
            assert delivery.envelope.headers == {"list": [1], "map": {"deep": [1]}}


async def test_feeds_run_in_the_context_of_who_connected() -> None:
    """A task that a feed starts does not inherit the log context of whoever published."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody")
    async with opened(queue("q")) as session:
        seen: list[str] = []
        await session.subscribe(options("q"), lambda _: seen.append(variable.get()))

        async def publish() -> None:
            variable.set("publisher")
            await put(session, "q", "x")

        await asyncio.create_task(publish())
        await turns()
        assert seen == ["nobody"]


async def test_a_callback_that_raises_stops_no_other() -> None:
    """The loop reports the error; the other messages and queues continue."""
    async with opened(queue("a"), queue("b")) as session:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        seen: list[Delivery] = []

        def fail_once(delivery: Delivery) -> None:
            seen.append(delivery)
            if len(seen) == 1:
                raise RuntimeError("a mistake in a callback")

        await session.subscribe(options("a"), fail_once)
        await session.subscribe(options("b"), seen.append)
        await put(session, "a", "1", "2")
        await put(session, "b", "3")
        await turns()
        assert sorted(bodies(seen)) == ["1", "2", "3"]
        assert [type(context["exception"]) for context in reported] == [RuntimeError]


async def test_feeds_of_a_queue_take_turns() -> None:
    """While all of them have room, messages go round."""
    async with opened(queue("q")) as session:
        inboxes: list[list[Delivery]] = [[], [], []]
        for inbox in inboxes:
            await session.subscribe(options("q", prefetch=10), inbox.append)
        await put(session, "q", *"abcdef")
        await turns()
        assert [bodies(inbox) for inbox in inboxes] == [["a", "d"], ["b", "e"], ["c", "f"]]


async def test_releases_find_their_place_in_any_order() -> None:
    """However they are given back, and among those that were never delivered, the order is the original one."""
    async with opened(queue("q")) as session:
        await put(session, "q", *"abcdef")
        seen = await drained(session, "q", prefetch=4)
        for index in (2, 0, 3, 1):
            await session.settle(seen[index], RELEASE)
        assert bodies(await drained(session, "q")) == list("abcdef")


async def test_a_subscription_has_a_prefetch_of_at_least_one() -> None:
    """A prefetch of 0 is unlimited on RabbitMQ, so the in-process broker refuses it."""
    async with opened(queue("q")) as session:
        with pytest.raises(ValueError, match="prefetch"):
            await session.subscribe(options("q", prefetch=0), print)


async def test_an_exclusive_queue_belongs_to_its_session() -> None:
    """Others can neither declare nor read it, and it goes with its session."""
    broker = MemoryBroker()
    owner, other = await connected(broker), await connected(broker)
    mine = Queue("mine", exclusive=True)
    await declared(owner, mine)
    with pytest.raises(TopologyMismatch):
        await declared(other, mine)
    with pytest.raises(BrokerUnavailable):
        await other.subscribe(options("mine"), print)
    await put(other, "mine", "x")
    await owner.close()
    with pytest.raises(PublishFailed):
        await put(other, "mine", "x")
    await other.close()


async def test_an_auto_delete_queue_goes_with_its_last_feed() -> None:
    """Not before it had one, and not while another is there; its bindings go with it."""
    async with opened(Exchange("e", "fanout"), Queue("q", auto_delete=True), Binding("e", "q")) as session:
        subscriptions = [await session.subscribe(options("q"), print) for _ in range(2)]
        await subscriptions[0].stop()
        assert (await session.count_pending([options("q")])) == 0
        await session.publish(Address("e", ""), Envelope(b"x"))
        await subscriptions[1].stop()
        with pytest.raises(PublishFailed):
            await session.publish(Address("e", ""), Envelope(b"x"))


async def test_a_new_binding_counts_at_once() -> None:
    """What routing has remembered is forgotten with every change."""
    async with opened(Exchange("e"), queue("a"), queue("b"), Binding("e", "a", "#")) as session:
        await session.publish(Address("e", "x.y"), Envelope(b"1"))
        await declared(session, Exchange("e"), queue("a"), queue("b"), Binding("e", "b", "x.*"))
        await session.publish(Address("e", "x.y"), Envelope(b"2"))
        assert bodies(await drained(session, "a")) == ["1", "2"]
        assert bodies(await drained(session, "b")) == ["2"]


async def test_routing_does_not_remember_every_key_there_ever_was() -> None:
    """Keys with ids in them cannot fill the memory."""
    broker = MemoryBroker()
    async with opened(Exchange("e"), queue("q", max_length=1), Binding("e", "q", "#"), broker=broker) as session:
        for number in range(10_050):
            await session.publish(Address("e", f"user.{number}"), Envelope(b""))
        assert len(broker._router._cache) < 100


async def test_an_alternate_exchange_takes_what_has_nowhere_to_go() -> None:
    """`alternate-exchange` works as on RabbitMQ, round trips included."""
    async with opened() as session:
        main = Exchange("main", arguments={"alternate-exchange": "other"})
        other = Exchange("other", "fanout", arguments={"alternate-exchange": "main"})
        await declared(session, main, other, queue("q"))
        with pytest.raises(PublishFailed) as caught:
            await session.publish(Address("main", "k"), Envelope(b"x"))
        assert caught.value.reason == "unroutable"
        await declared(session, main, other, queue("q"), Binding("other", "q"))
        await session.publish(Address("main", "k"), Envelope(b"x"))
        assert bodies(await drained(session, "q")) == ["x"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"message_ttl": -1}, "x-message-ttl is -1"),
        ({"message_ttl": "1s"}, "x-message-ttl is '1s'"),
        ({"max_length": True}, "x-max-length is True"),
        ({"max_priority": 300}, "x-max-priority is 300"),
        ({"overflow": "panic"}, "x-overflow is 'panic'"),
        ({"dead_letter_exchange": 1}, "x-dead-letter-exchange is 1"),
        ({"queue_type": "stream"}, "only RabbitMQ has streams"),
    ],
)
async def test_arguments_that_rabbitmq_refuses_are_refused(arguments: dict[str, Any], message: str) -> None:
    """A wrong value is an error in the in-process broker too, and no queue is created."""
    async with opened() as session:
        with pytest.raises(TopologyMismatch) as caught:
            await declared(session, queue("new"), queue("q", **arguments))
        assert message in str(caught.value)
        with pytest.raises(PublishFailed):
            await put(session, "new", "x")


async def test_the_hint_fits_what_differs() -> None:
    """What is missing has to be made by its owner first; `declare: false` would not help."""
    async with opened() as session:
        with pytest.raises(TopologyMismatch) as caught:
            await declared(session, Queue("theirs", declare=False))
        assert "start its owner first" in caught.value.hint
        await declared(session, queue("ours"))
        with pytest.raises(TopologyMismatch) as caught:
            await declared(session, queue("ours", max_length=5))
        assert "write what the broker has" in caught.value.hint


async def test_bindings_name_things_that_exist() -> None:
    """A binding to nowhere, or with a mode that there is not, is a mismatch."""
    async with opened() as session:
        with pytest.raises(TopologyMismatch) as caught:
            await declared(session, Exchange("e"), Binding("f", "q"))
        assert str(caught.value) == 'exchange "f" does not exist\nqueue "q" does not exist'
        with pytest.raises(TopologyMismatch, match="x-match is most"):
            await declared(session, Exchange("h", "headers"), queue("q"), Binding("h", "q", "", {"x-match": "most"}))


async def test_a_retry_is_timed_by_the_clock_that_was_given() -> None:
    """Time is injected: the same run leaves the same headers."""
    async with opened(queue("q"), clock=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) as session:
        await put(session, "q", "x")
        seen: list[Delivery] = []
        returned = asyncio.Event()

        def take(delivery: Delivery) -> None:
            seen.append(delivery)
            if delivery.attempt == 2:
                returned.set()

        await session.subscribe(options("q"), take)
        await turns()
        await session.settle(seen[0], Retry(0.001))
        async with asyncio.timeout(5):
            await returned.wait()
        headers = seen[1].envelope.headers
        assert headers["x-runner-first-failed-at"] == "2026-01-02T03:04:05+00:00"
        assert headers["x-death"][0]["time"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        await session.settle(seen[1], ACK)


async def test_a_new_version_of_a_topology() -> None:
    """Messages stay, with the order and the options of the new queue; bindings that are gone bring nothing more."""
    broker = MemoryBroker()
    exchange = Exchange("events", "topic")
    old = Topology(
        (exchange,), (Queue("q"), Queue("gone")), (Binding("events", "q", "a"), Binding("events", "gone", "a"))
    )
    new = Topology((Exchange("events", "fanout"),), (queue("q", max_length=1),), (Binding("events", "q"),))
    session = await connected(broker)
    await session.declare(old)
    await session.publish(Address("events", "a"), Envelope(b"1"))
    await put(session, "q", "2", "3")
    with pytest.raises(TopologyMismatch):
        await session.declare(new)
    await session.close()
    broker.replace(old, new)
    session = await connected(broker)
    await session.declare(new)
    assert bodies(await drained(session, "gone")) == ["1"]
    await session.publish(Address("events", "b"), Envelope(b"4"))  # one more than fits, as the options say
    assert bodies(await drained(session, "gone")) == []
    assert bodies(await drained(session, "q")) == ["4"]
    await session.close()


@virtual_time
async def test_messages_expire_by_the_new_options() -> None:
    broker = MemoryBroker()
    old, new = Topology((), (Queue("q"),)), Topology((), (queue("q", message_ttl=1000),))
    session = await connected(broker)
    await session.declare(old)
    await put(session, "q", "1")
    await session.close()
    broker.replace(old, new)
    session = await connected(broker)
    await session.declare(new)
    await asyncio.sleep(0.9)
    assert await session.count_pending([options("q")]) == 1
    await asyncio.sleep(0.2)
    assert await session.count_pending([options("q")]) == 0
    await session.close()
