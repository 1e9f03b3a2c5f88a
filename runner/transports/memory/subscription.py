"""Engine: the flow of one queue's messages to one subscriber, and what of it is unsettled."""

from __future__ import annotations

from typing import Protocol

from runner.outcome import Outcome
from runner.transports.amqp_limits import copy_headers
from runner.transports.base import Delivery, OnDelivery, SubscriptionOptions
from runner.transports.memory.queue_buffer import QueuedMessage


class SubscribedQueue(Protocol):
    """What a feed needs of its queue."""

    def set_idle(self, subscription: MemorySubscription) -> None:
        """Note that a feed has room for another delivery."""
        ...

    def retire(self, subscription: MemorySubscription) -> None:
        """Hand nothing to this feed any more."""
        ...

    def restore(self, message: QueuedMessage) -> None:
        """Put a message back where it stood."""
        ...

    def restore_lost(self, message: QueuedMessage) -> None:
        """Put back a message whose delivery was lost."""
        ...


class MemorySubscription:
    """Hands out at most `prefetch` messages that are not settled yet."""

    __slots__ = (
        "_on_delivery",
        "_options",
        "_queue",
        "is_idle",
        "is_live",
        "prefetch",
        "unsettled",
    )

    def __init__(self, options: SubscriptionOptions, queue: SubscribedQueue, on_delivery: OnDelivery) -> None:
        if options.prefetch < 1:
            raise ValueError(f'prefetch of queue "{options.queue}" must be 1 or more, not {options.prefetch}')
        self._options = options
        self._queue = queue
        self._on_delivery = on_delivery
        self.prefetch = options.prefetch
        self.unsettled: set[QueuedMessage] = set()
        self.is_live = True
        self.is_idle = False

    @property
    def has_room(self) -> bool:
        """Whether another delivery may be made."""
        return len(self.unsettled) < self.prefetch

    async def stop(self) -> None:
        """See `Subscription.stop`."""
        self.end()

    async def close(self) -> None:
        """See `Subscription.close`."""
        self.end()
        self.requeue_unsettled()

    def end(self) -> None:
        """End delivery; what was delivered stays unsettled, and may be settled. Idempotent."""
        if self.is_live:
            self.is_live = False
            self._queue.retire(self)

    def deliver(self, message: QueuedMessage) -> None:
        """Make a delivery of a message that is counted as unsettled already."""
        envelope = message.envelope
        if envelope.headers:
            envelope = copy_headers(envelope)
        exchange, routing_key = message.address
        self._on_delivery(
            Delivery(
                envelope,
                self._options,
                exchange=exchange,
                routing_key=routing_key,
                is_redelivered=message.is_redelivered,
                failed_deliveries=message.failed_deliveries,
                delivery_tag=message,
                subscription=self,
            )
        )

    def can_settle(self, message: QueuedMessage) -> bool:
        """Whether this delivery is still ours to settle; not after it was given back."""
        return message in self.unsettled

    def was_handled(self, delivery: Delivery) -> bool:
        """See `DeliverySubscription.was_handled`. This broker has read every acknowledgement."""
        return False

    def earlier_outcome_of(self, delivery: Delivery) -> Outcome | None:
        """See `DeliverySubscription.earlier_outcome_of`. Nothing is lost between this broker and us."""
        return None

    def discard(self, message: QueuedMessage) -> bool:
        """Forget a message for good; False where it was given back already."""
        try:
            self.unsettled.remove(message)
        except KeyError:
            return False
        if not self.is_live:
            self._queue.retire(self)
        elif not self.is_idle:
            self._queue.set_idle(self)
        return True

    def release(self, message: QueuedMessage) -> bool:
        """Give a message back untouched; False where that has happened already."""
        if not self.discard(message):
            return False
        self._queue.restore(message)
        return True

    def requeue_unsettled(self) -> None:
        """Give back everything unsettled, as deliveries that were lost: in a crash nobody settles."""
        lost = sorted(self.unsettled, key=lambda message: message.position)
        self.unsettled.clear()
        for message in lost:
            self._queue.restore_lost(message)
        self._queue.retire(self)
