"""One channel to publish on, in confirm mode: by the direct way, or by the client's."""

from __future__ import annotations

import asyncio

import aiormq
from aio_pika.abc import AbstractConnection
from pamqp.commands import Basic

from runner.message import Address, Envelope
from runner.transports.rabbitmq.aiormq_workarounds import ShortString, ignore_result
from runner.transports.rabbitmq.amqp_fast_path import frame_router_of
from runner.transports.rabbitmq.connection import close_within
from runner.transports.rabbitmq.frames import write_properties
from runner.transports.rabbitmq.message_decoder import visible_id
from runner.transports.rabbitmq.publisher_confirms import Confirmation, PublisherConfirms

CLOSE_S = 3.0

MAX_REFUSING_S = 5.0
"""After so long of nothing but refusals a new channel is tried.

RabbitMQ refuses everything on a channel that it opened while a queue's leader was lost, long after there is another one
(measured, 3.10); where the queue is really full, this costs next to nothing.
"""


class PublishChannel:
    """One channel to publish on, with the direct way into it, if there is one."""

    def __init__(self, channel: aiormq.Channel, connection: AbstractConnection) -> None:
        self.channel = channel
        self.connection = connection
        frame_router = frame_router_of(connection)
        self._confirms = PublisherConfirms(channel, frame_router) if frame_router is not None else None
        self._in_flight = 0
        self._is_retired = False
        self._refused: dict[Address, float] = {}
        """Since when each address has got nothing but refusals, in loop time."""

    def is_refused(self, address: Address) -> bool:
        """Whether nothing but refusals has come for an address for too long."""
        since = self._refused.get(address)
        return since is not None and asyncio.get_running_loop().time() - since > MAX_REFUSING_S

    def publish_nowait(self, address: Address, envelope: Envelope) -> asyncio.Future[Confirmation] | None:
        """Publish; the future has what the broker answers, or what has ended the channel. `record_result` comes after
        it.

        None where there is only the client's way, and nothing was done. Raises what aiormq raises for a closed channel.
        """
        if self._confirms is None:
            return None
        answer = self._confirms.publish(address, envelope)
        self._in_flight += 1
        return answer

    async def publish(self, address: Address, envelope: Envelope) -> Confirmation:
        """Publish, and return what the broker answers. Raises what aiormq raises when the channel ends."""
        answer: Confirmation | None = None
        started = self.publish_nowait(address, envelope)
        if started is None:
            self._in_flight += 1
        try:
            answer = await (self._publish(address, envelope) if started is None else started)
        finally:
            self.record_result(address, answer)
        return answer

    def record_result(self, address: Address, answer: Confirmation | None) -> None:
        """Note how a publication has ended: by an answer, or without."""
        self._in_flight -= 1
        if self._is_retired and not self._in_flight:
            asyncio.ensure_future(self.close()).add_done_callback(ignore_result)
        if answer == "refused":
            self._refused.setdefault(address, asyncio.get_running_loop().time())
        elif self._refused and answer is not None:
            self._refused.pop(address, None)

    def retire(self) -> None:
        """Close the channel as soon as nothing is in flight on it."""
        self._is_retired = True

    async def close(self) -> None:
        """Close the channel. What is in flight fails."""
        if self._confirms is not None:
            self._confirms.is_open = False
        await close_within(self.channel.close(), CLOSE_S)

    async def _publish(self, address: Address, envelope: Envelope) -> Confirmation:
        try:
            confirmation = await self.channel.basic_publish(
                envelope.body,
                exchange=ShortString(address.exchange),
                routing_key=ShortString(address.key),
                properties=_Properties(envelope),
                mandatory=True,
                wait=False,
            )
        except aiormq.exceptions.PublishError:
            return "returned"
        except aiormq.exceptions.DeliveryError:
            return "refused"
        return "confirmed" if isinstance(confirmation, Basic.Ack) else "refused"


class _Properties(Basic.Properties):
    """The properties of an envelope as we write them; aiormq reads the id, to know what the broker gives back."""

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(message_id=visible_id(envelope.message_id))
        self._envelope = envelope

    def marshal(self) -> bytes:
        """Return the flags and the properties."""
        if self._envelope.message_id is None:  # aiormq has made one up
            self._envelope = self._envelope._replace(message_id=self.message_id)
        return write_properties(self._envelope)
