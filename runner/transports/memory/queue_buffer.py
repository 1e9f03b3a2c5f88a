"""Engine: the ready messages of a queue, first in first out or by priority."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from runner.message import Address, Envelope


@dataclass(slots=True, eq=False)
class QueuedMessage:
    """One message in one queue.

    `position` counts up in the order of arrival; `expires_at` is loop time; `failed_deliveries` is how often a
    delivery of it was lost. It stays the same object from arrival to its end, wherever it is given back to.
    """

    envelope: Envelope
    address: Address
    position: int
    expires_at: float | None = None
    is_redelivered: bool = False
    failed_deliveries: int = 0


class QueueBuffer(Protocol):
    """Messages in the order in which they will be handed out. The first is the head, the only place to expire."""

    def append(self, message: QueuedMessage, /) -> None:
        """Append a message that has arrived."""

    def popleft(self) -> QueuedMessage:
        """Remove the head and return it. Raises IndexError when the buffer is empty."""

    def restore(self, message: QueuedMessage) -> None:
        """Put a message back where it stood."""

    def __getitem__(self, index: int, /) -> QueuedMessage: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[QueuedMessage]: ...


class FifoBuffer(deque[QueuedMessage]):
    """First in, first out."""

    def restore(self, message: QueuedMessage) -> None:
        """Put a message back to its place: before all that arrived after it."""
        index = 0
        for waiting in self:
            if waiting.position > message.position:
                break
            index += 1
        self.insert(index, message)


QUORUM_MAX_PRIORITY, QUORUM_DEFAULT_PRIORITY = 31, 4
"""The priorities of every quorum queue from RabbitMQ 4.3 on."""


class PriorityBuffer:
    """Highest priority first, then first in, first out. A priority above the highest counts as the highest.

    `default` is the priority of a message without one; `new_fifo` makes the buffer of a priority.
    """

    def __init__(self, highest: int, default: int, new_fifo: Callable[[int], QueueBuffer]) -> None:
        self._highest = highest
        self._default = default
        self._buffers = [new_fifo(priority) for priority in range(highest, -1, -1)]
        self._length = sum(map(len, self._buffers))

    def append(self, message: QueuedMessage, /) -> None:
        """Append a message that has arrived to those of its priority."""
        self._buffer_of(message).append(message)
        self._length += 1

    def popleft(self) -> QueuedMessage:
        """Remove the first message of the highest priority and return it."""
        message = self._first_buffer().popleft()
        self._length -= 1
        return message

    def restore(self, message: QueuedMessage) -> None:
        """Put a message back to its place among those of its priority."""
        self._buffer_of(message).restore(message)
        self._length += 1

    def __getitem__(self, index: int, /) -> QueuedMessage:
        return self._first_buffer()[0] if index == 0 else list(self)[index]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[QueuedMessage]:
        for buffer in self._buffers:
            yield from buffer

    def __bool__(self) -> bool:
        return self._length > 0 and bool(self._first_buffer())

    def _buffer_of(self, message: QueuedMessage) -> QueueBuffer:
        priority = message.envelope.priority
        return self._buffers[self._highest - min(self._default if priority is None else priority, self._highest)]

    def _first_buffer(self) -> QueueBuffer:
        return next((buffer for buffer in self._buffers if buffer), self._buffers[-1])
