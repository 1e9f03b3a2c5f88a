"""Compares pipelines with a live broker and changes the broker: adds what is missing, the rest only on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from runner.errors import InvalidUsage
from runner.operations.file_topology import apply_to_file, compare_with_file
from runner.operations.leftovers import count_retrying_messages, without_dead_letter_sources
from runner.operations.plan import (
    ApplyResult,
    Plan,
    PlanItem,
    compute_plan,
    find_strays,
    format_binding,
    missing_items,
)
from runner.operations.rabbitmq.broker_inspection import (
    TopologySession,
    inspect_broker,
    open_session,
    recreation_marker,
)
from runner.operations.rabbitmq.message_mover import QueueInUse, QueueNotEmpty
from runner.operations.rabbitmq.queue_deletion import delete_exchange, delete_queue
from runner.operations.rabbitmq.queue_recreation import CannotRecreate, QueueRecreation, delete_move_exchanges
from runner.operations.targets import require_live_broker, require_rabbitmq, unknown_target
from runner.pipeline.delays import bottom_name
from runner.pipeline.model import BrokerSettings, delay_prefix
from runner.pipeline.topology import PARTITIONS_SUFFIX, Queue, Topology
from runner.transports.base import OnTransportEvent
from runner.transports.broker_state import LeftoverQueue, LiveBinding
from runner.transports.rabbitmq.topology import count_messages, make
from runner.units import pluralize

OnStep = Callable[[str], None]


async def compare(
    settings: BrokerSettings,
    topology: Topology,
    pipelines: Sequence[str],
    management_url: str | None,
    *,
    on_transport_event: OnTransportEvent = lambda _: None,
) -> Plan:
    """Return what differs. Raises NoLiveBroker for the in-process broker, and BrokerUnavailable."""
    require_live_broker(settings)
    if settings.file is not None:
        found = await compare_with_file(settings.file, topology)
    else:
        async with open_session(settings, ", ".join(pipelines), management_url, on_transport_event) as opened:
            found = compute_plan(topology, await inspect_broker(opened, topology, pipelines), pipelines)
    if settings.topology != "manage":
        note = f"the pipeline says `topology: {settings.topology}`: `up` declares nothing"
        return replace(found, notes=(*found.notes, note))
    return found


async def apply(
    settings: BrokerSettings,
    topology: Topology,
    pipelines: Sequence[str],
    management_url: str | None,
    *,
    prunes: bool,
    recreate: Sequence[str],
    prune_queues: Sequence[str] = (),
    on_step: OnStep,
    on_transport_event: OnTransportEvent = lambda _: None,
) -> ApplyResult:
    """Declare what is missing, recreate the queues in `recreate`, and with `prunes` remove leftovers.

    `prune_queues` are deleted with their messages. Every step can be repeated after a crash. Raises NoLiveBroker,
    UnknownTarget, QueueStillDeclared, BrokerUnavailable, CannotRecreate.
    """
    require_live_broker(settings)
    known = [queue.name for queue in topology.queues if queue.declare]
    for wanted in recreate:
        if wanted not in known:
            raise unknown_target(wanted, "queue that the pipelines declare", known)
    for name in prune_queues:
        if name in (queue.name for queue in topology.queues):
            raise QueueStillDeclared(f'queue "{name}" is in the pipeline', "remove it there first, or use --recreate")
    if settings.file is not None:
        if prune_queues:
            require_rabbitmq(settings, "--prune-queue")
        return await apply_to_file(settings.file, topology, recreate, prunes=prunes, on_step=on_step)
    async with open_session(settings, ", ".join(pipelines), management_url, on_transport_event) as opened:
        steps = _Steps(opened, topology, pipelines, on_step)
        await steps.create(await steps.look())
        for queue in (queue for queue in topology.queues if queue.name in recreate):
            await steps.recreate(queue)
        if prune_queues:
            await steps.prune_queues(prune_queues)
        if prunes:
            await steps.prune()  # after prune_queues: their dead-letter queues may go only now
        left = await steps.look()
    return ApplyResult(tuple(steps.done), left, tuple(steps.refused))


class QueueStillDeclared(InvalidUsage):
    """--prune-queue names a queue that is in the pipeline."""


class _Steps:
    """The steps of one `apply`; `on_step` gets a sentence after each change."""

    def __init__(self, opened: TopologySession, topology: Topology, pipelines: Sequence[str], on_step: OnStep) -> None:
        self._session = opened
        self._topology = topology
        self._pipelines = pipelines
        self._on_step = on_step
        self.done: list[str] = []
        self.refused: list[str] = []

    async def look(self) -> Plan:
        """Return what differs at this moment."""
        return compute_plan(
            self._topology, await inspect_broker(self._session, self._topology, self._pipelines), self._pipelines
        )

    async def recreate(self, queue: Queue) -> None:
        """Recreate a queue that differs, or finish a recreation that was interrupted."""
        found = await self.look()
        mine = [item for item in found.of("recreate", "unfinished") if item.kind == "queue" and item.name == queue.name]
        markers = [recreation_marker(pipeline) for pipeline in self._pipelines]
        if not mine:
            await delete_move_exchanges(self._session, queue.name, markers)
            self._on_step(f'queue "{queue.name}" does not differ: not recreated')
            return
        await self._check_partitions(mine[0])
        stale = [item.live.binding for item in found.of("extra") if item.name == queue.name and item.live is not None]
        wanted = [binding for binding in self._topology.bindings if binding.queue == queue.name]
        self._say(await QueueRecreation(self._session, queue, wanted, stale, markers, self._on_step).run())

    async def _check_partitions(self, item: PlanItem) -> None:
        """Raise CannotRecreate to change the number of a queue's partitions while messages wait in them."""
        if item.partitions and (waiting := await count_messages(self._session.connection, item.partitions)):
            queue = item.name.removesuffix(PARTITIONS_SUFFIX)
            text = f'{pluralize(waiting, "message")} in the partitions of "{queue}" would lose their order'
            raise CannotRecreate(f"{text}; nothing was changed", "let the consumers of the old number handle them")

    async def create(self, found: Plan) -> None:
        """Declare what is missing, in the topology's order. Exclusive queues are declared by their consumer."""
        missing, items = missing_items(found, self._topology)
        if missing:
            await make(self._session.connection, missing.exchanges, missing.queues, missing.bindings)
        for item in items:
            self._say(f"created {item.text}")

    async def prune(self) -> None:
        """Remove bindings and empty, unused queues that are no longer in the pipelines. Messages are never removed."""
        observed = await inspect_broker(self._session, self._topology, self._pipelines)
        if observed.management is None:
            self.refused.append(f"nothing was removed: {observed.unchecked}")
            return
        found = compute_plan(self._topology, observed, self._pipelines)
        await self._unbind(item.live for item in found.of("extra") if item.live is not None)
        left = find_strays(observed, self._pipelines)
        unused = [stray for stray, kind in left if kind == "queue" and not stray.consumers]
        for stray in unused:
            await self._unbind(stray.bindings)
        waiting = count_retrying_messages(observed, left)
        if waiting and unused:
            text = f"no queue was deleted: {pluralize(waiting, 'message')} may return from a retry"
            self.refused.append(f"{text}; run it again when none is left")
        else:
            await self._delete_in_order(unused, [stray for stray, kind in left if kind == "queue"])
        await self._delete([stray for stray, kind in left if kind == "wait"], with_exchange=True)
        await self._delete_delays([stray for stray, kind in left if kind == "delay"])

    async def _delete_delays(self, left: Sequence[LeftoverQueue]) -> None:
        """Delete the queues of delayed messages if all are empty.

        Their exchanges go first: without only its queue, an exchange would pass messages on too early.
        """
        if left and not any(stray.messages for stray in left):
            tops = [bottom_name(delay_prefix(pipeline)) for pipeline in self._pipelines]
            for name in [*(stray.name for stray in left), *tops]:
                await delete_exchange(self._session.connection, name)
            await self._delete(left)

    async def prune_queues(self, names: Sequence[str]) -> None:
        """Delete the named queues with their bindings and messages, unless they are in use."""
        observed = await inspect_broker(self._session, self._topology, also=names)
        if observed.management is None:
            self.refused.append(f"no queue was deleted: {observed.unchecked}")
            return
        named = [stray for stray in observed.leftovers if stray.name in names]
        for name in names:
            if name not in observed.all_queues:
                self._on_step(f'queue "{name}" does not exist')
        for stray in named:
            if not stray.consumers:
                await self._unbind(stray.bindings)
        await self._delete(named, with_messages=True)

    async def _unbind(self, bindings: Iterable[LiveBinding]) -> None:
        management = self._session.management
        for live in bindings:
            binding = live.binding
            if management and await management.delete_binding(binding.exchange, binding.queue, live.properties_key):
                self._say(f"removed binding {format_binding(binding)}")

    async def _delete_in_order(self, unused: Sequence[LeftoverQueue], there: Sequence[LeftoverQueue]) -> None:
        """Delete queues, each before its dead-letter queue, which must outlive it."""
        while free := without_dead_letter_sources(unused, there):
            gone = await self._delete(free)
            there = [stray for stray in there if stray.name not in gone]
            unused = [stray for stray in unused if stray not in free]

    async def _delete(
        self, found: Iterable[LeftoverQueue], *, with_messages: bool = False, with_exchange: bool = False
    ) -> set[str]:
        """Delete queues if that loses no message, and return their names. A named queue that stays is reported."""
        gone = set()
        for stray in found:
            try:
                deleted = await delete_queue(self._session.settings, stray, with_messages=with_messages)
            except (QueueInUse, QueueNotEmpty):
                if with_messages:
                    self.refused.append(f'queue "{stray.name}" is in use: stop its consumers and run this again')
                continue
            if with_exchange:
                await delete_exchange(self._session.connection, stray.name)
            self._say(f'deleted queue "{stray.name}" with {pluralize(deleted, "message")}')
            gone.add(stray.name)
        return gone

    def _say(self, text: str) -> None:
        self.done.append(text)
        self._on_step(text)
