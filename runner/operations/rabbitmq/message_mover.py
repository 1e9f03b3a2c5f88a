"""Moves the messages of a queue to an exchange: each is confirmed there first, and then acknowledged here.

A crash makes duplicates of at most MAX_IN_FLIGHT messages, and loses none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pamqp import commands
from pamqp.base import Frame

from runner.errors import BrokerUnavailable
from runner.operations.rabbitmq.properties_packing import without_delivery_counts
from runner.operations.rabbitmq.raw_connection import RawConnection, RawMessage
from runner.pipeline.model import BrokerSettings

MAX_IN_FLIGHT = 100
"""Maximum number of messages in flight."""

MOVE_CONSUMER_TAG = "recreating"

GUARD = b"This message belongs to `runner apply --recreate`, which was not finished: run it again."
"""How the body of a guard begins, the message that keeps a queue closed (see `queue_closer`). Guards are dropped."""

POLL_S = 0.05
DRAIN_TIMEOUT_S = 10.0
"""How long new messages may keep arriving after those that were there."""


class QueueInUse(Exception):
    """Another consumer has the queue. The text is the queue's name."""


class QueueNotEmpty(Exception):
    """Messages keep arriving in the queue."""


class TargetQueueFull(BrokerUnavailable):
    """The queue behind the exchange accepts no more messages."""


def is_guard(message: RawMessage) -> bool:
    """Return whether a message is a guard, which keeps a queue closed."""
    return message.body.startswith(GUARD)


class MessageMover:
    """Moves the messages of `queue` to `exchange`. `change` converts the content header of each."""

    def __init__(self, connection: RawConnection, queue: str, exchange: str, change: Callable[[bytes], bytes]) -> None:
        self._connection = connection
        self._queue = queue
        self._exchange = exchange
        self._change = change
        self._published = 0
        self._pending: dict[int, int] = {}
        self._confirmed: list[int] = []
        self._is_cancelled = False
        self.moved = 0

    async def start(self) -> None:
        """Start to consume."""
        self._connection.on_message, self._connection.on_event = self._take, self._note
        await self._connection.call(commands.Confirm.Select())
        await self._connection.call(commands.Basic.Qos(0, MAX_IN_FLIGHT, False))
        await self._connection.consume(self._queue, MOVE_CONSUMER_TAG)

    async def drain(self, quiet_s: float = 0.0) -> bool:
        """Return True when the queue is empty and quiet for `quiet_s`; False where messages keep arriving.

        Every message that was taken is then confirmed. The queue must be empty twice in a row: a message that was
        delivered while the broker counted arrives in between. Raises QueueInUse.
        """
        loop = asyncio.get_running_loop()
        backlog, quiet, since, deadline = -1, 0, 0.0, float("inf")
        while quiet < 2 or loop.time() < since + quiet_s:
            await self._settle()
            before = self._published
            messages, consumers = await self._connection.counts(self._queue)
            if consumers > 1:
                raise QueueInUse(self._queue)
            backlog = messages if backlog < 0 else backlog
            if messages:
                await self._wait_for_one(before)
            is_quiet = not messages and not self._pending and before == self._published
            quiet = quiet + 1 if is_quiet else 0
            if quiet == 1:
                since = loop.time()
            elif quiet:
                await asyncio.sleep(POLL_S)
            if self._published >= backlog and deadline == float("inf"):
                deadline = loop.time() + DRAIN_TIMEOUT_S + quiet_s
            if loop.time() > deadline and not quiet:
                return False
        return True

    async def stop(self) -> None:
        """Consume no more, and wait until every message that was taken is confirmed."""
        await self._connection.call(commands.Basic.Cancel(MOVE_CONSUMER_TAG))
        await self._settle()

    async def delete(self) -> None:
        """Delete the drained queue while consuming from it, so that the last messages are delivered here."""
        await self._connection.delete(self._queue)
        while not self._is_cancelled:
            await self._connection.step()
        await self._settle()

    async def _settle(self) -> None:
        await self._acknowledge()
        while self._pending:
            await self._connection.step()
            await self._acknowledge()

    async def _wait_for_one(self, before: int) -> None:
        while self._published == before and not self._is_cancelled:
            await self._connection.step()

    async def _take(self, message: RawMessage) -> None:
        if is_guard(message):
            await self._connection.send(commands.Basic.Ack(message.tag))
            return
        self._published += 1
        self._pending[self._published] = message.tag
        header = without_delivery_counts(message.header) if message.is_redelivered else message.header
        await self._connection.publish(self._exchange, message, self._change(header))

    def _note(self, event: Frame) -> None:
        match event:
            case commands.Basic.Ack():
                tag = event.delivery_tag or 0
                known = [seq for seq in self._pending if seq <= tag] if event.multiple else [tag]
                self._confirmed += known
            case commands.Basic.Nack():
                raise TargetQueueFull(f'the queue behind exchange "{self._exchange}" takes no more messages')
            case commands.Basic.Cancel():
                self._is_cancelled = True

    async def _acknowledge(self) -> None:
        """Acknowledge confirmed messages, unless the queue is gone."""
        confirmed, self._confirmed = self._confirmed, []
        for sequence in confirmed:
            tag = self._pending.pop(sequence, None)
            if tag is not None:
                self.moved += 1
                if not self._is_cancelled:
                    await self._connection.send(commands.Basic.Ack(tag))


async def move_messages(
    settings: BrokerSettings,
    queue: str,
    exchange: str,
    change: Callable[[bytes], bytes],
    quiet_s: float = 0.0,
    *,
    deletes: bool = False,
) -> int:
    """Move all messages of a queue, and return how many; `deletes` a queue without bindings then.

    With `quiet_s`, raises QueueNotEmpty where messages keep arriving within that time: those that were routed before
    the last binding was removed have arrived by then. Raises QueueInUse, BrokerUnavailable.
    """
    async with RawConnection(settings, queue) as connection:
        mover = MessageMover(connection, queue, exchange, change)
        await mover.start()
        is_quiet = await mover.drain(quiet_s)
        await (mover.delete() if deletes and is_quiet else mover.stop())
        if quiet_s and not is_quiet:
            raise QueueNotEmpty
        return mover.moved
