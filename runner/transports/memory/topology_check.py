"""Engine: compares a topology with what exists, and names every difference, as RabbitMQ does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runner.errors import TopologyMismatch
from runner.pipeline.topology import ABSENT_HINT, Binding, Exchange, Queue, Topology
from runner.transports.broker_state import absence_text, differences, options_of

HEADERS_MODES = ("all", "any", "all-with-x", "any-with-x")

_HINT = "write what the broker has into the pipeline, set `declare: false` if another program owns it, or delete it"


def check_topology(topology: Topology, exchanges: Mapping[str, Exchange], queues: Mapping[str, Queue]) -> None:
    """Raise one TopologyMismatch with all differences between the topology and what exists."""
    differences = [
        *(line for item in topology.exchanges for line in item_differences(item, exchanges.get(item.name))),
        *(line for item in topology.queues for line in item_differences(item, queues.get(item.name))),
    ]
    known_exchanges = exchanges.keys() | {item.name for item in topology.exchanges}
    known_queues = queues.keys() | {item.name for item in topology.queues}
    for binding in topology.bindings:
        differences += _binding_differences(binding, known_exchanges, known_queues)
    if differences:
        is_absence = all(line.endswith(" does not exist") for line in differences)
        raise TopologyMismatch("\n".join(dict.fromkeys(differences)), ABSENT_HINT if is_absence else _HINT)


def item_differences(wanted: Exchange | Queue, existing: Exchange | Queue | None) -> Iterator[str]:
    kind = type(wanted).__name__.lower()
    if existing is None and not wanted.declare:
        yield absence_text(kind, wanted.name)
    elif existing is not None and wanted.declare:
        yield from map(str, differences(kind, wanted.name, options_of(wanted), options_of(existing)))


def _binding_differences(binding: Binding, exchanges: set[str], queues: set[str]) -> Iterator[str]:
    if binding.exchange not in exchanges:
        yield absence_text("exchange", binding.exchange)
    if binding.queue not in queues:
        yield absence_text("queue", binding.queue)
    mode = binding.arguments.get("x-match", "all")
    if mode not in HEADERS_MODES:
        yield f'binding of queue "{binding.queue}": x-match is {mode}, it must be one of {", ".join(HEADERS_MODES)}'
