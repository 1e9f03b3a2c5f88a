"""Consumes the partitions of a queue, and shares them evenly with the other processes that do.

Every process subscribes to every partition, and the broker delivers to the one that has subscribed first. So the first
process to start has them all, and when it ends, another one has its partitions at once. For an even share, a process
that is active in more partitions than that steps back from the latest ones: it settles what it holds, and goes to the
end of the line of those who wait for the partition. One after another gets it, until one has room for it.

A process knows that it is active in a partition by its messages, or when it is the only process. The processes are the
consumers of a queue that stays empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence

from runner import log
from runner.errors import BrokerUnavailable
from runner.tasks import cancel_and_wait, for_each
from runner.transports.base import Delivery, OnDelivery, Subscription, SubscriptionOptions, Transport

BALANCE_S = 3.0
"""How often a process compares its share with that of the others."""


class PartitionedSubscription:
    """What a `Subscription` is to one queue, for all partitions of one.

    `processes` is the queue whose consumers are the processes. `let_go` returns when a partition's deliveries are all
    settled or released.
    """

    def __init__(
        self,
        transport: Transport,
        partitions: Sequence[SubscriptionOptions],
        processes: SubscriptionOptions,
        on_delivery: OnDelivery,
        let_go: Callable[[str], Awaitable[None]],
    ) -> None:
        self._transport = transport
        self._options = partitions
        self._processes = processes
        self._on_delivery = on_delivery
        self._let_go = let_go
        self._subscriptions: dict[str, Subscription] = {}
        self._active: dict[str, None] = {}
        """The partitions in which this process is active as far as it knows, the latest one last."""
        self._leaving: set[str] = set()
        """The partitions that it has just stepped back from: it may not have subscribed to them again yet."""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_live(self) -> bool:
        return all(each.is_live for name, each in self._subscriptions.items() if name not in self._leaving)

    async def start(self) -> None:
        """Subscribe to all partitions. Raises BrokerUnavailable."""
        try:
            await for_each((self._processes, *self._options), self._subscribe, limit=16)
        except BaseException:
            await self.close()
            raise
        if self._transport.capabilities.is_shared:
            self._task = asyncio.create_task(self._keep_balanced(), name=f"partitions-{self._processes.queue}")

    async def stop(self) -> None:
        await cancel_and_wait(self._task)
        await asyncio.gather(*(each.stop() for each in self._subscriptions.values()))

    async def close(self) -> None:
        await cancel_and_wait(self._task)
        await asyncio.gather(*(each.close() for each in self._subscriptions.values()))

    async def balance(self) -> None:
        """Step back from as many partitions as are beyond an even share. Raises BrokerUnavailable."""
        processes = await self._transport.count_consumers(self._processes.queue)
        self._leaving.clear()
        if processes == 1:
            self._active |= dict.fromkeys(each.queue for each in self._options)
        share = math.ceil(len(self._options) / max(1, processes))
        await asyncio.gather(*(self._hand_over(name, processes) for name in list(self._active)[share:]))

    async def _subscribe(self, options: SubscriptionOptions) -> None:
        self._subscriptions[options.queue] = await self._transport.subscribe(options, self._receive)

    def _receive(self, delivery: Delivery) -> None:
        if delivery.options.queue == self._processes.queue:
            self._transport.ack(delivery)  # a stranger has published it
            return
        self._active[delivery.options.queue] = None
        self._on_delivery(delivery)

    async def _keep_balanced(self) -> None:
        while True:
            await asyncio.sleep(BALANCE_S)
            with contextlib.suppress(BrokerUnavailable):  # its loss is reported elsewhere; nothing changes meanwhile
                await self.balance()

    async def _hand_over(self, name: str, processes: int) -> None:
        """Step back from a partition when what this process holds of it is settled, so that its order is kept."""
        del self._active[name]
        self._leaving.add(name)
        fields = {"subscriber": self._processes.subscriber, "queue": name, "processes": processes}
        log.get_logger().info("partition.handed_over", **fields)
        self._subscriptions[name].step_back()
        await self._let_go(name)
