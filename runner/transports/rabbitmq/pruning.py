"""Deletes queues that no pipeline has any more: none that is in use, and no message that comes in meanwhile."""

from __future__ import annotations

from typing import Any

import aiormq
from aio_pika.abc import AbstractConnection
from pamqp import commands
from pamqp.base import Frame

from runner.pipeline.model import BrokerSettings
from runner.transports.observed import Stray
from runner.transports.rabbitmq.carrying import InUse, NotEmpty
from runner.transports.rabbitmq.channels import RPC_S, throwaway_channel
from runner.transports.rabbitmq.client import Name
from runner.transports.rabbitmq.wire_client import (
    NOT_FOUND,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    Message,
    Wire,
    WireRefused,
)

TAG = "pruning"


async def delete_queue(settings: BrokerSettings, stray: Stray, *, with_messages: bool = False) -> int:
    """Delete a queue without consumers, if it is empty or `with_messages`; return how many messages it had.

    Raises InUse, NotEmpty, BrokerUnavailable. A queue that is gone already is no error.
    """
    try:
        async with Wire(settings, stray.name) as wire:
            delete = commands.Queue.Delete(0, Name(stray.name), if_unused=True, if_empty=not with_messages)
            deleted: Any = await wire.call(delete)
            return int(deleted.message_count)
    except WireRefused as refusal:
        if refusal.code == NOT_FOUND:
            return 0
        if refusal.code == PRECONDITION_FAILED:
            raise InUse(stray.name) if "in use" in refusal.text else NotEmpty from refusal
        if refusal.code != NOT_IMPLEMENTED:
            raise
    async with Wire(settings, stray.name) as wire:
        return await _Quorum(wire, stray).delete(with_messages=with_messages)


async def delete_exchange(connection: AbstractConnection, name: str) -> None:
    """Delete an exchange that nothing is bound to; one that is gone is no error."""
    try:
        async with throwaway_channel(connection) as channel:
            await channel.exchange_delete(Name(name), if_unused=True, timeout=RPC_S)
    except aiormq.exceptions.ChannelPreconditionFailed:
        pass  # something else is bound to it


class _Quorum:
    """Deletes a quorum queue, which knows no conditions: while we are its only consumer, what comes in comes to us."""

    def __init__(self, wire: Wire, stray: Stray) -> None:
        self._wire = wire
        self._stray = stray
        self._late: list[Message] = []
        self._confirmed: set[int] = set()
        wire.on_message, wire.on_event = self._take, self._note

    async def delete(self, *, with_messages: bool) -> int:
        found = await self._depth()
        if found.consumer_count:
            raise InUse(self._stray.name)
        if with_messages:
            deleted: Any = await self._wire.call(commands.Queue.Delete(0, Name(self._stray.name)))
            return int(deleted.message_count)
        if found.message_count:
            raise NotEmpty
        await self._wire.call(commands.Basic.Consume(0, Name(self._stray.name), TAG, False, False, False))
        found = await self._depth()
        if found.consumer_count > 1:
            raise InUse(self._stray.name)
        if found.message_count or self._late:
            raise NotEmpty  # what has come to us goes back with the connection
        await self._wire.call(commands.Queue.Delete(0, Name(self._stray.name)))
        if self._late:
            await self._restore()
            raise NotEmpty
        return 0

    async def _depth(self) -> Any:
        return await self._wire.call(commands.Queue.Declare(0, Name(self._stray.name), passive=True))

    async def _restore(self) -> None:
        """Make the queue again for messages that were published in the moment in which it was deleted."""
        stray = self._stray
        declare = commands.Queue.Declare(0, Name(stray.name), durable=stray.durable, arguments=dict(stray.arguments))
        await self._wire.call(declare)
        await self._wire.call(commands.Confirm.Select())
        for message in self._late:
            await self._wire.publish("", message._replace(routing_key=stray.name.encode()), message.header)
        while len(self._confirmed) < len(self._late):
            await self._wire.step()

    async def _take(self, message: Message) -> None:
        self._late.append(message)

    def _note(self, event: Frame) -> None:
        if isinstance(event, commands.Basic.Ack):
            tag = event.delivery_tag or 0
            self._confirmed |= set(range(1, tag + 1)) if event.multiple else {tag}
