"""Engine: messages in a queue, and the line they stand in: first come first served, or by priority."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

from runner.message import Address, Envelope


class Stored:
    """One message in one queue.

    `position` counts up in the order of arrival; `expires_at` is loop time; `crashes` is how often a delivery of it
    was lost. It stays the same object from arrival to its end, wherever it is given back to.
    """

    __slots__ = ("address", "crashes", "envelope", "expires_at", "is_redelivered", "position")

    def __init__(self, envelope: Envelope, address: Address, position: int) -> None:
        self.envelope = envelope
        self.address = address
        self.position = position
        self.expires_at: float | None = None
        self.is_redelivered = False
        self.crashes = 0


class Line(Protocol):
    """Messages in the order in which they will be handed out. The first is the head, the only place to expire."""

    def append(self, stored: Stored, /) -> None:
        """Put a message that has arrived at the end."""
        ...

    def popleft(self) -> Stored:
        """Take the head; raises IndexError when the line is empty."""
        ...

    def restore(self, stored: Stored) -> None:
        """Put a message back where it stood."""
        ...

    def __getitem__(self, index: int, /) -> Stored: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Stored]: ...


class FifoLine(deque[Stored]):
    """First come, first served."""

    def restore(self, stored: Stored) -> None:
        """Put a message back where it stood: before all that arrived after it."""
        index = 0
        for waiting in self:
            if waiting.position > stored.position:
                break
            index += 1
        self.insert(index, stored)


QUORUM_HIGHEST, QUORUM_DEFAULT = 31, 4
"""Quorum queues have these priorities without being asked, from RabbitMQ 4.3 on."""


class PriorityLine:
    """Highest priority first, then first come, first served. A priority above the highest counts as the highest.

    `default` is the priority of a message without one; `waiting` are messages that stand in line already.
    """

    def __init__(self, highest: int, default: int = 0, waiting: Iterable[Stored] = ()) -> None:
        self._highest = highest
        self._default = default
        self._lanes = [FifoLine() for _ in range(highest + 1)]  # the highest first
        self._length = 0
        for stored in waiting:
            self.append(stored)

    def append(self, stored: Stored, /) -> None:
        """Put a message that has arrived at the end of its priority."""
        self._lane_of(stored).append(stored)
        self._length += 1

    def popleft(self) -> Stored:
        """Take the first message of the highest priority there is."""
        stored = self._first_lane().popleft()
        self._length -= 1
        return stored

    def restore(self, stored: Stored) -> None:
        """Put a message back where it stood within its priority."""
        self._lane_of(stored).restore(stored)
        self._length += 1

    def __getitem__(self, index: int, /) -> Stored:
        return self._first_lane()[0] if index == 0 else list(self)[index]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Stored]:
        for lane in self._lanes:
            yield from lane

    def _lane_of(self, stored: Stored) -> FifoLine:
        priority = stored.envelope.priority
        return self._lanes[self._highest - min(self._default if priority is None else priority, self._highest)]

    def _first_lane(self) -> FifoLine:
        return next((lane for lane in self._lanes if lane), self._lanes[-1])
