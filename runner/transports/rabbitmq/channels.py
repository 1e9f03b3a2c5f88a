"""Channels, single declarations on them, and the replies with which the broker refuses.

AMQP closes a channel over each refusal, so a call that may be refused runs on a channel of its own.
"""

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

REPLY_TO = "amq.rabbitmq.reply-to"
"""The pseudo-queue for answers by direct reply-to. The broker writes the real address into each question."""

_ACCESS = re.compile(
    r"(?:(?P<right>\w+) )?access to (?P<kind>\w+) '(?P<name>.*?)' in vhost '.*?' refused for user '(?P<user>.*?)'",
    re.DOTALL,
)


class QueueCounts(NamedTuple):
    """The counts that a passive declaration returns: ready messages, and consumers of all connections."""

    messages: int
    consumers: int


@asynccontextmanager
async def temporary_channel(connection: AbstractConnection) -> AsyncIterator[AbstractChannel]:
    """Open a channel that a refused call may close, and close it afterwards."""
    channel = await open_channel(connection)
    try:
        yield channel
    finally:
        await channel.close()


async def open_channel(connection: AbstractConnection, *, confirms: bool = False) -> AbstractChannel:
    """Open a channel, with or without publisher confirms. Raises CHANNEL_ERRORS only."""
    try:
        channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        await channel.initialize(timeout=RPC_S)
        return await channel.get_underlay_channel()
    except RuntimeError as error:  # aio-pika's answer on a connection that has just been closed
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
    """Return the counts of a queue. Raises what the broker answers where it does not exist or is not accessible."""
    declared = await channel.queue_declare(ShortString(queue), passive=True, timeout=RPC_S)
    return QueueCounts(declared.message_count or 0, declared.consumer_count or 0)


async def bind(channel: AbstractChannel, binding: Binding) -> None:
    """Bind a queue."""
    await channel.queue_bind(*_names(binding), arguments=dict(binding.arguments), timeout=RPC_S)


async def unbind(channel: AbstractChannel, binding: Binding) -> None:
    """Remove a binding. It need not exist."""
    await channel.queue_unbind(*_names(binding), arguments=dict(binding.arguments), timeout=RPC_S)


def _names(binding: Binding) -> tuple[ShortString, ShortString, ShortString]:
    return ShortString(binding.queue), ShortString(binding.exchange), ShortString(binding.key)


def reply_of(error: BaseException) -> str:
    """Return the reply text with which the broker closed the channel."""
    return str(error.args[-1]) if error.args else str(error)


def reply_names(reply: str, name: str) -> bool:
    """Return whether a reply text names this queue or exchange. RabbitMQ ends a text that it cuts off with "..."."""
    quoted = f"'{name}'"
    begun = reply.removesuffix("...").partition("'")[2]
    return quoted in reply or (reply.endswith("...") and len(begun) > 1 and quoted[1:].startswith(begun))


def access_refused(reply: str) -> str:
    """Return a sentence about the missing permission, from a reply text; empty where it is about something else.

    RabbitMQ 4 names the permission, earlier versions only the item. Declaring needs the configure permission; binding
    needs the write permission of the queue and the read permission of the exchange.
    """
    match = _ACCESS.search(reply)
    if match is None:
        return ""
    right = f"{match['right']} " if match["right"] else ""
    return f'the user "{match["user"]}" has no right to {right}{match["kind"]} "{match["name"]}"'


def help_for_reply(reply: str) -> str:
    """Return the help for a reply text with which the broker closed a channel; empty if there is none."""
    if (found := _ACCESS.search(reply)) is not None:
        return f"`runner export permissions PATH --user {found['user']}` prints the command that gives the rights"
    if "NOT_FOUND" in reply:
        return "declare it with `runner apply PATH`, or set broker.topology to manage"
    return "stop the connection that holds it" if "RESOURCE_LOCKED" in reply else ""


def forbidden(error: aiormq.exceptions.AMQPError, right: str = "configure, write and read it") -> BrokerUnavailable:
    """Return the error for a refused access (403), with a hint about the missing permission."""
    reply = reply_of(error)
    user = found["user"] if (found := _ACCESS.search(reply)) is not None else "USER"
    hint = f"give the user the right to {right}: `runner export permissions PATH --user {user}` prints the command"
    return BrokerUnavailable(
        f"the broker does not permit it: {access_refused(reply) or reply}",
        f"{hint}; or, if all of it is declared already, set broker.topology to verify or ignore",
    )
