"""Reads what a live RabbitMQ has of a topology, over AMQP and, where it answers, from the management API.

See `topology_probe` for how AMQP alone names every difference of a queue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource, ChannelNotFoundEntity

from runner.errors import BrokerUnavailable
from runner.pipeline.model import BrokerSettings
from runner.pipeline.topology import Binding, Exchange, Queue, Topology
from runner.transports.base import OnTransportEvent
from runner.transports.broker_state import BrokerState, ExistingItem, LeftoverQueue, LiveBinding
from runner.transports.rabbitmq.aiormq_workarounds import (
    CHANNEL_ERRORS,
    describe_error,
    product_of,
    server_properties,
)
from runner.transports.rabbitmq.channels import reply_of
from runner.transports.rabbitmq.connection import ReconnectingConnection
from runner.transports.rabbitmq.management_api import ManagementApi, ManagementFailed
from runner.transports.rabbitmq.topology_probe import TopologyProbe

ASIDE_SUFFIX = ".recreating"
"""The suffix of the queue in which messages wait while theirs is recreated, and of the exchange before it."""

RETURN_SUFFIX = ".recreated"
"""The suffix of the exchange by which they come back."""


def recreation_marker(pipeline: str) -> Exchange:
    """Return the exchange that exists while a recreation of a pipeline's queue is begun and not finished.

    It costs one question to know that nothing waits aside, instead of one for each queue: without the management API a
    question for what does not exist writes an error into the broker's log.
    """
    return Exchange(f"{pipeline}.recreations", "fanout")


@dataclass(frozen=True, slots=True)
class TopologySession:
    """A connection to inspect a broker and to change it. Where `management` is None, `no_management` says why."""

    settings: BrokerSettings
    connection: AbstractConnection
    product: str
    management: ManagementApi | None
    no_management: str = ""


@asynccontextmanager
async def open_session(
    settings: BrokerSettings,
    name: str,
    management_url: str | None,
    on_transport_event: OnTransportEvent = lambda _: None,
) -> AsyncIterator[TopologySession]:
    """Connect, and find the management API. Raises BrokerUnavailable, also when the connection is lost later."""
    reconnecting = ReconnectingConnection(settings, role="topology", name=name, on_transport_event=on_transport_event)
    try:
        connection = await reconnecting.open()
        management, why = await ManagementApi.find(settings, management_url, server_properties(connection))
        yield TopologySession(settings, connection, product_of(connection), management, why)
    except aiormq.exceptions.ChannelClosed as error:
        raise BrokerUnavailable(f"the broker refuses: {reply_of(error)}") from error
    except CHANNEL_ERRORS as error:
        raise BrokerUnavailable(f"the broker was lost: {describe_error(error)}") from error
    finally:
        await reconnecting.close()


@dataclass(frozen=True, slots=True)
class _ManagementData:
    """What the management API knows of the virtual host."""

    exchanges: frozenset[str]
    queues: Mapping[str, Mapping[str, Any]]
    bindings: Sequence[Mapping[str, Any]]

    @classmethod
    async def by(cls, management: ManagementApi) -> _ManagementData:
        """Query the API. Raises ManagementFailed."""
        return cls(
            frozenset(str(item.get("name")) for item in await management.exchanges()),
            await management.queues(),
            [item for item in await management.bindings() if item.get("destination_type") == "queue"],
        )


async def inspect_broker(
    session: TopologySession, topology: Topology, pipelines: Collection[str] = (), also: Collection[str] = ()
) -> BrokerState:
    """Return what the broker has of the topology, and what else it has that begins with a name of these pipelines.

    `also` are names of queues to look at as well.
    """
    if session.management is None:
        return await _observed(session, topology, None, pipelines)
    try:
        listed = await _ManagementData.by(session.management)
    except ManagementFailed as error:
        return replace(await _observed(session, topology, None, pipelines), unchecked=str(error))
    observed = await _observed(session, topology, listed, pipelines)
    leftovers = _others(observed, listed, tuple(f"{pipeline}." for pipeline in pipelines), also)
    return replace(
        observed,
        queues={name: _described(seen, listed.queues.get(name)) for name, seen in observed.queues.items()},
        bindings=tuple(_bindings(listed.bindings, observed.queues.keys())),
        unchecked="",
        management=session.management.shown,
        leftovers=tuple([each async for each in _leftovers(session, leftovers, listed.bindings)]),
        all_queues=frozenset(listed.queues),
    )


async def _observed(
    session: TopologySession, topology: Topology, listed: _ManagementData | None, pipelines: Collection[str]
) -> BrokerState:
    """Ask over AMQP, and only for what there is where the management API has told us what there is.

    To ask for what does not exist writes an error into the broker's log, and operators read that.
    """

    def may_exist(names: Container[str] | None, name: str) -> bool:
        return names is None or name in names

    exchanges, queues = (None, None) if listed is None else (listed.exchanges, listed.queues)
    async with TopologyProbe(session.connection) as probe:
        found_exchanges = {
            item.name: await probe.exchange(item, compares=item.declare) if may_exist(exchanges, item.name) else None
            for item in topology.exchanges
        }
        found_queues = {
            item.name: await probe.queue(item, compares=item.declare) if may_exist(queues, item.name) else None
            for item in topology.queues
        }
        is_any_aside = listed is not None or await _is_any_aside(probe, pipelines)
        aside = {
            item.name: await _messages(probe, item.name + ASIDE_SUFFIX)
            for item in topology.queues
            if is_any_aside and can_be_recreated(item) and may_exist(queues, item.name + ASIDE_SUFFIX)
        }
    return BrokerState(
        found_exchanges,
        found_queues,
        unchecked=session.no_management,
        recreating={name: messages for name, messages in aside.items() if messages is not None},
        product=session.product,
    )


def can_be_recreated(queue: Queue) -> bool:
    """Return whether a queue may be recreated: the pipeline declares it, and its messages can be moved."""
    is_stream = queue.arguments.get("x-queue-type") == "stream"
    return queue.declare and not is_stream and not queue.auto_delete and not queue.exclusive


async def _is_any_aside(probe: TopologyProbe, pipelines: Collection[str]) -> bool:
    for pipeline in pipelines:
        if await probe.exchange(recreation_marker(pipeline), compares=False) is not None:
            return True
    return False


def _others(
    observed: BrokerState, listed: _ManagementData, begin: tuple[str, ...], also: Collection[str]
) -> dict[str, Mapping[str, Any]]:
    """Return the queues that are not in the topology, and begin like this or have one of these names."""
    ours = {*observed.queues, *(name + ASIDE_SUFFIX for name in observed.recreating)}
    return {
        name: item
        for name, item in listed.queues.items()
        if name not in ours and not item.get("exclusive") and (name in also or name.startswith(begin))
    }


async def _leftovers(
    session: TopologySession, found: Mapping[str, Mapping[str, Any]], bindings: Sequence[Mapping[str, Any]]
) -> AsyncIterator[LeftoverQueue]:
    """Yield queues with their counts by AMQP, where it tells: those of the management API are some seconds old."""
    async with TopologyProbe(session.connection) as probe:
        for name in sorted(found):
            item = found[name]
            try:
                depth = await probe.depth(name)
                messages, consumers = depth.messages, depth.consumers
            except ChannelNotFoundEntity:
                continue
            except (ChannelLockedResource, ChannelAccessRefused):
                messages, consumers = item.get("messages_ready"), item.get("consumers")
            yield LeftoverQueue(
                name,
                messages or 0,
                consumers or 0,
                unacked=item.get("messages_unacknowledged") or 0,
                bindings=tuple(_bindings(bindings, (name,))),
                durable=bool(item.get("durable", True)),
                arguments=item.get("arguments") or {},
            )


def _described(seen: ExistingItem | None, described: Mapping[str, Any] | None) -> ExistingItem | None:
    if seen is None or described is None:
        return seen
    arguments = {
        "durable": described.get("durable"),
        "auto_delete": described.get("auto_delete"),
        **(described.get("arguments") or {}),
    }
    policy = described.get("operator_policy") or described.get("policy")
    sets = described.get("effective_policy_definition")
    return replace(
        seen,
        arguments=arguments,
        policy=str(policy or ""),
        policy_sets=sets if policy and isinstance(sets, Mapping) else {},
    )


def _bindings(found: Iterable[Mapping[str, Any]], queues: Iterable[str]) -> Iterable[LiveBinding]:
    """Yield the bindings of these queues, without those to the default exchange and those of a recreation."""
    names = set(queues)
    ways_back = {name + RETURN_SUFFIX for name in names}
    for item in found:
        source, queue = str(item.get("source", "")), str(item.get("destination"))
        if queue in names and source and source not in ways_back:
            arguments = dict(item.get("arguments") or {})
            binding = Binding(source, queue, str(item.get("routing_key", "")), arguments)
            yield LiveBinding(binding, str(item.get("properties_key", "")))


async def _messages(probe: TopologyProbe, name: str) -> int | None:
    try:
        return (await probe.depth(name)).messages
    except (ChannelNotFoundEntity, ChannelLockedResource, ChannelAccessRefused):
        return None
