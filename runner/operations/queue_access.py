"""The interface for reading queues without consuming them, on RabbitMQ and on the in-process broker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from runner.message import Address, Envelope
from runner.transports.pauses import Pause, Pauses
from runner.transports.rabbitmq.channels import QueueCounts


@dataclass(slots=True)
class Browsed:
    """A message in a queue, the address that it came by, and what removes it from the queue.

    `delivery_count` is the number of earlier deliveries, if the queue counts them. `left_s` is the time until it
    expires, None if it does not or if the broker does not say.
    """

    envelope: Envelope
    address: Address
    remove: Callable[[], Awaitable[None]]
    delivery_count: int = 0
    left_s: float | None = None
    is_taken: bool = False

    async def take(self) -> None:
        """Remove the message from its queue for good. Raises BrokerUnavailable: then it may be there again."""
        await self.remove()
        self.is_taken = True


class Browser(Protocol):
    """Reads one queue, message by message."""

    @property
    def is_over(self) -> bool:
        """Whether the connection was lost, after which the broker has requeued all messages."""

    @property
    def is_at_its_end(self) -> bool:
        """Whether there are no more messages."""

    async def next(self, seconds: float) -> Browsed | None:
        """Return the next message; None if none arrives in time. Raises BrokerUnavailable."""


class QueueAccess(Protocol):
    """A session that reads queues. All methods may raise BrokerUnavailable."""

    @property
    def major_version(self) -> int:
        """The major version of the broker; 0 for the in-process broker."""

    async def depth(self, queue: str) -> QueueCounts | None:
        """Return the counts of a queue; None if it does not exist."""

    def read(self, queue: str, window: int = 1) -> AbstractAsyncContextManager[Browser]:
        """Read a queue from its head; messages that are not removed return to their places.

        `window` is how many messages RabbitMQ sends ahead at first: as many as the caller then removes together.
        """

    async def publish(self, address: Address, envelope: Envelope) -> None:
        """Publish, and wait for the confirm. Raises as `Transport.publish` does."""

    async def pauses(self, pipeline: str) -> Pauses | None:
        """Return the pauses of a pipeline's subscribers; None if the broker does not show them."""

    async def set_pause(self, pipeline: str, subscriber: str, pause: Pause | None) -> None:
        """Begin or end the pause of a subscriber, for all processes."""

    async def close(self) -> None:
        """Disconnect. Idempotent."""
