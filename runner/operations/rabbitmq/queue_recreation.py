"""Recreates a queue with other arguments and keeps its messages: AMQP has no other way to change a queue.

The progress is read from the broker, so that the next run finishes one that was ended anywhere:

    the queue    one aside    so far                     next
    differs      no           nothing                    move the messages aside
    differs      yes          some messages are aside    move the others, delete it when it is empty
    is missing   yes          it was deleted             declare it
    as wanted    yes          some messages are back     move the others back, delete what is aside

Bindings are added to the queue aside before they are removed from the old one, and back in the same way: an event that
is published in between is in both queues, and never in none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import aiormq
from aiormq.abc import AbstractChannel

from runner.errors import RunnerError
from runner.operations.rabbitmq.broker_inspection import ASIDE_SUFFIX, RETURN_SUFFIX, TopologySession
from runner.operations.rabbitmq.message_mover import (
    MOVE_CONSUMER_TAG,
    QueueInUse,
    QueueNotEmpty,
    TargetQueueFull,
    move_messages,
)
from runner.operations.rabbitmq.properties_packing import pack_properties, unpack_properties
from runner.operations.rabbitmq.queue_closer import CannotClose, QueueCloser, close_and_delete
from runner.operations.rabbitmq.queue_deletion import delete_queue
from runner.pipeline.topology import Binding, Exchange, Queue
from runner.transports.broker_state import ExistingItem, LeftoverQueue
from runner.transports.rabbitmq.aiormq_workarounds import ShortString
from runner.transports.rabbitmq.channels import (
    bind,
    declare_exchange,
    declare_queue,
    forbidden,
    temporary_channel,
    unbind,
)
from runner.transports.rabbitmq.management_api import ManagementFailed
from runner.transports.rabbitmq.topology_probe import TopologyProbe
from runner.units import pluralize

UNLIMITED_DELIVERIES = 2**31 - 1
MAX_NAME_BYTES = 255

LOCK_SUFFIX = ".lock"
"""The suffix of an exclusive queue, which lets only one process at a time recreate a queue."""

QUIET_S = 5.0
"""How long a classic queue must be quiet before it is deleted: publishers cannot be shut out of it."""

UNREACHABLE_S = 2.0
"""How long the queue aside must be quiet after its last binding was removed."""

QUORUM_QUEUE_SETTLE_S = 2.0
"""How long a new quorum queue is left alone before anything is moved into it.

