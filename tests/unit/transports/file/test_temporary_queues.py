"""Queues in a file that end with the process that reads them: taps, and answers to calls from other processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runner.errors import BrokerUnavailable
from runner.message import Address, Envelope
from runner.operations.memory_access import FileTap
from runner.pipeline.topology import Binding, Exchange, Queue, Topology
from runner.transports.base import Delivery
from runner.transports.file import broker, store
from tests.unit.transports.file.sessions import OPTIONS, WORK, Session, crash, session, until

pytestmark = pytest.mark.usefixtures("no_file_left_open")

PAID = Address("shop", "paid")
EVENTS = Topology((Exchange("shop"),), (Queue("work", declare=False),), (Binding("shop", "work", "paid"),))
BINDINGS = (Binding("shop", "", "paid"),)


def tap_of(path: Path) -> FileTap:
    return FileTap(path, "shop", lambda _: None)


async def bodies(tap: FileTap, count: int) -> list[bytes]:
    async with asyncio.timeout(20):
        return [(await tap.next()).envelope.body for _ in range(count)]


def left(opened: Session) -> list[tuple[object, ...]]:
    """Return what a file has of temporary queues."""
    questions = (
        "SELECT name FROM definitions WHERE name GLOB '*.tap.*' OR name GLOB '*amq.gen*'",
        "SELECT queue FROM lines WHERE queue GLOB '*.tap.*' OR queue GLOB 'amq.gen*'",
        "SELECT queue FROM consumers WHERE consumers = -1",
        "SELECT id FROM messages WHERE id >> 40 NOT IN (SELECT line FROM lines)",
    )
    return [row for question in questions for row in opened.broker.store.rows(question)]


@pytest.mark.parametrize("is_owned", [True, False])
async def test_a_tap_sees_copies_whether_a_process_owns_the_file_or_not(tmp_path: Path, is_owned: bool) -> None:
    """Of what any process publishes, in order; the queue keeps its messages, and nothing is left of the tap."""
    async with session(tmp_path / "q", is_owner=is_owned) as first, session(tmp_path / "q", is_owner=False) as second:
        await first.transport.declare(EVENTS)
        tap = tap_of(tmp_path / "q")
        await tap.start(BINDINGS)
        await until(lambda: all(each.broker._router.bindings[1:] for each in (first, second)))
        for number in range(6):
            await (first, second)[number % 2].transport.publish(PAID, Envelope(b"%d" % number))
        tapped = await asyncio.wait_for(tap.next(), 20)
        assert (tapped.envelope.body, tapped.exchange, tapped.routing_key) == (b"0", *PAID)
        assert await bodies(tap, 5) == [b"1", b"2", b"3", b"4", b"5"]
        assert [binding.queue for binding in first.broker.read_topology().bindings] == ["work"]
        await tap.close()
        await first.transport.publish(PAID, Envelope(b"6"))  # it may not know yet that the tap has gone
        await until(lambda: first.count() == 7)
        assert (tap.missed, left(first)) == (0, [])


@pytest.mark.parametrize(
    ("limit", "most", "reads"),
    [("TEMPORARY_MESSAGES", 10, True), ("TEMPORARY_BYTES", 1000, True), ("TEMPORARY_MESSAGES", 10, False)],
)
async def test_a_slow_tap_loses_the_oldest_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, reads: bool
) -> None:
    """Publishers do not wait for it."""
    monkeypatch.setattr(store, limit, most)
    kept = 10
    async with session(tmp_path / "q") as owner:
        await owner.transport.declare(EVENTS)
        tap = tap_of(tmp_path / "q")
        await tap.start(BINDINGS)
        await until(lambda: len(owner.broker._router.bindings) == 2)
        for number in range(50):
            await owner.transport.publish(PAID, Envelope(b"%0100d" % number))
        if reads:
            assert [int(body) for body in await bodies(tap, kept)] == [*range(50 - kept, 50)]
        await tap.close()
        assert tap.missed == 50 - kept
        assert owner.count() == 50


async def test_a_tap_goes_on_with_the_next_owner(tmp_path: Path) -> None:
    """Whether the one before it was stopped or killed."""
    async with session(tmp_path / "q") as owner:
        await owner.transport.declare(EVENTS)
    tap = tap_of(tmp_path / "q")
    await tap.start(BINDINGS)
    for number in range(3):
        async with session(tmp_path / "q") as owner:
            await owner.transport.publish(PAID, Envelope(b"%d" % number))
            if number == 1:
                crash(owner)
    assert await bodies(tap, 3) == [b"0", b"1", b"2"]
    await tap.close()


async def test_a_process_beside_the_owner_asks(tmp_path: Path) -> None:
    async with session(tmp_path / "q") as owner, session(tmp_path / "q", is_owner=False) as other:

        def answer(delivery: Delivery) -> None:
            owner.transport.ack(delivery)
            question = delivery.envelope
            assert question.reply_to is not None
            address = Address("", question.reply_to)
            envelope = Envelope(question.body.upper(), correlation_id=question.correlation_id)
            assert owner.transport.publish_nowait(address, envelope, lambda _: None) == "started"

        await owner.transport.subscribe(OPTIONS, answer)
        async with asyncio.timeout(20):
            questions = [Envelope(word, correlation_id=word.decode()) for word in (b"one", b"two")]
            waiting = [await other.transport.ask(WORK, question) for question in questions]
            assert [each.body for each in await asyncio.gather(*waiting)] == [b"ONE", b"TWO"]
        await other.transport.close()
        assert left(owner) == []


async def test_the_queue_of_a_killed_process_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every process that lives; a reader that was only silent finds it gone."""
    monkeypatch.setattr(broker, "NOTES_S", 0.01)
    async with session(tmp_path / "q", is_owner=False) as other, session(tmp_path / "q", is_owner=False) as killed:
        for each in (other, killed):
            await each.transport.declare(EVENTS)
        await killed.broker.open_temporary("shop.tap.1", BINDINGS, killed.transport)
        await until(lambda: other.transport.queue("shop.tap.1") is not None)
        await other.transport.publish(PAID, Envelope(b"1"))
        crash(killed)
        await until(lambda: other.transport.queue("shop.tap.1") is None)
        await other.transport.written()
        assert left(other) == []
        tap = tap_of(tmp_path / "q")
        await tap.start(BINDINGS)
        queue = other.transport.queue(tap.name)
        assert queue is not None
        other.broker._delete(queue)
        with pytest.raises(BrokerUnavailable, match="this one was silent"):
            await bodies(tap, 1)
        await tap.close()


async def test_an_exchange_that_does_not_exist_cannot_be_tapped(tmp_path: Path) -> None:
    tap = tap_of(tmp_path / "q")
    with pytest.raises(BrokerUnavailable, match="there is no file"):
        await tap.start(BINDINGS)
    async with session(tmp_path / "q", is_owner=False):
        with pytest.raises(BrokerUnavailable, match='exchange "shop" does not exist'):
            await tap.start(BINDINGS)
        await tap.close()
