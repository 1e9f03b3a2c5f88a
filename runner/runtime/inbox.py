"""Inboxes of a subscriber: deliveries wait first in first out, by key and in order, or in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from runner.message import Envelope
from runner.pipeline.model import Batch
from runner.transports.base import Delivery


class FifoInbox(deque[Delivery]):
    """Deliveries in order of arrival. It has the methods of `KeyedInbox`, for subscribers without `order_by`.

    Most of them are those of a deque, because each message pays for each call.
    """

    put = deque.append
    take = deque.popleft
    put_back = deque.appendleft

    def free(self, delivery: Delivery) -> None:
        """Do nothing: no other delivery waits for this one to end."""

    def drain(self, queue: str | None = None) -> Sequence[Delivery]:
        """Remove and return all deliveries, in order. They are all of one queue: only `order_by` has partitions."""
        taken = list(self)
        self.clear()
        return taken


class KeyedInbox:
    """Deliveries by key.

    A key is busy from `take` to `free`, also while a retry of its delivery waits for its delay.
    """

    def __init__(self, key_of: Callable[[Envelope], Hashable]) -> None:
        self._key_of = key_of
        self._waiting: dict[Hashable, deque[Delivery]] = {}
        self._ready: deque[Hashable] = deque()
        self._busy: dict[Delivery, Hashable] = {}

    def __bool__(self) -> bool:
        """Return whether a delivery can be handled now."""
        return bool(self._ready)

    def __len__(self) -> int:
        """Return how many deliveries wait, those of busy keys included."""
        return sum(len(lane) for lane in self._waiting.values())

    def put(self, delivery: Delivery) -> None:
        """Add a delivery behind the others of its key."""
        key = self._key_of(delivery.envelope)
        lane = self._waiting.get(key)
        if lane is None:
            self._waiting[key] = deque([delivery])
            self._ready.append(key)
        else:
            lane.append(delivery)

    def take(self) -> Delivery:
        """Remove and return the next delivery of the key that has waited longest, and mark that key as busy."""
        key = self._ready.popleft()
        delivery = self._waiting[key].popleft()
        self._busy[delivery] = key
        return delivery

    def free(self, delivery: Delivery) -> None:
        """Mark the key of a delivery as no longer busy. Does nothing if the delivery was put back."""
        if delivery not in self._busy:
            return
        key = self._busy.pop(delivery)
        if self._waiting[key]:
            self._ready.append(key)
        else:
            del self._waiting[key]

    def put_back(self, delivery: Delivery) -> None:
        """Put a delivery that was taken in front of the others of its key, and mark the key as no longer busy."""
        key = self._busy.pop(delivery)
        self._waiting[key].appendleft(delivery)
        self._ready.append(key)

    def drain(self, queue: str | None = None) -> Sequence[Delivery]:
        """Remove and return all deliveries, or those of one queue, key by key in order."""
        busy = set(self._busy.values())
        lanes, self._waiting = self._waiting, {key: deque() for key in busy}
        taken: list[Delivery] = []
        for key, lane in lanes.items():
            for delivery in lane:
                is_leaving = queue in (None, delivery.options.queue)
                (taken if is_leaving else self._waiting.setdefault(key, deque())).append(delivery)
        self._ready = deque(key for key in self._ready if key in self._waiting)
        return taken


@dataclass(slots=True)
class _PendingBatch:
    """Deliveries of the same attempt, and the time at which they are due even if the batch is not full."""

    due_at: float
    waiting: deque[Delivery] = field(default_factory=deque)


class BatchInbox:
    """Deliveries that are handled in batches. All deliveries of a batch have the same attempt number.

    Deliveries that failed together are retried together, and newcomers do not share their failures. On the last attempt
    each delivery is handled alone and at once, so that only those that really fail are dead-lettered.
    """

    def __init__(self, batch: Batch, attempts: int, now: Callable[[], float]) -> None:
        self._batch = batch
        self._attempts = attempts
        self._now = now
        self._alone: deque[Delivery] = deque()
        self._groups: dict[int, _PendingBatch] = {}

    def __bool__(self) -> bool:
        """Return whether a batch is due now."""
        return bool(self._alone) or self._due() is not None

    def __len__(self) -> int:
        """Return how many deliveries wait."""
        return len(self._alone) + sum(len(group.waiting) for group in self._groups.values())

    def due_in(self) -> float | None:
        """Return the seconds until a batch is due even if nothing more arrives; None if nothing waits."""
        if self:
            return 0.0
        return min((group.due_at - self._now() for group in self._groups.values()), default=None)

    def put(self, delivery: Delivery) -> None:
        """Add a delivery."""
        if 1 < delivery.attempt >= self._attempts:
            self._alone.append(delivery)
            return
        group = self._groups.get(delivery.attempt)
        if group is None:
            group = self._groups[delivery.attempt] = _PendingBatch(self._now() + self._batch.wait_s)
        group.waiting.append(delivery)

    def take(self) -> list[Delivery]:
        """Remove and return a batch that is due, or a single delivery on its last attempt. Empty if nothing is due."""
        if self._alone:
            return [self._alone.popleft()]
        attempt = self._due()
        if attempt is None:
            return []
        group = self._groups[attempt]
        taken = [group.waiting.popleft() for _ in range(min(self._batch.size, len(group.waiting)))]
        group.due_at = self._now() + self._batch.wait_s
        if not group.waiting:
            del self._groups[attempt]
        return taken

    def drain(self) -> Iterator[Delivery]:
        """Remove and yield all deliveries."""
        yield from self._alone
        for group in self._groups.values():
            yield from group.waiting
        self._alone.clear()
        self._groups.clear()

    def _due(self) -> int | None:
        """Return the attempt number of the batch that has been due longest; None if none is due."""
        now = self._now()
        due = [
            (group.due_at, attempt)
            for attempt, group in self._groups.items()
            if len(group.waiting) >= self._batch.size or group.due_at <= now
        ]
        return min(due)[1] if due else None
