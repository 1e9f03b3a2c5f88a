"""Opens channels that may be lost, and makes single declarations on them. AMQP closes a channel over each refusal."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel

from runner.errors import BrokerUnavailable
from runner.pipeline.topology import Binding, Exchange, Queue
from runner.transports.rabbitmq.aiormq_workarounds import ShortString

RPC_S = 30.0

_ACCESS = re.compile(
    r"(?:(?P<right>\w+) )?access to (?P<kind>\w+) '(?P<name>.*?)' in vhost '.*?' refused for user '(?P<user>.*?)'",
    re.DOTALL,
)


class QueueCounts(NamedTuple):
    """What the broker says of a queue to anybody: its ready messages and its consumers, of all connections."""

    messages: int
    consumers: int


@asynccontextmanager
async def temporary_channel(connection: AbstractConnection) -> AsyncIterator[AbstractChannel]:
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


async def declare_exchange(channel: AbstractChannel, exchange: Exchange) -> None:
    """Declare an exchange."""
    await channel.exchange_declare(
        ShortString(exchange.name),
        exchange_type=exchange.type,
        durable=exchange.durable,
        arguments=dict(exchange.arguments),
        timeout=RPC_S,
    )


async def declare_queue(channel: AbstractChannel, queue: Queue) -> None:
    """Declare a queue."""
    await channel.queue_declare(
        ShortString(queue.name),
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=dict(queue.arguments),
        timeout=RPC_S,
    )


async def queue_counts(channel: AbstractChannel, queue: str) -> QueueCounts:
    """Return what a queue has; raises what the broker answers where it does not exist, or is not to be seen."""
    declared = await channel.queue_declare(ShortString(queue), passive=True, timeout=RPC_S)
    return QueueCounts(declared.message_count or 0, declared.consumer_count or 0)


async def bind(channel: AbstractChannel, binding: Binding) -> None:
    """Bind a queue."""
    await channel.queue_bind(
        ShortString(binding.queue),
        ShortString(binding.exchange),
        ShortString(binding.key),
        arguments=dict(binding.arguments),
        timeout=RPC_S,
    )


async def unbind(channel: AbstractChannel, binding: Binding) -> None:
    """Remove a binding; it need not exist."""
    await channel.queue_unbind(
        ShortString(binding.queue),
        ShortString(binding.exchange),
        ShortString(binding.key),
        arguments=dict(binding.arguments),
        timeout=RPC_S,
    )


def reply_of(error: BaseException) -> str:
    """Return what the broker said when it closed the channel."""
    return str(error.args[-1]) if error.args else str(error)


def reply_names(reply: str, name: str) -> bool:
    """Whether the broker's text names this queue or exchange. It ends in "..." where it is too long for its frame."""
    quoted = f"'{name}'"
    begun = reply.removesuffix("...").partition("'")[2]
    return quoted in reply or (reply.endswith("...") and len(begun) > 1 and quoted[1:].startswith(begun))


def access_refused(reply: str) -> str:
    """Say who needs which right to what, from the broker's text; empty where it says something else.

    RabbitMQ 4 names the right, earlier lines only the thing. To declare needs the right to configure, to bind that to
    write the queue and to read the exchange.
    """
    match = _ACCESS.search(reply)
    if match is None:
        return ""
    right = f"{match['right']} " if match["right"] else ""
    return f'the user "{match["user"]}" has no right to {right}{match["kind"]} "{match["name"]}"'


def forbidden(error: aiormq.exceptions.AMQPError, right: str = "configure it") -> BrokerUnavailable:
    """Turn a 403 into an error that names the missing right."""
    return BrokerUnavailable(
        f"the broker does not permit it: {reply_of(error)}",
        f"give the user the right to {right}, or set broker.topology to verify or ignore",
    )
