"""Meaning: exchanges, queues and bindings as plain values, computed before anything is declared.

Both transports execute the same values: the in-process broker reads the same `x-` arguments as RabbitMQ. Sources:
https://www.rabbitmq.com/docs/quorum-queues (at-least-once dead-lettering), https://www.rabbitmq.com/docs/ttl.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from runner.errors import TopologyMismatch

ExchangeType = Literal["topic", "direct", "fanout", "headers"]


BUILT_IN_EXCHANGES: Mapping[str, ExchangeType] = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.topic": "topic",
    "amq.headers": "headers",
    "amq.match": "headers",
}
"""The exchanges that every broker has, with their types."""

ABSENT_HINT = "start its owner first, or remove `declare: false` (or `topology: verify`), and it is made"
"""What to do about something that must be there and is not."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange to declare, or with `declare=False` to check only."""

    name: str
    type: ExchangeType = "topic"
    durable: bool = True
    declare: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue to declare, or to check for only (`declare=False`).

    `arguments` are AMQP's own: a quorum queue has `x-queue-type: quorum`, a plain classic one has none at all.
    """

    name: str
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    declare: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Binding:
    """Messages of `exchange` that match `key` (and `arguments`, for a headers exchange) also go to `queue`."""

    exchange: str
    queue: str
    key: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes two bindings the same one: a binding cannot be hashed."""
        return self.exchange, self.queue, self.key, repr(sorted(self.arguments.items(), key=str))


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything that must exist on the broker, in the order in which it can be declared."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.exchanges or self.queues or self.bindings)

    def waits(self, prefix: str) -> dict[str, int]:
        """Return the wait queues with this prefix, each with its delay in milliseconds, ascending."""
        names = (queue.name.rpartition(".") for queue in self.queues)
        delays = sorted(int(number) for before, _, number in names if before == prefix and number.isdecimal())
        return {wait_name(prefix, delay): delay for delay in delays}

    def without_exclusive_queues(self) -> Topology:
        """Return what a connection may declare that only publishes: an exclusive queue belongs to its consumer."""
        queues = tuple(queue for queue in self.queues if not queue.exclusive)
        names = {queue.name for queue in queues}
        return Topology(self.exchanges, queues, tuple(each for each in self.bindings if each.queue in names))


def made_declarable(topology: Topology) -> Topology:
    """Return a topology that the in-process broker can declare, where it stands in for another one.

    Queues and exchanges of other programs are made, and a stream is a queue: nothing of it can be read again.
    """
    queues = (
        replace(queue, arguments={}) if queue.arguments.get("x-queue-type") == "stream" else queue
        for queue in topology.queues
    )
    return replace(
        topology,
        queues=tuple(replace(queue, declare=True) for queue in queues),
        exchanges=tuple(replace(exchange, declare=True) for exchange in topology.exchanges),
    )


_Thing = TypeVar("_Thing", Exchange, Queue)


def merge_topologies(topologies: Iterable[Topology]) -> Topology:
    """Return one topology with each queue and exchange once. Raises TopologyMismatch if two declare one differently.

    The declaration of the owner counts, not those of others that only check.
    """
    exchanges: dict[str, Exchange] = {}
    queues: dict[str, Queue] = {}
    bindings: dict[tuple[str, str, str, str], Binding] = {}
    for topology in topologies:
        for exchange in topology.exchanges:
            exchanges[exchange.name] = _one("exchange", exchanges.get(exchange.name, exchange), exchange)
        for queue in topology.queues:
            queues[queue.name] = _one("queue", queues.get(queue.name, queue), queue)
        for binding in topology.bindings:
            bindings.setdefault(binding.identity, binding)
    return Topology(tuple(exchanges.values()), tuple(queues.values()), tuple(bindings.values()))


def _one(kind: str, first: _Thing, second: _Thing) -> _Thing:
    """Return the declaration of the owner."""
    if first.declare and second.declare and first != second:
        raise TopologyMismatch(
            f'{kind} "{first.name}" is defined twice, differently', "give both pipelines the same options for it"
        )
    return first if first.declare else second


def leadership_queue(name: str) -> Queue:
    """Return the queue that sessions use to compete for the leadership of a name.

    Only its first consumer, the leader, gets messages. It has no length limit, which could drop the message with the
    state for a newer one without it. Its delivery limit is never reached: RabbitMQ 4 has a default of 20, and each
    version has another way to switch it off.
    """
    never = 2**31 - 1
    arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True, "x-delivery-limit": never}
    return Queue(name, arguments=arguments)


def pause_queue(pipeline: str) -> Queue:
    """Return the stream that holds the pauses of a pipeline's subscribers."""
    return Queue(f"{pipeline}.pauses", arguments={"x-queue-type": "stream"})


PARTITIONS_SUFFIX = ".partitions"


# Delayed retries: a copy waits in a queue whose messages expire after the delay. The default exchange routes expired
# messages back to the queue that the routing key of the copy names. One such queue for each delay, because messages
# expire only at a queue's head. The fanout exchange in front keeps the routing key free for that name.


def wait_milliseconds(delay_s: float) -> int:
    """Return the delay in milliseconds, rounded up to two significant digits, so that wait queues stay few."""
    milliseconds = max(1, math.ceil(round(delay_s * 1000, 6)))
    step: int = 10 ** max(0, len(str(milliseconds)) - 2)
    return -(-milliseconds // step) * step


def wait_name(prefix: str, milliseconds: int) -> str:
    """Return the name of a wait queue and of the exchange in front of it, as in `orders.retry.2000`."""
    return f"{prefix}.{milliseconds}"


def wait_topology(prefix: str, milliseconds: int) -> Topology:
    """Return the exchange, the queue and the binding for retries with this delay."""
    name = wait_name(prefix, milliseconds)
    arguments = {
        "x-queue-type": "quorum",
        "x-message-ttl": milliseconds,
        "x-dead-letter-exchange": "",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    return Topology((Exchange(name, "fanout"),), (Queue(name, arguments=arguments),), (Binding(name, name),))
