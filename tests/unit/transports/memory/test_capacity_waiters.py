"""Back-pressure, fairness and time in the in-process broker: what no other broker can be asked to show so exactly."""

from __future__ import annotations

import asyncio

import pytest

from runner.errors import PublishFailed, PublishUnknown
from runner.message import Address, Envelope
from runner.outcome import ACK, DeadLetter, Retry
from runner.pipeline.topology import Binding, Exchange
from runner.transports.base import Delivery
from runner.transports.memory import MemoryBroker
from runner.transports.memory import transport as transport_module
from tests.unit.transports.memory.memory_sessions import (
    bodies,
    connected,
    declared,
    drained,
    opened,
    options,
    put,
    queue,
    subscribed,
    turns,
)
from tests.unit.transports.virtual_time import virtual_time


async def test_a_publisher_waits_while_the_queue_is_full() -> None:
    """A producer cannot fill the memory: it continues when a message has left the queue."""
    async with opened(queue("q"), broker=MemoryBroker(capacity=3)) as session:
        await put(session, "q", "0", "1", "2")
        waiting = asyncio.create_task(put(session, "q", "3"))
        await turns()
        assert not waiting.done()
        seen: list[Delivery] = []
        await session.subscribe(options("q", prefetch=1), seen.append)
        await waiting
        assert await session.count_pending([options("q")]) == 3
        assert bodies(seen) == ["0"]


async def test_publishers_at_a_full_queue_keep_their_order() -> None:
    """Who came first is first to go on, also before those who come when there is room again."""
    async with opened(queue("q"), broker=MemoryBroker(capacity=2)) as session:
        await put(session, "q", "0", "1")
        waiting = []
        for number in range(2, 8):
            waiting.append(asyncio.create_task(put(session, "q", f"{number}")))
            await turns(2)
        arrived: list[str] = []

        def take(delivery: Delivery) -> None:
            arrived.append(delivery.envelope.body.decode())
            done.append(asyncio.create_task(session.settle(delivery, ACK)))

        done: list[asyncio.Task[bool]] = []
        await session.subscribe(options("q", prefetch=1), take)
        await asyncio.gather(*waiting)
        await put(session, "q", "8")
        await turns(40)
        assert arrived == [f"{number}" for number in range(9)]


async def test_a_publisher_that_gives_up_waiting_leaves_its_turn_to_the_next() -> None:
    """Cancelling a waiting publish publishes nothing and blocks no other publisher."""
    async with opened(queue("q"), broker=MemoryBroker(capacity=1)) as session:
        await put(session, "q", "0")
        tasks = [asyncio.create_task(put(session, "q", body)) for body in ("1", "2", "3")]
        await turns()
        tasks[0].cancel()
        await turns()
        assert bodies(await drained(session, "q")) == ["0"]
        tasks[1].cancel()  # its turn has come, but it has not noticed yet
        seen: list[Delivery] = []
        await session.subscribe(options("q"), seen.append)
        await asyncio.wait(tasks)
        await turns()
        assert [task.cancelled() for task in tasks[::2]] == [True, False]
        assert bodies(seen)[-1] == "3"
        assert "1" not in bodies(seen)


async def test_many_large_messages_fill_a_queue_as_well() -> None:
    """The bound is of bytes as well as of messages."""
    async with opened(queue("q"), broker=MemoryBroker(capacity_bytes=100)) as session:
        await put(session, "q", "x" * 60, "x" * 60)
        waiting = asyncio.create_task(put(session, "q", "late"))
        await turns()
        assert not waiting.done()
        await drained(session, "q")
        await waiting


