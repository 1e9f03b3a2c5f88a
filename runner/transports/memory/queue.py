"""Engine: one queue. It accepts messages, delivers them to subscriptions, expires them and applies its limits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from runner.message import Address, Envelope
from runner.pipeline.topology import Queue
from runner.transports.base import OnDelivery, SubscriptionOptions
from runner.transports.memory.capacity_waiters import CapacityWaiters
from runner.transports.memory.dead_letters import DeathReason
from runner.transports.memory.delivery_scheduler import DeliveryScheduler
from runner.transports.memory.queue_buffer import (
    QUORUM_DEFAULT_PRIORITY,
    QUORUM_MAX_PRIORITY,
    FifoBuffer,
    PriorityBuffer,
    QueueBuffer,
    QueuedMessage,
)
from runner.transports.memory.queue_rules import QueueRules, read_queue_rules
from runner.transports.memory.subscription import MemorySubscription

MAX_PER_TICK = 256
"""How many messages a queue delivers before other tasks on the loop run."""

DEEP_QUEUE = 512
"""From this many ready messages on, publishers slow down: the subscribers are behind already."""

OnDeadLetter = Callable[["MemoryQueue", QueuedMessage, DeathReason], None]
OnUnused = Callable[["MemoryQueue"], None]


class MemoryQueue:
    """A queue, by the rules of its `x-` arguments.

    `capacity` (messages and bytes) bounds queues without limits of their own. Only publishers keep to it, because they
    can wait. `on_dead_letter` is called with each message that the queue gives up, `on_unused` when the last
    subscription has stopped.
    """

    def __init__(
        self,
        definition: Queue,
        scheduler: DeliveryScheduler,
        *,
        on_dead_letter: OnDeadLetter,
        on_unused: OnUnused,
        capacity: int,
        capacity_bytes: int,
    ) -> None:
        self.definition = definition
        self.name = definition.name
        self.rules: QueueRules = read_queue_rules(definition)
        is_quorum = definition.arguments.get("x-queue-type") == "quorum"
        self._default_rank = QUORUM_DEFAULT_PRIORITY if is_quorum else 0
        self._may_prioritize = is_quorum and self.rules.max_priority is None
        self.buffer: QueueBuffer = self._new_buffer()
        self.ready_bytes = 0
        self.subscriptions: list[MemorySubscription] = []
        self.idle: deque[MemorySubscription] = deque()
        self.capacity_waiters = CapacityWaiters()
        self.is_scheduled = False
        self._scheduler = scheduler
        self._on_dead_letter = on_dead_letter
        self._on_unused = on_unused
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._deep_queue = min(DEEP_QUEUE, capacity)
        self._is_limited = self.rules.max_length is not None or self.rules.max_bytes is not None
        self._may_expire = self.rules.ttl_s is not None
        self._arrived = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_deep(self) -> bool:
        """Whether a publisher must check for room before it puts a message in."""
        return (
            len(self.buffer) >= self._deep_queue
            or self.ready_bytes >= self._capacity_bytes
            or self.capacity_waiters.count > 0
        )

    @property
    def is_full(self) -> bool:
        """Whether publishers have to wait. A queue with its own limits refuses or drops messages instead."""
        return not self._is_limited and (
            len(self.buffer) >= self._capacity
            or self.ready_bytes >= self._capacity_bytes
            or self.capacity_waiters.count > 0
        )

    @property
    def depth(self) -> tuple[int, int]:
        """How many messages are ready, and how many consumers there are."""
        return len(self.buffer), len(self.subscriptions)

    def put(self, envelope: Envelope, address: Address) -> bool:
        """Accept a message; False where a limit of the queue refuses it."""
        if self._is_limited and not self._accepts(envelope, address):
            return False
        self._arrived += 1
        message = QueuedMessage(envelope, address, self._arrived)
        if self._may_expire or envelope.expiration_ms is not None:
            self._set_expiry(message)
        self._append(message)
        return True

    def forget(self, message: QueuedMessage) -> None:
        """Note that a message has left the queue for good. In memory there is nothing to do."""

    def forget_oldest(self) -> int:
        """Drop the oldest messages above the capacity of a queue without subscriptions; return how many."""
        count = 0
        while not self.subscriptions and (len(self.buffer) > self._capacity or self.ready_bytes > self._capacity_bytes):
            self.ready_bytes -= len(self.buffer.popleft().envelope.body)
            count += 1
        return count

    def take_head(self) -> QueuedMessage | None:
        """Remove the next message and return it, to be looked at; None without one. `restore` puts it back."""
        if not self.buffer:
            return None
        message = self.buffer.popleft()
        self.ready_bytes -= len(message.envelope.body)
        return message

    def restore(self, message: QueuedMessage) -> None:
        """Put a message back to its place. It counts as redelivered."""
        message.is_redelivered = True
        self.buffer.restore(message)
        self.ready_bytes += len(message.envelope.body)
        self.resume()

    def restore_lost(self, message: QueuedMessage) -> None:
        """Put back a message whose delivery was lost. The queue gives it up after too many losses."""
        message.failed_deliveries += 1
        if self.rules.delivery_limit is not None and message.failed_deliveries > self.rules.delivery_limit:
            self._on_dead_letter(self, message, "delivery_limit")
        else:
            self.restore(message)

    def subscribe(self, options: SubscriptionOptions, on_delivery: OnDelivery) -> MemorySubscription:
        """Return a new subscription, which is added."""
        subscription = MemorySubscription(options, self, on_delivery)
        self.add(subscription)
        return subscription

    def add(self, subscription: MemorySubscription) -> None:
        """Add a subscription. With a single active consumer it gets messages once those before it have stopped."""
        self.subscriptions.append(subscription)
        if not self.rules.is_single_active or self.subscriptions[0] is subscription:
            self.set_idle(subscription)

    def retire(self, subscription: MemorySubscription) -> None:
        """Deliver nothing more to a subscription. A single active one keeps its place until all is settled."""
        if subscription.is_idle:
            self.idle.remove(subscription)
            subscription.is_idle = False
        if subscription not in self.subscriptions or (self.rules.is_single_active and subscription.unsettled):
            return
        self.subscriptions.remove(subscription)
        if (
            self.rules.is_single_active
            and self.subscriptions
            and not self.subscriptions[0].is_idle
            and self.subscriptions[0].has_room
        ):
            self.set_idle(self.subscriptions[0])
        if not self.subscriptions:
            self._on_unused(self)

    def set_idle(self, subscription: MemorySubscription) -> None:
        """Note that a subscription has room for another delivery."""
        subscription.is_idle = True
        self.idle.append(subscription)
        if self.buffer and not self.is_scheduled:
            self._scheduler.schedule(self)

    def run_once(self) -> bool:
        """Deliver messages to the subscriptions in turn, up to a bound; return whether there is more to deliver."""
        idle = self.idle
        for _ in range(MAX_PER_TICK):
            if self._may_expire:
                self._expire_head()
            buffer = self.buffer  # replaced when a first message with a priority arrives, perhaps from this delivery
            if not buffer or not idle:
                break
            subscription = idle[0]
            message = buffer.popleft()
            self.ready_bytes -= len(message.envelope.body)
            unsettled = subscription.unsettled
            unsettled.add(message)
            if len(unsettled) >= subscription.prefetch:
                idle.popleft()
                subscription.is_idle = False
            elif len(idle) > 1:
                idle.rotate(-1)
            subscription.deliver(message)
        self._watch_head()
        self._admit_publishers()
        return bool(self.buffer and idle)

    def resume(self) -> None:
        """Run again soon: after a start of the broker, or when a message was put back."""
        self._watch_head()
        if not self.is_scheduled:
            self._scheduler.schedule(self)

    async def wait_for_room(self, patience_s: float, closed: asyncio.Future[None]) -> bool:
        """Wait for room for a message. False when the session closes, or when no message leaves the queue."""
        head = self._head()

        def is_moving() -> bool:
            nonlocal head
            before, head = head, self._head()
            return before is not head

        may_enter = False
        try:
            may_enter = await self.capacity_waiters.wait(is_moving, patience_s, closed)
        finally:
            if not may_enter:
                self._admit_publishers()
        return may_enter

    def pause(self) -> None:
        """Expire nothing until the queue is resumed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take_over(self, other: MemoryQueue) -> None:
        """Move the ready messages of another queue here, whatever the limits. Their time to live begins again."""
        self._arrived = other._arrived
        for message in sorted(other.buffer, key=lambda message: message.position):
            message.expires_at = None
            if self._may_expire or message.envelope.expiration_ms is not None:
                self._set_expiry(message)
            self.buffer.append(message)
            self.ready_bytes += len(message.envelope.body)
        other.delete()

    def delete(self) -> None:
        """Drop everything. Publishers that wait go on, and find the queue gone."""
        self.pause()
        self.buffer = FifoBuffer()
        self.ready_bytes = 0
        self.capacity_waiters.admit(self.capacity_waiters.count)

    def _append(self, message: QueuedMessage) -> None:
        envelope = message.envelope
        if envelope.priority is not None and self._may_prioritize:
            self._prioritize()
        self.buffer.append(message)
        self.ready_bytes += len(envelope.body)
        if self._is_limited:
            self._drop_head()
        if self.idle and not self.is_scheduled:
            self._scheduler.schedule(self)

    def _new_fifo(self, rank: int) -> QueueBuffer:
        """Return the buffer for the messages of one priority."""
        return FifoBuffer()

    def _new_buffer(self) -> QueueBuffer:
        highest = self.rules.max_priority
        return PriorityBuffer(highest, 0, self._new_fifo) if highest is not None else self._new_fifo(self._default_rank)

    def _prioritize(self) -> None:
        """Order a quorum queue by priority from now on. What it has so far has no priority."""
        self._may_prioritize, waiting, default = False, self.buffer, self._default_rank
        self.buffer = PriorityBuffer(
            QUORUM_MAX_PRIORITY, default, lambda rank: waiting if rank == default else self._new_fifo(rank)
        )

    def _head(self) -> QueuedMessage | None:
        return self.buffer[0] if self.buffer else None

    def _admit_publishers(self) -> None:
        if self.capacity_waiters.count and self.ready_bytes < self._capacity_bytes:
            self.capacity_waiters.admit(self._capacity - len(self.buffer))

    def _accepts(self, envelope: Envelope, address: Address) -> bool:
        if self.rules.overflow == "drop-head" or not self._is_over(1, len(envelope.body)):
            return True
        if self.rules.overflow == "reject-publish-dlx":
            self._on_dead_letter(self, QueuedMessage(envelope, address, 0), "maxlen")
        return False

    def _drop_head(self) -> None:
        while self.buffer and self._is_over(0, 0):
            self._give_up(self.buffer[0], "maxlen")

    def _is_over(self, messages: int, size: int) -> bool:
        """Return whether the ready messages and this much more would exceed a limit."""
        max_length, max_bytes = self.rules.max_length, self.rules.max_bytes
        return (max_length is not None and len(self.buffer) + messages > max_length) or (
            max_bytes is not None and self.ready_bytes + size > max_bytes
        )

    def _give_up(self, head: QueuedMessage, reason: DeathReason) -> None:
        self.buffer.popleft()
        self.ready_bytes -= len(head.envelope.body)
        self._on_dead_letter(self, head, reason)

    def _set_expiry(self, message: QueuedMessage) -> None:
        """Set when a message expires: after the queue's TTL or its own, whichever is shorter.

        As on RabbitMQ, a message with a TTL of 0 is still delivered to a subscription that has room at once.
        """
        own = message.envelope.expiration_ms
        lifetimes = [own / 1000] if own is not None else []
        if self.rules.ttl_s is not None:
            lifetimes.append(self.rules.ttl_s)
        if not lifetimes:  # only others in this queue expire
            return
        lifetime = min(lifetimes)
        if lifetime == 0 and self.idle and not self.buffer:
            return
        message.expires_at = self._scheduler.now() + lifetime
        self._may_expire = True
        if not self.is_scheduled:
            self._scheduler.schedule(self)

    def _expire_head(self) -> None:
        """Give up expired messages at the head. As on RabbitMQ, those behind it expire when they get there."""
        now = self._scheduler.now()
        while (head := self._head()) is not None and head.expires_at is not None and head.expires_at <= now:
            self._give_up(head, "expired")

    def _watch_head(self) -> None:
        """Set the timer to when the head expires."""
        head = self._head() if self._may_expire else None
        when = None if head is None else head.expires_at
        if self._timer is not None and self._timer.when() != when:
            self._timer.cancel()
            self._timer = None
        if when is not None and self._timer is None:
            self._timer = self._scheduler.call_at(when, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if not self.is_scheduled:
            self._scheduler.schedule(self)
