"""What looking into queues needs of a broker, whichever it is: RabbitMQ, or the in-process one of this process."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from runner.message import Address, Envelope
from runner.transports.rabbitmq.channels import QueueCounts


class Browsed(Protocol):
    """A message as it stands in a queue. `delivery_count` is how often it was handed out before, if that is counted."""

    @property
    def envelope(self) -> Envelope: ...

    @property
    def delivery_count(self) -> int: ...


class Browser(Protocol):
    """The messages of a queue, as they are handed out."""

    @property
    def is_over(self) -> bool:
        """Whether the broker was lost: everything has gone back then."""
        ...

    @property
    def is_at_its_end(self) -> bool:
        """Whether nothing more comes."""
        ...

    async def next(self, seconds: float) -> Browsed | None:
        """Return the next message, None where none comes in time. Raises BrokerUnavailable."""
        ...

    async def take(self, browsed: Any) -> None:
        """Remove a message that `next` has returned from the queue for good. Raises BrokerUnavailable."""
        ...


class QueueAccess(Protocol):
    """A session that looks into queues. Methods raise BrokerUnavailable."""

    @property
    def major_version(self) -> int:
        """The first number of the broker's version; 0 where it has none."""
        ...

    async def depth(self, queue: str) -> QueueCounts | None:
        """Return what a queue has, None where it does not exist."""
        ...

    def read(self, queue: str) -> AbstractAsyncContextManager[Browser]:
        """Read a queue from its head; what is not taken goes back where it stood."""
        ...

    async def publish(self, address: Address, envelope: Envelope) -> None:
        """Publish and return when the broker has confirmed it. Raises as `Transport.publish` does."""
        ...

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        ...
