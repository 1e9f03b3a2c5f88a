"""Engine: one queue: takes messages in, hands them to its feeds, lets them expire, keeps its limits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from runner.message import Address, Envelope
from runner.pipeline.topology import Queue
from runner.transports.memory.dead_letters import Death
from runner.transports.memory.feed import MemoryFeed
from runner.transports.memory.gate import Gate
from runner.transports.memory.lines import (
    QUORUM_DEFAULT,
    QUORUM_HIGHEST,
    FifoLine,
    Line,
    PriorityLine,
    Stored,
)
from runner.transports.memory.pump import Pump
from runner.transports.memory.rules import Rules, rules_of

TURN = 256
"""How many messages a queue hands out before others on the loop get their turn."""

CROWD = 512
"""With so many messages waiting for its feeds, a queue is not served by publishing faster."""

OnDeath = Callable[["MemoryQueue", Stored, Death], None]
OnUnused = Callable[["MemoryQueue"], None]


class MemoryQueue:
    """A queue, by the rules of its `x-` arguments.

    `capacity` (messages and bytes) bounds queues that set no limit of their own; only publishers keep to it, because
    they can wait. `on_death` gets what the queue gives up on, `on_unused` is told when the last feed has stopped.
    """

    def __init__(
        self,
        definition: Queue,
        pump: Pump,
        *,
        on_death: OnDeath,
        on_unused: OnUnused,
        capacity: int,
        capacity_bytes: int,
    ) -> None:
        self.definition = definition
        self.name = definition.name
        self.rules: Rules = rules_of(definition)
        self.line: Line = FifoLine() if self.rules.max_priority is None else PriorityLine(self.rules.max_priority)
        self.ready_bytes = 0
        self.feeds: list[MemoryFeed] = []
        self.idle: deque[MemoryFeed] = deque()
        self.gate = Gate()
        self.is_awake = False
        self._pump = pump
        self._on_death = on_death
        self._on_unused = on_unused
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._crowd = min(CROWD, capacity)
        self._is_limited = self.rules.max_length is not None or self.rules.max_bytes is not None
        self._is_quorum = definition.arguments.get("x-queue-type") == "quorum"
        self._may_expire = self.rules.ttl_s is not None
        self._arrived = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_crowded(self) -> bool:
        """Whether a publisher should look closer before it puts a message in."""
        return len(self.line) >= self._crowd or self.ready_bytes >= self._capacity_bytes or self.gate.crowd > 0

    @property
    def is_full(self) -> bool:
        """Whether publishers have to wait. A queue with limits of its own refuses or drops instead."""
        if self._is_limited:
            return False
        return len(self.line) >= self._capacity or self.ready_bytes >= self._capacity_bytes or self.gate.crowd > 0

    def put(self, envelope: Envelope, address: Address) -> bool:
        """Take a message in; False where a limit of the queue refuses it."""
        if self._is_limited and not self._admits(envelope, address):
            return False
        self._arrived += 1
        stored = Stored(envelope, address, self._arrived)
        if self._may_expire or envelope.expiration_ms is not None:
            self._set_expiry(stored)
        if envelope.priority is not None and self._is_quorum and isinstance(self.line, FifoLine):
            self.line = PriorityLine(QUORUM_HIGHEST, QUORUM_DEFAULT, self.line)
        self.line.append(stored)
        self.ready_bytes += len(envelope.body)
        if self._is_limited:
            self._drop_head()
        if self.idle and not self.is_awake:
            self._pump.wake(self)
        return True

    def forget_oldest(self) -> int:
        """Forget what is above the capacity, the oldest first, where nobody takes anything out; return how many."""
        count = 0
        while not self.feeds and (len(self.line) > self._capacity or self.ready_bytes > self._capacity_bytes):
            self.ready_bytes -= len(self.line.popleft().envelope.body)
            count += 1
        return count

    def restore(self, stored: Stored) -> None:
        """Put a message back where it stood; it has been delivered before."""
        stored.is_redelivered = True
        self.line.restore(stored)
        self.ready_bytes += len(stored.envelope.body)
        self.resume()

    def restore_lost(self, stored: Stored) -> None:
        """Put back a message whose delivery was lost; after too many of those the queue gives it up."""
        stored.crashes += 1
        if self.rules.delivery_limit is not None and stored.crashes > self.rules.delivery_limit:
            self._on_death(self, stored, "delivery_limit")
        else:
            self.restore(stored)

    def add(self, feed: MemoryFeed) -> None:
        """Hand messages to this feed too; with a single active consumer only once those before it have stopped."""
        self.feeds.append(feed)
        if not self.rules.is_single_active or self.feeds[0] is feed:
            self.set_idle(feed)

    def retire(self, feed: MemoryFeed) -> None:
        """Hand nothing to this feed any more. The single active one keeps its place while anything is unsettled."""
        if feed.is_idle:
            self.idle.remove(feed)
            feed.is_idle = False
        if feed not in self.feeds or (self.rules.is_single_active and feed.unsettled):
            return
        self.feeds.remove(feed)
        if self.rules.is_single_active and self.feeds and not self.feeds[0].is_idle and self.feeds[0].has_room:
            self.set_idle(self.feeds[0])
        if not self.feeds:
            self._on_unused(self)

    def set_idle(self, feed: MemoryFeed) -> None:
        """Note that a feed has room for another delivery."""
        feed.is_idle = True
        self.idle.append(feed)
        if self.line and not self.is_awake:
            self._pump.wake(self)

    def work(self) -> bool:
        """Hand messages to feeds in turn, up to a bound; return whether there is more to hand out."""
        idle = self.idle
        for _ in range(TURN):
            if self._may_expire:
                self._expire_head()
            line = self.line  # another one once a message has a priority: who gets a delivery may publish
            if not line or not idle:
                break
            feed = idle[0]
            stored = line.popleft()
            self.ready_bytes -= len(stored.envelope.body)
            unsettled = feed.unsettled
            unsettled.add(stored)
            if len(unsettled) >= feed.prefetch:
                idle.popleft()
                feed.is_idle = False
            elif len(idle) > 1:
                idle.rotate(-1)
            feed.hand_over(stored)
        self._watch_head()
        self._let_publishers_in()
        return bool(self.line and idle)

    def resume(self) -> None:
        """Work again soon, where there is something to do: after a start, or when something was put back."""
        self._watch_head()
        if not self.is_awake:
            self._pump.wake(self)

    async def wait_for_room(self, patience_s: float, closed: asyncio.Future[None]) -> bool:
        """Wait until a publisher may put a message in; False when the session has closed, or nobody takes any out."""
        head = self._head()

        def is_moving() -> bool:
            nonlocal head
            before, head = head, self._head()
            return before is not head

        may_enter = False
        try:
            may_enter = await self.gate.wait(is_moving, patience_s, closed)
        finally:
            if not may_enter:
                self._let_publishers_in()
        return may_enter

    def pause(self) -> None:
        """Stop the clock: nothing expires until the queue is resumed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def delete(self) -> None:
        """Forget everything; publishers who wait may go on, to find the queue gone."""
        self.pause()
        self.line = FifoLine()
        self.ready_bytes = 0
        self.gate.let_in(self.gate.crowd)

    def _head(self) -> Stored | None:
        return self.line[0] if self.line else None

    def _let_publishers_in(self) -> None:
        if self.gate.crowd and self.ready_bytes < self._capacity_bytes:
            self.gate.let_in(self._capacity - len(self.line))

    def _admits(self, envelope: Envelope, address: Address) -> bool:
        if self.rules.overflow == "drop-head" or not self._is_over(1, len(envelope.body)):
            return True
        if self.rules.overflow == "reject-publish-dlx":
            self._on_death(self, Stored(envelope, address, 0), "maxlen")
        return False

    def _drop_head(self) -> None:
        while self.line and self._is_over(0, 0):
            self._give_up(self.line[0], "maxlen")

    def _is_over(self, messages: int, size: int) -> bool:
        """Return whether so much more than is ready now would be over a limit."""
        max_length, max_bytes = self.rules.max_length, self.rules.max_bytes
        return (max_length is not None and len(self.line) + messages > max_length) or (
            max_bytes is not None and self.ready_bytes + size > max_bytes
        )

    def _give_up(self, head: Stored, reason: Death) -> None:
        self.line.popleft()
        self.ready_bytes -= len(head.envelope.body)
        self._on_death(self, head, reason)

    def _set_expiry(self, stored: Stored) -> None:
        """Note when a message expires, the earlier of the queue's time and its own.

        One that may live for 0 seconds is still handed to a feed that has room at once, as on RabbitMQ.
        """
        own = stored.envelope.expiration_ms
        lifetimes = [own / 1000] if own is not None else []
        if self.rules.ttl_s is not None:
            lifetimes.append(self.rules.ttl_s)
        lifetime = min(lifetimes)
        if lifetime == 0 and self.idle and not self.line:
            return
        stored.expires_at = self._pump.now() + lifetime
        self._may_expire = True
        if not self.is_awake:
            self._pump.wake(self)

    def _expire_head(self) -> None:
        """Give up what has expired at the head. Only there: as on RabbitMQ, who stands behind waits to get there."""
        now = self._pump.now()
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
            self._timer = self._pump.call_at(when, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if not self.is_awake:
            self._pump.wake(self)
