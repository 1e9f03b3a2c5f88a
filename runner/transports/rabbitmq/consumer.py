"""Turns a queue of RabbitMQ into deliveries, and keeps doing so when its channel, queue or connection is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage

from runner.errors import BrokerUnavailable
from runner.message import NO_HEADERS, Envelope
from runner.transports.base import Delivery, OnDelivery, OnStateChange, Source, StateChange
from runner.transports.rabbitmq.connection import CHANNEL_ERRORS, Link, LinkClosed, bounded, end, pauses, was_cancelled
from runner.transports.rabbitmq.topology import RPC_S, open_channel

SETTLE_S = 5.0

CALM = 20
"""After so many messages in a row that are no suspects, the consumer takes as many at once as before."""

FINISH_S = 60.0
"""How long handlers of what was delivered before may take before a suspect is taken in hand."""

STANDSTILLS = 2
"""How often in a row nothing may have come, though something waits and there is room, before we register anew."""


class Registration:
    """One AMQP consumer on one channel: what the delivery tags it hands out belong to.

    `unsettled` counts what was handed to the runtime and is not settled, `delivered` all that the broker has sent.
    """

    __slots__ = ("channel", "delivered", "ended", "is_winding_up", "prefetch", "settled", "tag", "unsettled")

    def __init__(self, channel: AbstractChannel, prefetch: int = 1) -> None:
        self.channel = channel
        self.prefetch = prefetch
        self.tag = ""
        self.delivered = 0
        self.unsettled = 0
        self.settled = asyncio.Event()
        """Whether nothing is unsettled."""
        self.settled.set()
        self.is_winding_up = False
        """Whether what is given back waits for the channel to close, so that nobody else gets anything before."""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def is_open(self) -> bool:
        """Whether its deliveries can still be settled."""
        return not self.channel.is_closed

    def end(self, reason: str) -> None:
        """Note that no more deliveries will come; the first reason counts."""
        if not self.ended.done():
            self.ended.set_result(reason)

    def note_delivery(self) -> None:
        """Count a delivery that is handed to the runtime."""
        self.unsettled += 1
        self.settled.clear()

    def note_settled(self) -> None:
        """Count a delivery that the broker was told the end of."""
        self.unsettled -= 1
        if not self.unsettled:
            self.settled.set()


class Consumer:
    """The feed of one queue: registers with the broker, and again after each loss, until it is stopped.

    `restore` declares again what is missing, for a queue that somebody has deleted. When a message comes that may have
    ended processes, everything else goes back, and messages are taken one at a time: if it ends this one too, that
    counts against it alone, and it reaches its delivery limit before its neighbours do.
    """

    def __init__(
        self,
        link: Link,
        source: Source,
        on_delivery: OnDelivery,
        on_state_change: OnStateChange,
        restore: Callable[[AbstractConnection], Awaitable[None]],
    ) -> None:
        self._link = link
        self._source = source
        self._on_delivery = on_delivery
        self._say = on_state_change
        self._restore = restore
        self._registration: Registration | None = None
        self._is_stopped = False
        self._is_careful = False
        self._calm = 0
        self._standstills = 0
        self._looked_at = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._source.queue

    @property
    def registration(self) -> Registration | None:
        """The current registration; None before `start`."""
        return self._registration

    @property
    def is_live(self) -> bool:
        """Whether the broker sends us messages of the queue now."""
        registration = self._registration
        return registration is not None and not registration.ended.done() and not self._is_stopped

    async def start(self) -> None:
        """Register for the first time; raises what the broker answers, then look after it in the background."""
        registration = await self._register(await self._link.ready())
        self._task = asyncio.create_task(self._look_after(registration), name=f"consumer-{self._source.queue}")

    async def stop(self) -> None:
        """Cancel the registration; its channel stays open, so that what was delivered can be settled. Idempotent.

        A single active consumer is not cancelled: the broker would activate the next at once, and their messages would
        be handled at the same time. What still comes is left to go back with the channel.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        registration = self._registration
        if registration is not None and self._source.is_single_active:
            registration.is_winding_up = True
        await end(self._task)
        registration = self._registration
        if registration is None or not registration.is_open:
            return
        if self._source.is_single_active:
            registration.is_winding_up = True
        else:
            await bounded(registration.channel.basic_cancel(registration.tag, timeout=RPC_S), SETTLE_S)
            registration.end("stopped")

    async def close(self) -> None:
        """Stop, and close the channel: every settlement has then been read, and the rest is given back. Idempotent."""
        await self.stop()
        if self._registration is not None:
            await bounded(self._registration.channel.close(), SETTLE_S)

    async def _register(self, connection: AbstractConnection) -> Registration:
        channel = await open_channel(connection)
        registration = Registration(channel, 1 if self._is_careful else self._source.prefetch)
        channel.closing.add_done_callback(lambda future: registration.end(_reason(future)))
        channel.on_consumer_cancel_callbacks.add(lambda _: registration.end("cancelled by the broker"))
        await channel.basic_qos(prefetch_count=registration.prefetch, timeout=RPC_S)

        async def on_message(message: DeliveredMessage) -> None:
            registration.delivered += 1
            if registration.is_winding_up:
                return  # it goes back with the channel
            delivery = _delivery(message, self._source, registration)
            if self._may_take(delivery, registration):
                registration.note_delivery()
                self._on_delivery(delivery)

        consumed = await channel.basic_consume(self._source.queue, on_message, timeout=RPC_S)
        registration.tag = consumed.consumer_tag or ""
        self._registration = registration
        return registration

    async def _look_after(self, registration: Registration) -> None:
        """Register again whenever the registration ends, until cancelled."""
        while True:
            reason = await asyncio.shield(registration.ended)
            if registration.is_winding_up:
                await self._wind_up(registration)
            elif self._link.is_ready:
                self._tell("consumer.lost", "warning", error=reason)
            await bounded(registration.channel.close(), SETTLE_S)
            registration = await self._register_again()
            self._tell("consumer.resumed", "info", prefetch=registration.prefetch)

    def _may_take(self, delivery: Delivery, registration: Registration) -> bool:
        """Return whether a delivery may be handed on; decides when to begin taking one at a time, and when to end."""
        self._calm = 0 if delivery.is_suspect else self._calm + 1
        if delivery.is_suspect and registration.prefetch > 1:
            self._is_careful = True
            self._tell("consumer.careful", "warning", message_id=delivery.envelope.message_id, crashes=delivery.crashes)
        elif self._is_careful and self._calm > CALM:
            self._is_careful = False
        else:
            return True
        registration.is_winding_up = True
        registration.end("registering with another prefetch")
        return False

    async def _wind_up(self, registration: Registration) -> None:
        """Let the broker give others what is new, and what was delivered end; not for ever."""
        if not self._source.is_single_active:
            await bounded(registration.channel.basic_cancel(registration.tag, timeout=RPC_S), SETTLE_S)
        await asyncio.wait([asyncio.ensure_future(registration.settled.wait())], timeout=FINISH_S)

    def look_at(self, registration: Registration, ready: int, consumers: int) -> None:
        """Judge what the broker says of our queue: how many messages wait in it, how many consumers it has.

        A consumer that the broker does not know, or to which nothing comes though something waits and there is room,
        is given up and registered anew.
        """
        if registration is not self._registration or not self.is_live:
            return
        has_room = registration.unsettled < registration.prefetch and not self._source.is_single_active
        is_still = ready > 0 and has_room and registration.delivered == self._looked_at
        self._standstills = self._standstills + 1 if is_still else 0
        self._looked_at = registration.delivered
        if not consumers:
            registration.end("the broker does not know it any more")
        elif self._standstills >= STANDSTILLS:
            self._standstills = 0
            registration.end(f"nothing comes, though {ready} messages wait")

    async def _register_again(self) -> Registration:
        is_said = False
        for pause in pauses():
            try:
                return await self._register(await self._link.ready())
            except LinkClosed:
                await asyncio.Event().wait()
            except CHANNEL_ERRORS as error:
                if self._link.is_ready and not is_said:
                    self._tell("consumer.lost", "error", error=str(error))
                    is_said = True
                if isinstance(error, aiormq.exceptions.ChannelNotFoundEntity):
                    await self._declare_again()
            except asyncio.CancelledError:
                if was_cancelled():
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    async def _declare_again(self) -> None:
        try:
            await self._restore(await self._link.ready())
        except (LinkClosed, BrokerUnavailable, *CHANNEL_ERRORS):
            pass  # the next attempt to register finds out

    def _tell(self, event: str, level: str, **fields: Any) -> None:
        fields = {"subscriber": self._source.subscriber, "queue": self._source.queue, **fields}
        self._say(StateChange(event, level, fields))


