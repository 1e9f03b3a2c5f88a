"""One AMQP consumer on one channel, and what becomes of the deliveries that came by it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage

from runner.message import FIRST_FAILED_AT, REASON, attempt_of, replays_of
from runner.outcome import Outcome
from runner.transports.base import Delivery, SubscriptionOptions
from runner.transports.rabbitmq.ack_batcher import AckBatcher
from runner.transports.rabbitmq.aiormq_workarounds import ShortString, ignore_result
from runner.transports.rabbitmq.amqp_fast_path import FrameRouter
from runner.transports.rabbitmq.connection import close_within
from runner.transports.rabbitmq.delivery_assembler import DeliveryAssembler, delivery_from_aiormq
from runner.transports.rabbitmq.frames import write_ack
from runner.transports.rabbitmq.topology import RPC_S

SETTLE_S = 5.0

ACK_BATCHES_PER_PREFETCH = 4
"""How many acknowledgements cover a full prefetch."""

MAX_POSSIBLY_LOST = 1000
"""Of how many messages, the last ones acknowledged on a channel that ended, it is in doubt whether the broker knows."""

POSSIBLY_LOST_S = 3600.0

MessageKey = tuple[str, int, int, int, int, str, str]


def message_key(delivery: Delivery) -> MessageKey | None:
    """Return what tells a message from others: its id, its body, and which attempt, replay and dead letter it is, as it
    came; None for one without an id. What became of one of these says nothing of the next one, the same message.
    """
    message_id, body, headers = delivery.envelope.message_id, delivery.envelope.body, delivery.envelope.headers
    if message_id is None:
        return None
    letter = str(headers.get(REASON, "")), str(headers.get(FIRST_FAILED_AT, ""))
    return message_id, len(body), hash(body), attempt_of(headers), replays_of(headers), *letter


class PossiblyLostAcks:
    """Messages that were handled, and whose acknowledgement the broker may not have read: they may come once more.

    Those whose retry or dead letter was published are not among them: such a copy may come back with the same content.
    Attempts whose retry or dead letter could not be published are kept: they come once more, and have ended so already.
    """

    def __init__(self) -> None:
        self._found: OrderedDict[MessageKey, tuple[int, float]] = OrderedDict()
        self._ended: OrderedDict[MessageKey, Outcome] = OrderedDict()

    def remember_outcome(self, delivery: Delivery, outcome: Outcome) -> None:
        """Remember how an attempt has ended that could not be settled."""
        key = message_key(delivery)
        if key is not None:
            self._ended[key] = outcome
            while len(self._ended) > MAX_POSSIBLY_LOST:
                self._ended.popitem(last=False)

    def earlier_outcome_of(self, delivery: Delivery) -> Outcome | None:
        """Return how a delivery that comes again has ended before. Once: a dead letter moved back looks alike."""
        key = message_key(delivery) if self._ended else None
        return None if key is None else self._ended.pop(key, None)

    def add(self, key: MessageKey) -> None:
        """Note that one delivery of a message was acknowledged in vain, perhaps."""
        count, _ = self._found.pop(key, (0, 0.0))
        self._found[key] = (count + 1, asyncio.get_running_loop().time() + POSSIBLY_LOST_S)
        while len(self._found) > 10 * MAX_POSSIBLY_LOST:
            self._found.popitem(last=False)

    def take(self, delivery: Delivery) -> bool:
        """Whether a delivery that comes again was handled before; the next one of it then was not."""
        key = message_key(delivery) if self._found else None
        if key is None or key not in self._found:
            return False
        count, until = self._found.pop(key)
        if until < asyncio.get_running_loop().time():
            return False
        if count > 1:
            self._found[key] = (count - 1, until)
        return True


class ConsumerChannel:
    """One AMQP consumer on one channel: what the delivery tags it hands out belong to.

    `unsettled` counts what was handed to the runtime and is not settled, `delivered` all that the broker has sent.
    """

    __slots__ = (
        "_acks",
        "_assembler",
        "_frame_router",
        "_possibly_lost",
        "_recent",
        "_writing",
        "channel",
        "delivered",
        "ended",
        "is_draining",
        "prefetch",
        "settled",
        "skipped",
        "tag",
        "unsettled",
    )

    def __init__(
        self,
        channel: AbstractChannel,
        prefetch: int = 1,
        possibly_lost: PossiblyLostAcks | None = None,
        frame_router: FrameRouter | None = None,
    ) -> None:
        self.channel = channel
        self._frame_router = frame_router
        self._possibly_lost = possibly_lost or PossiblyLostAcks()
        self._recent: deque[MessageKey] = deque(maxlen=MAX_POSSIBLY_LOST)
        self._acks = AckBatcher(prefetch // ACK_BATCHES_PER_PREFETCH, self._acknowledge)
        self._assembler: DeliveryAssembler | None = None
        self._writing: set[asyncio.Future[None]] = set()
        self.prefetch = prefetch
        self.tag = ""
        self.delivered = 0
        self.unsettled = 0
        self.settled = asyncio.Event()
        """Whether nothing is unsettled."""
        self.settled.set()
        self.is_draining = False
        """Whether what is given back waits for the channel to close, so that nobody else gets anything before."""
        self.skipped: list[int] = []
        """What came while it wound up: it goes back with the channel, or before if other consumers may have it."""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def is_open(self) -> bool:
        """Whether its deliveries can still be settled."""
        return not self.channel.is_closed

    def end(self, reason: str) -> None:
        """Note that no more deliveries will come; the first reason counts."""
        if not self.ended.done():
            self.ended.set_result(reason)
            self._mark_possibly_lost()

    async def consume(
        self,
        options: SubscriptionOptions,
        on_delivery: Callable[[Delivery], None],
        arguments: dict[str, Any] | None = None,
    ) -> None:
        """Ask the broker for the messages of a queue. The callback must not raise."""
        if self._frame_router is not None:
            self._assembler = DeliveryAssembler(options, self, on_delivery)
            self._frame_router.add(self.channel, self._assembler)

        async def on_message(message: DeliveredMessage) -> None:
            on_delivery(delivery_from_aiormq(message, options, self))

        consumed = await self.channel.basic_consume(
            ShortString(options.queue), on_message, arguments=arguments, timeout=RPC_S
        )
        self.tag = consumed.consumer_tag or ""

    def count_received(self, tag: int) -> None:
        """Count what the broker has sent."""
        self.delivered += 1
        self._acks.note(tag)

    def can_settle(self, delivery_tag: object) -> bool:
        """See `DeliverySubscription.can_settle`."""
        return self.is_open

    def was_handled(self, delivery: Delivery) -> bool:
        """See `DeliverySubscription.was_handled`."""
        return self._possibly_lost.take(delivery)

    def earlier_outcome_of(self, delivery: Delivery) -> Outcome | None:
        """See `DeliverySubscription.earlier_outcome_of`."""
        return self._possibly_lost.earlier_outcome_of(delivery)

    def remember_outcome(self, delivery: Delivery, outcome: Outcome) -> None:
        """Remember an outcome that could not be settled, because the broker has taken the message back."""
        self._possibly_lost.remember_outcome(delivery, outcome)

    def ack(self, delivery: Delivery, *, is_handled: bool) -> bool:
        """Acknowledge soon, what was handled or what a copy stands for; False where the channel is gone."""
        self._acks.ack(delivery.delivery_tag)
        self.count_settled()
        key = message_key(delivery) if is_handled else None
        if key is not None:
            self._recent.append(key)
        if self.is_open:
            return True
        self._mark_possibly_lost()
        return False

    def _mark_possibly_lost(self) -> None:
        """Note that what was acknowledged last may come again: nobody can tell what the broker has read."""
        while self._recent:
            self._possibly_lost.add(self._recent.popleft())

    async def release(self, tag: int) -> bool:
        """Give a delivery back; False where the channel is gone."""
        if not self.is_draining:  # else it goes back with the channel, in its order
            await self.channel.basic_nack(tag, requeue=True, wait=False)
            self._acks.forget(tag)  # not before it is written: an acknowledgement of all before it might overtake it
        self.count_settled()
        return self.is_open

    async def requeue_skipped(self) -> None:
        """Give back what was not handed to the runtime."""
        for tag in self.skipped:
            await self.channel.basic_nack(tag, requeue=True, wait=False)
            self._acks.forget(tag)
        self.skipped.clear()

    async def wait_settled(self) -> None:
        """Return when nothing is unsettled, or the channel is gone."""
        settled = asyncio.ensure_future(self.settled.wait())
        try:
            await asyncio.wait((settled, self.channel.closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            settled.cancel()

    async def flush(self) -> None:
        """Return when all acknowledgements have been written, or lost with the connection."""
        self._acks.flush()
        if self._frame_router is not None:
            self._frame_router.write_buffer.flush()
        if self._writing:
            await asyncio.wait(self._writing, timeout=SETTLE_S)

    async def close(self) -> None:
        """Close the channel behind everything that was written; the rest goes back. Bounded in time."""
        await self.flush()
        if self._assembler is not None:
            self._assembler.is_open = False
        await close_within(self.channel.close(), SETTLE_S)
        self._mark_possibly_lost()

    def _acknowledge(self, tag: int, multiple: bool) -> None:
        if self.channel.is_closed:
            return
        if self._frame_router is not None and self._assembler is not None:
            self._frame_router.write_buffer.write(
                self._assembler, write_ack(self.channel.number, tag, multiple=multiple)
            )
            return
        task = asyncio.ensure_future(self.channel.basic_ack(tag, multiple=multiple, wait=False))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        task.add_done_callback(ignore_result)

    def count_delivered(self) -> None:
        """Count a delivery that is handed to the runtime."""
        self.unsettled += 1
        self.settled.clear()

    def count_settled(self) -> None:
        """Count a delivery that the broker was told the end of."""
        self.unsettled -= 1
        if not self.unsettled:
            self.settled.set()
