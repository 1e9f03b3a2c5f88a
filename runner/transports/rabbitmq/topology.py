"""Declares a topology on RabbitMQ. It checks everything first, and only then declares anything.

`DeclaredTopology` declares it again after a loss: items that are not durable are gone then.

Source: https://www.rabbitmq.com/docs/queues#property-equivalence
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Literal, TypeVar

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel

from runner.errors import BrokerUnavailable, TopologyMismatch
from runner.pipeline.topology import ABSENT_HINT, Binding, Exchange, Queue, Topology, wait_topology
from runner.tasks import map_concurrently
from runner.transports.base import DeclareResult, OnTransportEvent, TransportEvent
from runner.transports.broker_state import LOCKED, LOCKED_HINT, ExistingItem, absence_text
from runner.transports.rabbitmq.aiormq_workarounds import CHANNEL_ERRORS
from runner.transports.rabbitmq.channels import (
    bind,
    declare_exchange,
    declare_queue,
    forbidden,
    reply_of,
    temporary_channel,
)
from runner.transports.rabbitmq.connection import ConnectionClosedByUs, ReconnectingConnection
from runner.transports.rabbitmq.topology_probe import TopologyProbe

Mode = Literal["manage", "verify", "ignore"]
T = TypeVar("T")

MAX_CHANNELS = 8
"""Maximum number of channels to ask and declare on at the same time. Each waits for one answer after the other."""

ITEMS_PER_CHANNEL = 4
"""One more channel is opened for this many items."""

_ALL_RIGHTS = "configure, write and read it"
"""What declaring may need: with a dead-letter exchange, also to read the queue and to write to the exchange."""


async def declare(
    connection: AbstractConnection,
    topology: Topology,
    mode: Mode,
    *,
    is_all_or_nothing: bool = True,
    must_be_seen: bool = False,
) -> DeclareResult:
    """Declare what is missing (`manage`), or only check (`verify`), or do nothing (`ignore`). Idempotent.

    Raises TopologyMismatch, which names every difference. Then nothing was declared, or, without `is_all_or_nothing`,
    everything that could be. With `must_be_seen`, an item that the broker does not show counts as missing.
    """
    if mode == "ignore":
        return DeclareResult.of(topology)
    check = TopologyCheck(mode, must_be_seen=must_be_seen)
    await check.look(connection, [*topology.exchanges, *topology.queues])
    missing_exchanges = [item for item in topology.exchanges if not check.has(item)]
    missing_queues = [item for item in topology.queues if not check.has(item)]
    if mode == "manage" and (not is_all_or_nothing or not check.differences):
        await make(connection, missing_exchanges, missing_queues, topology.bindings)
    if check.differences:
        raise TopologyMismatch("\n".join(check.differences), check.hint())
    return DeclareResult.of(topology, new=len(missing_exchanges) + len(missing_queues))


async def count_messages(connection: AbstractConnection, names: Iterable[str]) -> int:
    """Return how many messages are ready in these queues. A queue that does not exist has none."""
    async with TopologyProbe(connection) as probe:
        counts = [await probe.counts(name) for name in names]
    return sum(each.messages for each in counts if each is not None)


async def make(
    connection: AbstractConnection, exchanges: Sequence[Exchange], queues: Sequence[Queue], bindings: Sequence[Binding]
) -> None:
    """Declare what the pipeline declares. Bindings of missing items with `declare: false` are left out.

    Raises BrokerUnavailable where the broker refuses.
    """
    absent = {item.name for item in exchanges if not item.declare} | {item.name for item in queues if not item.declare}
    ours = [item for item in bindings if item.queue not in absent and item.exchange not in absent]
    right = "write (of a binding: the right to write its queue and to read its exchange)"
    await _make(connection, [item for item in exchanges if item.declare], declare_exchange, _ALL_RIGHTS)
    await _make(connection, [item for item in queues if item.declare], declare_queue, _ALL_RIGHTS)
    await _make(connection, ours, bind, right)


async def _make(
    connection: AbstractConnection,
    things: Sequence[T],
    declare: Callable[[AbstractChannel, T], Awaitable[None]],
    right: str,
) -> None:
    """Declare items on several channels at once."""
    try:
        await map_concurrently(things, lambda: temporary_channel(connection), declare, limit=_channel_count(things))
    except aiormq.exceptions.ChannelAccessRefused as error:
        raise forbidden(error, right) from error
    except aiormq.exceptions.ConnectionInternalError as error:
        if "transient_nonexcl_queues" not in reply_of(error):
            raise
        names = ", ".join(f'"{item.name}"' for item in things if isinstance(item, Queue) and not item.durable)
        raise BrokerUnavailable(
            f"the broker is configured to refuse queues with `durable: false`, as {names}",
            "write `durable: true`, or `exclusive: true` for a queue of one connection; or permit it on the broker: "
            "`deprecated_features.permit.transient_nonexcl_queues = true`",
        ) from error


def _channel_count(things: Sequence[object]) -> int:
    return min(MAX_CHANNELS, -(-len(things) // ITEMS_PER_CHANNEL))


class TopologyCheck:
    """Finds out which items exist and which differ, without changing anything.

    Comparing needs the configure permission. Without it, items are not compared, unless the mode is `manage`.
    """

    def __init__(self, mode: Mode, *, must_be_seen: bool = False) -> None:
        self._mode = mode
        self._must_be_seen = must_be_seen
        self._seen: dict[tuple[type, str], ExistingItem | None] = {}
        self.differences: list[str] = []

    def hint(self) -> str:
        """Return what to do about the differences."""
        if all(line.endswith(" does not exist") for line in self.differences):
            return ABSENT_HINT
        if all(line.endswith(LOCKED) for line in self.differences):
            return LOCKED_HINT
        return (
            "arguments of an existing queue or exchange cannot change: write what the broker has into the pipeline, "
            "set `declare: false` if another program owns it, or let `runner apply --recreate NAME` recreate a queue"
        )

    async def look(self, connection: AbstractConnection, things: Sequence[Exchange | Queue]) -> None:
        """Ask for each item, on several channels at once, and note differences in the order of the items."""

        async def ask(probe: TopologyProbe, thing: Exchange | Queue) -> None:
            asking = (
                probe.queue(thing, compares=thing.declare)
                if isinstance(thing, Queue)
                else probe.exchange(thing, compares=thing.declare)
            )
            self._seen[type(thing), thing.name] = await asking

        def inquire() -> TopologyProbe:
            return TopologyProbe(connection, needs_rights=self._mode == "manage")

        await map_concurrently(things, inquire, ask, limit=_channel_count(things))
        for thing in things:
            seen = self._seen[type(thing), thing.name]
            self._note(thing, None if seen is not None and seen.is_hidden and self._must_be_seen else seen)

    def has(self, thing: Exchange | Queue) -> bool:
        """Return whether an item exists, or may exist."""
        return self._seen[type(thing), thing.name] is not None

    def _note(self, thing: Exchange | Queue, seen: ExistingItem | None) -> None:
        if seen is None and (self._mode == "verify" or not thing.declare):
            self.differences.append(absence_text("queue" if isinstance(thing, Queue) else "exchange", thing.name))
        if seen is not None and (seen.differences or seen.is_locked or self._mode == "manage"):
            self.differences += seen.lines()


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

    async def try_restore(self, connection: ReconnectingConnection) -> None:
        """Declare everything again if that is possible now: otherwise, what the caller tries next finds out."""
        with suppress(ConnectionClosedByUs, BrokerUnavailable, *CHANNEL_ERRORS):
            await self.restore(await connection.ready())

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
