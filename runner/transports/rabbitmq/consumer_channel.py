"""One AMQP consumer on one channel: its deliveries, from their frames to their acknowledgements."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage

from runner.message import Envelope
from runner.outcome import Outcome
from runner.transports.base import Delivery, OnDelivery, SubscriptionOptions
from runner.transports.rabbitmq.ack_batcher import AckBatcher
from runner.transports.rabbitmq.aiormq_workarounds import ShortString, close_within, ignore_result
from runner.transports.rabbitmq.amqp_fast_path import ChannelRoute, FastPath
from runner.transports.rabbitmq.channels import RPC_S
from runner.transports.rabbitmq.frames import DELIVER, read_deliver, write_ack
from runner.transports.rabbitmq.message_decoder import decode_aiormq_message, decode_message
from runner.transports.rabbitmq.possibly_lost_acks import (
    MAX_POSSIBLY_LOST,
    MessageKey,
    PossiblyLostAcks,
    message_key,
)

SETTLE_S = 5.0

ACK_BATCHES_PER_PREFETCH = 4
"""How many acknowledgements cover a full prefetch."""

MAX_ACK_DELAY_S = 0.005
"""How long an acknowledgement may wait for others. A crash within that time brings the message again."""

CANCELLED_BY_BROKER = "cancelled by the broker"


class ConsumerChannel:
    """One AMQP consumer on one channel, as a `DeliverySubscription`. Its delivery tags are valid on this channel only.

    `may_take` decides for each delivery whether `on_delivery` gets it; neither may raise. `ended` is done, with the
    reason, as soon as no more deliveries will come. `is_open` says whether those that came can still be settled.
    """

    def __init__(
        self,
        channel: AbstractChannel,
        options: SubscriptionOptions,
        *,
        prefetch: int,
        may_take: Callable[[Delivery, ConsumerChannel], bool],
        on_delivery: OnDelivery,
        possibly_lost: PossiblyLostAcks,
        fast_path: FastPath | None,
    ) -> None:
        self.channel = channel
        self.prefetch = prefetch
        self._options = options
        self._may_take = may_take
        self._on_delivery = on_delivery
        self._possibly_lost = possibly_lost
        self._recent: deque[MessageKey] = deque(maxlen=MAX_POSSIBLY_LOST)
        self._acks = AckBatcher(prefetch // ACK_BATCHES_PER_PREFETCH)
        self._ack_timer: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Future[None]] = set()
        self._fast_path = fast_path
        self._route: ChannelRoute | None = None
        self.tag = ""
        self.received = 0
        """How many deliveries the broker has sent."""
        self.unsettled = 0
        """How many deliveries the runtime got and has not settled."""
        self._all_settled: asyncio.Future[None] | None = None
        """What `wait_settled` waits for."""
        self.skipped: list[int] = []
        """Deliveries that the runtime does not get: they go back with the channel, or earlier where others may take
        them."""
        self.is_draining = False
        """Whether everything that comes is skipped, and what is released waits for the channel to close: where the
        order of messages counts, no other consumer may get one before."""
        self.is_open = True
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        channel.closing.add_done_callback(self._on_closed)
        channel.on_consumer_cancel_callbacks.add(lambda _: self.end(CANCELLED_BY_BROKER))

    async def consume(self, arguments: dict[str, Any]) -> None:
        """Ask the broker for the messages of the queue, with these `x-` arguments of the consumer."""
        await self.channel.basic_qos(prefetch_count=self.prefetch, timeout=RPC_S)
        if self._fast_path is not None:
            self._route = self._fast_path.open_route(self.channel, frozenset({DELIVER}), self._on_frames)
        queue = ShortString(self._options.queue)
        consumed = await self.channel.basic_consume(queue, self._on_message, arguments=arguments, timeout=RPC_S)
        self.tag = consumed.consumer_tag or ""

    async def cancel(self) -> None:
        """Ask the broker to send nothing more; what was delivered can still be settled. Bounded in time."""
        await close_within(self.channel.basic_cancel(self.tag, timeout=RPC_S), SETTLE_S)

    def end(self, reason: str) -> None:
        """Note that no more deliveries will come. The first reason counts."""
        if not self.ended.done():
            self.ended.set_result(reason)
            self._note_possibly_lost()

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        self.is_open = False
        self.end(_reason(closing))
        self._note_possibly_lost()
        if self._all_settled is not None and not self._all_settled.done():
            self._all_settled.set_result(None)

    # deliveries

    def _on_frames(self, method: bytes, header: bytes, body: bytes) -> None:
        """Receive a delivery by the fast path."""
        tag, is_redelivered, exchange, routing_key = read_deliver(method)
        self._receive(decode_message(header, body), tag, is_redelivered, exchange, routing_key)

    async def _on_message(self, message: DeliveredMessage) -> None:
        """Receive a delivery by aiormq's way."""
        frame: Any = message.delivery
        decoded, exchange, key = decode_aiormq_message(message), frame.exchange or "", frame.routing_key or ""
        self._receive(decoded, frame.delivery_tag, bool(frame.redelivered), exchange, key)

    def _receive(
        self, decoded: tuple[Envelope, str], tag: int, is_redelivered: bool, exchange: str, routing_key: str
    ) -> None:
        envelope, unreadable = decoded
        # The queue counts failed deliveries in this header. On a first delivery it can only be the publisher's own.
        failed = envelope.headers.get("x-delivery-count") if is_redelivered else 0
        delivery = Delivery(
            envelope,
            self._options,
            exchange=exchange,
            routing_key=routing_key,
            is_redelivered=is_redelivered,
            failed_deliveries=failed if type(failed) is int else 0,
            delivery_tag=tag,
            subscription=self,
            unreadable=unreadable,
        )
        self.received += 1
        self._acks.note(tag)
        if self.is_draining or not self._may_take(delivery, self):
            self.skipped.append(tag)
            return
        self.unsettled += 1
        try:
            self._on_delivery(delivery)
        except Exception as error:  # a bug here must not look like a frame that cannot be read
            asyncio.get_running_loop().call_exception_handler({"message": "a delivery failed", "exception": error})

    # settling

    def ack(self, delivery: Delivery, *, is_handled: bool = True) -> bool:
        key = message_key(delivery) if is_handled else None
        if key is not None:
            self._recent.append(key)
        if self._acks.ack(delivery.delivery_tag):
            self._write_acks()
        elif self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(MAX_ACK_DELAY_S, self._write_acks)
        self.count_settled()
        if not self.is_open:
            self._note_possibly_lost()
        return self.is_open

    async def release(self, delivery: Delivery) -> bool:
        if not self.is_draining:  # else it goes back with the channel, in its order
            await self._requeue(delivery.delivery_tag)
        self.count_settled()
        return self.is_open

    def was_handled(self, delivery: Delivery) -> bool:
        return self._possibly_lost.take(delivery)

    def earlier_outcome_of(self, delivery: Delivery) -> Outcome | None:
        return self._possibly_lost.take_outcome(delivery)

    def remember_outcome(self, delivery: Delivery, outcome: Outcome) -> None:
        self._possibly_lost.remember_outcome(delivery, outcome)

    def count_settled(self) -> None:
        """Count a delivery whose end the broker learns."""
        self.unsettled -= 1
        if not self.unsettled and self._all_settled is not None and not self._all_settled.done():
            self._all_settled.set_result(None)

    async def wait_settled(self) -> None:
        """Return when nothing is unsettled, or when the channel is gone."""
        if self.unsettled and self.is_open:
            if self._all_settled is None or self._all_settled.done():
                self._all_settled = asyncio.get_running_loop().create_future()
            await self._all_settled

    async def requeue_skipped(self) -> None:
        """Give back the deliveries that the runtime did not get. Bounded in time."""
        await close_within(self._requeue(*self.skipped), SETTLE_S)
        self.skipped.clear()

    async def flush(self) -> None:
        """Return when all acknowledgements have been written, or were lost with the connection."""
        self._write_acks()
        if self._fast_path is not None:
            self._fast_path.flush()
        if self._writing:
            await asyncio.wait(self._writing, timeout=SETTLE_S)

    async def close(self) -> None:
        """Close the channel after everything that was written; unsettled deliveries go back. Bounded in time."""
        await self.flush()
        if self._route is not None:
            self._route.is_open = False
        await close_within(self.channel.close(), SETTLE_S)
        self.is_open = False
        self._note_possibly_lost()

    async def _requeue(self, *tags: int) -> None:
        for tag in tags:
            await self.channel.basic_nack(tag, requeue=True, wait=False)
            # Only now: an acknowledgement with `multiple` that is written before the nack would cover this tag too.
            self._acks.forget(tag)

    def _write_acks(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        if not self._acks.waiting:
            return
        for tag, multiple in self._acks.take():
            if self.channel.is_closed:
                return
            if self._route is not None:
                self._route.write(write_ack(self._route.number, tag, multiple=multiple))
            else:
                task = asyncio.ensure_future(self.channel.basic_ack(tag, multiple=multiple, wait=False))
                self._writing.add(task)
                task.add_done_callback(self._writing.discard)
                task.add_done_callback(ignore_result)

    def _note_possibly_lost(self) -> None:
        """Note that messages acknowledged last may come again: it is not known which acks the broker has read."""
        if self._recent:
            self._possibly_lost.add(self._recent)
            self._recent.clear()


def _reason(closing: asyncio.Future[Any]) -> str:
    if closing.cancelled():
        return "channel closed"
    error = closing.exception()
    if isinstance(error, aiormq.exceptions.AMQPError) and error.args:
        return str(error.args[-1])
    return "channel closed"
