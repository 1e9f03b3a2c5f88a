"""Engine: the deliveries of one queue to one subscriber, and which of them are unsettled."""

from __future__ import annotations

from typing import Protocol

from runner.transports.amqp_limits import copy_headers
from runner.transports.base import Delivery, DeliverySubscription, OnDelivery, SubscriptionOptions
from runner.transports.memory.queue_buffer import QueuedMessage


class SubscribedQueue(Protocol):
    """What a subscription needs of its queue."""

    def set_idle(self, subscription: MemorySubscription) -> None:
        """Note that a subscription has room for another delivery."""

    def add(self, subscription: MemorySubscription) -> None:
        """Add a subscription, behind the others."""

    def retire(self, subscription: MemorySubscription) -> None:
        """Deliver nothing more to this subscription."""

    def restore(self, message: QueuedMessage) -> None:
        """Put a message back to its place in the queue."""

    def restore_lost(self, message: QueuedMessage) -> None:
        """Put back a message whose delivery was lost."""


class MemorySubscription(DeliverySubscription):
    """Delivers messages while fewer than `prefetch` are unsettled. See `Subscription` and `DeliverySubscription`."""

    def __init__(self, options: SubscriptionOptions, queue: SubscribedQueue, on_delivery: OnDelivery) -> None:
        if options.prefetch < 1:
            raise ValueError(f'prefetch of queue "{options.queue}" must be 1 or more, not {options.prefetch}')
        self._options = options
        self._queue = queue
        self._on_delivery = on_delivery
        self.prefetch = options.prefetch
        self.unsettled: set[QueuedMessage] = set()
        self.is_live = True
        self.is_open = True
        self.is_idle = False
        self._steps_back = False

    @property
    def has_room(self) -> bool:
        """Whether it may get another delivery."""
        return len(self.unsettled) < self.prefetch

    async def stop(self) -> None:
        self.end()

    async def close(self) -> None:
        self.end()
        self.requeue_unsettled()

    def step_back(self) -> None:
        if self.is_live:
            self.end()
            self._steps_back = True
            self._subscribe_again()

    def _subscribe_again(self) -> None:
        if self._steps_back and not self.unsettled:
            self._steps_back, self.is_live = False, True
            self._queue.add(self)

    def end(self) -> None:
        """Stop delivering. Earlier deliveries can still be settled. Idempotent."""
        self._steps_back = False
        if self.is_live:
            self.is_live = False
            self._queue.retire(self)

    def deliver(self, message: QueuedMessage) -> None:
        """Deliver a message that is counted as unsettled already."""
        envelope = message.envelope
        if envelope.headers:
            envelope = copy_headers(envelope)
        exchange, key = message.address
        redelivered, failed = message.is_redelivered, message.failed_deliveries
        self._on_delivery(Delivery(envelope, self._options, exchange, key, redelivered, failed, message, self))

    def ack(self, delivery: Delivery, *, is_handled: bool = True) -> bool:
        return self.discard(delivery.delivery_tag)

    async def release(self, delivery: Delivery) -> bool:
        message: QueuedMessage = delivery.delivery_tag
        if not self.discard(message):
            return False
        self._queue.restore(message)
        return True

    def discard(self, message: QueuedMessage) -> bool:
        """Remove a message for good. False where it was given back already."""
        try:
            self.unsettled.remove(message)
        except KeyError:
            return False
        if not self.is_live:
            self._queue.retire(self)
            self._subscribe_again()
        elif not self.is_idle:
            self._queue.set_idle(self)
        return True

    def requeue_unsettled(self) -> None:
        """Give back everything unsettled, as deliveries that were lost in a crash."""
        self.is_open = False
        lost = sorted(self.unsettled, key=lambda message: message.position)
        self.unsettled.clear()
        for message in lost:
            self._queue.restore_lost(message)
        self._queue.retire(self)
