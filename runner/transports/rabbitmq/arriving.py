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
    DELIVER,
    HEADER,
    METHOD,
    Content,
    Delivered,
    read_content,
    read_deliver,
    read_size,
    read_tag,
)
from runner.transports.rabbitmq.received import envelope_of

_CLOSE = (b"\x00\x14\x00\x28", b"\x00\x14\x00\x29")
"""The broker closes the channel, or says that it has closed it."""


def closes(payload: bytes) -> bool:
    """Whether a method frame ends its channel: nothing may be written to it any more."""
    return payload[:4] in _CLOSE


class Arrivals:
    """The deliveries of one channel, read from its frames. See `direct.Route`.

    What cannot be read goes to `on_unreadable`, with its delivery tag and the reason: where the client ends the
    connection, and everybody's messages with it, one message is at fault here.
    """

    def __init__(
        self,
        source: Source,
        generation: Any,
        on_delivery: Callable[[Delivery], None],
        on_unreadable: Callable[[int, str], None],
    ) -> None:
        self._source = source
        self._generation = generation
        self._on_delivery = on_delivery
        self._on_unreadable = on_unreadable
        self._tag: int | None = None
        self._deliver: Delivered | None = None
        self._content: Content | None = None
        self._body: list[bytes] = []
        self._missing = 0
        self._fault = ""
        self.is_open = True

    def take(self, kind: int, payload: bytes) -> bool:
        """See `Route.take`. Raises where not even the limits of a message can be read."""
        if kind == METHOD:
            if payload[:4] != DELIVER:
                self.is_open = self.is_open and not closes(payload)
                return False
            self._begin(payload)
            return True
        if self._tag is None:
            return False
        if kind == HEADER:
            self._missing = read_size(payload)
            try:
                self._content = read_content(payload)
            except Exception as error:  # whatever decoding foreign bytes raises, RecursionError included
                self._fault = self._fault or f"{type(error).__name__}: {error}"
            if not self._missing:
                self._hand_on(b"")
        elif kind == BODY:
            self._missing -= len(payload)
            if self._missing > 0:
                self._body.append(payload)
            else:
                self._hand_on(b"".join((*self._body, payload)) if self._body else payload)
        return True

    def _begin(self, payload: bytes) -> None:
        self._tag = read_tag(payload)
        self._fault = ""
        try:
            self._deliver = read_deliver(payload)
        except Exception as error:  # as above
            self._fault = f"{type(error).__name__}: {error}"

    def _hand_on(self, body: bytes) -> None:
        tag, deliver, content = self._tag, self._deliver, self._content
        self._tag = self._deliver = self._content = None
        self._body.clear()
        if tag is None or (not self._fault and (deliver is None or content is None)):
            raise ValueError("a body without its header")
        try:
            if self._fault or deliver is None or content is None:
                self._on_unreadable(tag, self._fault)
            else:
                self._on_delivery(self._made(deliver, content, body))
        except Exception as error:  # a bug of ours must not look like bytes that cannot be read
            asyncio.get_running_loop().call_exception_handler({"message": "a delivery failed", "exception": error})

    def _made(self, deliver: Delivered, content: Content, body: bytes) -> Delivery:
        return _delivery(
            Envelope(body, *content.properties),
            self._source,
            exchange=deliver.exchange,
            routing_key=deliver.routing_key,
            is_redelivered=deliver.is_redelivered,
            tag=deliver.tag,
            generation=self._generation,
        )


def from_client(message: DeliveredMessage, source: Source, generation: Any) -> Delivery:
    """Return the delivery that the client has read."""
    frame: Any = message.delivery
    return _delivery(
        envelope_of(message),
        source,
        exchange=frame.exchange or "",
        routing_key=frame.routing_key or "",
        is_redelivered=bool(frame.redelivered),
        tag=frame.delivery_tag,
        generation=generation,
    )


def _delivery(
    envelope: Envelope,
    source: Source,
    *,
    exchange: str,
    routing_key: str,
    is_redelivered: bool,
    tag: int,
    generation: Any,
) -> Delivery:
    crashes = envelope.headers.get("x-delivery-count", 0) if envelope.headers else 0
    return Delivery(
        envelope,
        source,
        exchange=exchange,
        routing_key=routing_key,
        is_redelivered=is_redelivered,
        crashes=crashes if isinstance(crashes, int) else 0,
        token=tag,
        generation=generation,
    )
