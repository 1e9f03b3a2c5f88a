"""Builds a graph from specs: producers, events, exchanges, queues, subscribers, dead-letter queues.

Nothing is imported or run. Events reach queues by the bindings that `up` would declare, so several pipelines are joined
as they are on the broker: by queues with the same name, and by events with the same address.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from runner.config.producer_spec import ProducerSpec
from runner.config.queue_spec import QueueSpec
from runner.config.spec import EventSpec, PipelineSpec
from runner.config.subscriber_spec import RetrySpec, SubscriberSpec
from runner.config.target_spec import target_names
from runner.operations.pipeline_files import CheckedSpec
from runner.pipeline.topic_patterns import is_pattern, matches
from runner.pipeline.topology import Binding
from runner.pipeline.topology_builder import (
    DEFAULT_EXCHANGE,
    compute_topology,
    dead_letter_queue,
    event_address,
    own_queue,
    reads_queue,
    reads_stream,
)
from runner.units import format_duration

NodeKind = Literal["producer", "exchange", "event", "queue", "subscriber", "dead-letter"]
EdgeKind = Literal["publish", "bind", "deliver", "retry", "dead-letter"]


@dataclass(frozen=True)
class Node:
    """One box: its stable id, its kind, and details. `pipelines` are those that refer to it."""

    id: str
    kind: NodeKind
    name: str
    pipelines: tuple[str, ...] = ()
    description: str = ""
    notes: tuple[str, ...] = ()
    handler: str = ""


@dataclass(frozen=True)
class Edge:
    """One arrow between the ids of two nodes, labelled with a pattern, a key or a retry policy."""

    source: str
    target: str
    kind: EdgeKind
    label: str = ""


@dataclass(frozen=True)
class PipelineLabel:
    """A pipeline of the graph."""

    name: str
    path: str
    description: str
    owner: str


@dataclass
class Graph:
    """Pipelines, nodes and edges, in the order of the files."""

    pipelines: list[PipelineLabel] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    _leaving: dict[str, list[Edge]] = field(default_factory=dict)
    _arriving: dict[str, list[Edge]] = field(default_factory=dict)

    def connect(self, edge: Edge) -> None:
        """Add an edge."""
        self.edges.append(edge)
        self._leaving.setdefault(edge.source, []).append(edge)
        self._arriving.setdefault(edge.target, []).append(edge)

    def outgoing(self, node: str, *kinds: EdgeKind) -> list[Edge]:
        """Return the edges of these kinds that leave a node."""
        return [edge for edge in self._leaving.get(node, ()) if edge.kind in kinds]

    def incoming(self, node: str) -> list[Edge]:
        """Return the edges that reach a node."""
        return self._arriving.get(node, [])

    def label(self, node: str, kind: EdgeKind) -> str:
        """Return the label of a node's first outgoing edge of a kind; empty if there is none."""
        return next((edge.label for edge in self.outgoing(node, kind)), "")

    def patterns_of(self, node: str) -> str:
        """Return the patterns with which a subscriber or queue selects events; empty if it names them."""
        patterns = (edge.label for edge in self.incoming(node) if self.nodes[edge.source].kind == "event")
        return ", ".join(dict.fromkeys(pattern for pattern in patterns if pattern))

    def dead_letter(self, node: str) -> str:
        """Return the name of a subscriber's implicit dead-letter queue; empty if there is none."""
        targets = (self.nodes[edge.target] for edge in self.outgoing(node, "dead-letter"))
        return next((target.name for target in targets if target.kind == "dead-letter"), "")


def build_graph(specs: Sequence[CheckedSpec]) -> Graph:
    """Return the graph of these pipelines together."""
    builder = _GraphBuilder(specs)
    for index in range(len(specs)):
        builder.add_nodes(index)
    for index in range(len(specs)):
        builder.add_edges(index)
    return builder.graph


