"""Deletes queues that no pipeline has any more. It deletes none that is in use, and loses no message that arrives."""

from __future__ import annotations

import asyncio

import aiormq
from aio_pika.abc import AbstractConnection
from pamqp import commands
from pamqp.base import Frame

from runner.operations.rabbitmq.message_mover import QueueInUse, QueueNotEmpty
from runner.operations.rabbitmq.raw_connection import (
    NOT_FOUND,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    RawConnection,
    RawMessage,
    RequestRefused,
)
from runner.pipeline.model import BrokerSettings
from runner.transports.broker_state import LeftoverQueue
from runner.transports.rabbitmq.aiormq_workarounds import ShortString
from runner.transports.rabbitmq.channels import RPC_S, temporary_channel

DELETE_CONSUMER_TAG = "pruning"

QUIET_S = 1.0
"""How long nothing may come into a quorum queue before it is deleted.

RabbitMQ confirms what comes while it deletes the queue, and that takes longer on a busy machine: two messages of one
publisher, one after the other, were confirmed and lost (measured with 4.3).
"""


async def delete_queue(settings: BrokerSettings, stray: LeftoverQueue, *, with_messages: bool = False) -> int:
    """Delete a queue without consumers, if it is empty or `with_messages` is set; return how many messages it had.

    Raises QueueInUse, QueueNotEmpty, BrokerUnavailable. The queue need not exist.
    """
    try:
        async with RawConnection(settings, stray.name) as connection:
            return await connection.delete(stray.name, if_unused=True, if_empty=not with_messages)
    except RequestRefused as refusal:
        if refusal.code == NOT_FOUND:
            return 0
        if refusal.code == PRECONDITION_FAILED:
            raise QueueInUse(stray.name) if "in use" in refusal.text else QueueNotEmpty from refusal
        if refusal.code != NOT_IMPLEMENTED:
            raise
    async with RawConnection(settings, stray.name) as connection:
        return await _QuorumQueueDeletion(connection, stray).delete(with_messages=with_messages)


async def delete_exchange(connection: AbstractConnection, name: str) -> None:
    """Delete an exchange without bindings. It need not exist."""
    try:
        async with temporary_channel(connection) as channel:
            await channel.exchange_delete(ShortString(name), if_unused=True, timeout=RPC_S)
    except aiormq.exceptions.ChannelPreconditionFailed:
        pass  # something else is bound to it


class _QuorumQueueDeletion:
    """Deletes a quorum queue, which cannot be deleted conditionally. As its only consumer, it gets late messages."""

    def __init__(self, connection: RawConnection, stray: LeftoverQueue) -> None:
        self._connection = connection
        self._stray = stray
        self._late: list[RawMessage] = []
        self._confirmed: set[int] = set()
        connection.on_message, connection.on_event = self._take, self._note

    async def delete(self, *, with_messages: bool) -> int:
        name = self._stray.name
        messages, consumers = await self._connection.counts(name)
        if consumers:
            raise QueueInUse(name)
        if with_messages:
            return await self._connection.delete(name)
        if messages:
            raise QueueNotEmpty
        await self._connection.consume(name, DELETE_CONSUMER_TAG)
        await self._until_quiet()
        await self._connection.delete(name)
        if self._late:
            await self._restore()
            raise QueueNotEmpty
        return 0

    async def _until_quiet(self) -> None:
        """Return when nothing has come for a while. Raises QueueInUse, QueueNotEmpty: what came to us goes back."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + QUIET_S
        while True:
            messages, consumers = await self._connection.counts(self._stray.name)
            if consumers > 1:
                raise QueueInUse(self._stray.name)
            if messages or self._late:
                raise QueueNotEmpty
            if loop.time() > deadline:
                return
            await asyncio.sleep(QUIET_S / 20)

    async def _restore(self) -> None:
        """Declare the queue again for messages that were published while it was deleted."""
        stray = self._stray
        declare = commands.Queue.Declare(
            0, ShortString(stray.name), durable=stray.durable, arguments=dict(stray.arguments)
        )
        await self._connection.call(declare)
        await self._connection.call(commands.Confirm.Select())
        for message in self._late:
            await self._connection.publish("", message._replace(routing_key=stray.name), message.header)
        while len(self._confirmed) < len(self._late):
            await self._connection.step()

    async def _take(self, message: RawMessage) -> None:
        self._late.append(message)

    def _note(self, event: Frame) -> None:
        if isinstance(event, commands.Basic.Ack):
            tag = event.delivery_tag or 0
            self._confirmed |= set(range(1, tag + 1)) if event.multiple else {tag}
