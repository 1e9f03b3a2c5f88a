"""Turns a live RabbitMQ into what it has of a topology: over AMQP, and where it answers through the management API.

Reads only. See `inquiring` for how AMQP alone names every difference of a queue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiormq
from aio_pika.abc import AbstractConnection

from runner.errors import BrokerUnavailable
from runner.pipeline.model import BrokerSettings
from runner.pipeline.topology import Binding, Queue, Topology
from runner.transports.base import OnStateChange
from runner.transports.observed import LiveBinding, Observed, Seen, Stray
from runner.transports.rabbitmq.channels import reply_of
from runner.transports.rabbitmq.client import short
from runner.transports.rabbitmq.connection import CHANNEL_ERRORS, Link
from runner.transports.rabbitmq.inquiring import Inquirer, Locked, NoRight, NotThere
from runner.transports.rabbitmq.management import Management, ManagementFailed

ASIDE = ".recreating"
"""The end of the name of the queue in which messages wait while theirs is made anew, and of the exchange before it."""

BACK = ".recreated"
"""The end of the name of the exchange by which they come back."""


@dataclass(frozen=True, slots=True)
class Session:
    """A connection to look at a broker and to change it; `management` is None where `no_management` says why."""

    settings: BrokerSettings
    connection: AbstractConnection
    product: str
    management: Management | None
    no_management: str = ""


@asynccontextmanager
async def session(
    settings: BrokerSettings,
    name: str,
    management_url: str | None,
    on_state_change: OnStateChange = lambda _: None,
) -> AsyncIterator[Session]:
    """Connect, and find the management API. Raises BrokerUnavailable, also when the connection is lost meanwhile."""
    link = Link(settings, role="topology", name=name, on_state_change=on_state_change, restore=_nothing)
    try:
        connection = await link.open()
        properties = dict(connection.transport.connection.server_properties) if connection.transport else {}
        management, why = await _management(settings, management_url, properties)
        yield Session(settings, connection, _product(properties), management, why)
    except aiormq.exceptions.ChannelClosed as error:
        raise BrokerUnavailable(f"the broker refuses: {reply_of(error)}") from error
    except CHANNEL_ERRORS as error:
        raise BrokerUnavailable(f"the broker was lost: {short(error)}") from error
    finally:
        await link.close()


@dataclass(frozen=True, slots=True)
class _Told:
    """What the management API says of the virtual host."""

    exchanges: frozenset[str]
    queues: Mapping[str, Mapping[str, Any]]
    bindings: Sequence[Mapping[str, Any]]

    @classmethod
    async def by(cls, management: Management) -> _Told:
        """Ask. Raises ManagementFailed."""
        return cls(
            frozenset(str(item.get("name")) for item in await management.exchanges()),
            {str(item.get("name")): item for item in await management.queues()},
            [item for item in await management.bindings() if item.get("destination_type") == "queue"],
        )


async def inspect(
    session: Session, topology: Topology, pipelines: Collection[str] = (), also: Collection[str] = ()
) -> Observed:
    """Return what the broker has of the topology, and what else it has that begins with a name of these pipelines.

    `also` are names of queues to look at as well.
    """
    if session.management is None:
        return await _observed(session, topology, None)
    try:
        told = await _Told.by(session.management)
    except ManagementFailed as error:
        return replace(await _observed(session, topology, None), unchecked=str(error))
    observed = await _observed(session, topology, told)
    strays = _others(observed, told, tuple(f"{pipeline}." for pipeline in pipelines), also)
    return replace(
        observed,
        queues={name: _described(seen, told.queues.get(name)) for name, seen in observed.queues.items()},
        bindings=tuple(_bindings(told.bindings, observed.queues.keys())),
        unchecked="",
        management=session.management.shown,
        strays=tuple([each async for each in _strays(session, strays, told.bindings)]),
        all_queues=frozenset(told.queues),
    )


async def _observed(session: Session, topology: Topology, told: _Told | None) -> Observed:
    """Ask over AMQP, and only for what there is where the management API has told us what there is.

    To ask for what does not exist writes an error into the broker's log, and operators read that.
    """

    def may_exist(names: Container[str] | None, name: str) -> bool:
        return names is None or name in names

    exchanges, queues = (None, None) if told is None else (told.exchanges, told.queues)
    async with Inquirer(session.connection) as inquirer:
        found_exchanges = {
            item.name: await inquirer.exchange(item, compares=item.declare) if may_exist(exchanges, item.name) else None
            for item in topology.exchanges
        }
        found_queues = {
            item.name: await inquirer.queue(item, compares=item.declare) if may_exist(queues, item.name) else None
            for item in topology.queues
        }
        aside = {
            item.name: await _messages(inquirer, item.name + ASIDE)
            for item in topology.queues
            if can_be_recreated(item) and may_exist(queues, item.name + ASIDE)
        }
    return Observed(
        found_exchanges,
        found_queues,
        unchecked=session.no_management,
        recreating={name: messages for name, messages in aside.items() if messages is not None},
        product=session.product,
    )


def can_be_recreated(queue: Queue) -> bool:
    """Whether a queue is one that we may recreate: ours, with messages that can be moved and outlive its consumers."""
    is_stream = queue.arguments.get("x-queue-type") == "stream"
    return queue.declare and not is_stream and not queue.auto_delete and not queue.exclusive


def _others(
    observed: Observed, told: _Told, begin: tuple[str, ...], also: Collection[str]
) -> dict[str, Mapping[str, Any]]:
    """Return the queues that are not in the topology, and begin like this or have one of these names."""
    ours = {*observed.queues, *(name + ASIDE for name in observed.recreating)}
    return {
        name: item
        for name, item in told.queues.items()
        if name not in ours and not item.get("exclusive") and (name in also or name.startswith(begin))
    }


async def _strays(
    session: Session, found: Mapping[str, Mapping[str, Any]], bindings: Sequence[Mapping[str, Any]]
) -> AsyncIterator[Stray]:
    """Yield queues with their counts by AMQP, where it tells: those of the management API are some seconds old."""
    async with Inquirer(session.connection) as inquirer:
        for name in sorted(found):
            item = found[name]
            try:
                depth = await inquirer.depth(name)
                messages, consumers = depth.messages, depth.consumers
            except NotThere:
                continue
            except (Locked, NoRight):
                messages, consumers = item.get("messages_ready"), item.get("consumers")
            yield Stray(
                name,
                messages or 0,
                consumers or 0,
                unacked=item.get("messages_unacknowledged") or 0,
                bindings=tuple(_bindings(bindings, (name,))),
                durable=bool(item.get("durable", True)),
                arguments=item.get("arguments") or {},
            )


def _described(seen: Seen | None, described: Mapping[str, Any] | None) -> Seen | None:
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
    """Yield the bindings of these queues, but for those that every queue has and those of a recreation."""
    names = set(queues)
    ways_back = {name + BACK for name in names}
    for item in found:
        source, queue = str(item.get("source", "")), str(item.get("destination"))
        if queue in names and source and source not in ways_back:
            arguments = dict(item.get("arguments") or {})
            binding = Binding(source, queue, str(item.get("routing_key", "")), arguments)
            yield LiveBinding(binding, str(item.get("properties_key", "")))


async def _messages(inquirer: Inquirer, name: str) -> int | None:
    try:
        return (await inquirer.depth(name)).messages
    except (NotThere, Locked, NoRight):
        return None


async def _management(
    settings: BrokerSettings, url: str | None, properties: Mapping[str, Any]
) -> tuple[Management | None, str]:
    why: list[str] = []
    management = await Management.find(settings, url, on_absent=why.append)
    if management is None:
        return None, why[-1]
    if not management.is_broker_of(properties):
        return None, f"the management API at {management.shown} belongs to another broker, {management.cluster_name}"
    return management, ""


def _product(properties: Mapping[str, Any]) -> str:
    words = (properties.get(key, "") for key in ("product", "version"))
    return " ".join(word.decode() if isinstance(word, bytes) else str(word) for word in words)


async def _nothing(_: AbstractConnection) -> None:
    """A connection that only looks has nothing to restore."""