class _GraphBuilder:
    """Collects nodes and edges. What two pipelines share is one node."""

    def __init__(self, specs: Sequence[CheckedSpec]) -> None:
        self.graph = Graph()
        self._specs = specs
        self._names = _distinct_names(specs)
        self._events: dict[tuple[str, str], str] = {}  # (exchange, routing key) → id
        self._edges: set[Edge] = set()
        self._pairs: set[tuple[str, str]] = set()

    def add_nodes(self, index: int) -> None:
        """Add a pipeline's producers, events, queues and subscribers."""
        (loaded, spec), pipeline = self._specs[index], self._names[index]
        named = PipelineLabel(pipeline, str(loaded.path), spec.description, spec.owner or "")
        self.graph.pipelines.append(named)
        for name, producer in spec.producers.items():
            notes, handler = tuple(_producer_notes(producer)), producer.handler or ""
            self._add(
                Node(f"producer:{pipeline}.{name}", "producer", name, (pipeline,), producer.description, notes, handler)
            )
        for name, event in spec.events.items():
            self._add(self._event(name, event, pipeline))
        for name, queue in spec.queues.items():
            self._add(Node(f"queue:{name}", "queue", name, (pipeline,), "", tuple(_queue_notes(queue))))
        for name, subscriber in spec.subscribers.items():
            notes = tuple(_subscriber_notes(subscriber))
            about = (subscriber.description, notes, subscriber.handler)
            self._add(Node(f"subscriber:{pipeline}.{name}", "subscriber", name, (pipeline,), *about))

    def add_edges(self, index: int) -> None:
        """Add the edges of a pipeline."""
        (loaded, spec), pipeline = self._specs[index], self._names[index]
        bindings = compute_topology(loaded.name, spec, ()).bindings
        for name, producer in spec.producers.items():
            self._publish(f"producer:{pipeline}.{name}", target_names(producer.to), spec)
        for name, queue in spec.queues.items():
            self._subscribe(f"queue:{name}", "bind", (item for item in bindings if item.queue == name), spec)
            self._bind(name, queue, pipeline)
        for name, subscriber in spec.subscribers.items():
            id_ = f"subscriber:{pipeline}.{name}"
            is_queue = reads_queue(spec, subscriber)
            source = subscriber.from_[0] if is_queue else own_queue(loaded.name, name)
            if is_queue:
                self._connect(f"queue:{source}", id_, "deliver")
            else:
                self._subscribe(id_, "deliver", (item for item in bindings if item.queue == source), spec)
            self._publish(id_, target_names(subscriber.to), spec)
            options = spec.queues[source] if is_queue else subscriber.queue or QueueSpec()
            if reads_stream(spec, subscriber):
                source, options = own_queue(loaded.name, name), QueueSpec()
            self._failures(id_, source, options, subscriber.retry, pipeline)

    def _event(self, name: str, event: EventSpec, pipeline: str) -> Node:
        address = event_address(name, event)
        where = (address.exchange, address.key)
        id_ = f"event:{address.key}" if address.exchange == DEFAULT_EXCHANGE else f"event:{'/'.join(where)}"
        self._events[where] = id_
        notes = () if address.exchange == DEFAULT_EXCHANGE else (f"exchange {address.exchange}",)
        return Node(id_, "event", name, (pipeline,), event.description, notes)

    def _publish(self, source: str, targets: Iterable[str], spec: PipelineSpec) -> None:
        for target in targets:
            address = event_address(target, spec.events[target]) if target in spec.events else None
            id_ = self._events[address.exchange, address.key] if address else f"queue:{target}"
            self._connect(source, id_, "publish")

    def _subscribe(self, target: str, kind: EdgeKind, bindings: Iterable[Binding], spec: PipelineSpec) -> None:
        """Add an edge from each event that the bindings of a queue match, also from events of other pipelines."""
        bound = {bind.exchange for queue in spec.queues.values() for bind in queue.bind}
        for binding in bindings:
            exchange = spec.exchanges.get(binding.exchange)
            kind_of_exchange = exchange.type if exchange is not None else "topic"
            label = binding.key if is_pattern(binding.key) else ""
            matched = [
                id_
                for (name, key), id_ in self._events.items()
                if name == binding.exchange and _passes(kind_of_exchange, binding.key, key)
            ]
            if not matched and label and binding.exchange not in bound:
                matched = [self._add(Node(f"event:{label}", "event", label, (), "", ("not declared here",)))]
                label = ""
            for id_ in matched:
                self._connect(id_, target, kind, label)

    def _bind(self, name: str, queue: QueueSpec, pipeline: str) -> None:
        """Add the exchanges that a queue is bound to with `bind`."""
        for bind in queue.bind:
            id_ = self._add(Node(f"exchange:{bind.exchange}", "exchange", bind.exchange, (pipeline,)))
            headers = ", ".join(f"{key}={value}" for key, value in (bind.headers or {}).items())
            self._connect(id_, f"queue:{name}", "bind", bind.key or headers)

    def _failures(self, id_: str, queue: str, options: QueueSpec, retry: RetrySpec, pipeline: str) -> None:
        if retry.attempts > 1:
            self._connect(id_, id_, "retry", _retry_label(retry))
        target = dead_letter_queue(queue, options)
        if target is None:
            return
        if f"queue:{target}" in self.graph.nodes:
            self._connect(id_, f"queue:{target}", "dead-letter")
        else:
            self._connect(
                id_,
                self._add(Node(f"dead-letter:{target}", "dead-letter", target, (pipeline,))),
                "dead-letter",
            )

    def _add(self, node: Node) -> str:
        """Add a node, or merge it into an existing one."""
        known = self.graph.nodes.get(node.id)
        if known is not None:
            pipelines = tuple(dict.fromkeys((*known.pipelines, *node.pipelines)))
            notes = tuple(dict.fromkeys((*known.notes, *node.notes)))
            description = known.description or node.description
            node = replace(known, pipelines=pipelines, notes=notes, description=description)
        self.graph.nodes[node.id] = node
        return node.id

    def _connect(self, source: str, target: str, kind: EdgeKind, label: str = "") -> None:
        """Add an edge once; several bindings from an event to a subscriber make one edge."""
        edge = Edge(source, target, kind, label)
        if edge in self._edges or (kind == "deliver" and (source, target) in self._pairs):
            return
        self._edges.add(edge)
        self._pairs.add((source, target))
        self.graph.connect(edge)