@virtual_time
async def test_retries_and_dead_letters_enter_a_full_queue() -> None:
    """Space is reserved for existing messages, so that a handler can always end.

    In a full dead-letter queue without a subscriber, the newest message replaces the oldest.
    """
    async with opened(queue("q"), queue("q.dead"), broker=MemoryBroker(capacity=2)) as session:
        await put(session, "q.dead", "a", "b")
        await put(session, "q", "0", "1")
        seen = await drained(session, "q", prefetch=2, dead_letter="q.dead")
        await put(session, "q", "2", "3")
        assert await session.settle(seen[0], Retry(1)) is True
        assert await session.settle(seen[1], DeadLetter("rejected")) is True
        await asyncio.sleep(1.1)
        assert bodies(await drained(session, "q")) == ["2", "3", "0"]
        assert bodies(await drained(session, "q.dead")) == ["b", "1"]


@virtual_time
async def test_a_handler_that_fills_its_own_queue_is_told_so_and_goes_on() -> None:
    """A subscriber that publishes into the queue that only it reads does not wait for itself for ever."""
    session = await connected(MemoryBroker(capacity=4))
    await declared(session, queue("q"))
    failures: list[PublishFailed] = []
    handled: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def handle(delivery: Delivery) -> None:
        if delivery.attempt == 1 and delivery.envelope.body == b"page":
            try:
                await put(session, "q", "link", "link", "link", "link", "link", "link")
            except PublishFailed as failure:
                failures.append(failure)
                await session.settle(delivery, Retry(1))
                return
        handled.append(delivery.envelope.body)
        await session.settle(delivery, ACK)

    def start(delivery: Delivery) -> None:
        tasks.add(asyncio.create_task(handle(delivery)))

    await put(session, "q", "page")
    await session.subscribe(options("q", prefetch=1), start)
    await asyncio.sleep(100)
    assert [failure.reason for failure in failures] == ["refused"]
    assert handled == [b"link"] * 4 + [b"page"]
    await session.close()
    assert asyncio.get_running_loop().time() >= transport_module.FULL_QUEUE_TIMEOUT_S


@virtual_time
async def test_a_slow_queue_is_not_a_stuck_one() -> None:
    """A publisher waits for as long as messages leave the queue, however slowly."""
    session = await connected(MemoryBroker(capacity=2))
    await declared(session, queue("q"))
    await put(session, "q", "0", "1")
    waiting = [asyncio.create_task(put(session, "q", f"{number}")) for number in (2, 3, 4, 5)]
    tasks: set[asyncio.Task[None]] = set()

    async def handle(delivery: Delivery) -> None:
        await asyncio.sleep(transport_module.FULL_QUEUE_TIMEOUT_S * 0.9)
        await session.settle(delivery, ACK)

    await session.subscribe(options("q", prefetch=1), lambda delivery: tasks.add(asyncio.create_task(handle(delivery))))
    await asyncio.gather(*waiting)
    await session.close()
    assert asyncio.get_running_loop().time() > 2 * transport_module.FULL_QUEUE_TIMEOUT_S


async def test_closing_a_session_ends_its_publishers_and_no_others() -> None:
    """A publisher whose session is closed learns that its message may not have arrived; another's goes on waiting."""
    broker = MemoryBroker(capacity=1)
    closing, staying = await connected(broker), await connected(broker)
    await declared(staying, queue("q"))
    await put(staying, "q", "0")
    lost, kept = asyncio.create_task(put(closing, "q", "lost")), asyncio.create_task(put(staying, "q", "kept"))
    await turns()
    await closing.close()
    with pytest.raises(PublishUnknown):
        await lost
    assert bodies(await drained(staying, "q")) == ["0"]
    await kept
    assert bodies(await drained(staying, "q")) == ["kept"]
    await staying.close()


async def test_a_full_queue_holds_up_an_event_for_all_its_queues_and_loses_none() -> None:
    """An event waits until every queue has room; then each has it once."""
    event = Exchange("e", "fanout"), Binding("e", "full"), Binding("e", "free")
    async with opened(*event, queue("full"), queue("free"), broker=MemoryBroker(capacity=1)) as session:
        await put(session, "full", "0")
        waiting = asyncio.create_task(session.publish(Address("e", ""), Envelope(b"event")))
        await turns()
        assert await session.count_pending([options("free")]) == 0
        assert bodies(await drained(session, "full")) == ["0"]
        await waiting
        assert bodies(await drained(session, "full")) == bodies(await drained(session, "free")) == ["event"]


