"""Compares pipelines with a live broker, and changes the broker: what is missing always, the rest only when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from runner.operations.live import NothingLive, unknown
from runner.operations.planning import Plan, plan
from runner.pipeline.model import BrokerSettings
from runner.pipeline.topology import Queue, Topology
from runner.transports.base import OnStateChange
from runner.transports.rabbitmq.inspecting import Session, inspect, session
from runner.transports.rabbitmq.recreating import Recreation, remove_ways
from runner.transports.rabbitmq.topology import make

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did, in sentences, and what still differs afterwards. `refused` is what was asked for in vain."""

    done: tuple[str, ...]
    left: Plan
    refused: tuple[str, ...] = ()


async def compare(
    settings: BrokerSettings,
    topology: Topology,
    name: str,
    management_url: str | None,
    *,
    on_state_change: OnStateChange = lambda _: None,
) -> Plan:
    """Return what differs. Raises NothingLive for the in-process broker, BrokerUnavailable."""
    _need_broker(settings)
    async with session(settings, name, management_url, on_state_change) as opened:
        found = plan(topology, await inspect(opened, topology))
    if settings.topology != "manage":
        note = f"the pipeline says `topology: {settings.topology}`: `up` itself creates nothing"
        return replace(found, notes=(*found.notes, note))
    return found


async def apply(
    settings: BrokerSettings,
    topology: Topology,
    name: str,
    management_url: str | None,
    *,
    prunes: bool,
    recreate: Sequence[str],
    on_step: OnStep,
    on_state_change: OnStateChange = lambda _: None,
) -> Applied:
    """Declare what is missing, recreate the queues that are named, remove stale bindings with `prunes`.

    Anything may be run again after a crash. Raises NothingLive, UnknownPlace, BrokerUnavailable, CannotRecreate.
    """
    _need_broker(settings)
    known = [queue.name for queue in topology.queues if queue.declare]
    for wanted in recreate:
        if wanted not in known:
            raise unknown(wanted, "queue that the pipelines declare", known)
    async with session(settings, name, management_url, on_state_change) as opened:
        steps = _Steps(opened, topology, on_step)
        await steps.create(await steps.look())
        for queue in (queue for queue in topology.queues if queue.name in recreate):
            await steps.recreate(queue)
        if prunes:
            await steps.prune(await steps.look())
        left = await steps.look()
    return Applied(tuple(steps.done), left, tuple(steps.refused))


class _Steps:
    """What is done, one thing after the other, each told when it is done."""

    def __init__(self, opened: Session, topology: Topology, on_step: OnStep) -> None:
        self._session = opened
        self._topology = topology
        self._on_step = on_step
        self.done: list[str] = []
        self.refused: list[str] = []

    async def look(self) -> Plan:
        """Return what differs now."""
        return plan(self._topology, await inspect(self._session, self._topology))

    async def recreate(self, queue: Queue) -> None:
        """Make a queue anew where it differs, or finish what was begun."""
        found = await self.look()
        mine = [item for item in found.of("recreate", "unfinished") if item.kind == "queue" and item.name == queue.name]
        if not mine:
            await remove_ways(self._session, queue.name)
            self._on_step(f'queue "{queue.name}" needs no recreation')
            return
        stale = [item.live.binding for item in found.of("extra") if item.name == queue.name and item.live is not None]
        wanted = [binding for binding in self._topology.bindings if binding.queue == queue.name]
        self._say(await Recreation(self._session, queue, wanted, stale, self._on_step).run())

    async def create(self, found: Plan) -> None:
        """Declare what is missing, in the topology's order; exclusive queues belong to the process that uses them."""
        new = {(item.kind, item.name) for item in found.of("create")}
        missing = {item.name for item in found.of("foreign")} | {item.name for item in found.of("unfinished")}
        exchanges = [item for item in self._topology.exchanges if ("exchange", item.name) in new]
        queues = [item for item in self._topology.queues if ("queue", item.name) in new and not item.exclusive]
        queues = [item for item in queues if item.name not in missing]
        absent = missing | {item.name for item in self._topology.queues if item.exclusive}
        bindings = [
            binding
            for binding in self._topology.bindings
            if binding.queue not in absent and binding.exchange not in missing
        ]
        if not (exchanges or queues or any(item.kind == "binding" for item in found.of("create", "unchecked"))):
            return
        await make(self._session.connection, exchanges, queues, bindings)
        for item in found.of("create"):
            if item.name not in absent:
                self._say(f"created {item.text}")

    async def prune(self, found: Plan) -> None:
        """Remove the bindings of our own queues that the pipelines do not have any more."""
        management = self._session.management
        if management is None:
            self.refused.append(f"no binding was removed: {self._session.no_management}")
            return
        for item in found.of("extra"):
            live = item.live
            if live is not None and await management.delete_binding(
                live.binding.exchange, live.binding.queue, live.token
            ):
                self._say(f"removed {item.text.removesuffix(' is not in the pipeline')}")

    def _say(self, text: str) -> None:
        self.done.append(text)
        self._on_step(text)


def _need_broker(settings: BrokerSettings) -> None:
    if settings.is_memory:
        text = "the pipeline runs on the in-process broker: there is nothing live to compare"
        raise NothingLive(text, "give --broker URL")
