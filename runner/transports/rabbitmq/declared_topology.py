"""Remembers what was declared, and declares it again after a loss: items that are not durable are gone then."""

from __future__ import annotations

from aio_pika.abc import AbstractConnection

from runner.errors import TopologyMismatch
from runner.pipeline.topology import Topology, wait_topology
from runner.transports.base import DeclareResult, OnTransportEvent, TransportEvent
from runner.transports.rabbitmq.topology import Mode, declare


class DeclaredTopology:
    """The topology that one session with the broker has declared."""

    def __init__(self, mode: Mode, on_transport_event: OnTransportEvent) -> None:
        self._mode: Mode = mode
        self._on_event = on_transport_event
        self.topology = Topology()
        """Everything that was declared until now."""

    async def declare(
        self, connection: AbstractConnection, topology: Topology, *, must_be_seen: bool = False
    ) -> DeclareResult:
        """Declare a topology and remember it. When `topology.declare` raises, nothing is remembered."""
        declared = await declare(connection, topology, self._mode, must_be_seen=must_be_seen)
        self.topology = _merged(self.topology, topology)
        return declared

    async def restore(self, connection: AbstractConnection) -> None:
        """Declare everything again. A difference that has appeared since is reported, and the rest is declared."""
        await self._restore(connection, self.topology)

    async def restore_for_publishing(self, connection: AbstractConnection) -> None:
        """Declare again what publishing needs. Exclusive queues belong to the consuming connection."""
        await self._restore(connection, self.topology.without_exclusive_queues())

    def has_exchange(self, name: str) -> bool:
        """Return whether this session has declared the exchange."""
        return any(exchange.name == name for exchange in self.topology.exchanges)

    async def ensure_wait(self, connection: AbstractConnection, prefix: str, milliseconds: int) -> int:
        """Return this delay, or, where its wait queue may not be declared, the next longer one that exists."""
        known = [*self.topology.waits(prefix).values()]
        if milliseconds in known:
            return milliseconds
        try:
            # Publishing to it needs a permission: a queue that the broker does not show cannot be used.
            await self.declare(connection, wait_topology(prefix, milliseconds), must_be_seen=True)
            return milliseconds
        except TopologyMismatch:
            if not known:
                raise
            return next((wait for wait in known if wait >= milliseconds), known[-1])

    async def _restore(self, connection: AbstractConnection, topology: Topology) -> None:
        try:
            await declare(connection, topology, self._mode, is_all_or_nothing=False)
        except TopologyMismatch as error:
            self._on_event(TransportEvent("topology.mismatch", "error", {"error": str(error)}))


def _merged(old: Topology, new: Topology) -> Topology:
    """Return both, each item once. The broker has accepted both, so what they say of one name is equivalent."""
    exchanges = {exchange.name: exchange for exchange in (*new.exchanges, *old.exchanges)}
    queues = {queue.name: queue for queue in (*new.queues, *old.queues)}
    bindings = [*old.bindings, *(binding for binding in new.bindings if binding not in old.bindings)]
    return Topology(tuple(exchanges.values()), tuple(queues.values()), tuple(bindings))
