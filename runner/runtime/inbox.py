"""Turns a stream of deliveries into what workers take: one after the other, by key and in order, or as batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from runner.message import Envelope
from runner.pipeline.model import Batch
from runner.transports.base import Delivery


class FifoInbox:
    """Deliveries that wait, first in, first out. The same verbs as `KeyedInbox`, for subscribers that keep no order."""

    def __init__(self) -> None:
        self._waiting: deque[Delivery] = deque()

    def __bool__(self) -> bool:
        """Whether there is a delivery that may be handled now."""
        return bool(self._waiting)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def put(self, delivery: Delivery) -> None:
        """Add a delivery at the end."""
        self._waiting.append(delivery)

    def take(self) -> Delivery:
        """Return the next delivery."""
        return self._waiting.popleft()

    def free(self, delivery: Delivery) -> None:
        """Note that a delivery has ended: nothing waits for it here."""

    def put_back(self, delivery: Delivery) -> None:
        """Put a delivery that was taken before all others."""
        self._waiting.appendleft(delivery)

    def drain(self) -> Iterator[Delivery]:
        """Take out everything that waits, in order."""
        while self._waiting:
            yield self._waiting.popleft()


class KeyedInbox:
    """Deliveries that wait, by key. A key is busy from `take` until `free`, also while its retry waits."""

    def __init__(self, key_of: Callable[[Envelope], Hashable]) -> None:
        self._key_of = key_of
        self._waiting: dict[Hashable, deque[Delivery]] = {}
        self._ready: deque[Hashable] = deque()
        self._busy: dict[Delivery, Hashable] = {}

    def __bool__(self) -> bool:
        """Whether there is a delivery that may be handled now."""
        return bool(self._ready)

    def __len__(self) -> int:
        """How many wait, of busy keys too."""
        return sum(len(lane) for lane in self._waiting.values())

    def put(self, delivery: Delivery) -> None:
        """Add a delivery behind those of its key."""
        key = self._key_of(delivery.envelope)
        lane = self._waiting.get(key)
        if lane is None:
            self._waiting[key] = deque([delivery])
            self._ready.append(key)
        else:
            lane.append(delivery)

    def take(self) -> Delivery:
        """Return the next delivery of the key that has waited longest; that key is busy from now on."""
        key = self._ready.popleft()
        delivery = self._waiting[key].popleft()
        self._busy[delivery] = key
        return delivery

    def free(self, delivery: Delivery) -> None:
        """Let the next delivery of the same key come. Nothing happens where the delivery was put back already."""
        if delivery not in self._busy:
            return
        key = self._busy.pop(delivery)
        if self._waiting[key]:
            self._ready.append(key)
        else:
            del self._waiting[key]

    def put_back(self, delivery: Delivery) -> None:
        """Put a delivery that was taken before all others of its key, which may then be taken again."""
        key = self._busy.pop(delivery)
        self._waiting[key].appendleft(delivery)
        self._ready.append(key)

    def drain(self) -> Iterator[Delivery]:
        """Take out everything that waits, key by key in order."""
        for lane in list(self._waiting.values()):
            while lane:
                yield lane.popleft()
        self._ready.clear()


@dataclass(slots=True)
class _PendingBatch:
    """Deliveries on the same attempt, and when the first of them may be handled whether others have come or not."""

    due_at: float
    waiting: deque[Delivery] = field(default_factory=deque)


class BatchInbox:
    """Deliveries that wait, first in, first out, to be handled together with others on the same attempt.

    So what failed together is tried again together, and its attempts are not spent on newcomers. On the last attempt
    each is alone, and waits for nothing: then only those that are to blame are given up.
    """

    def __init__(self, batch: Batch, attempts: int, now: Callable[[], float]) -> None:
        self._batch = batch
        self._attempts = attempts
        self._now = now
        self._alone: deque[Delivery] = deque()
        self._groups: dict[int, _PendingBatch] = {}

    def __bool__(self) -> bool:
        """Whether there is something that is due now."""
        return bool(self._alone) or self._due() is not None

    def __len__(self) -> int:
        """How many wait."""
        return len(self._alone) + sum(len(group.waiting) for group in self._groups.values())

    def due_in(self) -> float | None:
        """Return after how many seconds something is due by itself; None where nothing waits."""
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
        """Return a batch that is due: full, or what came while its first one waited; or one delivery that is alone."""
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
        """Take out everything that waits."""
        yield from self._alone
        for group in self._groups.values():
            yield from group.waiting
        self._alone.clear()
        self._groups.clear()

    def _due(self) -> int | None:
        """Return the attempt of a group that is due, the one that is due for longest."""
        now = self._now()
        due = [
            (group.due_at, attempt)
            for attempt, group in self._groups.items()
            if len(group.waiting) >= self._batch.size or group.due_at <= now
        ]
        return min(due)[1] if due else None
