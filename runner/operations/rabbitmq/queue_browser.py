"""Looks at what is in a queue, in its order, and takes only what it is told to: everything else goes back as it stood.

What a quorum queue gets back it puts behind all that it got back before, and hands out first. So order stays only if
those who look hold everything that was ever given back, and give it back in the order in which they got it. Therefore
messages come by consumers, one after the other, each on a channel of its own, which are closed in turn: a consumer's
messages go back in their order, while what was got one by one with `basic.get` goes back in any (measured, 3.10). Each
look that is not acknowledged counts as a delivery, in `x-delivery-count`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage

from runner.errors import BrokerUnavailable
from runner.message import ERROR, REASON, Address, Envelope
from runner.pipeline.model import BrokerSettings
from runner.transports.base import OnTransportEvent
from runner.transports.rabbitmq.aiormq_workarounds import (
    CHANNEL_ERRORS,
    ShortString,
    close_within,
    describe_error,
    loss_as_error,
    server_properties,
    server_property,
)
from runner.transports.rabbitmq.channels import (
    RPC_S,
    QueueCounts,
    open_channel,
    queue_counts,
    reply_of,
    temporary_channel,
)
from runner.transports.rabbitmq.connection import ConnectionClosedByUs, ReconnectingConnection
from runner.transports.rabbitmq.message_decoder import decode_aiormq_message
from runner.transports.rabbitmq.publisher import RabbitPublisher

FIRST_WINDOW = 1
MAX_WINDOW = 1000
"""How many messages the first consumer is handed, and later ones at most; each has twice as many as the one before.

