"""Browses a queue in its order, and takes only chosen messages: all others go back to their places.

A quorum queue puts messages that are given back behind those that were given back before, and delivers them first. So
the order is kept only if a browser holds all messages that were ever given back, and gives them back in the order in
which it got them. Therefore messages come from consumers, one after the other, each on a channel of its own, and the
channels are closed in turn: the messages of a consumer go back in their order, while those from `basic.get` go back in
any order (measured with 3.10). Browsing a message without taking it counts as a delivery, in `x-delivery-count`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage

from runner.errors import BrokerUnavailable
from runner.message import ERROR, REASON, Address, Envelope
from runner.operations.queue_access import Browsed
from runner.pipeline.model import BrokerSettings
from runner.transports.base import OnTransportEvent
from runner.transports.pauses import Pause, PauseChange, Pauses
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
from runner.transports.rabbitmq.pause_log import PauseLog, read_pauses
from runner.transports.rabbitmq.publisher import RabbitPublisher

FIRST_WINDOW = 1
MAX_WINDOW = 1000
"""How many messages the first consumer gets, and later ones at most. Each gets twice as many as the one before.

The first gets a single message: if that one cannot be decoded and ends the connection, no other message is affected.
"""

MAX_WINDOW_BYTES = 32 * 1024 * 1024
"""About how many bytes a consumer gets at most."""

MAX_CONSUMERS = 500
"""Maximum number of channels; a broker may allow no more on one connection."""

CLOSE_S = 10.0

UNKNOWN_COUNT = 2**63

REQUEUE_TIMEOUT_S = 1.0
"""How long messages that were given back may take to be ready again."""


class QueueLocked(BrokerUnavailable):
    """The queue is exclusive to another connection."""


class QueueNotPermitted(BrokerUnavailable):
    """The user has no permission for the queue. RabbitMQ from 4.3 on does not even say whether it exists."""


class _BrowseConsumer:
    """One consumer on a channel of its own."""

    def __init__(self, channel: AbstractChannel, window: int) -> None:
        self.channel = channel
        self.window = window
        self.unsettled = 0
        self.tag = ""


class QueueBrowser:
    """The messages of a queue, in order. Closing gives back those that were not taken."""

    def __init__(self, connection: AbstractConnection, queue: str) -> None:
        self._connection = connection
        self._queue = queue
        self._sections: list[_BrowseConsumer] = []
        self._arrived: asyncio.Queue[Browsed | None] = asyncio.Queue()
        self._largest = 0
        self._end = ""

    @property
    def is_over(self) -> bool:
        """Whether the connection was lost. Everything has gone back then."""
        return bool(self._end)

    @property
    def is_at_its_end(self) -> bool:
        """Whether no more messages come, because it holds as many as it can."""
        return len(self._sections) >= MAX_CONSUMERS and self._is_full

    @property
    def _is_full(self) -> bool:
        last = self._sections[-1]
        return last.unsettled >= last.window and self._arrived.empty()

    async def start(self, window: int) -> None:
        """Start browsing. Raises what the broker answers."""
        await self._extend(window)

    async def next(self, seconds: float) -> Browsed | None:
        """Return the next message; None where none arrives in time. Raises BrokerUnavailable."""
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

    async def _take(self, section: _BrowseConsumer, tag: int) -> None:
        try:
            with loss_as_error:
                await section.channel.basic_ack(tag, wait=False)
        except CHANNEL_ERRORS as error:
            raise self._lost(error) from error
        if section.channel.is_closed:
            raise self._lost()
        section.unsettled -= 1

    async def close(self, ready: Callable[[], Awaitable[int]]) -> None:
        """Give back the messages that were not taken, consumer by consumer. `ready` counts the queue's ready messages.

        A channel's messages are back some time after it was closed. The next one waits for that, but not for long:
        another consumer may take them at once.
        """
        is_lost = self.is_over
        if self._sections and not is_lost:
            last = self._sections[-1]  # it has room, and would get what the others give back
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
        """Stop the last consumer, which keeps what it has, and start another one for the messages behind."""
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
        address = Address(frame.exchange or "", frame.routing_key or "")
        count = envelope.headers.get("x-delivery-count", 0)
        section.unsettled += 1
        remove = partial(self._take, section, frame.delivery_tag or 0)
        self._arrived.put_nowait(Browsed(envelope, address, remove, count if type(count) is int else 0))

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
    """A session that browses queues: one connection to read, and one to publish, opened when needed."""

    def __init__(
        self, settings: BrokerSettings, *, name: str, on_transport_event: OnTransportEvent = lambda _: None
    ) -> None:
        connect = partial(ReconnectingConnection, settings, name=name, on_transport_event=on_transport_event)
        self._reading, self._writing = connect(role="look"), connect(role="move")
        self._publisher = RabbitPublisher(self._writing, on_transport_event)
        self._mode = settings.topology
        self._is_writing = False
        self.server: Mapping[str, Any] = {}
        """The broker's server properties."""

    async def open(self) -> None:
        """Connect. Raises BrokerUnavailable."""
        self.server = server_properties(await self._reading.open())

    @property
    def major_version(self) -> int:
        """The first number of the broker's version; 0 where that is unknown."""
        first = server_property(self.server, "version").partition(".")[0]
        return int(first) if first.isdecimal() else 0

    async def depth(self, queue: str) -> QueueCounts | None:
        """Return the counts of a queue; None where it does not exist.

        Raises QueueLocked, QueueNotPermitted, BrokerUnavailable.
        """
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
    async def read(self, queue: str, window: int = FIRST_WINDOW) -> AsyncIterator[QueueBrowser]:
        """Browse a queue from its head. Messages that are not taken go back. Raises BrokerUnavailable."""
        reading: QueueBrowser | None = None
        try:
            reading = QueueBrowser(await self._connected(), queue)
            await reading.start(window)
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
        """Return the connection. Raises TimeoutError where it was lost and is not back soon."""
        async with asyncio.timeout(RPC_S):
            return await self._reading.ready()

    async def _ready(self, queue: str) -> int:
        try:
            depth = await self.depth(queue)
        except BrokerUnavailable:
            return UNKNOWN_COUNT  # so that nothing waits for more
        return depth.messages if depth is not None else UNKNOWN_COUNT

    async def publish(self, address: Address, envelope: Envelope) -> None:
        """Publish, and return when it is confirmed. Raises BrokerUnavailable, and what `Transport.publish` raises."""
        await self._open_for_writing()
        await self._publisher.publish(address, envelope)

    async def pauses(self, pipeline: str) -> Pauses | None:
        """Return the pauses of a pipeline's subscribers; None if the broker does not show them."""
        return await read_pauses(await self._connected(), pipeline)

    async def set_pause(self, pipeline: str, subscriber: str, pause: Pause | None) -> None:
        """Begin or end the pause of a subscriber. Raises BrokerUnavailable."""
        await self._open_for_writing()
        log = PauseLog(pipeline, self._reading, self._publisher, self._mode, lambda _: None)
        await log.write(PauseChange(subscriber, pause))

    async def _open_for_writing(self) -> None:
        if not self._is_writing:
            await self._writing.open()
            self._is_writing = True

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        await self._publisher.close()
        await asyncio.gather(self._reading.close(), self._writing.close())
