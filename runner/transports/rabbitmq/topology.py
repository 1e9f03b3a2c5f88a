"""Turns a topology into declarations on RabbitMQ: first everything is checked, only then is anything made.

AMQP closes a channel over each refusal, so every check runs on a channel of its own that may be lost. Source:
https://www.rabbitmq.com/docs/queues#property-equivalence
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, Self

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel

from runner.errors import BrokerUnavailable, TopologyMismatch
from runner.pipeline.topology import Binding, Exchange, Queue, Topology
from runner.transports.base import Declared

RPC_S = 30.0

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<key>[^']*)' for (?P<kind>\w+) '(?P<name>.*?)' in vhost '.*?': "
    r"received (?P<received>.*?) but current is (?P<current>.*)",
    re.DOTALL,
)
_TYPED = re.compile(r"the value '(?P<value>.*)' of type '\w+'", re.DOTALL)

_KEYS = {
    "type": "type",
    "durable": "durable",
    "exclusive": "exclusive",
    "auto_delete": "auto_delete",
    "x-queue-type": "type",
    "x-delivery-limit": "delivery_limit",
    "x-max-length": "max_length",
    "x-max-length-bytes": "max_bytes",
    "x-max-priority": "max_priority",
    "x-message-ttl": "message_ttl",
    "x-overflow": "overflow",
    "x-single-active-consumer": "single_active_consumer",
}
"""What the language calls that which the broker compares."""

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
    async with Probe(connection) as probe:
        missing_exchanges = [item for item in topology.exchanges if not await probe.has_exchange(item, mode)]
        missing_queues = [item for item in topology.queues if not await probe.has_queue(item, mode)]
    if mode == "manage" and (not is_all_or_nothing or not probe.differences):
        async with throwaway_channel(connection) as channel:
            await _make(channel, missing_exchanges, missing_queues, topology.bindings)
    if probe.differences:
        raise TopologyMismatch("\n".join(probe.differences), probe.hint())
    return Declared(
        len(topology.exchanges),
        len(topology.queues),
        len(topology.bindings),
        new=len(missing_exchanges) + len(missing_queues),
    )


@asynccontextmanager
async def throwaway_channel(connection: AbstractConnection) -> AsyncIterator[AbstractChannel]:
    """Open a channel that a refused call may take down, and close it afterwards."""
    channel = await open_channel(connection)
    try:
        yield channel
    finally:
        await channel.close()


async def open_channel(connection: AbstractConnection, *, confirms: bool = False) -> AbstractChannel:
    """Open a channel, with publisher confirms or without. Raises errors of channels, whatever aiormq raises."""
    try:
        channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        await channel.initialize(timeout=RPC_S)
        return await channel.get_underlay_channel()
    except RuntimeError as error:  # on a connection that was closed a moment ago
        raise aiormq.exceptions.ChannelInvalidStateError("the connection was closed") from error


async def count_messages(connection: AbstractConnection, names: Iterable[str]) -> int:
    """Return how many messages are ready in these queues; one that does not exist has none."""
    count = 0
    async with Probe(connection) as probe:
        for name in names:
            found = await probe.look(name)
            count += found.messages if found is not None else 0
    return count


async def _make(
    channel: AbstractChannel, exchanges: Sequence[Exchange], queues: Sequence[Queue], bindings: Sequence[Binding]
) -> None:
    """Make what is ours; what nobody has made is left out, with its bindings."""
    absent = {item.name for item in exchanges if not item.declare} | {item.name for item in queues if not item.declare}
    try:
        for exchange in exchanges:
            if exchange.declare:
                await _declare_exchange(channel, exchange)
        for queue in queues:
            if queue.declare:
                await _declare_queue(channel, queue)
        for binding in bindings:
            if binding.queue in absent or binding.exchange in absent:
                continue
            await channel.queue_bind(
                binding.queue, binding.exchange, binding.key, arguments=dict(binding.arguments), timeout=RPC_S
            )
    except aiormq.exceptions.ChannelAccessRefused as error:
        raise _forbidden(error) from error


async def _declare_exchange(channel: AbstractChannel, exchange: Exchange) -> None:
    await channel.exchange_declare(
        exchange.name,
        exchange_type=exchange.type,
        durable=exchange.durable,
        arguments=dict(exchange.arguments),
        timeout=RPC_S,
    )


async def _declare_queue(channel: AbstractChannel, queue: Queue) -> None:
    await channel.queue_declare(
        queue.name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=dict(queue.arguments),
        timeout=RPC_S,
    )


class Depth(NamedTuple):
    """What the broker says of a queue: its ready messages and its consumers, of all connections."""

    messages: int
    consumers: int


class Probe:
    """Finds out what exists and what differs, and changes nothing: what exists may be declared again harmlessly."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._channel: AbstractChannel | None = None
        self.differences: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._channel is not None:
            await self._channel.close()

    def hint(self) -> str:
        """Say what to do about all the differences."""
        return (
            "arguments of an existing queue or exchange cannot change: write what the broker has into the pipeline, "
            "set `declare: false` if somebody else owns it, or delete it on the broker once it is empty"
        )

    async def has_exchange(self, exchange: Exchange, mode: Mode) -> bool:
        """Whether the exchange is there; notes a difference."""
        exists = await self._ask(lambda channel: channel.exchange_declare(exchange.name, passive=True, timeout=RPC_S))
        if not exists and (mode == "verify" or not exchange.declare):
            self.differences.append(f'exchange "{exchange.name}" does not exist')
        if exists and exchange.declare:
            await self._ask(lambda channel: _declare_exchange(channel, exchange))
        return exists

    async def has_queue(self, queue: Queue, mode: Mode) -> bool:
        """Whether the queue is there; notes a difference."""
        exists = await self._ask(lambda channel: channel.queue_declare(queue.name, passive=True, timeout=RPC_S))
        if not exists and (mode == "verify" or not queue.declare):
            self.differences.append(f'queue "{queue.name}" does not exist')
        if exists and queue.declare:
            await self._ask(lambda channel: _declare_queue(channel, queue))
        return exists

    async def look(self, name: str) -> Depth | None:
        """Return what a queue has; None where it does not exist."""
        found: Depth | None = None

        async def ask(channel: AbstractChannel) -> None:
            nonlocal found
            declared = await channel.queue_declare(name, passive=True, timeout=RPC_S)
            found = Depth(declared.message_count or 0, declared.consumer_count or 0)

        await self._ask(ask)
        return found

    async def _ask(self, question: Callable[[AbstractChannel], Awaitable[Any]]) -> bool:
        """Ask, on a new channel if the last answer closed the old one; False where the thing is not there."""
        if self._channel is None or self._channel.is_closed:
            self._channel = await open_channel(self._connection)
        try:
            await question(self._channel)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return False
        except aiormq.exceptions.ChannelPreconditionFailed as error:
            self.differences.append(explain_difference(_reply(error)))
        except aiormq.exceptions.ChannelLockedResource as error:
            self.differences.append(f"in use by another connection alone: {_reply(error)}")
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise _forbidden(error) from error
        return True


