"""Carries every message of a queue to an exchange: confirmed there first, acknowledged here then. Deletes empty queues.

A crash makes duplicates of at most `WINDOW` messages, and loses none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pamqp import commands
from pamqp.base import Frame

from runner.errors import BrokerUnavailable
from runner.pipeline.model import BrokerSettings
from runner.transports.rabbitmq.client import Name
from runner.transports.rabbitmq.wire_client import (
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    Message,
    Wire,
    WireRefused,
)
from runner.transports.rabbitmq.wrapping import without_counts

WINDOW = 100
"""How many messages are on their way at once."""

TAG = "recreating"


class InUse(Exception):
    """Somebody else consumes from the queue, whose name this is."""


class NotEmpty(Exception):
    """A message has come meanwhile."""


class Full(BrokerUnavailable):
    """The queue at the other end takes no more."""


class Carrier:
    """Carries what is in `queue` to `exchange`, with its content header changed by `change`."""

    def __init__(self, wire: Wire, queue: str, exchange: str, change: Callable[[bytes], bytes]) -> None:
        self._wire = wire
        self._queue = queue
        self._exchange = exchange
        self._change = change
        self._published = 0
        self._pending: dict[int, int] = {}
        self._confirmed: list[int] = []
        self._is_cancelled = False
        self.carried = 0

    async def start(self) -> None:
        """Begin to take messages."""
        self._wire.on_message, self._wire.on_event = self._take, self._note
        await self._wire.call(commands.Confirm.Select())
        await self._wire.call(commands.Basic.Qos(0, WINDOW, False))
        await self._wire.call(commands.Basic.Consume(0, Name(self._queue), TAG, False, False, False))

    async def drain(self) -> None:
        """Return when the queue is empty, and everything of it confirmed at the other end. Raises InUse.

        Twice in a row nothing must be ready: what was handed to us while the broker counted comes in between.
        """
        quiet = 0
        while quiet < 2:
            await self._settle()
            before = self._published
            found: Any = await self._wire.call(commands.Queue.Declare(0, Name(self._queue), passive=True))
            if found.consumer_count > 1:
                raise InUse(self._queue)
            if found.message_count:
                await self._wait_for_one(before)
            is_quiet = not found.message_count and not self._pending and before == self._published
            quiet = quiet + 1 if is_quiet else 0

    async def stop(self) -> None:
        """Take no more, and see what was taken to its end."""
        await self._wire.call(commands.Basic.Cancel(TAG))
        await self._settle()

    async def delete(self) -> None:
        """Delete the queue, which was drained, while we consume from it: what comes last is handed to us."""
        await self._wire.call(commands.Queue.Delete(0, Name(self._queue)))
        while not self._is_cancelled:
            await self._wire.step()
        await self._settle()

    async def _settle(self) -> None:
        await self._acknowledge()
        while self._pending:
            await self._wire.step()
            await self._acknowledge()

    async def _wait_for_one(self, before: int) -> None:
        while self._published == before and not self._is_cancelled:
            await self._wire.step()

    async def _take(self, message: Message) -> None:
        self._published += 1
        self._pending[self._published] = message.tag
        header = without_counts(message.header) if message.is_redelivered else message.header
        await self._wire.publish(self._exchange, message, self._change(header))

    def _note(self, event: Frame) -> None:
        match event:
            case commands.Basic.Ack():
                tag = event.delivery_tag or 0
                known = [seq for seq in self._pending if seq <= tag] if event.multiple else [tag]
                self._confirmed += known
            case commands.Basic.Nack():
                raise Full(f'the queue behind exchange "{self._exchange}" takes no more messages')
            case commands.Basic.Cancel():
                self._is_cancelled = True

    async def _acknowledge(self) -> None:
        """Acknowledge what was confirmed; a queue that is gone has nothing left to acknowledge."""
        confirmed, self._confirmed = self._confirmed, []
        for sequence in confirmed:
            tag = self._pending.pop(sequence, None)
            if tag is not None:
                self.carried += 1
                if not self._is_cancelled:
                    await self._wire.send(commands.Basic.Ack(tag))


async def carry(settings: BrokerSettings, queue: str, exchange: str, change: Callable[[bytes], bytes]) -> int:
    """Carry everything, and return how many that were. Raises InUse, BrokerUnavailable."""
    async with Wire(settings, queue) as wire:
        carrier = Carrier(wire, queue, exchange, change)
        await carrier.start()
        await carrier.drain()
        await carrier.stop()
        return carrier.carried


async def delete_empty(settings: BrokerSettings, queue: str, exchange: str, change: Callable[[bytes], bytes]) -> int:
    """Delete a queue only if it is empty and unused; return how many messages were carried away at last.

    Quorum queues do not know these conditions (540, measured with 3.10). There the queue is drained once more, and
    deleted while we are its only consumer: what is published until it is gone comes to us. Raises InUse, NotEmpty.
    """
    try:
        async with Wire(settings, queue) as wire:
            await wire.call(commands.Queue.Delete(0, Name(queue), if_unused=True, if_empty=True))
        return 0
    except WireRefused as refusal:
        if refusal.code == PRECONDITION_FAILED:
            raise InUse(queue) if "in use" in refusal.text else NotEmpty from refusal
        if refusal.code != NOT_IMPLEMENTED:
            raise
    async with Wire(settings, queue) as wire:
        carrier = Carrier(wire, queue, exchange, change)
        await carrier.start()
        await carrier.drain()
        await carrier.delete()
        return carrier.carried
