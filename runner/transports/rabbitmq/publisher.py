"""Publishes envelopes with confirms: persistent, mandatory, many in flight, never two with one message id.

Source: https://www.rabbitmq.com/docs/confirms
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

import aiormq
from aio_pika.abc import AbstractConnection

from runner.errors import PublishFailed, PublishUnknown
from runner.message import Address, Envelope
from runner.tasks import cancel_and_wait
from runner.transports.amqp_limits import check_routing_key, normalize_envelope
from runner.transports.base import OnPublished, OnTransportEvent, PublishStarted, TransportEvent
from runner.transports.rabbitmq.aiormq_workarounds import CHANNEL_ERRORS, loss_as_error
from runner.transports.rabbitmq.channels import open_channel, reply_names, reply_of
from runner.transports.rabbitmq.connection import ConnectionClosedByUs, ReconnectingConnection
from runner.transports.rabbitmq.in_flight import InFlight
from runner.transports.rabbitmq.publish_channel import Answer, Confirmation, PublishChannel

MAX_UNCONFIRMED = 256

CONFIRM_S = 30.0
"""How long a confirm may take while the connection is not blocked. After that it is not expected any more."""

_SIZES = re.compile(r"message size (?P<size>\d+) is larger than configured max size (?P<most>\d+)")


class MissingExchange(PublishFailed):
    """The exchange does not exist; declaring it again mends that."""


class RabbitPublisher:
    """Publishes on one channel of the publishing connection, which is opened when needed, and again after each loss.

    No publication has a timer of its own. One task watches the oldest: when its confirm takes too long, the channel is
    given up, and every publication in flight on it ends as PublishUnknown. While the broker blocks the connection they
    all wait.
    """

    def __init__(
        self,
        connection: ReconnectingConnection,
        on_transport_event: OnTransportEvent,
        *,
        on_open: Callable[[aiormq.Channel], Awaitable[None]] | None = None,
    ) -> None:
        """`on_open` is awaited for each new channel, before anything is published on it."""
        self._connection = connection
        self._on_open = on_open
        self._on_event = on_transport_event
        self._in_flight = InFlight(MAX_UNCONFIRMED)
        self._channel: PublishChannel | None = None
        self._opening = asyncio.Lock()
        self._waiting_for_channel = 0
        self._watch: asyncio.Task[None] | None = None

    async def publish(self, address: Address, envelope: Envelope, *, is_copy: bool = False) -> PublishChannel:
        """Publish once, and return the channel when the broker has confirmed it.

        Raises PublishFailed or PublishUnknown.
        """
        check_routing_key(address.key)
        envelope = normalize_envelope(envelope, is_copy=is_copy)
        await self._in_flight.acquire(envelope.message_id)
        try:
            channel = await self._open_channel()
            try:
                confirmation = await channel.publish(address, envelope)
            except CHANNEL_ERRORS as error:
                raise _lost(error, address, envelope) from error
        finally:
            self._in_flight.release(envelope.message_id)
        failure = self._failure(channel, address, confirmation)
        if failure is not None:
            raise failure
        return channel

    def publish_nowait(self, address: Address, envelope: Envelope, on_published: OnPublished) -> PublishStarted:
        """See `Transport.publish_nowait`. A missing exchange counts as unknown: `publish` can declare it again."""
        connection = self._connection.current
        if connection is None or self._waiting_for_channel or (channel := self._usable(connection)) is None:
            return "busy"
        try:
            check_routing_key(address.key)
            envelope = normalize_envelope(envelope)
        except PublishFailed as failure:
            on_published(failure)
            return "started"
        if not self._in_flight.try_acquire(envelope.message_id):
            return "busy"
        is_sent = False
        try:
            on_answer = partial(self._on_answer, channel, address, envelope, on_published)
            is_sent = channel.publish_nowait(address, envelope, on_answer)
        finally:
            if not is_sent:
                self._in_flight.release(envelope.message_id)
        return "started" if is_sent else "busy"

    async def close(self) -> None:
        """Stop watching. Publications in flight end with their connection."""
        await cancel_and_wait(self._watch)

    def _on_answer(
        self,
        channel: PublishChannel,
        address: Address,
        envelope: Envelope,
        on_published: OnPublished,
        answer: Answer,
    ) -> None:
        self._in_flight.release(envelope.message_id)
        if answer == "confirmed":
            on_published(None)
            return
        error = self._failure(channel, address, answer) if isinstance(answer, str) else _lost(answer, address, envelope)
        on_published(PublishUnknown(str(error)) if isinstance(error, MissingExchange) else error)

    def _failure(self, channel: PublishChannel, address: Address, confirmation: Confirmation) -> PublishFailed | None:
        """Return what a confirmation means to the caller; None when the broker has the message."""
        if confirmation == "returned":
            return PublishFailed(f'no queue takes a message for "{address}"', reason="unroutable")
        if confirmation == "refused":
            self._replace_if_refusing(channel, address)
            return PublishFailed(f'the queue behind "{address}" refuses the message', reason="refused")
        return None

    def _replace_if_refusing(self, channel: PublishChannel, address: Address) -> None:
        """Use a new channel from now on where the broker refuses everything for an address.

        A channel that something else depends on, such as answers, is kept.
        """
        if self._on_open is None and channel is self._channel and channel.is_refusing(address):
            fields = {"broker": self._connection.target, "to": str(address)}
            self._on_event(TransportEvent("broker.refusing", "warning", fields))
            self._channel = None
            channel.retire()

    async def _open_channel(self) -> PublishChannel:
        """Return an open channel of the current connection; wait for both. Raises PublishUnknown.

        Publications that wait here keep their order: none overtakes those that wait already.
        """
        self._waiting_for_channel += 1
        try:
            with loss_as_error:
                connection = await self._connection.ready()
                if self._waiting_for_channel == 1 and (channel := self._usable(connection)) is not None:
                    return channel
                async with self._opening:
                    channel = self._usable(connection)
                    if channel is None:
                        opened = cast(aiormq.Channel, await open_channel(connection, confirms=True))
                        if self._on_open is not None:
                            await self._on_open(opened)
                        channel = self._channel = PublishChannel(opened, connection)
                    if self._watch is None:
                        self._watch = asyncio.create_task(self._watch_oldest(), name="rabbitmq-confirms")
                    return channel
        except (ConnectionClosedByUs, *CHANNEL_ERRORS) as error:
            raise PublishUnknown("the broker was lost before publishing") from error
        finally:
            self._waiting_for_channel -= 1

    def _usable(self, connection: AbstractConnection) -> PublishChannel | None:
        channel = self._channel
        is_usable = channel is not None and channel.connection is connection and not channel.amqp_channel.is_closed
        return channel if is_usable else None

    async def _watch_oldest(self) -> None:
        """Give the channel up when its oldest publication has waited too long for its confirm.

        No publication has a time of its own: the oldest one has waited at least since it was first seen here.
        """
        loop = asyncio.get_running_loop()
        seen: tuple[PublishChannel | None, int | None] = (None, None)
        since = loop.time()
        while True:
            await asyncio.sleep(CONFIRM_S / 10)
            channel = self._channel
            oldest = None if channel is None else channel.oldest
            if oldest is None or (channel, oldest) != seen or self._connection.is_blocked:
                seen, since = (channel, oldest), loop.time()
            elif channel is not None and loop.time() - since > CONFIRM_S:
                fields = {"broker": self._connection.target, "waiting": channel.unconfirmed}
                self._on_event(TransportEvent("broker.stalled", "warning", fields))
                self._channel = None
                await channel.close()


_RIGHTS = "give the user the right to write to its exchange: `runner export permissions PATH` prints the command"


def _lost(error: BaseException | None, address: Address, envelope: Envelope) -> PublishFailed | PublishUnknown:
    """Return what the end of a channel means to a publication that was in flight on it.

    The broker closes a channel over a single publication, and its reply names it. All others may have arrived.
    """
    if not isinstance(error, aiormq.exceptions.ChannelClosed):
        return PublishUnknown(f'the broker was lost while publishing to "{address}"')
    reply, found = reply_of(error), _SIZES.search(reply_of(error))
    match error:
        case aiormq.exceptions.ChannelNotFoundEntity() if reply_names(reply, address.exchange):
            return MissingExchange(f'exchange "{address.exchange}" does not exist', reason="unavailable")
        case aiormq.exceptions.ChannelAccessRefused() if reply_names(reply, address.exchange or "amq.default"):
            text = f'the broker does not permit to publish to "{address}"'
            return PublishFailed(text, reason="unavailable", hint=_RIGHTS)
        case aiormq.exceptions.ChannelPreconditionFailed() if found and int(found["size"]) == len(envelope.body):
            text = f'the body for "{address}" has {found["size"]} bytes, the broker takes at most {found["most"]}'
            return PublishFailed(text, reason="invalid", hint="raise the broker's max_message_size")
    return PublishUnknown(f'the channel was closed while publishing to "{address}"')
