"""Turns envelopes into confirmed publications: persistent, mandatory, many in flight, never one id twice at once.

Source: https://www.rabbitmq.com/docs/confirms. One channel, opened when needed and again after each loss.
"""

from __future__ import annotations

import asyncio
import re
from typing import cast

import aiormq
from aio_pika.abc import AbstractConnection

from runner.errors import PublishFailed, PublishUnknown
from runner.message import Address, Envelope
from runner.tasks import end
from runner.transports.base import Begun, OnEnd, OnStateChange, StateChange
from runner.transports.rabbitmq.channels import is_about, reply_of
from runner.transports.rabbitmq.confirming import Answer
from runner.transports.rabbitmq.connection import CHANNEL_ERRORS, Link, LinkClosed, was_cancelled
from runner.transports.rabbitmq.outlet import Outlet
from runner.transports.rabbitmq.topology import open_channel
from runner.transports.rabbitmq.turns import Slots, Turns
from runner.transports.wire import as_sent, check_key

MAX_UNCONFIRMED = 256
CONFIRM_S = 30.0
"""A confirm that takes longer, on a connection that is not blocked, is not coming: the channel is opened anew."""


_SIZES = re.compile(r"message size (?P<size>\d+) is larger than configured max size (?P<most>\d+)")


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
        self._slots = Slots(MAX_UNCONFIRMED)
        self._turns = Turns()
        self._outlet: Outlet | None = None
        self._opening = asyncio.Lock()
        self._waiting = 0
        self._since: dict[int, float] = {}
        self._count = 0
        self._watch: asyncio.Task[None] | None = None

    async def publish(self, address: Address, envelope: Envelope, *, is_copy: bool = False) -> None:
        """Publish once and return when the broker has confirmed it. Raises PublishFailed or PublishUnknown."""
        check_key(address.key)
        envelope = as_sent(envelope, is_copy=is_copy)
        await self._slots.take()
        try:
            await self._turns.take(envelope.message_id)
            try:
                await self._publish(address, envelope)
            finally:
                self._turns.give(envelope.message_id)
        finally:
            self._slots.give()

    def begin(self, address: Address, envelope: Envelope, on_end: OnEnd) -> Begun:
        """See `Transport.begin`. A missing exchange counts as unknown: `publish` may find it declared again."""
        connection = self._link.current
        if connection is None or self._waiting or (outlet := self._usable(connection)) is None:
            return "busy"
        try:
            check_key(address.key)
            envelope = as_sent(envelope)
            if self._slots.is_full or self._turns.is_taken(envelope.message_id):
                return "busy"
            answer = outlet.begin(address, envelope)
        except PublishFailed as failure:
            on_end(failure)
            return "begun"
        except CHANNEL_ERRORS:
            return "busy"
        if answer is None:
            return "busy"
        self._slots.count += 1
        self._turns.begin(envelope.message_id)
        self._count += 1
        number = self._count
        self._since[number] = asyncio.get_running_loop().time()

        def note(answer: asyncio.Future[Answer]) -> None:
            del self._since[number]
            self._turns.give(envelope.message_id)
            self._slots.give()
            error = self._end(outlet, address, envelope, answer)
            if isinstance(error, MissingExchange):
                error = PublishUnknown(str(error))
            on_end(error)

        answer.add_done_callback(note)
        return "begun"

    async def close(self) -> None:
        """Stop watching. What is in flight ends with its connection."""
        await end(self._watch)

    async def _publish(self, address: Address, envelope: Envelope) -> None:
        outlet = await self._open_outlet()
        self._count += 1
        number = self._count
        self._since[number] = asyncio.get_running_loop().time()
        try:
            answer = await outlet.publish(address, envelope)
        except CHANNEL_ERRORS as error:
            raise _lost(error, address, envelope) from error
        except asyncio.CancelledError as error:
            if was_cancelled():
                raise
            raise _lost(error, address, envelope) from error
        finally:
            del self._since[number]
        failure = self._failure(outlet, address, answer)
        if failure is not None:
            raise failure

    def _end(
        self, outlet: Outlet, address: Address, envelope: Envelope, future: asyncio.Future[Answer]
    ) -> PublishFailed | PublishUnknown | None:
        """Return how a publication that nobody waits for has ended."""
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        answer = None if error is not None else future.result()
        outlet.note_end(address, answer)
        return _lost(error, address, envelope) if answer is None else self._failure(outlet, address, answer)

    def _failure(self, outlet: Outlet, address: Address, answer: Answer) -> PublishFailed | None:
        """Return what an answer of the broker means to who has published; None where it has the message."""
        if answer == "returned":
            return PublishFailed(f'no queue takes a message for "{address}"', reason="unroutable")
        if answer == "refused":
            self._give_up_refused(outlet, address)
            return PublishFailed(f'the queue behind "{address}" refuses the message', reason="refused")
        return None

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


def _lost(error: BaseException | None, address: Address, envelope: Envelope) -> PublishFailed | PublishUnknown:
    """Return what the end of a channel means to a publication that was in flight on it."""
    match error:
        case aiormq.exceptions.ChannelNotFoundEntity():
            return _missing_exchange(error, address)
        case aiormq.exceptions.ChannelAccessRefused():
            return _no_right(error, address)
        case aiormq.exceptions.ChannelPreconditionFailed():
            return _too_large(error, address, len(envelope.body))
    return PublishUnknown(f'the broker was lost while publishing to "{address}"')


def _missing_exchange(error: aiormq.exceptions.AMQPError, address: Address) -> PublishFailed | PublishUnknown:
    """Tell the publication that named the missing exchange from those that only shared the channel with it."""
    if is_about(reply_of(error), address.exchange):
        return MissingExchange(f'exchange "{address.exchange}" does not exist', reason="unavailable")
    return PublishUnknown(f'the channel was closed while publishing to "{address}"')


def _no_right(error: aiormq.exceptions.AMQPError, address: Address) -> PublishFailed | PublishUnknown:
    """Tell the publication that was not permitted from those that only shared the channel with it."""
    if is_about(reply_of(error), address.exchange or "amq.default"):
        text = f'the broker does not permit to publish to "{address}"'
        return PublishFailed(text, reason="unavailable", hint="give the user the right to write to its exchange")
    return PublishUnknown(f'the channel was closed while publishing to "{address}"')


def _too_large(error: aiormq.exceptions.AMQPError, address: Address, size: int) -> PublishFailed | PublishUnknown:
    """Tell the publication that is larger than the broker takes from those that only shared the channel with it."""
    found = _SIZES.search(reply_of(error))
    if found is not None and int(found["size"]) == size:
        text = f'the body for "{address}" has {size} bytes, the broker takes at most {found["most"]}'
        return PublishFailed(text, reason="invalid", hint="raise the broker's max_message_size")
    return PublishUnknown(f'the channel was closed while publishing to "{address}"')