One alone, so that a message that nobody can decode, and that ends the connection, finds no other in hand.
"""

MAX_WINDOW_BYTES = 32 * 1024 * 1024
"""What a consumer is handed at once should have about this at most."""

MAX_CONSUMERS = 500
"""More channels may not be allowed on one connection."""

CLOSE_S = 10.0

UNKNOWN_COUNT = 2**63

REQUEUE_TIMEOUT_S = 1.0
"""How long what was given back may take to be ready again."""


class QueueLocked(BrokerUnavailable):
    """Another connection has the queue for itself."""


class QueueNotPermitted(BrokerUnavailable):
    """The user has no right to the queue, so the broker does not say whether it exists (RabbitMQ from 4.3 on)."""


class BrowsedMessage(NamedTuple):
    """A message as it stands in a queue. `delivery_count` is how often it was handed out before, if the queue counts
    that."""

    envelope: Envelope
    delivery_count: int
    tag: int
    section: _BrowseConsumer


class _BrowseConsumer:
    """One consumer on a channel of its own."""

    def __init__(self, channel: AbstractChannel, window: int) -> None:
        self.channel = channel
        self.window = window
        self.unsettled = 0
        self.tag = ""


class QueueBrowser:
    """The messages of a queue, as they are handed out. Closing gives back what was not taken."""

    def __init__(self, connection: AbstractConnection, queue: str) -> None:
        self._connection = connection
        self._queue = queue
        self._sections: list[_BrowseConsumer] = []
        self._arrived: asyncio.Queue[BrowsedMessage | None] = asyncio.Queue()
        self._largest = 0
        self._end = ""

    @property
    def is_over(self) -> bool:
        """Whether the broker was lost: everything has gone back then."""
        return bool(self._end)

    @property
    def is_at_its_end(self) -> bool:
        """Whether nothing more comes, because it cannot look at more messages at once than it has already."""
        return len(self._sections) >= MAX_CONSUMERS and self._is_full

    @property
    def _is_full(self) -> bool:
        last = self._sections[-1]
        return last.unsettled >= last.window and self._arrived.empty()

    async def start(self) -> None:
        """Begin; raises what the broker answers."""
        await self._extend(FIRST_WINDOW)

    async def next(self, seconds: float) -> BrowsedMessage | None:
        """Return the next message, None where none comes in time. Raises BrokerUnavailable."""
        if self._is_full and not self.is_at_its_end:
            await self._go_on()
        try:
            async with asyncio.timeout(seconds):
                browsed = await self._arrived.get()
        except TimeoutError:
            return None
        if browsed is None:
            raise self._lost()
        return browsed

    async def take(self, browsed: BrowsedMessage) -> None:
        """Remove a message from the queue for good. Raises BrokerUnavailable: then it may be there again."""
        channel = browsed.section.channel
        try:
            with loss_as_error:
                await channel.basic_ack(browsed.tag, wait=False)
        except CHANNEL_ERRORS as error:
            raise self._lost(error) from error
        if channel.is_closed:
            raise self._lost()
        browsed.section.unsettled -= 1

    async def close(self, ready: Callable[[], Awaitable[int]]) -> None:
        """Give back what was not taken, consumer by consumer; `ready` tells how many messages are ready in the queue.

        A channel's messages are back some time after it was closed; the next waits for that, but not for long: somebody
        else may take them at once.
        """
        is_lost = self.is_over
        if self._sections and not is_lost:
            last = self._sections[-1]  # it has room, and would be handed what the others give back
            await close_within(last.channel.basic_cancel(last.tag, timeout=RPC_S), CLOSE_S)
        expected = await ready() if not is_lost else 0
        patience_s = REQUEUE_TIMEOUT_S
        for section in self._sections:
            await close_within(section.channel.close(), CLOSE_S)
            expected += section.unsettled
            give_up_at = asyncio.get_running_loop().time() + patience_s
            while not is_lost and section.unsettled and await ready() < expected:
                if asyncio.get_running_loop().time() > give_up_at:
                    patience_s = 0.0
                    break
                await asyncio.sleep(0.005)

    async def _go_on(self) -> None:
        """Let the last consumer keep what it has, and another one be handed what comes behind it."""
        last = self._sections[-1]
        try:
            with loss_as_error:
                await last.channel.basic_cancel(last.tag, timeout=RPC_S)
                room = max(FIRST_WINDOW, MAX_WINDOW_BYTES // max(1, self._largest))
                await self._extend(min(last.window * 2, MAX_WINDOW, room))
        except CHANNEL_ERRORS as error:
            raise self._lost(error) from error

    async def _extend(self, window: int) -> None:
        channel = await open_channel(self._connection)
        section = _BrowseConsumer(channel, window)
        self._sections.append(section)
        channel.closing.add_done_callback(self._on_end)

        async def on_message(message: DeliveredMessage) -> None:
            self._on_message(message, section)

        await channel.basic_qos(prefetch_count=window, timeout=RPC_S)
        consumed = await channel.basic_consume(ShortString(self._queue), on_message, timeout=RPC_S)
        section.tag = consumed.consumer_tag or ""

    def _on_message(self, message: DeliveredMessage, section: _BrowseConsumer) -> None:
        envelope, why = decode_aiormq_message(message)
        if why:
            told = {REASON: "unreadable", ERROR: f"the message cannot be decoded: {why}"}
            envelope = envelope._replace(headers={**envelope.headers, **told})
        self._largest = max(self._largest, len(envelope.body))
        frame: Any = message.delivery
        delivery_count = envelope.headers.get("x-delivery-count", 0)
        section.unsettled += 1
        self._arrived.put_nowait(
            BrowsedMessage(
                envelope, delivery_count if type(delivery_count) is int else 0, frame.delivery_tag or 0, section
            )
        )

    def _on_end(self, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        self._end = self._end or describe_error(error)
        self._arrived.put_nowait(None)

    def _lost(self, error: BaseException | None = None) -> BrokerUnavailable:
        why = describe_error(error) if error is not None and not self._end else self._end
        if "unmarshal" in why:
            text = (
                f'a message in queue "{self._queue}" cannot be decoded, and nothing behind it can be looked at: {why}'
            )
            return BrokerUnavailable(text, 'take it out on the broker, as with "Get messages" of its management page')
        return BrokerUnavailable(f'the broker was lost while reading queue "{self._queue}": {why}')


class BrowseSession:
    """A session that looks into queues: one connection to read, and one to publish, made when it is needed."""

    def __init__(
        self, settings: BrokerSettings, *, name: str, on_transport_event: OnTransportEvent = lambda _: None
    ) -> None:
        self._reading = ReconnectingConnection(
            settings, role="look", name=name, on_transport_event=on_transport_event, restore=_restore_nothing
        )
        self._writing = ReconnectingConnection(
            settings, role="move", name=name, on_transport_event=on_transport_event, restore=_restore_nothing
        )
        self._publisher = RabbitPublisher(self._writing, on_transport_event)
        self._is_writing = False
        self.server: Mapping[str, Any] = {}
        """What the broker says of itself."""

    async def open(self) -> None:
        """Connect. Raises BrokerUnavailable."""
        self.server = server_properties(await self._reading.open())

    @property
    def major_version(self) -> int:
        """The first number of the broker's version; 0 where it does not say."""
        first = server_property(self.server, "version").partition(".")[0]
        return int(first) if first.isdecimal() else 0

    async def depth(self, queue: str) -> QueueCounts | None:
        """Return what a queue has, None where it does not exist. Raises Locked, NotPermitted, BrokerUnavailable."""
        try:
            async with temporary_channel(await self._connected()) as channel:
                return await queue_counts(channel, queue)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return None
        except aiormq.exceptions.ChannelLockedResource as error:
            raise QueueLocked(f'queue "{queue}" belongs to another connection alone') from error
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise QueueNotPermitted(f"the broker does not permit it: {reply_of(error)}") from error
        except (ConnectionClosedByUs, *CHANNEL_ERRORS) as error:
            raise BrokerUnavailable(
                f'the broker was lost while looking at queue "{queue}": {describe_error(error)}'
            ) from error

    @asynccontextmanager
    async def read(self, queue: str) -> AsyncIterator[QueueBrowser]:
        """Read a queue from its head; what is not taken goes back. Raises BrokerUnavailable."""
        reading: QueueBrowser | None = None
        try:
            reading = QueueBrowser(await self._connected(), queue)
            await reading.start()
        except aiormq.exceptions.ChannelAccessRefused as error:
            hint = f'the user needs the right to read "{queue}"'
            raise BrokerUnavailable(f"the broker does not permit it: {describe_error(error)}", hint) from error
        except (ConnectionClosedByUs, *CHANNEL_ERRORS) as error:
            raise BrokerUnavailable(f'cannot read queue "{queue}": {describe_error(error)}') from error
        try:
            yield reading
        finally:
            await reading.close(lambda: self._ready(queue))

    async def _connected(self) -> AbstractConnection:
        """Return the connection, or raise TimeoutError: a lost one is made again, but who waits here wants to know."""
        async with asyncio.timeout(RPC_S):
            return await self._reading.ready()

    async def _ready(self, queue: str) -> int:
        try:
            depth = await self.depth(queue)
        except BrokerUnavailable:
            return UNKNOWN_COUNT  # then there is nothing to wait for
        return depth.messages if depth is not None else UNKNOWN_COUNT

    async def publish(self, address: Address, envelope: Envelope) -> None:
        """Publish and return when the broker has confirmed it. Raises as `Transport.publish` does, and unreachable."""
        if not self._is_writing:
            await self._writing.open()
            self._is_writing = True
        await self._publisher.publish(address, envelope)

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        await self._publisher.close()
        await asyncio.gather(self._reading.close(), self._writing.close())


async def _restore_nothing(_: AbstractConnection) -> None:
    """Nothing was declared: nothing is to be restored."""
