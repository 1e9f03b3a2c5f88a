"""One channel to publish on, in confirm mode, and what is unconfirmed on it."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

import aiormq
from aio_pika.abc import AbstractConnection
from pamqp.commands import Basic

from runner.message import Address, Envelope
from runner.transports.rabbitmq.aiormq_workarounds import ShortString, close_within, ignore_result, loss_as_error
from runner.transports.rabbitmq.amqp_fast_path import fast_path_of
from runner.transports.rabbitmq.frames import (
    ACK,
    NACK,
    RETURN,
    read_confirm,
    read_content,
    write_content,
    write_properties,
    write_publish,
)
from runner.transports.rabbitmq.message_decoder import visible_id

CLOSE_S = 3.0

MAX_REFUSING_S = 5.0
"""After this long of nothing but refusals for an address, a new channel is tried.

RabbitMQ refuses everything on a channel that it opened while a queue's leader was lost, and goes on when there is
another leader (measured with 3.10). Where the queue is really full, a new channel costs next to nothing.
"""

MAX_CACHED_ADDRESSES = 1000

Confirmation = Literal["confirmed", "refused", "returned"]
"""The broker's answer: it has the message; a queue refuses it (basic.nack); no queue takes it (basic.return)."""


@dataclass(slots=True)
class _Unconfirmed:
    """A publication that the broker has not answered. `since` is loop time."""

    message_id: str
    address: Address
    since: float
    answer: asyncio.Future[Confirmation] | None


