"""Reading queues of the in-process broker: messages that are not taken keep their places."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import BrokerUnavailable
from runner.message import Address, Envelope
from runner.operations.memory_access import FileAccess, MemoryAccess
from runner.pipeline.topology import Queue, Topology
from runner.transports.base import Delivery, SubscriptionOptions
from runner.transports.file import FileBroker, FileTransport
from runner.transports.memory import MemoryTransport


async def connected(*bodies: str, **arguments: object) -> tuple[MemoryTransport, MemoryAccess]:
    """Return a session with a queue `q` that has these messages."""
    transport = MemoryTransport()
    await transport.connect()
    await transport.declare(Topology(queues=(Queue("q", arguments=arguments),)))
    for body in bodies:
        await transport.publish(Address("", "q"), Envelope(body.encode(), priority=len(body)))
    return transport, MemoryAccess(transport)


async def seen(access: MemoryAccess, *take: str) -> list[str]:
    """Return all bodies in order; take the named ones."""
    found = []
    async with access.read("q") as browser:
        while (browsed := await browser.next(0)) is not None:
            found.append(browsed.envelope.body.decode())
            if found[-1] in take:
                await browsed.take()
        assert browser.is_at_its_end
    return found


@pytest.mark.parametrize("arguments", [{}, {"x-max-priority": 9}, {"x-queue-type": "quorum"}])
async def test_messages_keep_their_order_and_taken_ones_are_removed(arguments: dict[str, object]) -> None:
    _, access = await connected("a", "b", "cc", "d", **arguments)
    before = await seen(access)
    assert sorted(before) == ["a", "b", "cc", "d"]
    assert await seen(access, "b", "cc") == before
    assert await seen(access) == [body for body in before if body not in ("b", "cc")]
    counts = await access.depth("q")
    assert counts is not None
    assert (counts.messages, counts.consumers) == (2, 0)


async def test_a_subscriber_gets_no_message_that_is_being_read() -> None:
    transport, access = await connected("a", "b")
    got: list[Delivery] = []
    async with access.read("q") as browser:
        first = await browser.next(0)
        assert first is not None
        options = SubscriptionOptions(queue="q", prefetch=10, dead_letter=None, wait_prefix="w")
        await transport.subscribe(options, got.append)
        while not got:
            await transport.publish(Address("", "q"), Envelope(b"c"))
        assert b"a" not in [delivery.envelope.body for delivery in got]
        await first.take()
    await transport.close()
    assert b"a" not in [delivery.envelope.body for delivery in got]


async def test_a_missing_queue_is_an_error() -> None:
    _, access = await connected()
    assert await access.depth("other") is None
    with pytest.raises(BrokerUnavailable, match='there is no queue "other"'):
        async with access.read("other"):
            pass


async def test_a_queue_in_a_file_is_read_as_often_as_one_wants(tmp_path: Path) -> None:
    """Nobody else changes the file in between."""
    owner = FileTransport(FileBroker(tmp_path / "q"))
    await owner.connect()
    await owner.declare(Topology(queues=(Queue("q"),)))
    for body in "abc":
        await owner.publish(Address("", "q"), Envelope(body.encode()))
    await owner.close()
    access = FileAccess(tmp_path / "q", lambda _: None)
    await access.open()
    assert [await seen(access), await seen(access, "b")] == [["a", "b", "c"]] * 2
    depth = await access.depth("q")
    assert depth is not None
    assert (depth.messages, await seen(access)) == (2, ["a", "c"])
    await access.close()