def _distinct_names(specs: Sequence[CheckedSpec]) -> list[str]:
    """Return the names of the pipelines, with the file if two have the same name."""
    names = [loaded.name for loaded, _ in specs]
    return [
        name if names.count(name) == 1 else f"{name} ({loaded.path})"
        for name, (loaded, _) in zip(names, specs, strict=True)
    ]


def _passes(exchange_type: str, key: str, routing_key: str) -> bool:
    if exchange_type == "headers":
        return False
    return exchange_type == "fanout" or (key == routing_key if exchange_type == "direct" else matches(key, routing_key))


def _producer_notes(producer: ProducerSpec) -> Iterator[str]:
    if not producer.enabled:
        yield "disabled"
    if producer.file is not None:
        yield "from stdin" if producer.file == "-" else f"file {producer.file}"
    elif producer.http is not None:
        yield f"POST {producer.http}"
    elif producer.cron is not None:
        yield f"cron {producer.cron}"
    else:
        yield "once" if producer.every is None else f"every {format_duration(producer.every)}"


def _queue_notes(queue: QueueSpec) -> Iterator[str]:
    if queue.partitions is not None:
        yield f"{queue.partitions} partitions by {queue.partition_by}"
    if queue.type != "quorum":
        yield queue.type
    if not queue.durable:
        yield "not durable"
    if not queue.declare:
        yield "declared elsewhere"


def _subscriber_notes(subscriber: SubscriberSpec) -> Iterator[str]:
    if not subscriber.enabled:
        yield "disabled"
    if subscriber.batch is not None:
        yield f"batches of {subscriber.batch.size}"
    if subscriber.order_by is not None:
        yield f"in order of {subscriber.order_by}"


def _retry_label(retry: RetrySpec) -> str:
    first = format_duration(retry.delay)
    waits = {"exponential": f"from {first}", "linear": f"by {first}", "fixed": f"every {first}"}
    return f"{retry.attempts} attempts {waits[retry.backoff]}"


def to_json(graph: Graph) -> str:
    """Return the graph as JSON for other programs, in the order of the files.

    {"version": 1,
     "pipelines": [{"name", "path", "description", "owner"}],
     "nodes": [{"id", "kind", "name", "pipelines", "description", "notes", "handler"}],
     "edges": [{"source", "target", "kind", "label"}]}

    Ids are stable: `producer:<pipeline>.<name>`, `subscriber:<pipeline>.<name>`, `queue:<name>`, `dead-letter:<name>`,
    `exchange:<name>`, and `event:<routing key>`, with `<exchange>/` before the key unless it is the default one. Kinds
    of edges: `publish` (to a queue or event), `bind` (event or exchange to queue), `deliver` (to a subscriber), `retry`
    (a subscriber to itself) and `dead-letter`. Keys may be added; `version` increases if one changes.
    """
    found = {
        "version": 1,
        "pipelines": [asdict(pipeline) for pipeline in graph.pipelines],
        "nodes": [asdict(node) for node in graph.nodes.values()],
        "edges": [asdict(edge) for edge in graph.edges],
    }
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
