"""Remembers what was declared and declares it again after a loss: what is not durable is gone then."""

from __future__ import annotations

from aio_pika.abc import AbstractConnection

from runner.errors import TopologyMismatch
from runner.pipeline.topology import Topology, wait_name, wait_topology
from runner.transports.base import DeclareResult, OnTransportEvent, TransportEvent
from runner.transports.rabbitmq.topology import Mode, declare


class DeclaredTopology:
    """The topology of one session with the broker."""

    def __init__(self, mode: Mode, on_transport_event: OnTransportEvent) -> None:
        self._mode: Mode = mode
        self._say = on_transport_event
        self.topology = Topology()
        """Everything that was declared so far."""

    async def declare(
        self, connection: AbstractConnection, topology: Topology, *, must_be_seen: bool = False
    ) -> DeclareResult:
        """Declare and remember. Raises what `declare` in `topology` raises; then nothing is remembered."""
        declared = await declare(connection, topology, self._mode, must_be_seen=must_be_seen)
        self.topology = _merged(self.topology, topology)
        return declared

    async def restore(self, connection: AbstractConnection) -> None:
        """Declare everything again; a difference that has come up meanwhile is told, and does not stop the rest."""
        await self._restore(connection, self.topology)

    async def restore_for_publishing(self, connection: AbstractConnection) -> None:
        """Declare again what publishing needs: exclusive queues belong to the connection that consumes."""
        shared = tuple(queue for queue in self.topology.queues if not queue.exclusive)
        names = {queue.name for queue in shared}
        bindings = tuple(binding for binding in self.topology.bindings if binding.queue in names)
        await self._restore(connection, Topology(self.topology.exchanges, shared, bindings))

    def has_exchange(self, name: str) -> bool:
        """Whether an exchange is one of ours."""
        return any(exchange.name == name for exchange in self.topology.exchanges)

    def waits(self, prefix: str) -> list[int]:
        """Return the delays, in milliseconds and ascending, whose wait queues with this prefix were declared."""
        beginning = wait_name(prefix, 0)[:-1]
        names = (queue.name for queue in self.topology.queues if queue.name.startswith(beginning))
        return sorted(int(name[len(beginning) :]) for name in names if name[len(beginning) :].isdecimal())

    async def ensure_wait(self, connection: AbstractConnection, prefix: str, milliseconds: int) -> int:
        """Return the delay to wait for: this one, or where its queue may not be made, the next that there is."""
        known = self.waits(prefix)
        if milliseconds in known:
            return milliseconds
        try:
            # We publish to it, which takes a right to it: what the broker does not show to us cannot be used.
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
            self._say(TransportEvent("topology.mismatch", "error", {"error": str(error)}))


def _merged(old: Topology, new: Topology) -> Topology:
    """Return both, each thing once; the broker has accepted both, so what they say of one name is equivalent."""
    exchanges = {exchange.name: exchange for exchange in (*new.exchanges, *old.exchanges)}
    queues = {queue.name: queue for queue in (*new.queues, *old.queues)}
    bindings = [*old.bindings, *(binding for binding in new.bindings if binding not in old.bindings)]
    return Topology(tuple(exchanges.values()), tuple(queues.values()), tuple(bindings))
