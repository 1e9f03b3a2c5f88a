"""Promises 10, 11 and 12 for publications that nobody awaits (`begin`), and `ack`, which never waits."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from runner.errors import AlreadySettled, PublishFailed, PublishUnknown
from runner.message import Address, Envelope
from runner.transports.base import Transport
from tests.conformance.harness import Harness, bodies, text, to_queue, until

COUNT = 500


class Endings:
    """How publications have ended, by body: each is to end once."""

    def __init__(self) -> None:
        self.errors: dict[str, list[Exception | None]] = {}
        self.busy = 0

    async def begin(self, session: Transport, address: Address, envelope: Envelope) -> None:
        """Begin a publication, or publish it in a task where the transport is busy."""
        name = envelope.body.decode()
        begun = session.publish_nowait(address, envelope, partial(self.note, name))
        if begun == "confirmed":
            self.note(name, None)
        elif begun == "busy":
            self.busy += 1
            task = asyncio.ensure_future(session.publish(address, envelope))
            task.add_done_callback(lambda done: self.note(name, done.exception()))  # type: ignore[arg-type]
            await asyncio.sleep(0)

    def note(self, name: str, error: Exception | None) -> None:
        self.errors.setdefault(name, []).append(error)

    async def all_ended(self, count: int) -> None:
        async def ended() -> int:
            return len(self.errors)

        await until(ended, count)


async def test_what_is_begun_arrives_once_and_in_order(harness: Harness) -> None:
    session, queue, endings = await harness.session(), harness.queue("work"), Endings()
    await harness.declare(session, queue)
    for number in range(COUNT):
        await endings.begin(session, to_queue(queue), text(str(number), message_id=f"id-{number}"))
    await endings.all_ended(COUNT)
    assert all(errors == [None] for errors in endings.errors.values())
    inbox = await harness.collect(session, queue, prefetch=COUNT)
    await inbox.wait_until_seen(COUNT)
    assert bodies(inbox.seen) == [str(number) for number in range(COUNT)]


async def test_it_is_told_why_the_broker_did_not_take_it(harness: Harness) -> None:
    session, endings = await harness.session(), Endings()
    full = harness.queue("full", max_length=1, overflow="reject-publish")
    await harness.declare(session, full)
    await session.publish(to_queue(full), text("first"))
    await harness.until_pending(session, harness.options(full), 1)
    await endings.begin(session, Address("", f"{full.name}.nowhere"), text("lost"))
    await endings.begin(session, Address("", "k" * 300), text("long"))
    await endings.all_ended(2)
    (lost,), (long,) = endings.errors["lost"], endings.errors["long"]
    assert isinstance(lost, PublishFailed)
    assert lost.reason == "unroutable"
    assert isinstance(long, PublishFailed)
    assert long.reason == "invalid"

    async def is_refused() -> bool:  # quorum queues count late: one or two more may get in
        count = len(endings.errors) + 1
        await endings.begin(session, to_queue(full), text(f"number {count}"))
        await endings.all_ended(count)
        error = list(endings.errors.values())[-1][0]
        return isinstance(error, PublishFailed) and error.reason == "refused"

    await until(is_refused, True)


async def test_two_with_one_id_both_arrive(harness: Harness) -> None:
    session, queue, endings = await harness.session(), harness.queue("work"), Endings()
    await harness.declare(session, queue)
    for name in ("one", "two"):
        await endings.begin(session, to_queue(queue), text(name, message_id="same"))
    await endings.all_ended(2)
    inbox = await harness.collect(session, queue)
    await inbox.wait_until_seen(2)
    assert bodies(inbox.seen) == ["one", "two"]


async def test_what_is_in_flight_on_a_lost_connection_ends_once_each(harness: Harness) -> None:
    harness.needs("reconnect")
    session, queue, endings = await harness.session(), harness.queue("work"), Endings()
    await harness.declare(session, queue)
    for number in range(100):
        await endings.begin(session, to_queue(queue), text(str(number), message_id=f"id-{number}"))
    harness.lose_connections()
    await endings.all_ended(100)
    errors = [error for ended in endings.errors.values() for error in ended]
    assert len(errors) == 100
    assert all(error is None or isinstance(error, PublishUnknown) for error in errors)
    await session.publish(to_queue(queue), text("after"))


async def test_nothing_is_begun_in_a_closed_session(harness: Harness) -> None:
    session, queue = await harness.one_queue("work")
    await session.close()
    assert session.publish_nowait(to_queue(queue), text("late"), lambda _: pytest.fail("ended")) == "busy"


async def test_ack_settles_at_once_and_for_good(harness: Harness) -> None:
    session, queue = await harness.one_queue("work")
    await session.publish(to_queue(queue), text("work"))
    inbox = await harness.collect(session, queue)
    await inbox.wait_until_seen(1)
    assert session.ack(inbox.seen[0])
    with pytest.raises(AlreadySettled):
        session.ack(inbox.seen[0])
    await session.close()
    later = await harness.session()
    assert await later.count_pending([harness.options(queue)]) == 0
