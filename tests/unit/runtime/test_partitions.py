"""Sharing partitions: several sessions of one in-process broker, which queues subscriptions as RabbitMQ does."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest

from runner.message import Address, Envelope
from runner.outcome import ACK, RELEASE
from runner.pipeline.partitioning import Partitioning
from runner.pipeline.topology import Queue, Topology
from runner.runtime import partitions
from runner.runtime.partitions import PartitionedSubscription
from runner.transports.base import Delivery, SubscriptionOptions
from runner.transports.memory import MemoryBroker, MemoryTransport

COUNT = 8
NAMES = [f"orders.{number}" for number in range(COUNT)]
PROCESSES = Partitioning("orders", COUNT, "id").processes
TOPOLOGY = Topology(
    queues=(PROCESSES, *(Queue(name, arguments={"x-single-active-consumer": True}) for name in NAMES)),
)


class Process:
    """A process that holds every delivery until `settle`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.transport = MemoryTransport(broker=broker)
        self.held: list[Delivery] = []
        self.handled: dict[str, list[bytes]] = defaultdict(list)

    async def start(self) -> Process:
        await self.transport.connect()
        await self.transport.declare(TOPOLOGY)
        processes = SubscriptionOptions(
            queue=PROCESSES.name, prefetch=1, dead_letter=None, wait_prefix="shop.retry", subscriber="shop.ship"
        )
        each = [replace(processes, queue=name, prefetch=5, is_single_active=True) for name in NAMES]
        self.partitions = PartitionedSubscription(self.transport, each, processes, self.held.append, self._let_go)
        await self.partitions.start()
        return self

    async def settle(self) -> None:
        """Handle what is held."""
        held, self.held[:] = list(self.held), []
        for delivery in held:
            self.handled[delivery.options.queue].append(delivery.envelope.body)
            await self.transport.settle(delivery, ACK)

    async def _let_go(self, name: str) -> None:
        leaving = [each for each in self.held if each.options.queue == name]
        self.held[:] = [each for each in self.held if each not in leaving]
        for delivery in leaving:
            await self.transport.settle(delivery, RELEASE)

    @property
    def active(self) -> set[str]:
        return {delivery.options.queue for delivery in self.held}


async def publish(process: Process, *bodies: str) -> None:
    """Publish these messages to each partition."""
    for name in NAMES:
        for body in bodies:
            await process.transport.publish(Address("", name), Envelope(body.encode()))


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def balanced(processes: list[Process], rounds: int) -> list[int]:
    """Let each process compare its share so many times; return in how many partitions each is active."""
    for _ in range(rounds):
        for process in processes:
            await process.partitions.balance()
            await settled()
    return [len(process.active) for process in processes]


async def test_the_first_process_has_all_partitions_and_the_second_gets_half() -> None:
    broker = MemoryBroker()
    first = await Process(broker).start()
    await publish(first, "a", "b")
    await settled()
    assert len(first.active) == COUNT
    second = await Process(broker).start()
    assert await balanced([first, second], 1) == [4, 4]
    assert first.active | second.active == set(NAMES)


@pytest.mark.parametrize("count", [3, 5, 8])
async def test_any_number_of_processes_has_an_even_share(count: int) -> None:
    """What one leaves goes from one to the next until there is room for it."""
    broker = MemoryBroker()
    processes = [await Process(broker).start()]
    await publish(processes[0], "a")
    await settled()
    processes += [await Process(broker).start() for _ in range(count - 1)]
    shares = await balanced(processes, count)
    assert sum(shares) == COUNT
    assert max(shares) <= -(-COUNT // count)
    for process in processes[1:]:
        await process.transport.close()
    await settled()
    assert len(processes[0].active) == COUNT


async def test_a_process_that_was_alone_leaves_half_of_its_empty_partitions() -> None:
    """It knows that it is active in them, without a message."""
    broker = MemoryBroker()
    first = await Process(broker).start()
    await first.partitions.balance()
    second = await Process(broker).start()
    await first.partitions.balance()
    await publish(first, "a")
    await settled()
    assert (len(first.active), len(second.active)) == (4, 4)


async def test_the_order_of_a_partition_is_kept_when_it_changes_hands() -> None:
    broker = MemoryBroker()
    first = await Process(broker).start()
    await publish(first, *"abcdefghij")
    await settled()
    second = await Process(broker).start()
    for _ in range(12):
        await balanced([first, second], 1)
        await first.settle()
        await second.settle()
        await settled()
    taken = {name: [*first.handled[name], *second.handled[name]] for name in NAMES}
    assert taken == {name: [body.encode() for body in "abcdefghij"] for name in NAMES}
    assert any(second.handled.values())


async def test_it_is_live_while_a_partition_changes_hands() -> None:
    """A probe does not fail for that."""
    broker = MemoryBroker()
    first = await Process(broker).start()
    await publish(first, "a")
    await settled()
    await Process(broker).start()
    balancing = asyncio.create_task(first.partitions.balance())
    while not balancing.done():
        assert first.partitions.is_live
        await asyncio.sleep(0)
    await first.partitions.close()
    assert not first.partitions.is_live


async def test_what_a_stranger_publishes_to_the_queue_of_the_processes_is_dropped() -> None:
    first = await Process(MemoryBroker()).start()
    await first.transport.publish(Address("", PROCESSES.name), Envelope(b"odd"))
    await settled()
    queue = first.transport.queue(PROCESSES.name)
    assert queue is not None
    assert (len(queue.buffer), first.held) == (0, [])
    assert not queue.subscriptions[0].unsettled


async def test_a_process_compares_its_share_again_and_again_where_others_may_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The in-process broker has one process: nothing is compared there."""
    monkeypatch.setattr(partitions, "BALANCE_S", 0.01)
    process = Process(MemoryBroker())
    counted = asyncio.Event()

    async def count_consumers(queue: str) -> int:
        counted.set()
        return 1

    shared: Any = process.transport
    shared.count_consumers = count_consumers
    await process.start()
    assert process.partitions._task is None
    await process.partitions.close()
    capabilities = type(shared.capabilities)("memory", is_persistent=False, is_shared=True)
    monkeypatch.setattr(MemoryTransport, "capabilities", property(lambda _: capabilities))
    other = Process(MemoryBroker())
    other.transport.count_consumers = count_consumers  # type: ignore[method-assign]
    await other.start()
    async with asyncio.timeout(5):
        await counted.wait()
    await other.partitions.close()
