"""Turns a stream of deliveries into lanes: one key at a time and in order, different keys side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator

from runner.message import Envelope
from runner.transports.base import Delivery


class Fifo:
    """Deliveries that wait, first in, first out. The same verbs as `Lanes`, for subscribers that keep no order."""

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


class Lanes:
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