RabbitMQ writes down about a second later which Raft log belongs to it: if it is killed before that, the queue does not
come back with what it has confirmed (measured with 3.10).
"""

CONSUMERS_GONE_S = 3.0
"""How long consumers may take to disappear, for example those of a run that has just been killed."""

STATISTICS_S = 6.0
"""How old the counts of the management API may be. Brokers collect them every 5 seconds."""

UNSETTLED_S = 20.0
"""How long a process that has stopped consuming may take to settle what it holds."""


class CannotRecreate(RunnerError):
    """The queue cannot be recreated now, or by this user. The next run goes on from what was done."""


_NO_API = (
    "enable the management API (`rabbitmq-plugins enable rabbitmq_management`) or say where it is by --management; or "
    "stop every publisher, let the consumers empty the queue, delete it, and run `runner apply`"
)
"""The hint for a quorum queue without the management API, which is needed to shut publishers out."""


@dataclass
class QueueRecreation:
    """Recreates one queue. `wanted` are its bindings, `stale` those that it has and should not have any more.

    The `markers` exist until it is finished. See `recreation_marker`.
    """

    session: TopologySession
    queue: Queue
    wanted: Sequence[Binding]
    stale: Sequence[Binding]
    markers: Sequence[Exchange]
    on_step: Callable[[str], None]
    _since: float = field(default=0.0, init=False)
    _is_quorum: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        # Nothing may act on messages that wait: no limit, no TTL, and a delivery limit that is never reached.
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": UNLIMITED_DELIVERIES}
        aside = self._aside = Queue(self.queue.name + ASIDE_SUFFIX, arguments=arguments)
        self._bindings_aside = [replace(each, queue=aside.name) for each in self.wanted]
        management = self.session.management
        self._closer = QueueCloser(management, self.queue.name) if management is not None else None

    async def run(self) -> str:
        """Do what is left to do, and return a sentence about it. Raises CannotRecreate, BrokerUnavailable."""
        try:
            async with self._lock():
                returned = await self._run()
        except QueueInUse as used:
            text = f'queue "{used}" is in use: {await _consumers(self.session, str(used))}'
            raise CannotRecreate(f"{text}; nothing is lost", "stop its consumers, then run this again") from None
        except CannotClose as error:
            raise CannotRecreate(f"{error}; nothing is lost", error.hint) from None
        except QueueNotEmpty:
            text = f'messages keep coming into queue "{self.queue.name}"'
            raise CannotRecreate(f"{text}; nothing is lost", "stop its publishers, then run this again") from None
        except TargetQueueFull as error:
            full = f'queue "{self.queue.name}" is full: the messages that are not back wait in "{self._aside.name}"'
            raise CannotRecreate(full, "consume from it, then run this again") from error
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise forbidden(error, f"configure, write and read `{self.queue.name}` and `{self._aside.name}`") from error
        return f'recreated queue "{self.queue.name}" with {pluralize(returned, "message")}'

    @asynccontextmanager
    async def _lock(self) -> AsyncIterator[None]:
        """Keep other processes from recreating the same queue. The lock ends with the connection."""
        lock = ShortString(self._aside.name + LOCK_SUFFIX)
        async with temporary_channel(self.session.connection) as channel:
            try:
                await channel.queue_declare(lock, exclusive=True)
            except aiormq.exceptions.ChannelLockedResource:
                text = f'another process is recreating queue "{self.queue.name}"'
                raise CannotRecreate(text, "wait until it has ended") from None
            yield
            await channel.queue_delete(lock)

    async def _run(self) -> int:
        live, aside = await self._look(self.queue), await self._look(self._aside)
        self._check(live, aside)
        if self._closer is not None:
            await self._closer.reopen()  # removes the policy of a run that was killed
        if live is not None and live.differences:
            if self._is_quorum and self._closer is None:
                text = f'publishers cannot be shut out of queue "{self.queue.name}" without the management API'
                raise CannotRecreate(f"{text}: {self.session.no_management}; nothing was changed", _NO_API)
            if self._is_quorum and self._closer is not None:
                await self._closer.check()
            await self._move_aside()
            live = None
        return await self._move_back(is_new=live is None)

    async def _look(self, queue: Queue) -> ExistingItem | None:
        async with TopologyProbe(self.session.connection, needs_rights=True) as probe:
            return await probe.queue(queue)

    def _check(self, live: ExistingItem | None, aside: ExistingItem | None) -> None:
        """Raise CannotRecreate for a queue that cannot be recreated without a loss."""
        name = self.queue.name
        differing = {each.key: each.live for each in live.differences} if live else {}
        kind = self.queue.arguments.get("x-queue-type")
        kinds = (kind, differing.get("x-queue-type"))
        self._is_quorum = differing.get("x-queue-type", kind) == "quorum"
        if "stream" in kinds:
            raise CannotRecreate(
                f'queue "{name}" is a stream: what was read of it stays in it, so nothing can be moved'
            )
        if self.queue.auto_delete or differing.get("auto_delete") == "true" or self.queue.exclusive:
            raise CannotRecreate(f'queue "{name}" is deleted with its last consumer', "stop them, and start again")
        if len(self._aside.name.encode()) > MAX_NAME_BYTES - len(RETURN_SUFFIX):
            raise CannotRecreate(f'the name of queue "{name}" leaves no room for "{ASIDE_SUFFIX}" behind it')
        if live is not None and live.remark:
            raise CannotRecreate(live.remark)
        if aside is not None and (aside.differences or aside.remark):
            raise CannotRecreate(
                f'there is a queue "{self._aside.name}" that another program has made', "give it another name"
            )

    async def _wait_unused(self) -> None:
        """Return when the queue has no consumers. Raises QueueInUse."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CONSUMERS_GONE_S
        while (seen := await self._look(self.queue)) is not None and seen.consumers:
            if loop.time() > deadline:
                raise QueueInUse(self.queue.name)
            await asyncio.sleep(CONSUMERS_GONE_S / 20)

    async def _wait_settled(self) -> None:
        """Return when no message of the queue is unacknowledged: those would be deleted with the queue.

        Unacknowledged messages of a quorum queue have consumers. Those of a classic queue are known to the management
        API only, which is a few seconds behind.
        """
        management = self.session.management
        if self._is_quorum:
            return
        if management is None:
            text = "messages that other consumers hold unacknowledged are not visible without the management API"
            self.on_step(f'queue "{self.queue.name}": {text}')
            return
        loop = asyncio.get_running_loop()
        deadline = self._since + UNSETTLED_S
        while True:
            described = await management.queue(self.queue.name) or {}
            held = described.get("messages_unacknowledged", 0)
            if not held and loop.time() - self._since > STATISTICS_S:
                return
            if loop.time() > deadline:
                messages = f"{pluralize(held, 'message')} that another consumer holds unacknowledged"
                text = f'queue "{self.queue.name}" has {messages}'
                raise CannotRecreate(
                    f"{text}; nothing is lost", "stop the consumers that hold them, then run this again"
                )
            await asyncio.sleep(CONSUMERS_GONE_S / 20)

    async def _move_aside(self) -> None:
        """Move the messages and bindings aside, and delete the queue."""
        await self._wait_unused()
        self._since = asyncio.get_running_loop().time()
        name, to = self.queue.name, self._aside.name
        async with temporary_channel(self.session.connection) as channel:
            for marker in self.markers:
                await declare_exchange(channel, marker)
            await declare_queue(channel, self._aside)
            for marker in self.markers:
                await bind(channel, Binding(marker.name, self._aside.name))
            await self._connect(channel, to, self._aside.name)
        await self._wait_kept(self._aside)
        moved = await move_messages(self.session.settings, name, to, pack_properties)
        async with temporary_channel(self.session.connection) as channel:
            for binding in self._bindings_aside:
                await bind(channel, binding)
            for binding in (*self.wanted, *self.stale):
                await unbind(channel, binding)
        moved += await move_messages(self.session.settings, name, to, pack_properties)
        await self._wait_settled()
        moved += await self._move_rest_and_delete()
        self.on_step(f'queue "{name}": {pluralize(moved, "message")} moved aside, and the old queue deleted')
        for binding in self.stale:
            self.on_step(f'queue "{name}": its binding to {binding.exchange} by "{binding.key}" is not made again')

    async def _move_back(self, *, is_new: bool) -> int:
        """Declare the queue, move the messages and bindings back, and delete the queue aside."""
        name, aside, back = self.queue.name, self._aside.name, self.queue.name + RETURN_SUFFIX
        async with temporary_channel(self.session.connection) as channel:
            await declare_queue(channel, self.queue)
            await self._connect(channel, back, name)
        if is_new:
            self.on_step(f'queue "{name}": declared again')
        await self._wait_kept(self.queue)
        moved = await move_messages(self.session.settings, aside, back, unpack_properties)
        async with temporary_channel(self.session.connection) as channel:
            for binding in self.wanted:
                await bind(channel, binding)
            for binding in self._bindings_aside:
                await unbind(channel, binding)
            await channel.exchange_delete(ShortString(aside))
        moved += await move_messages(self.session.settings, aside, back, unpack_properties, UNREACHABLE_S, deletes=True)
        await delete_move_exchanges(self.session, name, self.markers)
        return moved

    async def _wait_kept(self, queue: Queue) -> None:
        """Return when a queue that may be new survives a crash of the broker."""
        seen = await self._look(queue)
        if queue.arguments.get("x-queue-type") == "quorum" and (seen is None or not seen.messages):
            await asyncio.sleep(QUORUM_QUEUE_SETTLE_S)

    async def _connect(self, channel: AbstractChannel, exchange: str, queue: str) -> None:
        """Declare a fanout exchange before a queue. It keeps routing keys, and ignores the header `CC`."""
        await declare_exchange(channel, Exchange(exchange, "fanout"))
        await bind(channel, Binding(exchange, queue))

    async def _move_rest_and_delete(self) -> int:
        """Move what still arrives in the old queue, and delete it, once publishers are shut out or gone."""
        name, to, settings = self.queue.name, self._aside.name, self.session.settings
        if not self._is_quorum or self._closer is None:
            moved = await move_messages(settings, name, to, pack_properties, QUIET_S)
            await delete_queue(settings, LeftoverQueue(name, messages=0, consumers=0))
            return moved
        try:
            moved = await close_and_delete(settings, self._closer, name, to, pack_properties)
            async with temporary_channel(self.session.connection) as channel:
                # Declared while the old one is closed, so that publishers find a queue when it opens.
                await declare_queue(channel, self.queue)
        except (QueueNotEmpty, CannotClose):
            await move_messages(settings, name, to, pack_properties)  # the guards must not stay in it
            raise
        finally:
            await self._closer.reopen()
        return moved


