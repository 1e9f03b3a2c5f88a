"""Engine: compares a topology with what exists, and names every difference, as RabbitMQ does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.errors import TopologyMismatch
from runner.pipeline.topology import ABSENT_HINT, Binding, Exchange, Queue, Topology

HEADERS_MODES = ("all", "any", "all-with-x", "any-with-x")

_HINT = "write what the broker has into the pipeline, set `declare: false` if another program owns it, or delete it"
_DEFAULTS = {"x-queue-type": "classic"}
"""The value of an argument that is not given."""


def check_topology(topology: Topology, exchanges: Mapping[str, Exchange], queues: Mapping[str, Queue]) -> None:
    """Raise one TopologyMismatch with all differences between the topology and what exists."""
    differences = [
        *(line for item in topology.exchanges for line in exchange_differences(item, exchanges.get(item.name))),
        *(line for item in topology.queues for line in queue_differences(item, queues.get(item.name))),
    ]
    known_exchanges = exchanges.keys() | {item.name for item in topology.exchanges}
    known_queues = queues.keys() | {item.name for item in topology.queues}
    for binding in topology.bindings:
        differences += _binding_differences(binding, known_exchanges, known_queues)
    if differences:
        is_absence = all(line.endswith(" does not exist") for line in differences)
        raise TopologyMismatch("\n".join(dict.fromkeys(differences)), ABSENT_HINT if is_absence else _HINT)


def exchange_differences(wanted: Exchange, existing: Exchange | None) -> Iterator[str]:
    if existing is None:
        if not wanted.declare:
            yield f'exchange "{wanted.name}" does not exist'
    elif wanted.declare:
        for key in ("type", "durable"):
            yield from _difference(f'exchange "{wanted.name}"', key, getattr(existing, key), getattr(wanted, key))
        yield from _argument_differences(f'exchange "{wanted.name}"', existing.arguments, wanted.arguments)


def queue_differences(wanted: Queue, existing: Queue | None) -> Iterator[str]:
    if existing is None:
        if not wanted.declare:
            yield f'queue "{wanted.name}" does not exist'
    elif wanted.declare:
        for key in ("durable", "exclusive", "auto_delete"):
            yield from _difference(f'queue "{wanted.name}"', key, getattr(existing, key), getattr(wanted, key))
        yield from _argument_differences(f'queue "{wanted.name}"', existing.arguments, wanted.arguments)


def _argument_differences(what: str, existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*existing, *wanted}):
        default = _DEFAULTS.get(key)
        yield from _difference(what, key, existing.get(key, default), wanted.get(key, default))


def _difference(what: str, key: str, existing: Any, wanted: Any) -> Iterator[str]:
    if existing != wanted:
        yield f"{what}: {key} is {_shown(existing)} on the broker, the pipeline says {_shown(wanted)}"


def _binding_differences(binding: Binding, exchanges: set[str], queues: set[str]) -> Iterator[str]:
    if binding.exchange not in exchanges:
        yield f'exchange "{binding.exchange}" does not exist'
    if binding.queue not in queues:
        yield f'queue "{binding.queue}" does not exist'
    mode = binding.arguments.get("x-match", "all")
    if mode not in HEADERS_MODES:
        yield f'binding of queue "{binding.queue}": x-match is {mode}, it must be one of {", ".join(HEADERS_MODES)}'


def _shown(value: Any) -> str:
    """Return a value as RabbitMQ writes it."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
