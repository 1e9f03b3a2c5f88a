"""Turns what the broker sends to a consumer into deliveries: from the bytes of frames, or from the client's objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiormq.abc import DeliveredMessage

from runner.message import Envelope
from runner.transports.base import Delivery, Source
from runner.transports.rabbitmq.frames import (
    BODY,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    DELIVER,
    HEADER,
    METHOD,
    Delivered,
    read_deliver,
    read_size,
)
from runner.transports.rabbitmq.received import envelope_of, received


def closes(payload: bytes) -> bool:
    """Whether a method frame ends its channel: nothing may be written to it any more."""
    return payload[:4] in (CHANNEL_CLOSE, CHANNEL_CLOSE_OK)


class Arrivals:
    """The deliveries of one channel, read from its frames. See `direct.Route`."""

    def __init__(self, source: Source, generation: Any, on_delivery: Callable[[Delivery], None]) -> None:
        self._source = source
        self._generation = generation
        self._on_delivery = on_delivery
        self._deliver: Delivered | None = None
        self._header = b""
        self._body: list[bytes] = []
        self._missing = 0
        self.is_open = True

    def take(self, kind: int, payload: bytes) -> bool:
        """See `Route.take`. Raises where not even the limits of a message can be read."""
        if kind == METHOD:
            if payload[:4] != DELIVER:
                self.is_open = self.is_open and not closes(payload)
                return False
            self._deliver, self._header = read_deliver(payload), b""
            return True
        if self._deliver is None:
            return False
        if kind == HEADER:
            self._header = payload
            self._missing = read_size(payload)
            if not self._missing:
                self._hand_on(b"")
        elif kind == BODY:
            self._missing -= len(payload)
            if self._missing > 0:
                self._body.append(payload)
            else:
                self._hand_on(b"".join((*self._body, payload)) if self._body else payload)
        return True

    def _hand_on(self, body: bytes) -> None:
        deliver, header = self._deliver, self._header
        self._deliver = None
        self._body.clear()
        if deliver is None or not header:
            raise ValueError("a body without its header")
        try:
            self._on_delivery(_delivery(received(header, body), deliver, self._source, self._generation))
        except Exception as error:  # a bug of ours must not look like bytes that cannot be read
            asyncio.get_running_loop().call_exception_handler({"message": "a delivery failed", "exception": error})


def from_client(message: DeliveredMessage, source: Source, generation: Any) -> Delivery:
    """Return the delivery that the client has read."""
    frame: Any = message.delivery
    deliver = Delivered(frame.delivery_tag, bool(frame.redelivered), frame.exchange or "", frame.routing_key or "")
    return _delivery(envelope_of(message), deliver, source, generation)


def _delivery(message: tuple[Envelope, str], deliver: Delivered, source: Source, generation: Any) -> Delivery:
    envelope, unreadable = message
    # What comes for the first time has this header from its publisher, not from the queue.
    crashes = envelope.headers.get("x-delivery-count") if deliver.is_redelivered else 0
    return Delivery(
        envelope,
        source,
        exchange=deliver.exchange,
        routing_key=deliver.routing_key,
        is_redelivered=deliver.is_redelivered,
        crashes=crashes if type(crashes) is int else 0,
        token=deliver.tag,
        generation=generation,
        unreadable=unreadable,
    )