async def delete_move_exchanges(session: TopologySession, name: str, markers: Sequence[Exchange]) -> None:
    """Delete the exchanges by which messages have moved, and markers that no queue aside is bound to; if they exist."""
    async with temporary_channel(session.connection) as channel:
        await channel.exchange_delete(ShortString(name + RETURN_SUFFIX))
        await channel.exchange_delete(ShortString(name + ASIDE_SUFFIX))
    for marker in markers:
        with contextlib.suppress(aiormq.exceptions.ChannelPreconditionFailed):
            async with temporary_channel(session.connection) as channel:
                await channel.exchange_delete(ShortString(marker.name), if_unused=True)


def _consumer(described: dict[str, object]) -> str:
    channel = described.get("channel_details")
    place = channel.get("connection_name") if isinstance(channel, dict) else None
    return f'consumer "{described.get("consumer_tag", "")}" from {place or "an unknown place"}'


async def _consumers(session: TopologySession, name: str) -> str:
    """Return the consumers' connections from the management API, or their number over AMQP."""
    if session.management is not None:
        try:
            described = await session.management.queue(name) or {}
        except ManagementFailed:
            described = {}
        details = [each for each in described.get("consumer_details") or [] if isinstance(each, dict)]
        found = [
            _consumer(each) for each in details if each.get("consumer_tag") != MOVE_CONSUMER_TAG
        ]  # ours, some seconds ago
        if found:
            return ", ".join(found)
    async with TopologyProbe(session.connection, needs_rights=True) as probe:
        seen = await probe.queue(Queue(name), compares=False)
    return pluralize(seen.consumers, "consumer") if seen is not None and seen.consumers else "it has a consumer"
