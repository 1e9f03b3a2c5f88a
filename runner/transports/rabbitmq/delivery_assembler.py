"""Turns what the broker sends to a consumer into deliveries: from the bytes of frames, or from the client's objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiormq.abc import DeliveredMessage

from runner.message import Envelope
from runner.transports.base import Delivery, SubscriptionOptions
from runner.transports.rabbitmq.frames import (
    BODY,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    DELIVER,
    HEADER,
    METHOD,
    DeliverFrame,
    read_deliver,
    read_size,
)
from runner.transports.rabbitmq.message_decoder import decode_aiormq_message, decode_message


def ends_channel(payload: bytes) -> bool:
    """Whether a method frame ends its channel: nothing may be written to it any more."""
    return payload[:4] in (CHANNEL_CLOSE, CHANNEL_CLOSE_OK)


class DeliveryAssembler:
    """The deliveries of one channel, read from its frames. See `amqp_fast_path.FrameHandler`."""

    def __init__(
        self, options: SubscriptionOptions, subscription: Any, on_delivery: Callable[[Delivery], None]
    ) -> None:
        self._options = options
        self._subscription = subscription
        self._on_delivery = on_delivery
        self._deliver: DeliverFrame | None = None
        self._header = b""
        self._body: list[bytes] = []
        self._missing = 0
        self.is_open = True

    def handle(self, kind: int, payload: bytes) -> bool:
        """See `FrameHandler.take`. Raises where not even the limits of a message can be read."""
        if kind == METHOD:
            if payload[:4] != DELIVER:
                self.is_open = self.is_open and not ends_channel(payload)
                return False
            self._deliver, self._header = read_deliver(payload), b""
            return True
        if self._deliver is None:
            return False
        if kind == HEADER:
            self._header = payload
            self._missing = read_size(payload)
            if not self._missing:
                self._complete(b"")
        elif kind == BODY:
            self._missing -= len(payload)
            if self._missing > 0:
                self._body.append(payload)
            else:
                self._complete(b"".join((*self._body, payload)) if self._body else payload)
        return True

    def _complete(self, body: bytes) -> None:
        deliver, header = self._deliver, self._header
        self._deliver = None
        self._body.clear()
        if deliver is None or not header:
            raise ValueError("a body without its header")
        try:
            self._on_delivery(_delivery(decode_message(header, body), deliver, self._options, self._subscription))
        except Exception as error:  # a bug of ours must not look like bytes that cannot be read
            asyncio.get_running_loop().call_exception_handler({"message": "a delivery failed", "exception": error})


def delivery_from_aiormq(message: DeliveredMessage, options: SubscriptionOptions, subscription: Any) -> Delivery:
    """Return the delivery that the client has read."""
    frame: Any = message.delivery
    deliver = DeliverFrame(frame.delivery_tag, bool(frame.redelivered), frame.exchange or "", frame.routing_key or "")
    return _delivery(decode_aiormq_message(message), deliver, options, subscription)


def _delivery(
    message: tuple[Envelope, str], deliver: DeliverFrame, options: SubscriptionOptions, subscription: Any
) -> Delivery:
    envelope, unreadable = message
    # What comes for the first time has this header from its publisher, not from the queue.
    failed_deliveries = envelope.headers.get("x-delivery-count") if deliver.is_redelivered else 0
    return Delivery(
        envelope,
        options,
        exchange=deliver.exchange,
        routing_key=deliver.routing_key,
        is_redelivered=deliver.is_redelivered,
        failed_deliveries=failed_deliveries if type(failed_deliveries) is int else 0,
        delivery_tag=deliver.tag,
        subscription=subscription,
        unreadable=unreadable,
    )
