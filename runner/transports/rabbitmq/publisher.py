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
from runner.tasks import end
from runner.transports.base import OnStateChange, StateChange
from runner.transports.rabbitmq.channels import reply_of
from runner.transports.rabbitmq.client import forget
from runner.transports.rabbitmq.confirming import Answer, Confirms, table
from runner.transports.rabbitmq.connection import CHANNEL_ERRORS, Link, LinkClosed, bounded, was_cancelled
from runner.transports.rabbitmq.direct import wire_of
from runner.transports.rabbitmq.topology import open_channel
from runner.transports.wire import MAX_SHORT_BYTES, as_sent

MAX_UNCONFIRMED = 256
CONFIRM_S = 30.0
"""A confirm that takes longer, on a connection that is not blocked, is not coming: the channel is opened anew."""


REFUSALS_S = 5.0
"""After so long of nothing but refusals a new channel is tried.

RabbitMQ refuses everything on a channel that it opened while a queue's leader was lost, long after there is another one
(measured, 3.10); where the queue is really full, this costs next to nothing.
"""


class Outlet:
    """One channel to publish on, with the direct way into it, if there is one."""

    def __init__(self, channel: aiormq.Channel, connection: AbstractConnection) -> None:
        self.channel = channel
        self.connection = connection
        wire = wire_of(connection)
        self._confirms = Confirms(channel, wire) if wire is not None else None
        self._in_flight = 0
        self._is_retired = False
        self._refused: dict[Address, float] = {}
        """Since when each address has got nothing but refusals, in loop time."""

    def is_refused(self, address: Address) -> bool:
        """Whether nothing but refusals has come for an address for too long."""
        since = self._refused.get(address)
        return since is not None and asyncio.get_running_loop().time() - since > REFUSALS_S

    async def publish(self, address: Address, envelope: Envelope) -> Answer:
        """Publish, and return what the broker answers. Raises what aiormq raises when the channel ends."""
        self._in_flight += 1
        try:
            answer = await self._publish(address, envelope)
        finally:
            self._in_flight -= 1
            if self._is_retired and not self._in_flight:
                asyncio.ensure_future(self.close()).add_done_callback(forget)
        if answer == "refused":
            self._refused.setdefault(address, asyncio.get_running_loop().time())
        elif self._refused:
            self._refused.pop(address, None)
        return answer

    def retire(self) -> None:
        """Close the channel as soon as nothing is in flight on it."""
        self._is_retired = True

    async def close(self) -> None:
        """Close the channel. What is in flight fails."""
        if self._confirms is not None:
            self._confirms.is_open = False
        await bounded(self.channel.close(), CONFIRM_S / 10)

    async def _publish(self, address: Address, envelope: Envelope) -> Answer:
        if self._confirms is not None:
            return await self._confirms.publish(address, envelope)
        try:
            confirmation = await self.channel.basic_publish(
                envelope.body,
                exchange=address.exchange,
                routing_key=address.key,
                properties=properties_of(envelope),
                mandatory=True,
                wait=False,
            )
        except aiormq.exceptions.PublishError:
            return "returned"
        except aiormq.exceptions.DeliveryError:
            return "refused"
        return "confirmed" if isinstance(confirmation, Basic.Ack) else "refused"


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
        self._outlet: Outlet | None = None
        self._opening = asyncio.Lock()
        self._waiting = 0
        self._turns: dict[str, asyncio.Future[None]] = {}
        self._since: dict[int, float] = {}
        self._count = 0
        self._watch: asyncio.Task[None] | None = None

    async def publish(self, address: Address, envelope: Envelope, *, is_copy: bool = False) -> None:
        """Publish once and return when the broker has confirmed it. Raises PublishFailed or PublishUnknown."""
        check(address)
        envelope = as_sent(envelope, is_copy=is_copy)
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
        outlet = await self._open_outlet()
        self._count += 1
        number = self._count
        self._since[number] = asyncio.get_running_loop().time()
        try:
            answer = await outlet.publish(address, envelope)
        except aiormq.exceptions.ChannelNotFoundEntity as error:
            raise _missing_exchange(error, address) from error
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise _no_right(error, address) from error
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
            self._give_up_refused(outlet, address)
            raise PublishFailed(f'the queue behind "{address}" refuses the message', reason="refused")

    def _give_up_refused(self, outlet: Outlet, address: Address) -> None:
        if outlet is self._outlet and outlet.is_refused(address):
            fields = {"broker": self._link.target, "to": str(address)}
            self._say(StateChange("broker.refusing", "warning", fields))
            self._outlet = None
            outlet.retire()

    async def _open_outlet(self) -> Outlet:
        """Return an open channel of the current connection, waiting for both. Nobody overtakes who waits already."""
        self._waiting += 1
        try:
            connection = await self._link.ready()
            if self._waiting == 1 and (outlet := self._usable(connection)) is not None:
                return outlet
            async with self._opening:
                outlet = self._usable(connection)
                if outlet is None:
                    channel = cast(aiormq.Channel, await open_channel(connection, confirms=True))
                    outlet = self._outlet = Outlet(channel, connection)
                if self._watch is None:
                    self._watch = asyncio.create_task(self._watch_oldest(), name="rabbitmq-confirms")
                return outlet
        except (LinkClosed, *CHANNEL_ERRORS) as error:
            raise PublishUnknown("the broker was lost before publishing") from error
        except asyncio.CancelledError as error:
            if was_cancelled():
                raise
            raise PublishUnknown("the broker was lost before publishing") from error
        finally:
            self._waiting -= 1

    def _usable(self, connection: AbstractConnection) -> Outlet | None:
        outlet = self._outlet
        is_usable = outlet is not None and not outlet.channel.is_closed and outlet.connection is connection
        return outlet if is_usable else None

    async def _watch_oldest(self) -> None:
        """Give the channel up when its oldest publication has waited too long for its confirm."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CONFIRM_S / 10)
            oldest = next(iter(self._since.values()), None)
            if self._link.is_blocked:
                self._since = dict.fromkeys(self._since, loop.time())
            elif oldest is not None and loop.time() - oldest > CONFIRM_S and self._outlet is not None:
                self._say(
                    StateChange("broker.stalled", "warning", {"broker": self._link.target, "waiting": len(self._since)})
                )
                outlet, self._outlet = self._outlet, None
                await outlet.close()


def _missing_exchange(error: aiormq.exceptions.AMQPError, address: Address) -> PublishFailed | PublishUnknown:
    """Tell the publication that named the missing exchange from those that only shared the channel with it."""
    if f"'{address.exchange}'" in reply_of(error):
        return MissingExchange(f'exchange "{address.exchange}" does not exist', reason="invalid")
    return PublishUnknown(f'the channel was closed while publishing to "{address}"')


def _no_right(error: aiormq.exceptions.AMQPError, address: Address) -> PublishFailed | PublishUnknown:
    """Tell the publication that was not permitted from those that only shared the channel with it."""
    if f"'{address.exchange or 'amq.default'}'" in reply_of(error):
        text = f'the broker does not permit to publish to "{address}"'
        return PublishFailed(text, reason="invalid", hint="give the user the right to write to its exchange")
    return PublishUnknown(f'the channel was closed while publishing to "{address}"')


def check(address: Address) -> None:
    """Refuse a routing key that AMQP cannot carry: aiormq would count its characters, not its bytes."""
    if len(address.key.encode()) > MAX_SHORT_BYTES:
        raise PublishFailed(f"the routing key is longer than {MAX_SHORT_BYTES} bytes", reason="invalid")


def properties_of(envelope: Envelope) -> Basic.Properties:
    """Return an envelope's properties as pamqp writes them: persistent."""
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