def _reason(future: asyncio.Future[Any]) -> str:
    if future.cancelled():
        return "channel closed"
    error = future.exception()
    if isinstance(error, aiormq.exceptions.AMQPError) and error.args:
        return str(error.args[-1])
    return "channel closed"


def _delivery(message: DeliveredMessage, source: Source, registration: Registration) -> Delivery:
    properties: Any = message.header.properties
    frame: Any = message.delivery
    headers = _table(properties.headers) if properties.headers else NO_HEADERS
    crashes = headers.get("x-delivery-count", 0)
    return Delivery(
        Envelope(
            message.body,
            properties.message_id,
            properties.correlation_id,
            properties.message_type,
            properties.app_id,
            _utc(properties.timestamp),
            properties.content_type,
            properties.content_encoding,
            properties.reply_to,
            properties.priority,
            _milliseconds(properties.expiration),
            headers,
        ),
        source,
        exchange=frame.exchange or "",
        routing_key=frame.routing_key or "",
        is_redelivered=bool(frame.redelivered),
        crashes=crashes if isinstance(crashes, int) else 0,
        token=frame.delivery_tag,
        generation=registration,
    )


def _table(value: Any) -> Any:
    """Return a header's value as Python has it: pamqp makes bytearrays of bytes."""
    match value:
        case bytearray():
            return bytes(value)
        case dict():
            return {name: _table(item) for name, item in value.items()}
        case list():
            return [_table(item) for item in value]
    return value


def _utc(timestamp: datetime | None) -> datetime | None:
    if timestamp is None or timestamp.tzinfo is not None:
        return timestamp
    return timestamp.replace(tzinfo=UTC)


def _milliseconds(expiration: str | None) -> int | None:
    return int(expiration) if expiration and expiration.isdecimal() else None
