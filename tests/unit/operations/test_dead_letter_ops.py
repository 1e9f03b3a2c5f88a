"""Dead letters are found, sent back and dropped: on the in-process broker, message by message."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from runner import message as names
from runner.message import Address, Envelope
from runner.operations.dead_letter_ops import DeadLetterOps
from runner.operations.dead_letters import DeadLetterFilter, DeadLetterMessage, DeadLetterQueue, SelectedQueue
from runner.operations.memory_access import MemoryAccess
from runner.pipeline.topology import Queue, Topology
from runner.transports.memory import MemoryTransport

DLQ = DeadLetterQueue("orders.dead", frozenset({"orders"}))
NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def dead(number: int, **headers: object) -> Envelope:
    """Return a message that the runner gave up on."""
    reason = {names.REASON: "exhausted", names.ORIGIN: "orders", names.ERROR_TYPE: "KeyError", names.ERROR: "'price'"}
    return Envelope(f"{number}".encode(), message_id=f"m{number}", headers=reason | headers)


async def broker(*envelopes: Envelope, has_orders: bool = True) -> MemoryTransport:
    """Return a broker with these messages in the dead-letter queue."""
    transport = MemoryTransport()
    await transport.connect()
    queues = (Queue("orders.dead"), Queue("orders")) if has_orders else (Queue("orders.dead"),)
    await transport.declare(Topology(queues=queues))
    for envelope in envelopes:
        await transport.publish(Address("", "orders.dead"), envelope)
    return transport


def ops(transport: MemoryTransport, limit: int | None = None, **filters: str) -> DeadLetterOps:
    access = MemoryAccess(transport)
    return DeadLetterOps(access, DeadLetterFilter(**filters), limit, lambda: NOW, asyncio.Event())  # type: ignore[arg-type]


async def depths(transport: MemoryTransport) -> tuple[int, int]:
    """Return how many messages are in the dead-letter queue and in its origin."""
    access = MemoryAccess(transport)
    counts = [await access.depth(name) for name in ("orders.dead", "orders")]
    return tuple(count.messages if count is not None else -1 for count in counts)  # type: ignore[return-value]


async def test_finding_shows_the_matches_and_removes_none() -> None:
    transport = await broker(dead(1), dead(2, **{names.ERROR: "other"}), dead(3))
    found: list[DeadLetterMessage] = []
    summary = await ops(transport, error="price").find([SelectedQueue(DLQ)], found.append)
    assert [letter.id for letter in found] == ["m1", "m3"]
    assert (summary.total, summary.looked, summary.matched, summary.moved) == (3, 3, 2, 0)
    assert await depths(transport) == (3, 0)
    await transport.close()


async def test_matches_are_sent_back_to_their_queue_and_the_others_stay() -> None:
    transport = await broker(dead(1), dead(2, **{names.ORIGIN: "elsewhere"}), dead(3))
    moved: list[DeadLetterMessage] = []
    summary = await ops(transport).replay([SelectedQueue(DLQ)], moved.append)
    assert [letter.id for letter in moved] == ["m1", "m3"]
    assert summary.moved == 2
    (reason,) = summary.stayed
    assert "elsewhere" in reason
    assert await depths(transport) == (1, 2)
    await transport.close()


async def test_a_queue_that_no_longer_exists_keeps_its_dead_letters() -> None:
    transport = await broker(dead(1), dead(2), has_orders=False)
    summary = await ops(transport).replay([SelectedQueue(DLQ)], lambda _: None)
    assert summary.moved == 0
    assert summary.stayed == {'queue "orders" no longer exists': 2}
    assert await depths(transport) == (2, -1)
    await transport.close()


async def test_dropping_ends_at_the_limit() -> None:
    transport = await broker(dead(1), dead(2), dead(3))
    summary = await ops(transport, limit=2).drop([SelectedQueue(DLQ)], lambda _: None)
    assert (summary.moved, summary.matched) == (2, 2)
    assert await depths(transport) == (1, 0)
    await transport.close()


async def test_a_dead_letter_queue_that_does_not_exist_is_named() -> None:
    transport = await broker()
    missing = DeadLetterQueue("gone.dead", frozenset({"gone"}))
    summary = await ops(transport).find([SelectedQueue(missing)], lambda _: None)
    assert summary.missing == ["gone.dead"]
    await transport.close()


@pytest.mark.parametrize("count", [1, 5])
async def test_who_wants_to_stop_is_not_kept_waiting(count: int) -> None:
    """The operation ends before the next message, and says so."""
    transport = await broker(*map(dead, range(count)))
    working = ops(transport)
    working.stop.set()
    summary = await working.drop([SelectedQueue(DLQ)], lambda _: None)
    assert summary.is_interrupted
    assert await depths(transport) == (count, 0)
    await transport.close()
