"""One channel to publish on, in confirm mode: by the direct way, or by the client's."""

from __future__ import annotations

import asyncio

import aiormq
from aio_pika.abc import AbstractConnection
from pamqp.commands import Basic

from runner.message import Address, Envelope
from runner.transports.rabbitmq.client import Name, forget
from runner.transports.rabbitmq.confirming import Answer, Confirms
from runner.transports.rabbitmq.connection import bounded
from runner.transports.rabbitmq.direct import wire_of
from runner.transports.rabbitmq.frames import write_properties
from runner.transports.rabbitmq.received import visible_id

CLOSE_S = 3.0

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

    def begin(self, address: Address, envelope: Envelope) -> asyncio.Future[Answer] | None:
        """Publish; the future has what the broker answers, or what has ended the channel. `note_end` comes after it.

        None where there is only the client's way, and nothing was done. Raises what aiormq raises for a closed channel.
        """
        if self._confirms is None:
            return None
        answer = self._confirms.publish(address, envelope)
        self._in_flight += 1
        return answer

    async def publish(self, address: Address, envelope: Envelope) -> Answer:
        """Publish, and return what the broker answers. Raises what aiormq raises when the channel ends."""
        answer: Answer | None = None
        begun = self.begin(address, envelope)
        if begun is None:
            self._in_flight += 1
        try:
            answer = await (self._publish(address, envelope) if begun is None else begun)
        finally:
            self.note_end(address, answer)
        return answer

    def note_end(self, address: Address, answer: Answer | None) -> None:
        """Note how a publication has ended: by an answer, or without."""
        self._in_flight -= 1
        if self._is_retired and not self._in_flight:
            asyncio.ensure_future(self.close()).add_done_callback(forget)
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
        await bounded(self.channel.close(), CLOSE_S)

    async def _publish(self, address: Address, envelope: Envelope) -> Answer:
        try:
            confirmation = await self.channel.basic_publish(
                envelope.body,
                exchange=Name(address.exchange),
                routing_key=Name(address.key),
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
