"""Publishes on one channel and matches the broker's confirms with what they confirm, without the client's queues."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Literal
from uuid import uuid4

import aiormq
from aiormq.abc import AbstractChannel

from runner.message import Address, Envelope
from runner.transports.rabbitmq.aiormq_workarounds import ignore_result
from runner.transports.rabbitmq.amqp_fast_path import FrameRouter
from runner.transports.rabbitmq.delivery_assembler import ends_channel
from runner.transports.rabbitmq.frames import (
    ACK,
    BODY,
    HEADER,
    METHOD,
    NACK,
    RETURN,
    read_confirm,
    read_content,
    write_content,
    write_publish,
)

Confirmation = Literal["confirmed", "refused", "returned"]

MAX_CACHED_ADDRESSES = 1000


class PublisherConfirms:
    """The publications of one channel in confirm mode. See `amqp_fast_path.FrameHandler`.

    A message that no queue takes is returned before it is confirmed; which one it was, its id tells: no two
    publications with one id may be in flight.
    """

    def __init__(self, channel: AbstractChannel, frame_router: FrameRouter) -> None:
        self._channel = channel
        self._frame_router = frame_router
        self._number = channel.number
        self._tag = 0
        self._waiting: dict[int, tuple[str, asyncio.Future[Confirmation]]] = {}
        self._returned: set[str] = set()
        self._returning = 0
        """Bytes of a returned message's body that are still to come; -1 before its header."""
        self._is_returning = False
        self._addresses: dict[Address, bytes] = {}
        self.is_open = True
        frame_router.add(channel, self)
        channel.closing.add_done_callback(self._end)

    def publish(self, address: Address, envelope: Envelope) -> asyncio.Future[Confirmation]:
        """Put a message on its way; the future has the broker's answer, or the error that ended the channel."""
        if not self.is_open or self._channel.is_closed:
            raise aiormq.exceptions.ChannelInvalidStateError("the channel is closed")
        if envelope.message_id is None:
            envelope = envelope._replace(message_id=uuid4().hex)
        data = self._method(address) + write_content(self._number, envelope, self._frame_router.max_frame)
        self._tag += 1
        answer: asyncio.Future[Confirmation] = asyncio.get_running_loop().create_future()
        self._waiting[self._tag] = (envelope.message_id or "", answer)
        self._frame_router.write_buffer.write(self, data)
        return answer

    def handle(self, kind: int, payload: bytes) -> bool:
        """See `FrameHandler.take`."""
        if kind == METHOD:
            method = payload[:4]
            if method in (ACK, NACK):
                tag, is_multiple = read_confirm(payload)
                self._confirm(tag, is_multiple, is_taken=method == ACK)
            elif method == RETURN:
                self._is_returning = True
            else:
                self.is_open = self.is_open and not ends_channel(payload)
                return False
            return True
        if not self._is_returning:
            return False
        if kind == HEADER:
            content = read_content(payload)
            self._returned.add(content.properties[0] or "")
            self._returning = content.size
        elif kind == BODY:
            self._returning -= len(payload)
        self._is_returning = self._returning > 0
        return True

    def _confirm(self, tag: int, is_multiple: bool, *, is_taken: bool) -> None:
        waiting = self._waiting  # in the order of their tags
        tags = itertools.takewhile(lambda each: each <= tag, tuple(waiting)) if is_multiple else (tag,)
        for each in tags:
            if each not in waiting:
                continue
            message_id, answer = waiting.pop(each)
            is_returned = message_id in self._returned
            self._returned.discard(message_id)
            if not answer.done():
                answer.set_result("refused" if not is_taken else "returned" if is_returned else "confirmed")

    def _end(self, closing: asyncio.Future[Any]) -> None:
        """End what is in flight with the error that has closed the channel."""
        self.is_open = False
        error = None if closing.cancelled() else closing.exception()
        error = error or aiormq.exceptions.ChannelInvalidStateError("the channel is closed")
        waiting, self._waiting = self._waiting, {}
        for _, answer in waiting.values():
            if not answer.done():
                answer.set_exception(error)
                answer.add_done_callback(ignore_result)

    def _method(self, address: Address) -> bytes:
        method = self._addresses.get(address)
        if method is None:
            if len(self._addresses) >= MAX_CACHED_ADDRESSES:
                self._addresses.clear()
            method = self._addresses[address] = write_publish(self._number, address)
        return method