def explain_difference(reply: str) -> str:
    """Turn the broker's 406 text into a sentence that names the thing, the key and both values, and what to write."""
    match = _INEQUIVALENT.search(reply)
    if match is None:
        return reply
    live, wanted = _value(match["current"]), _value(match["received"])
    said = f'{match["kind"]} "{match["name"]}": {match["key"]} is {live} on the broker, the pipeline says {wanted}'
    advice = _advice(match["key"], live)
    return f"{said}\n{advice}" if advice else said


def _advice(key: str, live: str) -> str:
    """Return what to write into the pipeline so that it agrees with the broker, if one key says it."""
    name = _KEYS.get(key)
    if name is None:
        return ""
    if live == "none":
        return f"  remove `{name}` to agree with the broker"
    if name == "message_ttl":
        live = f"{live}ms"
    return f"  write `{name}: {live}` to agree with the broker"


def _value(text: str) -> str:
    typed = _TYPED.search(text)
    return (typed["value"] if typed else text.strip()).strip("'") or '""'


def _reply(error: aiormq.exceptions.AMQPError) -> str:
    return str(error.args[-1]) if error.args else str(error)


def _forbidden(error: aiormq.exceptions.AMQPError) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"the broker does not permit it: {_reply(error)}",
        "give the user the right, or set broker.topology to verify or ignore",
    )
