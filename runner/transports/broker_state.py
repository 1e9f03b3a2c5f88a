"""Contract: what a live broker has of a topology, and the sentences for what differs.

None means "not known" in fields, and "does not exist" only where a field says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.pipeline.topology import PARTITIONS_SUFFIX, Binding, Exchange, Queue
from runner.units import pluralize

_KEYS = {
    "type": "type",
    "durable": "durable",
    "exclusive": "exclusive",
    "auto_delete": "auto_delete",
    "x-queue-type": "type",
    "x-delivery-limit": "delivery_limit",
    "x-max-length": "max_length",
    "x-max-length-bytes": "max_bytes",
    "x-max-priority": "max_priority",
    "x-message-ttl": "message_ttl",
    "x-overflow": "overflow",
    "x-single-active-consumer": "single_active_consumer",
}
"""The keys of the YAML language for the properties and arguments that the broker compares."""

_DEFAULTS = {"x-queue-type": "classic"}
"""RabbitMQ's defaults for arguments that are not given."""

_NEVER_NONE = ("x-delivery-limit", "x-overflow")
"""Arguments that every declared quorum queue has: without the key it has the default."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One key in which an existing item differs. Values are written as the broker writes them, `none` for no value."""

    kind: str
    name: str
    key: str
    spec: str
    live: str

    def __str__(self) -> str:
        return f'{self.kind} "{self.name}": {self.key} is {self.live} on the broker, the pipeline says {self.spec}'

    @property
    def advice(self) -> str:
        """What to write into the pipeline so that it agrees with the broker; empty where no single key does."""
        name = _KEYS.get(self.key)
        if name == "max_length" and self.name.endswith(PARTITIONS_SUFFIX):
            return (
                f"it is the number of partitions: write `partitions: {self.live}` to agree with the broker, or change "
                f"it when the partitions are empty and no process runs, with `runner apply --recreate {self.name}`"
            )
        if name is None or (self.live == "none" and self.key in _NEVER_NONE):
            return ""
        if name == "single_active_consumer" and self.live == "none":
            return "remove `single_active_consumer`, or `order_by` of its subscriber, to agree with the broker"
        if self.live == "none":
            return f"remove `{name}` to agree with the broker"
        live = f"{self.live}ms" if name == "message_ttl" else self.live
        return f"write `{name}: {live}` to agree with the broker"

    def lines(self) -> Iterator[str]:
        """Yield the sentence, and the advice as an indented line."""
        yield str(self)
        if self.advice:
            yield f"  {self.advice}"


def differences(kind: str, name: str, spec: Mapping[str, Any], live: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield the keys in which an item on the broker differs from the pipeline; both by the names of the broker."""
    for key in sorted({*live, *spec}):
        ours, there = (options.get(key, _DEFAULTS.get(key)) for options in (spec, live))
        if ours != there:
            yield Difference(kind, name, key, shown(ours), shown(there))


def options_of(item: Exchange | Queue) -> dict[str, Any]:
    """Return the properties and arguments of an item that a broker compares."""
    keys = ("type", "durable") if isinstance(item, Exchange) else ("durable", "exclusive", "auto_delete")
    return {key: getattr(item, key) for key in keys} | dict(item.arguments)


def shown(value: Any) -> str:
    """Return a value as RabbitMQ writes it."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'


LOCKED = "is exclusive to another connection"
LOCKED_HINT = (
    "give the queue another name, stop the connection that holds it, or remove `exclusive: true` if the queue on the "
    "broker is not exclusive"
)


@dataclass(frozen=True, slots=True)
class ExistingItem:
    """What is known of an exchange or queue that exists.

    - `remark`: why not all differences are known; empty when all are.
    - `messages`: how many messages are ready.
    - `arguments`, `policy` and `policy_sets`: from the management API.
    - `is_hidden`: whether the broker does not tell if it exists. From 4.3 on, RabbitMQ says nothing about items that
      the user has no right to.
    """

    differences: tuple[Difference, ...] = ()
    remark: str = ""
    is_locked: bool = False
    messages: int | None = None
    consumers: int | None = None
    arguments: Mapping[str, Any] | None = None
    policy: str = ""
    policy_sets: Mapping[str, Any] = field(default_factory=dict)
    is_hidden: bool = False

    @property
    def contents(self) -> str:
        """A clause such as "it holds 12 messages and has 1 consumer"; empty where that is not known."""
        if self.messages is None or self.consumers is None:
            return ""
        return f"it holds {pluralize(self.messages, 'message')} and has {pluralize(self.consumers, 'consumer')}"

    @property
    def must_be_recreated(self) -> str:
        """The clause below the differences: AMQP cannot change the arguments of a queue."""
        return f"it must be recreated; {self.contents}" if self.contents else "it must be recreated"

    def lines(self) -> Iterator[str]:
        """Yield every difference with its advice, and what agreeing with the pipeline costs."""
        for difference in self.differences:
            yield from difference.lines()
        if self.differences:
            yield f"  {self.must_be_recreated}"
        if self.remark:
            yield self.remark


@dataclass(frozen=True, slots=True)
class LiveBinding:
    """A binding of a queue on the broker. The management API names it by its `properties_key`."""

    binding: Binding
    properties_key: str = ""


@dataclass(frozen=True, slots=True)
class LeftoverQueue:
    """A queue that is not in the topology, and whose name begins with the name of one of its pipelines.

    `messages` counts the ready ones and `consumers` those of all connections, both by AMQP. `unacked` comes from the
    management API, which is some seconds behind. `durable` and `arguments` are needed to declare it again.
    """

    name: str
    messages: int
    consumers: int
    unacked: int = 0
    bindings: tuple[LiveBinding, ...] = ()
    durable: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BrokerState:
    """What a broker has of a topology. An exchange or queue that is None does not exist.

    - `bindings`: those of the topology's queues; None where they are not known, and `unchecked` says why.
    - `recreating`: the queues whose recreation is not finished, and how many messages wait aside.
    `leftovers` are known to the management API alone, and so are the names of `all_queues`.
    """

    exchanges: Mapping[str, ExistingItem | None]
    queues: Mapping[str, ExistingItem | None]
    bindings: tuple[LiveBinding, ...] | None = None
    unchecked: str = ""
    recreating: Mapping[str, int] = field(default_factory=dict)
    product: str = ""
    management: str | None = None
    """The address at which the management API answered."""
    leftovers: tuple[LeftoverQueue, ...] = ()
    all_queues: frozenset[str] = frozenset()


def absence_text(kind: str, name: str) -> str:
    """Return the sentence for an item that must exist, is not declared by the pipeline, and does not exist."""
    return f'{kind} "{name}" does not exist'
