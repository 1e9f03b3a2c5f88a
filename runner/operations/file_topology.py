"""Compares a topology with a broker in a file, and changes the file: beside `runner up`, or while none owns it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from runner.operations.plan import ApplyResult, Plan, PlanItem, compute_plan, format_binding, missing_items, state_of
from runner.operations.rabbitmq.queue_recreation import CannotRecreate
from runner.pipeline.topology import PARTITIONS_SUFFIX, Topology
from runner.transports.broker_state import BrokerState
from runner.transports.file import FileBroker, FileTransport
from runner.units import pluralize

_ORDERING = {"x-queue-type", "x-max-priority", "durable", "auto_delete"}
"""Options by which messages lie in the file: they cannot change while there are messages."""


@asynccontextmanager
async def open_file(path: Path, *, is_owner: bool = False) -> AsyncIterator[tuple[FileBroker, FileTransport]]:
    """Open a file. Raises BrokerUnavailable, also where this process is to own it and another one does."""
    broker = FileBroker(path, is_owner=is_owner, who="runner apply")
    transport = FileTransport(broker)
    await transport.connect()
    try:
        yield broker, transport
    finally:
        await transport.close()


async def compare_with_file(path: Path, topology: Topology) -> Plan:
    """Return what differs. A file that does not exist is not made."""
    topology = _kept(topology)
    if await asyncio.to_thread(path.exists):
        async with open_file(path) as (broker, _):
            return _look(broker, topology)
    return compute_plan(topology, BrokerState({}, {}, (), product=f"file {path}, which does not exist yet"))


async def apply_to_file(
    path: Path, topology: Topology, recreate: Collection[str], *, prunes: bool, on_step: Callable[[str], None]
) -> ApplyResult:
    """Declare what is missing, also beside `runner up`; without one, give queues other options and remove bindings.

    Raises BrokerUnavailable, CannotRecreate.
    """
    topology = _kept(topology)
    async with open_file(path, is_owner=prunes or bool(recreate)) as (broker, transport):
        found = _look(broker, topology)
        missing, items = missing_items(found, topology)
        await transport.declare(missing)
        done = [f"created {item.text}" for item in items]
        for item in found.of("recreate"):
            if item.name in recreate and item.kind == "queue":
                _check_change(broker, item)
                await broker.redefine(next(each for each in topology.queues if each.name == item.name))
                done.append(f'changed queue "{item.name}"; it keeps {pluralize(item.messages or 0, "message")}')
        for item in found.of("extra") if prunes else ():
            if item.live is not None:
                broker.undefine(item.live.binding)
                done.append(f"removed binding {format_binding(item.live.binding)}")
        await broker.store.written()
        for text in done:
            on_step(text)
        return ApplyResult(tuple(done), _look(broker, topology))


def _look(broker: FileBroker, topology: Topology) -> Plan:
    existing = broker.read_topology()
    depths = {each.name: queue.depth for each in existing.queues if (queue := broker.queue(each.name)) is not None}
    state = state_of(existing, topology, depths)
    return compute_plan(topology, replace(state, product=f"file {broker.path}"))


def _kept(topology: Topology) -> Topology:
    """Return a topology without the queues that end with their process."""
    gone = {each.name for each in topology.queues if not each.durable}
    queues = tuple(each for each in topology.queues if each.name not in gone)
    return Topology(topology.exchanges, queues, tuple(each for each in topology.bindings if each.queue not in gone))


def _check_change(broker: FileBroker, item: PlanItem) -> None:
    """Raise CannotRecreate for a change that messages in the file do not survive, or that takes their order."""
    waiting, base = item.messages or 0, item.name.removesuffix(PARTITIONS_SUFFIX)
    if base != item.name:
        waiting = sum(queue.depth[0] for queue in map(broker.queue, item.partitions) if queue is not None)
    elif not _ORDERING & {each.key for each in item.differences}:
        return
    if waiting:
        text = f'"{base}" has {pluralize(waiting, "message")}, whose order depends on what changes; nothing was changed'
        raise CannotRecreate(text, "let `runner up --until-idle` empty it with the old pipeline, and run this again")
