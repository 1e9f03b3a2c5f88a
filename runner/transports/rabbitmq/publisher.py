"""Turns envelopes into confirmed publications: persistent, mandatory, many in flight, never one id twice at once.

Source: https://www.rabbitmq.com/docs/confirms. One channel, opened when needed and again after each loss.
"""

from __future__ import annotations

import asyncio
from typing import cast

import aiormq
from aio_pika.abc import AbstractConnection
from pamqp.commands import Basic

from runner.errors import PublishFailed, PublishUnknown
from runner.message import Address, Envelope
from runner.transports.base import OnStateChange, StateChange
from runner.transports.rabbitmq.confirming import Answer, Confirms, table
from runner.transports.rabbitmq.connection import CHANNEL_ERRORS, Link, LinkClosed, end, was_cancelled
from runner.transports.rabbitmq.direct import wire_of
from runner.transports.rabbitmq.topology import open_channel
from runner.transports.wire import MAX_SHORT_BYTES, as_sent

MAX_UNCONFIRMED = 256
CONFIRM_S = 30.0
"""A confirm that takes longer, on a connection that is not blocked, is not coming: the channel is opened anew."""


class MissingExchange(PublishFailed):
    """The exchange does not exist; declaring it again mends that."""


class Publisher:
    """Publishes on the publishing connection.

    A publication has no timer of its own: one watch looks at the oldest, and gives the channel up when it waits too
    long; then every publication in flight ends as PublishUnknown. While the broker blocks us they all wait.
    """

    def __init__(self, link: Link, on_state_change: OnStateChange) -> None:
        self._link = link
        self._say = on_state_change
        self._slots = asyncio.Semaphore(MAX_UNCONFIRMED)
        self._channel: aiormq.Channel | None = None
        self._confirms: Confirms | None = None
        """The direct way, if the channel has one."""
        self._connection: AbstractConnection | None = None
        self._opening = asyncio.Lock()
        self._waiting = 0
        self._turns: dict[str, asyncio.Future[None]] = {}
        self._since: dict[int, float] = {}
        self._count = 0
        self._watch: asyncio.Task[None] | None = None

    async def publish(self, address: Address, envelope: Envelope) -> None:
        """Publish once and return when the broker has confirmed it. Raises PublishFailed or PublishUnknown."""
        check(address)
        envelope = as_sent(envelope)
        async with self._slots:
            turn = await self._take_turn(envelope.message_id)
            try:
                await self._publish(address, envelope)
            finally:
                if turn is not None and envelope.message_id is not None:
                    del self._turns[envelope.message_id]
                    turn.set_result(None)

    async def close(self) -> None:
        """Stop watching. What is in flight ends with its connection."""
        await end(self._watch)

    async def _take_turn(self, message_id: str | None) -> asyncio.Future[None] | None:
        """Wait until no other publication with this id is in flight.

        aiormq finds the publication that a returned message belongs to by its message id alone.
        """
        if message_id is None:
            return None
        while (other := self._turns.get(message_id)) is not None:
            await asyncio.shield(other)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns[message_id] = turn
        return turn

    async def _publish(self, address: Address, envelope: Envelope) -> None:
        channel = await self._open_channel()
        self._count += 1
        number = self._count
        self._since[number] = asyncio.get_running_loop().time()
        try:
            answer = await self._send(channel, address, envelope)
        except aiormq.exceptions.ChannelNotFoundEntity as error:
            raise _missing_exchange(error, address) from error
        except CHANNEL_ERRORS as error:
            raise PublishUnknown(f'the broker was lost while publishing to "{address}"') from error
        except asyncio.CancelledError as error:
            if was_cancelled():
                raise
            raise PublishUnknown(f'the broker was lost while publishing to "{address}"') from error
        finally:
            del self._since[number]
        if answer == "returned":
            raise PublishFailed(f'no queue takes a message for "{address}"', reason="unroutable")
        if answer == "refused":
            raise PublishFailed(f'the queue behind "{address}" refuses the message', reason="refused")

    async def _send(self, channel: aiormq.Channel, address: Address, envelope: Envelope) -> Answer:
        """Publish, and return what the broker answers. Raises what aiormq raises when the channel ends."""
        if self._confirms is not None and channel is self._channel:
            return await self._confirms.publish(address, envelope)
        try:
            confirmation = await channel.basic_publish(
                envelope.body,
                exchange=address.exchange,
                routing_key=address.key,
                properties=_properties(envelope),
                mandatory=True,
                wait=False,
            )
        except aiormq.exceptions.PublishError:
            return "returned"
        except aiormq.exceptions.DeliveryError:
            return "refused"
        return "confirmed" if isinstance(confirmation, Basic.Ack) else "refused"

    async def _open_channel(self) -> aiormq.Channel:
        """Return an open channel of the current connection, waiting for both. Nobody overtakes who waits already."""
        self._waiting += 1
        try:
            connection = await self._link.ready()
            is_open = self._channel is not None and not self._channel.is_closed and self._connection is connection
            if self._channel is not None and is_open and self._waiting == 1:
                return self._channel
            async with self._opening:
                if self._channel is None or self._channel.is_closed or self._connection is not connection:
                    self._channel = cast(aiormq.Channel, await open_channel(connection, confirms=True))
                    self._connection = connection
                    wire = wire_of(connection)
                    self._confirms = Confirms(self._channel, wire) if wire is not None else None
                if self._watch is None:
                    self._watch = asyncio.create_task(self._watch_oldest(), name="rabbitmq-confirms")
                return self._channel
        except (LinkClosed, *CHANNEL_ERRORS) as error:
            raise PublishUnknown("the broker was lost before publishing") from error
        except asyncio.CancelledError as error:
            if was_cancelled():
                raise
            raise PublishUnknown("the broker was lost before publishing") from error
        finally:
            self._waiting -= 1

    async def _watch_oldest(self) -> None:
        """Give the channel up when its oldest publication has waited too long for its confirm."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CONFIRM_S / 10)
            oldest = next(iter(self._since.values()), None)
            if self._link.is_blocked:
                self._since = dict.fromkeys(self._since, loop.time())
            elif oldest is not None and loop.time() - oldest > CONFIRM_S and self._channel is not None:
                self._say(
                    StateChange("broker.stalled", "warning", {"broker": self._link.target, "waiting": len(self._since)})
                )
                channel, self._channel = self._channel, None
                if self._confirms is not None:
                    self._confirms.is_open = False
                await asyncio.wait([asyncio.ensure_future(channel.close())], timeout=CONFIRM_S / 10)


def _missing_exchange(error: aiormq.exceptions.AMQPError, address: Address) -> PublishFailed | PublishUnknown:
    """Tell the publication that named the missing exchange from those that only shared the channel with it."""
    reply = str(error.args[-1]) if error.args else ""
    if f"'{address.exchange}'" in reply:
        return MissingExchange(f'exchange "{address.exchange}" does not exist', reason="invalid")
    return PublishUnknown(f'the channel was closed while publishing to "{address}"')


def check(address: Address) -> None:
    """Refuse a routing key that AMQP cannot carry: aiormq would count its characters, not its bytes."""
    if len(address.key.encode()) > MAX_SHORT_BYTES:
        raise PublishFailed(f"the routing key is longer than {MAX_SHORT_BYTES} bytes", reason="invalid")


def _properties(envelope: Envelope) -> Basic.Properties:
    return Basic.Properties(
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        headers=table(envelope.headers) or None,
        delivery_mode=2,
        priority=envelope.priority,
        correlation_id=envelope.correlation_id,
        reply_to=envelope.reply_to,
        expiration=None if envelope.expiration_ms is None else str(envelope.expiration_ms),
        message_id=envelope.message_id,
        timestamp=envelope.timestamp,
        message_type=envelope.type,
        app_id=envelope.app_id,
    )
