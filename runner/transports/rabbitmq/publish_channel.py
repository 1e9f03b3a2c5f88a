"""One channel to publish on, in confirm mode, and what is unconfirmed on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from typing import Any, Literal
from uuid import uuid4

import aiormq
from aio_pika.abc import AbstractConnection
from pamqp.commands import Basic

from runner.message import Address, Envelope
from runner.transports.rabbitmq.aiormq_workarounds import (
    ShortString,
    close_within,
    ignore_result,
    loss_as_error,
    wait_within,
)
from runner.transports.rabbitmq.amqp_fast_path import fast_path_of
from runner.transports.rabbitmq.frames import (
    ACK,
    NACK,
    RETURN,
    PublicationWriter,
    read_confirm,
    read_properties,
    write_properties,
)
from runner.transports.rabbitmq.message_decoder import visible_id

CLOSE_S = 3.0

MAX_REFUSING_S = 5.0
"""After this long of nothing but refusals for an address, a new channel is tried.

RabbitMQ refuses everything on a channel that it opened while a queue's leader was lost, and goes on when there is
another leader (measured with 3.10). Where the queue is really full, a new channel costs next to nothing.
"""

Confirmation = Literal["confirmed", "refused", "returned"]
"""The broker's answer: it has the message; a queue refuses it (basic.nack); no queue takes it (basic.return)."""


Answer = Confirmation | BaseException
"""How a publication ends: by the broker's answer, or by the error that closed the channel."""

OnAnswer = Callable[[Answer], None]
"""Called once, by whatever reads frames: in its context, and it must not take long."""

_Unconfirmed = tuple[str, Address, OnAnswer | None]
"""A publication that the broker has not answered: its message id, its address, and what to call."""


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
        self._is_retired = False
        self._given_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done, with the reason, when publications in flight are not waited for any longer."""
        fast_path = fast_path_of(connection)
        methods = frozenset({ACK, NACK, RETURN})
        self._route = fast_path.open_route(channel, methods, self._on_frames) if fast_path is not None else None
        self._writer = PublicationWriter(channel.number, self._route.max_frame if self._route is not None else 0)
        channel.closing.add_done_callback(self._on_closed)

    @property
    def unconfirmed(self) -> int:
        """How many publications the broker has not answered."""
        return len(self._unconfirmed)

    @property
    def oldest(self) -> int | None:
        """The number of the oldest publication that the broker has not answered; None when it has answered all."""
        return next(iter(self._unconfirmed), None)

    def is_refusing(self, address: Address) -> bool:
        """Return whether the broker has refused everything for an address for too long."""
        since = self._refused.get(address)
        return since is not None and asyncio.get_running_loop().time() - since > MAX_REFUSING_S

    def publish_nowait(self, address: Address, envelope: Envelope, on_answer: OnAnswer) -> bool:
        """Publish by the fast path. Return False, and do nothing, where there is none or the channel is closed."""
        route = self._route
        if route is None or not route.is_open or self.amqp_channel.is_closed:
            return False
        message_id = envelope.message_id
        if message_id is None:
            message_id = uuid4().hex
            envelope = envelope._replace(message_id=message_id)
        data = self._writer.write(address, envelope)
        self._tag += 1
        self._unconfirmed[self._tag] = (message_id, address, on_answer)
        route.write(data)
        return True

    async def publish(self, address: Address, envelope: Envelope) -> Confirmation:
        """Publish and return the broker's answer. Raises CHANNEL_ERRORS when the channel ends first."""
        if self._route is None:
            return await self._publish_by_aiormq(address, envelope)
        answered: asyncio.Future[Confirmation] = asyncio.get_running_loop().create_future()
        if not self.publish_nowait(address, envelope, partial(_resolve, answered)):
            raise aiormq.exceptions.ChannelInvalidStateError("the channel is closed")
        return await answered

    async def _publish_by_aiormq(self, address: Address, envelope: Envelope) -> Confirmation:
        self._tag += 1
        tag, confirmation = self._tag, None
        self._unconfirmed[tag] = ("", address, None)
        try:
            with loss_as_error:
                publishing = self._basic_publish(address, envelope)
                confirmation = await wait_within(None, publishing, self._given_up)
        finally:
            self._settle(tag, confirmation)
        return confirmation

    def retire(self) -> None:
        """Close the channel as soon as nothing on it is unconfirmed."""
        self._is_retired = True
        self._close_if_retired()

    async def close(self) -> None:
        """Close the channel. Publications in flight fail, also if the broker does not answer."""
        if self._route is not None:
            self._route.is_open = False
        await close_within(self.amqp_channel.close(), CLOSE_S)
        self._end_unconfirmed(aiormq.exceptions.ChannelInvalidStateError("the channel is closed"))

    def _on_frames(self, method: bytes, header: bytes, body: bytes) -> None:
        if method[:4] == RETURN:
            self._returned.add(read_properties(header)[0] or "")
            return
        tag, is_multiple = read_confirm(method)
        confirmation: Confirmation = "confirmed" if method[:4] == ACK else "refused"
        # A confirm with `multiple` stands for all tags up to its own.
        for each in list(takewhile(tag.__ge__, self._unconfirmed)) if is_multiple else (tag,):
            if each in self._unconfirmed:
                self._settle(each, confirmation)

    def _settle(self, tag: int, answer: Answer | None) -> None:
        """Note how a publication ended: by the broker's answer, by an error, or (None) in an unknown way."""
        message_id, address, on_answer = self._unconfirmed.pop(tag)
        if message_id in self._returned:
            self._returned.discard(message_id)
            if answer == "confirmed":
                answer = "returned"
        if answer == "refused":
            self._refused.setdefault(address, asyncio.get_running_loop().time())
        elif self._refused and isinstance(answer, str):
            self._refused.pop(address, None)
        if on_answer is not None and answer is not None:
            try:
                on_answer(answer)
            except Exception as error:  # a bug there must not look like a frame that cannot be read
                context = {"message": "the answer to a publication failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
        if self._is_retired:
            self._close_if_retired()

    def _close_if_retired(self) -> None:
        if not self._unconfirmed:
            asyncio.ensure_future(self.close()).add_done_callback(ignore_result)

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        """End the publications in flight with the error that closed the channel."""
        error = None if closing.cancelled() else closing.exception()
        if self._route is not None:  # otherwise aiormq ends them
            self._end_unconfirmed(error or aiormq.exceptions.ChannelInvalidStateError("the channel is closed"))

    def _end_unconfirmed(self, error: BaseException) -> None:
        if self._route is None:
            if not self._given_up.done():
                self._given_up.set_result("the channel is closed")
            return
        self._route.is_open = False
        for tag in list(self._unconfirmed):
            self._settle(tag, error)

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


def _resolve(answered: asyncio.Future[Confirmation], answer: Answer) -> None:
    """Pass an answer to the task that waits for it, unless that was cancelled."""
    if answered.done():
        return
    if isinstance(answer, str):
        answered.set_result(answer)
    else:
        answered.set_exception(answer)


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
