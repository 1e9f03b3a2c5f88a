"""Engine: the flow of one queue's messages to one subscriber, and what of it is unsettled."""

from __future__ import annotations

from typing import Protocol

from runner.outcome import Outcome
from runner.transports.base import Delivery, OnDelivery, Source
from runner.transports.memory.lines import Stored
from runner.transports.wire import with_own_headers


class Origin(Protocol):
    """What a feed needs of its queue."""

    def set_idle(self, feed: MemoryFeed) -> None:
        """Note that a feed has room for another delivery."""
        ...

    def retire(self, feed: MemoryFeed) -> None:
        """Hand nothing to this feed any more."""
        ...

    def restore(self, stored: Stored) -> None:
        """Put a message back where it stood."""
        ...

    def restore_lost(self, stored: Stored) -> None:
        """Put back a message whose delivery was lost."""
        ...


class MemoryFeed:
    """Hands out at most `prefetch` messages that are not settled yet."""

    __slots__ = ("_on_delivery", "_origin", "_source", "is_idle", "is_live", "prefetch", "unsettled")

    def __init__(self, source: Source, origin: Origin, on_delivery: OnDelivery) -> None:
        if source.prefetch < 1:
            raise ValueError(f'prefetch of queue "{source.queue}" must be 1 or more, not {source.prefetch}')
        self._source = source
        self._origin = origin
        self._on_delivery = on_delivery
        self.prefetch = source.prefetch
        self.unsettled: set[Stored] = set()
        self.is_live = True
        self.is_idle = False

    @property
    def has_room(self) -> bool:
        """Whether another delivery may be made."""
        return len(self.unsettled) < self.prefetch

    async def stop(self) -> None:
        """See `Feed.stop`."""
        self.end()

    async def close(self) -> None:
        """See `Feed.close`."""
        self.end()
        self.give_back()

    def end(self) -> None:
        """End delivery; what was delivered stays unsettled, and may be settled. Idempotent."""
        if self.is_live:
            self.is_live = False
            self._origin.retire(self)

    def hand_over(self, stored: Stored) -> None:
        """Make a delivery of a message that is counted as unsettled already."""
        envelope = stored.envelope
        if envelope.headers:
            envelope = with_own_headers(envelope)
        exchange, routing_key = stored.address
        self._on_delivery(
            Delivery(
                envelope,
                self._source,
                exchange=exchange,
                routing_key=routing_key,
                is_redelivered=stored.is_redelivered,
                crashes=stored.crashes,
                token=stored,
                generation=self,
            )
        )

    def holds(self, stored: Stored) -> bool:
        """Whether this delivery is still ours to settle; not after it was given back."""
        return stored in self.unsettled

    def was_handled(self, delivery: Delivery) -> bool:
        """See `Generation.was_handled`. This broker has read every acknowledgement."""
        return False

    def outcome_of(self, delivery: Delivery) -> Outcome | None:
        """See `Generation.outcome_of`. Nothing is lost between this broker and us."""
        return None

    def done(self, stored: Stored) -> bool:
        """Forget a message for good; False where it was given back already."""
        try:
            self.unsettled.remove(stored)
        except KeyError:
            return False
        if not self.is_live:
            self._origin.retire(self)
        elif not self.is_idle:
            self._origin.set_idle(self)
        return True

    def release(self, stored: Stored) -> bool:
        """Give a message back untouched; False where that has happened already."""
        if not self.done(stored):
            return False
        self._origin.restore(stored)
        return True

    def give_back(self) -> None:
        """Give back everything unsettled, as deliveries that were lost: in a crash nobody settles."""
        lost = sorted(self.unsettled, key=lambda stored: stored.position)
        self.unsettled.clear()
        for stored in lost:
            self._origin.restore_lost(stored)
        self._origin.retire(self)
