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
from runner.tasks import cancel_and_wait
from runner.transports.amqp_limits import check_routing_key, normalize_envelope
from runner.transports.base import OnPublished, OnTransportEvent, PublishStarted, TransportEvent
from runner.transports.rabbitmq.channels import reply_names, reply_of
from runner.transports.rabbitmq.connection import (
    CHANNEL_ERRORS,
    ConnectionClosedByUs,
    ReconnectingConnection,
    was_cancelled,
)
from runner.transports.rabbitmq.in_flight import InFlightIds, InFlightLimit
from runner.transports.rabbitmq.publish_channel import PublishChannel
from runner.transports.rabbitmq.publisher_confirms import Confirmation
from runner.transports.rabbitmq.topology import open_channel

MAX_UNCONFIRMED = 256
CONFIRM_S = 30.0
"""A confirm that takes longer, on a connection that is not blocked, is not coming: the channel is opened anew."""


_SIZES = re.compile(r"message size (?P<size>\d+) is larger than configured max size (?P<most>\d+)")


class MissingExchange(PublishFailed):
    """The exchange does not exist; declaring it again mends that."""


class RabbitPublisher:
    """Publishes on the publishing connection.

    A publication has no timer of its own: one watch looks at the oldest, and gives the channel up when it waits too
    long; then every publication in flight ends as PublishUnknown. While the broker blocks us they all wait.
    """

    def __init__(self, link: ReconnectingConnection, on_transport_event: OnTransportEvent) -> None:
        self._link = link
        self._say = on_transport_event
        self._limit = InFlightLimit(MAX_UNCONFIRMED)
        self._ids = InFlightIds()
        self._publish_channel: PublishChannel | None = None
        self._opening = asyncio.Lock()
        self._waiting = 0
        self._since: dict[int, float] = {}
        self._count = 0
        self._watch: asyncio.Task[None] | None = None

    async def publish(self, address: Address, envelope: Envelope, *, is_copy: bool = False) -> None:
        """Publish once and return when the broker has confirmed it. Raises PublishFailed or PublishUnknown."""
        check_routing_key(address.key)
        envelope = normalize_envelope(envelope, is_copy=is_copy)
        await self._limit.acquire()
        try:
            await self._ids.acquire(envelope.message_id)
            try:
                await self._publish(address, envelope)
            finally:
                self._ids.release(envelope.message_id)
        finally:
            self._limit.release()

    def publish_nowait(self, address: Address, envelope: Envelope, on_published: OnPublished) -> PublishStarted:
        """See `Transport.publish_nowait`. A missing exchange counts as unknown: `publish` may find it declared
        again."""
        connection = self._link.current
        if connection is None or self._waiting or (publish_channel := self._usable(connection)) is None:
            return "busy"
        try:
            check_routing_key(address.key)
            envelope = normalize_envelope(envelope)
            if self._limit.is_full or self._ids.is_taken(envelope.message_id):
                return "busy"
            answer = publish_channel.publish_nowait(address, envelope)
        except PublishFailed as failure:
            on_published(failure)
            return "started"
        except CHANNEL_ERRORS:
            return "busy"
        if answer is None:
            return "busy"
        self._limit.count += 1
        self._ids.add(envelope.message_id)
        self._count += 1
        number = self._count
        self._since[number] = asyncio.get_running_loop().time()

        def note(answer: asyncio.Future[Confirmation]) -> None:
            del self._since[number]
            self._ids.release(envelope.message_id)
            self._limit.release()
            error = self._end(publish_channel, address, envelope, answer)
            if isinstance(error, MissingExchange):
                error = PublishUnknown(str(error))
            on_published(error)

        answer.add_done_callback(note)
        return "started"

    async def close(self) -> None:
        """Stop watching. What is in flight ends with its connection."""
        await cancel_and_wait(self._watch)

    async def _publish(self, address: Address, envelope: Envelope) -> None:
        publish_channel = await self._open_publish_channel()
        self._count += 1
        number = self._count
        self._since[number] = asyncio.get_running_loop().time()
        try:
            answer = await publish_channel.publish(address, envelope)
        except CHANNEL_ERRORS as error:
            raise _lost(error, address, envelope) from error
        except asyncio.CancelledError as error:
            if was_cancelled():
                raise
            raise _lost(error, address, envelope) from error
        finally:
            del self._since[number]
        failure = self._failure(publish_channel, address, answer)
        if failure is not None:
            raise failure

    def _end(
        self,
        publish_channel: PublishChannel,
        address: Address,
        envelope: Envelope,
        future: asyncio.Future[Confirmation],
    ) -> PublishFailed | PublishUnknown | None:
        """Return how a publication that nobody waits for has ended."""
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        answer = None if error is not None else future.result()
        publish_channel.record_result(address, answer)
        return _lost(error, address, envelope) if answer is None else self._failure(publish_channel, address, answer)

    def _failure(self, publish_channel: PublishChannel, address: Address, answer: Confirmation) -> PublishFailed | None:
        """Return what an answer of the broker means to who has published; None where it has the message."""
        if answer == "returned":
            return PublishFailed(f'no queue takes a message for "{address}"', reason="unroutable")
        if answer == "refused":
            self._give_up_refused(publish_channel, address)
            return PublishFailed(f'the queue behind "{address}" refuses the message', reason="refused")
        return None

    def _give_up_refused(self, publish_channel: PublishChannel, address: Address) -> None:
        if publish_channel is self._publish_channel and publish_channel.is_refused(address):
            fields = {"broker": self._link.target, "to": str(address)}
            self._say(TransportEvent("broker.refusing", "warning", fields))
            self._publish_channel = None
            publish_channel.retire()

    async def _open_publish_channel(self) -> PublishChannel:
        """Return an open channel of the current connection, waiting for both. Nobody overtakes who waits already."""
        self._waiting += 1
        try:
            connection = await self._link.ready()
            if self._waiting == 1 and (publish_channel := self._usable(connection)) is not None:
                return publish_channel
            async with self._opening:
                publish_channel = self._usable(connection)
                if publish_channel is None:
                    channel = cast(aiormq.Channel, await open_channel(connection, confirms=True))
                    publish_channel = self._publish_channel = PublishChannel(channel, connection)
                if self._watch is None:
                    self._watch = asyncio.create_task(self._watch_oldest(), name="rabbitmq-confirms")
                return publish_channel
        except (ConnectionClosedByUs, *CHANNEL_ERRORS) as error:
            raise PublishUnknown("the broker was lost before publishing") from error
        except asyncio.CancelledError as error:
            if was_cancelled():
                raise
            raise PublishUnknown("the broker was lost before publishing") from error
        finally:
            self._waiting -= 1

    def _usable(self, connection: AbstractConnection) -> PublishChannel | None:
        publish_channel = self._publish_channel
        is_usable = (
            publish_channel is not None
            and not publish_channel.channel.is_closed
            and publish_channel.connection is connection
        )
        return publish_channel if is_usable else None

    async def _watch_oldest(self) -> None:
        """Give the channel up when its oldest publication has waited too long for its confirm."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CONFIRM_S / 10)
            oldest = next(iter(self._since.values()), None)
            if self._link.is_blocked:
                self._since = dict.fromkeys(self._since, loop.time())
            elif oldest is not None and loop.time() - oldest > CONFIRM_S and self._publish_channel is not None:
                self._say(
                    TransportEvent(
                        "broker.stalled", "warning", {"broker": self._link.target, "waiting": len(self._since)}
                    )
                )
                publish_channel, self._publish_channel = self._publish_channel, None
                await publish_channel.close()


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
    if reply_names(reply_of(error), address.exchange):
        return MissingExchange(f'exchange "{address.exchange}" does not exist', reason="unavailable")
    return PublishUnknown(f'the channel was closed while publishing to "{address}"')


def _no_right(error: aiormq.exceptions.AMQPError, address: Address) -> PublishFailed | PublishUnknown:
    """Tell the publication that was not permitted from those that only shared the channel with it."""
    if reply_names(reply_of(error), address.exchange or "amq.default"):
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
