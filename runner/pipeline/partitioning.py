"""Partitions of a queue: which one a message goes to, by the value at a path of its payload.

The rule is documented for publishers in other languages (docs/how-to/keep-order-over-machines.md): never change it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from zlib import crc32

from runner.config.queue_spec import QueueSpec
from runner.errors import PublishFailed
from runner.message import Address, Envelope
from runner.outcome import InvalidMessage
from runner.pipeline.codec import value_at
from runner.pipeline.topology import PARTITIONS_SUFFIX, Queue


@dataclass(frozen=True, slots=True)
class Partitioning:
    """The partitions of a queue. `path` leads to the key in a payload."""

    queue: str
    count: int
    path: str

    @property
    def processes(self) -> Queue:
        """The queue whose consumers are the processes. It stays empty.

        The number of partitions is its length limit, so that the broker refuses another one.
        """
        return Queue(
            f"{self.queue}{PARTITIONS_SUFFIX}", arguments={"x-queue-type": "quorum", "x-max-length": self.count}
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the queues, in order."""
        return tuple(f"{self.queue}.{number}" for number in range(self.count))

    def has(self, name: str) -> bool:
        """Whether a queue is a partition, also one of an earlier, larger number of them."""
        return re.fullmatch(rf"{re.escape(self.queue)}\.\d+", name) is not None

    def address_of(self, envelope: Envelope) -> Address:
        """Return the address of the partition of a message. Raises PublishFailed("invalid") if it has no key."""
        try:
            key = value_at(envelope, self.path)
        except (LookupError, ValueError, InvalidMessage):
            key = None
        if isinstance(key, bool):
            text = "true" if key else "false"
        elif isinstance(key, str | int):
            text = str(key)
        else:
            raise PublishFailed(
                f'the message has no key for a partition of "{self.queue}": `{self.path}` must be a text, a whole '
                "number, true or false",
                reason="invalid",
            )
        number = crc32(text.encode("utf-8", "surrogatepass")) % self.count
        return Address("", f"{self.queue}.{number}")


def partitioning_of(name: str, queue: QueueSpec) -> Partitioning | None:
    """Return the partitions of a queue, None if it has none."""
    if queue.partitions is None or queue.partition_by is None:
        return None
    return Partitioning(name, queue.partitions, queue.partition_by)