class PublishChannel:
    """One channel in confirm mode, by the fast path or by aiormq's way.

    The broker returns an unroutable message before it confirms it, and only the message's id tells which one it was: no
    two publications with one id may be in flight.
    """

    def __init__(self, channel: aiormq.Channel, connection: AbstractConnection) -> None:
        self.amqp_channel = channel
        self.connection = connection
        self._tag = 0
        self._unconfirmed: dict[int, _Unconfirmed] = {}
        """By delivery tag, in the order of publishing."""
        self._returned: set[str] = set()
        """Ids of messages that were returned and are not confirmed yet."""
        self._refused: dict[Address, float] = {}
        """Since when the broker has refused everything for an address, in loop time."""
        self._methods: dict[Address, bytes] = {}
        """The publish frame of each address."""
        self._is_retired = False
        fast_path = fast_path_of(connection)
        methods = frozenset({ACK, NACK, RETURN})
        self._route = fast_path.open_route(channel, methods, self._on_frames) if fast_path is not None else None
        channel.closing.add_done_callback(self._on_closed)

    @property
    def unconfirmed(self) -> int:
        """How many publications the broker has not answered."""
        return len(self._unconfirmed)

    @property
    def oldest_since(self) -> float | None:
        """Since when the oldest publication has been waiting for its confirm, in loop time; None when none waits."""
        return next((each.since for each in self._unconfirmed.values()), None)

    def restart_clock(self) -> None:
        """Count the waiting of all publications from now on."""
        now = asyncio.get_running_loop().time()
        for each in self._unconfirmed.values():
            each.since = now

    def is_refusing(self, address: Address) -> bool:
        """Return whether the broker has refused everything for an address for too long."""
        since = self._refused.get(address)
        return since is not None and asyncio.get_running_loop().time() - since > MAX_REFUSING_S

    def publish_nowait(self, address: Address, envelope: Envelope) -> asyncio.Future[Confirmation] | None:
        """Publish by the fast path. The future has the broker's answer, or the error that ended the channel.

        Returns None, and does nothing, where there is no fast path. Raises ChannelInvalidStateError.
        """
        route = self._route
        if route is None:
            return None
        if not route.is_open or self.amqp_channel.is_closed:
            raise aiormq.exceptions.ChannelInvalidStateError("the channel is closed")
        if envelope.message_id is None:
            envelope = envelope._replace(message_id=uuid4().hex)
        method = self._methods.get(address)
        if method is None:
            if len(self._methods) >= MAX_CACHED_ADDRESSES:
                self._methods.clear()
            method = self._methods[address] = write_publish(route.number, address)
        data = method + write_content(route.number, envelope, route.max_frame)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Confirmation] = loop.create_future()
        self._tag += 1
        self._unconfirmed[self._tag] = _Unconfirmed(envelope.message_id or "", address, loop.time(), answer)
        route.write(data)
        return answer

    async def publish_by_aiormq(self, address: Address, envelope: Envelope) -> Confirmation:
        """Publish by aiormq's way; return the broker's answer. Raises CHANNEL_ERRORS when the channel ends first."""
        self._tag += 1
        tag, confirmation = self._tag, None
        self._unconfirmed[tag] = _Unconfirmed("", address, asyncio.get_running_loop().time(), None)
        try:
            with loss_as_error:
                confirmation = await self._basic_publish(address, envelope)
        finally:
            self._settle(tag, confirmation)
        return confirmation

    def retire(self) -> None:
        """Close the channel as soon as nothing on it is unconfirmed."""
        self._is_retired = True
        self._close_if_retired()

    async def close(self) -> None:
        """Close the channel. Publications in flight fail."""
        if self._route is not None:
            self._route.is_open = False
        await close_within(self.amqp_channel.close(), CLOSE_S)

    def _on_frames(self, method: bytes, header: bytes, body: bytes) -> None:
        if method[:4] == RETURN:
            self._returned.add(read_content(header).properties[0] or "")
            return
        tag, is_multiple = read_confirm(method)
        is_ack = method[:4] == ACK
        for each in self._confirmed_by(tag) if is_multiple else (tag,):
            publication = self._unconfirmed.get(each)
            if publication is not None:
                is_returned = publication.message_id in self._returned
                self._returned.discard(publication.message_id)
                self._settle(each, "refused" if not is_ack else "returned" if is_returned else "confirmed")

    def _confirmed_by(self, tag: int) -> list[int]:
        """Return the tags that a confirm with `multiple` stands for."""
        return list(itertools.takewhile(lambda each: each <= tag, self._unconfirmed))

    def _settle(self, tag: int, confirmation: Confirmation | None) -> None:
        """Note how a publication ended: by the broker's answer, or without one."""
        publication = self._unconfirmed.pop(tag)
        if confirmation == "refused":
            self._refused.setdefault(publication.address, asyncio.get_running_loop().time())
        elif self._refused and confirmation is not None:
            self._refused.pop(publication.address, None)
        if confirmation is not None and publication.answer is not None and not publication.answer.done():
            publication.answer.set_result(confirmation)
        self._close_if_retired()

    def _close_if_retired(self) -> None:
        if self._is_retired and not self._unconfirmed:
            asyncio.ensure_future(self.close()).add_done_callback(ignore_result)

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        """End the publications in flight with the error that closed the channel."""
        error = None if closing.cancelled() else closing.exception()
        error = error or aiormq.exceptions.ChannelInvalidStateError("the channel is closed")
        if self._route is None:
            return  # aiormq ends them
        self._route.is_open = False
        publications = list(self._unconfirmed.values())
        self._unconfirmed.clear()
        for publication in publications:
            if publication.answer is not None and not publication.answer.done():
                publication.answer.set_exception(error)
                publication.answer.add_done_callback(ignore_result)

    async def _basic_publish(self, address: Address, envelope: Envelope) -> Confirmation:
        try:
            answer = await self.amqp_channel.basic_publish(
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
        return "confirmed" if isinstance(answer, Basic.Ack) else "refused"


class _Properties(Basic.Properties):
    """An envelope's properties as this package writes them. aiormq reads the id, to recognize a returned message."""

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(message_id=visible_id(envelope.message_id))
        self._envelope = envelope

    def marshal(self) -> bytes:
        """Return the flags and the properties."""
        if self._envelope.message_id is None:  # aiormq has made one up
            self._envelope = self._envelope._replace(message_id=self.message_id)
        return write_properties(self._envelope)
