"""The pauses of a pipeline on RabbitMQ: a stream with one message for each change, which every session reads.

A stream, because reading it takes nothing out: sessions neither wait for each other nor hide a message from another
one, and what is appended reaches all that follow it. So the same queue is the memory, which outlives processes and the
broker, and the notification. It grows by one short message for each change that an operator makes.

A session knows the state when it has read up to the chunk of messages that was the last one when it began. A consumer
with the offset `last` gets that chunk. From an empty stream it would get nothing, so a session that gets nothing
appends an empty change.

Source: https://www.rabbitmq.com/docs/streams#consuming
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from uuid import uuid4

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelInvalidStateError, ChannelNotFoundEntity

from runner.backoff import backoff_delays
from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown
from runner.message import Address, Envelope
from runner.pipeline.topology import pause_queue
from runner.tasks import cancel_and_wait
from runner.transports.base import OnTransportEvent, TransportEvent
from runner.transports.pauses import OnPauses, PauseChange, Pauses, read_change, write_change
from runner.transports.rabbitmq.aiormq_workarounds import (
    CHANNEL_ERRORS,
    ShortString,
    close_within,
    is_lost,
    loss_as_error,
    watch_loss,
)
from runner.transports.rabbitmq.channels import RPC_S, declare_queue, open_channel, queue_counts, temporary_channel
from runner.transports.rabbitmq.connection import STABLE_CONNECTION_S, ConnectionClosedByUs, ReconnectingConnection
from runner.transports.rabbitmq.message_decoder import decode_aiormq_message
from runner.transports.rabbitmq.publisher import RabbitPublisher
from runner.transports.rabbitmq.topology import Mode

PREFETCH = 1000
EMPTY_S = 0.03
"""How long a stream may send nothing before it counts as empty."""

SURELY_EMPTY_S = 3.0
"""The same for a reader that appends nothing, and so must be sure. A node takes a moment for it after its start."""

READ_S = 10.0
"""How long reading the stream may take."""

MAX_DELAY_S = 300.0
"""How often a broker is asked again that refuses: a stream may refuse for a moment after the start of its node, and a
user who lacks a right may get it.
"""

SOON_S = 0.5
"""A connection that is lost this soon after a question may be lost over it, and the next question waits: RabbitMQ 4
ends the connection of a reader whose stream it does not find. A node that is killed within a second of making its first
stream does not find it again.
"""

WRITE_S = 20.0
"""How long a change is tried again while the node starts or the connection is lost."""

CLOSE_S = 5.0
OFFSET = "x-stream-offset"


class PauseLog:
    """Follows the pauses of one pipeline, from `start` to `close`, over lost connections.

    `on_pauses` is called after each change, and for the end of a pause that is not there.
    """

    def __init__(
        self,
        pipeline: str,
        connection: ReconnectingConnection,
        publisher: RabbitPublisher,
        mode: Mode,
        on_transport_event: OnTransportEvent,
        on_pauses: OnPauses = lambda *_: None,
    ) -> None:
        self._queue = pause_queue(pipeline)
        self._connection = connection
        self._publisher = publisher
        self._mode: Mode = mode
        self._on_event = on_transport_event
        self._on_pauses = on_pauses
        self._task: asyncio.Task[None] | None = None
        self._said = ""
        self.pauses: Pauses = {}
        """The pauses as far as they are known."""

    async def start(self) -> None:
        """Read the pauses, and follow them. If that is impossible, nothing is paused: a log event says so."""
        first = await self._try_follow()
        self._task = asyncio.create_task(self._keep_following(first), name=f"pauses-{self._queue.name}")

    async def write(self, change: PauseChange) -> None:
        """Append a change, and return when the broker has confirmed it. Raises BrokerUnavailable.

        It is tried again for a while where the connection is lost, and where a node that has just started has no access
        to its streams yet. The same change twice is harmless.
        """
        give_up_at = asyncio.get_running_loop().time() + WRITE_S
        connection = None
        for delay_s in backoff_delays():
            try:
                with loss_as_error:
                    connection = await self._connection.ready()
                    await self._declare(connection)
                await self._append(change)
                return
            except (PublishFailed, PublishUnknown, ConnectionClosedByUs, *CHANNEL_ERRORS) as error:
                is_for_now = "down or inaccessible" in str(error) or (connection is not None and is_lost(connection))
                if not is_for_now or asyncio.get_running_loop().time() + delay_s > give_up_at:
                    raise BrokerUnavailable(
                        f'queue "{self._queue.name}" does not take the change: {error}',
                        "`runner plan` shows whether it exists, `runner export permissions` what a user needs",
                    ) from error
            await asyncio.sleep(delay_s)

    async def close(self) -> None:
        """Stop following."""
        await cancel_and_wait(self._task)

    async def _declare(self, connection: AbstractConnection) -> None:
        if self._mode == "manage":
            async with temporary_channel(connection) as channel:
                await declare_queue(channel, self._queue)

    async def _append(self, change: PauseChange) -> None:
        envelope = Envelope(write_change(change), message_id=uuid4().hex, content_type="application/json")
        await self._publisher.publish(Address("", self._queue.name), envelope)

    async def _keep_following(self, channel: AbstractChannel | None) -> None:
        """Follow on a new channel whenever the last one is lost, until cancelled."""
        try:
            while True:
                if channel is not None:
                    await asyncio.wait([channel.closing])
                channel = await self._follow_again()
        except ConnectionClosedByUs:
            pass
        finally:
            if channel is not None:
                await close_within(channel.close(), CLOSE_S)

    async def _follow_again(self) -> AbstractChannel:
        was_lost_over_it = False
        for delay_s in backoff_delays(max_s=MAX_DELAY_S):
            await self._connection.ready()
            if was_lost_over_it:  # let the subscribers do their work before it may be lost again
                await asyncio.sleep(max(delay_s, STABLE_CONNECTION_S))
            connection = await self._connection.ready()
            channel = await self._try_follow()
            if channel is not None:
                return channel
            lost = watch_loss(connection)
            await asyncio.wait([lost], timeout=SOON_S)
            if was_lost_over_it := lost.done() or is_lost(connection):
                self._report("the connection is lost when it is read")
            else:
                await asyncio.wait([lost], timeout=delay_s)
        raise AssertionError("delays never end")

    async def _try_follow(self) -> AbstractChannel | None:
        """Read the pauses on a new channel, and follow them there. If that fails, report why, and return None."""
        try:
            with loss_as_error:
                channel = await self._follow(await self._connection.ready())
        except (PublishFailed, PublishUnknown, TimeoutError, NotAStream, *CHANNEL_ERRORS) as error:
            if self._connection.is_ready:
                self._report(str(error) or "no answer in time")
            return None
        self._said = ""
        return channel

    def _report(self, error: str) -> None:
        if error != self._said:
            self._said = error
            self._on_event(TransportEvent("pauses.unavailable", "warning", {"queue": self._queue.name, "error": error}))

    async def _follow(self, connection: AbstractConnection) -> AbstractChannel:
        await self._declare(connection)
        reading = _Reading(await open_channel(connection), self._queue.name)
        try:
            async with asyncio.timeout(READ_S):
                pauses = await reading.read_all(lambda: self._append(PauseChange()))
        except BaseException:
            await close_within(reading.channel.close(), CLOSE_S)
            raise
        self._note(pauses)
        reading.on_pauses = self._note
        return reading.channel

    def _note(self, pauses: Pauses, subscriber: str = "") -> None:
        is_change, self.pauses = pauses != self.pauses or subscriber != "", pauses
        if is_change and self._task is not None:  # `start` gives the first ones to its caller
            self._on_pauses(pauses, subscriber)


async def read_pauses(connection: AbstractConnection, pipeline: str) -> Pauses | None:
    """Return the pauses of a pipeline, without following them; None if the broker does not show them."""
    channel: AbstractChannel | None = None
    try:
        with loss_as_error:
            channel = await open_channel(connection)
            async with asyncio.timeout(READ_S):
                return await _Reading(channel, pause_queue(pipeline).name).read_all()
    except ChannelNotFoundEntity:
        return {}
    except (NotAStream, TimeoutError, *CHANNEL_ERRORS):
        return None
    finally:
        if channel is not None:
            await close_within(channel.close(), CLOSE_S)


class NotAStream(Exception):
    """The queue has the name of the stream, and is none."""


class _Reading:
    """Reads the stream from its beginning on one channel."""

    def __init__(self, channel: AbstractChannel, queue: str) -> None:
        self.channel = channel
        self.on_pauses: OnPauses = lambda *_: None
        self._queue = ShortString(queue)
        self._pauses: Pauses = {}
        loop = asyncio.get_running_loop()
        self._end: asyncio.Future[int] = loop.create_future()
        self._has_read_end: asyncio.Future[None] = loop.create_future()
        channel.on_consumer_cancel_callbacks.add(
            lambda _: asyncio.ensure_future(close_within(channel.close(), CLOSE_S))
        )

    async def read_all(self, append_nothing: Callable[[], Awaitable[None]] | None = None) -> Pauses:
        """Return the pauses, and go on reading. Without `append_nothing`, a stream that sends nothing has none.

        Raises CHANNEL_ERRORS and NotAStream.
        """
        empty_s = EMPTY_S if append_nothing is not None else SURELY_EMPTY_S
        await self.channel.basic_qos(prefetch_count=PREFETCH, timeout=RPC_S)
        await self._consume("last", self._on_last)
        await asyncio.wait([self._end, self.channel.closing], timeout=empty_s, return_when=asyncio.FIRST_COMPLETED)
        if not self._end.done():
            if append_nothing is None:
                return {}
            await append_nothing()
        await self._unless_closed(self._end)
        await self.channel.basic_cancel("last", timeout=RPC_S)
        await self._consume("first", self._on_message)
        await self._unless_closed(self._has_read_end)
        await queue_counts(self.channel, self._queue)  # the rest of the chunk arrives before the answer
        return self._pauses

    async def _consume(self, offset: str, on_message: Callable[[DeliveredMessage], Coroutine[Any, Any, None]]) -> None:
        await self.channel.basic_consume(
            self._queue, on_message, arguments={OFFSET: offset}, consumer_tag=offset, timeout=RPC_S
        )

    async def _unless_closed(self, future: asyncio.Future[int] | asyncio.Future[None]) -> None:
        await asyncio.wait([future, self.channel.closing], return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise ChannelInvalidStateError("the channel was closed while the pauses were read")
        future.result()

    async def _on_last(self, message: DeliveredMessage) -> None:
        offset = _offset_of(message)
        if not self._end.done():
            if offset is None:
                self._end.set_exception(NotAStream(f'queue "{self._queue}" is not a stream'))
                return
            self._end.set_result(offset)
        await self._ack(message)

    async def _on_message(self, message: DeliveredMessage) -> None:
        change = read_change(message.body)
        self._pauses = change.applied_to(self._pauses)
        if not self._has_read_end.done() and (_offset_of(message) or 0) >= self._end.result():
            self._has_read_end.set_result(None)
        if change.subscriber:
            self.on_pauses(self._pauses, change.subscriber)
        await self._ack(message)

    async def _ack(self, message: DeliveredMessage) -> None:
        """Ask for more: a stream sends as many messages as were acknowledged."""
        tag = message.delivery.delivery_tag  # type: ignore[union-attr]
        with contextlib.suppress(*CHANNEL_ERRORS):
            await self.channel.basic_ack(tag or 0, wait=False)


def _offset_of(message: DeliveredMessage) -> int | None:
    offset = decode_aiormq_message(message)[0].headers.get(OFFSET)
    return offset if isinstance(offset, int) else None
