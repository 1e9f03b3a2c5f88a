"""Turns a topology into declarations on RabbitMQ: first everything is checked, only then is anything made.

AMQP closes a channel over each refusal, so every check runs on a channel of its own that may be lost. Source:
https://www.rabbitmq.com/docs/queues#property-equivalence
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Self

import aiormq
from aio_pika.abc import AbstractConnection

from runner.errors import TopologyMismatch
from runner.pipeline.topology import ABSENT_HINT, Binding, Exchange, Queue, Topology
from runner.transports.base import Declared
from runner.transports.observed import Seen, missing
from runner.transports.rabbitmq.channels import (
    RPC_S,
    Depth,
    bind,
    declare_exchange,
    declare_queue,
    forbidden,
    open_channel,
    throwaway_channel,
)
from runner.transports.rabbitmq.inquiring import Inquirer, Locked, NotThere

__all__ = ["RPC_S", "Mode", "Probe", "count_messages", "declare", "open_channel", "throwaway_channel"]

Mode = Literal["manage", "verify", "ignore"]


async def declare(
    connection: AbstractConnection, topology: Topology, mode: Mode, *, is_all_or_nothing: bool = True
) -> Declared:
    """Make what is missing exist (`manage`), or only check (`verify`), or do nothing (`ignore`).

    Raises TopologyMismatch that names every difference; then nothing was changed, or, if that is not asked for,
    everything that could be. Idempotent.
    """
    if mode == "ignore":
        return Declared(len(topology.exchanges), len(topology.queues), len(topology.bindings))
    async with Probe(connection, needs_rights=mode == "manage") as probe:
        missing_exchanges = [item for item in topology.exchanges if not await probe.has_exchange(item, mode)]
        missing_queues = [item for item in topology.queues if not await probe.has_queue(item, mode)]
    if mode == "manage" and (not is_all_or_nothing or not probe.differences):
        await make(connection, missing_exchanges, missing_queues, topology.bindings)
    if probe.differences:
        raise TopologyMismatch("\n".join(probe.differences), probe.hint())
    return Declared(
        len(topology.exchanges),
        len(topology.queues),
        len(topology.bindings),
        new=len(missing_exchanges) + len(missing_queues),
    )


async def count_messages(connection: AbstractConnection, names: Iterable[str]) -> int:
    """Return how many messages are ready in these queues; one that does not exist has none."""
    count = 0
    async with Probe(connection) as probe:
        for name in names:
            found = await probe.look(name)
            count += found.messages if found is not None else 0
    return count


async def make(
    connection: AbstractConnection, exchanges: Sequence[Exchange], queues: Sequence[Queue], bindings: Sequence[Binding]
) -> None:
    """Make what is ours; what nobody has made is left out, with its bindings. Raises BrokerUnavailable if refused."""
    absent = {item.name for item in exchanges if not item.declare} | {item.name for item in queues if not item.declare}
    right = "configure it"
    async with throwaway_channel(connection) as channel:
        try:
            for exchange in exchanges:
                if exchange.declare:
                    await declare_exchange(channel, exchange)
            for queue in queues:
                if queue.declare:
                    await declare_queue(channel, queue)
            right = "write (of a binding: the right to write its queue and to read its exchange)"
            for binding in bindings:
                if binding.queue not in absent and binding.exchange not in absent:
                    await bind(channel, binding)
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise forbidden(error, right) from error


class Probe:
    """Finds out what exists and what differs, and changes nothing: what exists may be declared again harmlessly.

    To compare needs the right to configure; without it, it is left out, unless `needs_rights` asks for it.
    """

    def __init__(self, connection: AbstractConnection, *, needs_rights: bool = False) -> None:
        self._inquirer = Inquirer(connection, needs_rights=needs_rights)
        self.differences: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._inquirer.__aexit__()

    def hint(self) -> str:
        """Say what to do about all the differences."""
        if all(line.endswith(" does not exist") for line in self.differences):
            return ABSENT_HINT
        return (
            "arguments of an existing queue or exchange cannot change: write what the broker has into the pipeline, "
            "set `declare: false` if somebody else owns it, or let `runner apply --recreate NAME` recreate a queue"
        )

    async def has_exchange(self, exchange: Exchange, mode: Mode) -> bool:
        """Whether the exchange is there; notes a difference."""
        return self._note(exchange, await self._inquirer.exchange(exchange, compares=exchange.declare), mode)

    async def has_queue(self, queue: Queue, mode: Mode) -> bool:
        """Whether the queue is there; notes a difference."""
        return self._note(queue, await self._inquirer.queue(queue, compares=queue.declare), mode)

    async def look(self, name: str) -> Depth | None:
        """Return what a queue has; None where it does not exist."""
        try:
            seen = await self._inquirer.depth(name)
        except (NotThere, Locked):
            return None
        return Depth(seen.messages or 0, seen.consumers or 0)

    def _note(self, thing: Exchange | Queue, seen: Seen | None, mode: Mode) -> bool:
        if seen is None and (mode == "verify" or not thing.declare):
            self.differences.append(missing("queue" if isinstance(thing, Queue) else "exchange", thing.name))
        if seen is not None and (seen.differences or seen.is_locked or mode == "manage"):
            self.differences += seen.lines()
        return seen is not None