async def test_a_tight_loop_of_publishing_does_not_keep_others_from_running() -> None:
    """A producer that never pauses shares the loop: its messages are handled while it still publishes."""
    async with opened(queue("q")) as session:
        handled = 0
        longest = 0
        tasks: set[asyncio.Task[bool]] = set()

        def handle(delivery: Delivery) -> None:
            nonlocal handled
            handled += 1
            tasks.add(asyncio.create_task(session.settle(delivery, ACK)))

        await session.subscribe(options("q", prefetch=20), handle)
        for published in range(5000):
            await put(session, "q", "x")
            longest = max(longest, published - handled)
        assert handled > 3000
        assert longest < 1500


async def test_what_waits_in_settle_is_given_back_when_the_session_closes() -> None:
    """A dead letter that finds no room is tried until the end; then its original is given back."""
    broker = MemoryBroker()
    session, other = await connected(broker), await connected(broker)
    await declared(session, queue("q"), queue("q.dead", max_length=0, overflow="reject-publish"))
    await put(session, "q", "x")
    seen = await subscribed(session, "q", dead_letter="q.dead")
    settling = asyncio.create_task(session.settle(seen[0], DeadLetter("rejected")))
    await turns()
    assert not settling.done()
    await session.close()
    assert await settling is False
    assert bodies(await drained(other, "q")) == ["x"]
    await other.close()


@virtual_time
async def test_a_dead_letter_waits_for_room_and_then_goes() -> None:
    """While the dead-letter queue refuses, the original stays unsettled; it is acknowledged when the copy is there."""
    async with opened(queue("q"), queue("q.dead", max_length=1, overflow="reject-publish")) as session:
        await put(session, "q.dead", "old")
        await put(session, "q", "x")
        seen = await subscribed(session, "q", dead_letter="q.dead")
        settling = asyncio.create_task(session.settle(seen[0], DeadLetter("rejected")))
        await asyncio.sleep(60)
        assert not settling.done()
        assert bodies(await drained(session, "q.dead")) == ["old"]
        assert await settling is True
        assert bodies(await drained(session, "q.dead")) == ["x"]


@virtual_time
async def test_a_wait_queue_that_differs_holds_up_its_retries_until_it_is_mended() -> None:
    """A retry that has nowhere to wait is neither lost nor an error in the handler: it waits with its subscriber."""
    async with opened(queue("q"), queue("retry.1000", max_length=1)) as session:
        await put(session, "q", "x")
        seen = await subscribed(session, "q")
        settling = asyncio.create_task(session.settle(seen[0], Retry(1)))
        await asyncio.sleep(60)
        assert not settling.done()
        wait_queue = queue("retry.1000", max_length=1)
        await declared(session, Exchange("retry.1000", "fanout"), wait_queue, Binding("retry.1000", "retry.1000"))
        assert await settling is True
        assert bodies(await drained(session, "retry.1000")) == ["x"]


@virtual_time
async def test_days_pass_in_no_time_on_a_loop_with_its_own_clock() -> None:
    """Delays are the loop's time, so a test with virtual time waits for no retry."""
    async with opened(queue("q")) as session:
        await put(session, "q", "x")
        seen = await subscribed(session, "q")
        await session.settle(seen[0], Retry(80_000.0))
        await asyncio.sleep(79_999)
        assert (len(seen), await session.count_pending([options("q")])) == (1, 1)
        await asyncio.sleep(2)
        assert [delivery.attempt for delivery in seen] == [1, 2]
    assert asyncio.get_running_loop().time() == pytest.approx(80_001, abs=1)
