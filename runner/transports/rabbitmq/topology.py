"""Turns a topology into declarations on RabbitMQ: first everything is checked, only then is anything made.

AMQP closes a channel over each refusal, so every check runs on a channel of its own that may be lost. Source:
https://www.rabbitmq.com/docs/queues#property-equivalence
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Literal, TypeVar

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel

from runner.errors import BrokerUnavailable, TopologyMismatch
from runner.pipeline.topology import ABSENT_HINT, Binding, Exchange, Queue, Topology
from runner.tasks import each_with
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
    reply_of,
    throwaway_channel,
)
from runner.transports.rabbitmq.inquiring import Inquirer, Locked, NoRight, NotThere

__all__ = ["RPC_S", "Mode", "Probe", "count_messages", "declare", "open_channel", "throwaway_channel"]

Mode = Literal["manage", "verify", "ignore"]
T = TypeVar("T")

LANES = 8
"""On how many channels we ask and declare at the same time, at most; each waits for one answer after the other."""

A_LANE = 4
"""With so many more things, one more channel is worth it."""


async def declare(
    connection: AbstractConnection,
    topology: Topology,
    mode: Mode,
    *,
    is_all_or_nothing: bool = True,
    must_be_seen: bool = False,
) -> Declared:
    """Make what is missing exist (`manage`), or only check (`verify`), or do nothing (`ignore`).

    Raises TopologyMismatch that names every difference; then nothing was changed, or, if that is not asked for,
    everything that could be. With `must_be_seen`, what the broker does not show to us counts as missing. Idempotent.
    """
    if mode == "ignore":
        return Declared(len(topology.exchanges), len(topology.queues), len(topology.bindings))
    probe = Probe(mode, must_be_seen=must_be_seen)
    await probe.look(connection, [*topology.exchanges, *topology.queues])
    missing_exchanges = [item for item in topology.exchanges if not probe.has(item)]
    missing_queues = [item for item in topology.queues if not probe.has(item)]
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
    async with Inquirer(connection) as inquirer:
        depths = [await depth_or_none(inquirer, name) for name in names]
    return sum(depth.messages for depth in depths if depth is not None)


async def depth_or_none(inquirer: Inquirer, name: str) -> Depth | None:
    """Return what a queue has; None where it does not exist, or is not ours to see."""
    try:
        seen = await inquirer.depth(name)
    except (NotThere, Locked, NoRight):
        return None
    return Depth(seen.messages or 0, seen.consumers or 0)


async def make(
    connection: AbstractConnection, exchanges: Sequence[Exchange], queues: Sequence[Queue], bindings: Sequence[Binding]
) -> None:
    """Make what is ours; what nobody has made is left out, with its bindings. Raises BrokerUnavailable if refused."""
    absent = {item.name for item in exchanges if not item.declare} | {item.name for item in queues if not item.declare}
    ours = [item for item in bindings if item.queue not in absent and item.exchange not in absent]
    right = "write (of a binding: the right to write its queue and to read its exchange)"
    await _make(connection, [item for item in exchanges if item.declare], declare_exchange, "configure it")
    await _make(connection, [item for item in queues if item.declare], declare_queue, "configure it")
    await _make(connection, ours, bind, right)


async def _make(
    connection: AbstractConnection,
    things: Sequence[T],
    declare: Callable[[AbstractChannel, T], Awaitable[None]],
    right: str,
) -> None:
    """Declare things on several channels at once."""
    try:
        await each_with(things, lambda: throwaway_channel(connection), declare, at_once=_lanes(things))
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


def _lanes(things: Sequence[object]) -> int:
    return min(LANES, -(-len(things) // A_LANE))


class Probe:
    """Finds out what exists and what differs, and changes nothing: what exists may be declared again harmlessly.

    To compare needs the right to configure; without it, it is left out, unless we `manage`.
    """

    def __init__(self, mode: Mode, *, must_be_seen: bool = False) -> None:
        self._mode = mode
        self._must_be_seen = must_be_seen
        self._seen: dict[tuple[type, str], Seen | None] = {}
        self.differences: list[str] = []

    def hint(self) -> str:
        """Say what to do about all the differences."""
        if all(line.endswith(" does not exist") for line in self.differences):
            return ABSENT_HINT
        return (
            "arguments of an existing queue or exchange cannot change: write what the broker has into the pipeline, "
            "set `declare: false` if somebody else owns it, or let `runner apply --recreate NAME` recreate a queue"
        )

    async def look(self, connection: AbstractConnection, things: Sequence[Exchange | Queue]) -> None:
        """Ask after each of these, on several channels at once; note differences, in their order."""

        async def ask(inquirer: Inquirer, thing: Exchange | Queue) -> None:
            asking = (
                inquirer.queue(thing, compares=thing.declare)
                if isinstance(thing, Queue)
                else inquirer.exchange(thing, compares=thing.declare)
            )
            self._seen[type(thing), thing.name] = await asking

        def inquire() -> Inquirer:
            return Inquirer(connection, needs_rights=self._mode == "manage")

        await each_with(things, inquire, ask, at_once=_lanes(things))
        for thing in things:
            seen = self._seen[type(thing), thing.name]
            self._note(thing, None if seen is not None and seen.is_hidden and self._must_be_seen else seen)

    def has(self, thing: Exchange | Queue) -> bool:
        """Whether it is there, or may be."""
        return self._seen[type(thing), thing.name] is not None

    def _note(self, thing: Exchange | Queue, seen: Seen | None) -> None:
        if seen is None and (self._mode == "verify" or not thing.declare):
            self.differences.append(missing("queue" if isinstance(thing, Queue) else "exchange", thing.name))
        if seen is not None and (seen.differences or seen.is_locked or self._mode == "manage"):
            self.differences += seen.lines()
