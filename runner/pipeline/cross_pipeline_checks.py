"""Checks of several pipelines together, which share a broker and perhaps a process.

A Pipeline has no positions, so each is passed with its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Final, NamedTuple

from runner.config.diagnostics import display_path
from runner.config.document import KeyPath
from runner.config.loader import PipelineFile
from runner.config.queue_spec import OPTION_OF_ARGUMENT
from runner.config.spec import PipelineSpec
from runner.errors import Problem
from runner.pipeline.model import Pipeline
from runner.pipeline.topology import Exchange, Queue
from runner.pipeline.topology_builder import dead_letter_queue, event_address, own_queue, queue_options, reads_queue
from runner.units import format_duration

_BROKER_FIELDS: Final = ("urls", "tls", "topology", "connect_timeout_s", "heartbeat_s")

Options = Mapping[KeyPath, Any]


class _StatedOptions(NamedTuple):
    """The options of a queue or an exchange in a pipeline: all of them if it declares it, else those in its file."""

    options: Options
    is_all: bool


class LoadedPipeline(NamedTuple):
    """A pipeline and its file."""

    pipeline: Pipeline
    loaded: PipelineFile

    @property
    def spec(self) -> PipelineSpec:
        """The spec of the file. It exists, because there is a pipeline."""
        assert self.loaded.spec is not None
        return self.loaded.spec

    def has(self, path: KeyPath) -> bool:
        """Whether a path is in the file."""
        return self.loaded.document is not None and self.loaded.document.node(path) is not None

    def states(self, path: KeyPath) -> bool:
        """Whether a path is in the file, and not from `defaults`."""
        return self.has(path) and self.loaded.document is not None and not self.loaded.document.is_default(path)


def cross_pipeline_problems(sources: Sequence[LoadedPipeline], *, is_one_process: bool) -> Iterator[Problem]:
    """Yield the conflicts between pipelines. Each is reported in the later of the two files.

    Pipelines with different brokers do not conflict, unless they run in one process.
    """
    for other, source in combinations(sources, 2):
        if source.pipeline.broker != other.pipeline.broker:
            if is_one_process:
                yield _different_brokers(source, other)
            continue
        if source.pipeline.name == other.pipeline.name:
            yield _one_name(source, other)
        yield from _different_partitions(source, other)
        yield from _different_topologies(source, other)
        yield from _different_schemas(source, other)


def unsupported_options(loaded: PipelineFile, broker: str | None = None) -> Iterator[Problem]:
    """Yield problems for options that the broker does not support, or only while its process lives.

    `broker` is a URL or `memory` and overrides the file.
    """
    spec = loaded.spec or loaded.recovered
    if spec is None or (broker is None and any(problem.path.startswith("broker") for problem in loaded.problems)):
        return
    broker = broker or next(iter(spec.broker.node_urls), "memory")
    if broker.startswith("amqp"):
        return
    which = "a broker in a file" if broker.startswith("file:") else "the in-process broker"
    for name, queue in spec.queues.items():
        if queue.type == "stream":
            help_text = "set `broker:` to RabbitMQ, or use another type"
            message = f"{which} has no streams"
            yield loaded.problem("not-on-this-broker", ("queues", name, "type"), message, help_text)
    for name, producer in spec.producers.items():
        if producer.once is not None and broker == "memory":
            message = "the in-process broker keeps nothing after the process ends: here it runs at every start"
            help_text = "set `broker:` to RabbitMQ, which remembers it"
            yield loaded.problem("once-forgets", ("producers", name, "once"), message, help_text, severity="warning")


# Brokers and names


def _different_brokers(source: LoadedPipeline, other: LoadedPipeline) -> Problem:
    if not source.has(("broker",)):
        source, other = other, source  # the later file has no broker
    ours, theirs = source.pipeline.broker, other.pipeline.broker
    differing = next(field for field in _BROKER_FIELDS if getattr(ours, field) != getattr(theirs, field))
    key = differing.removesuffix("_s")
    where = other.loaded.location(_broker_path(other, key))
    if key == "urls":
        message = f"its broker differs from that of {where} ({theirs.shown()}), but pipelines in one process share one"
        help_text = "run them in separate processes, or pass --broker"
    else:
        message = f"its {key} differs from that of {where}, but pipelines in one process share one connection"
        help_text = "give both the same, or run them in separate processes"
    return source.loaded.problem("broker-conflict", _broker_path(source, key), message, help_text)


def _broker_path(source: LoadedPipeline, key: str) -> KeyPath:
    if key == "urls" and not source.has(("broker", "urls")):
        return ("broker", "url") if source.has(("broker", "url")) else ("broker",)
    return ("broker", key)


def _one_name(source: LoadedPipeline, other: LoadedPipeline) -> Problem:
    if not source.has(("name",)) and other.has(("name",)):
        source, other = other, source  # the later pipeline has the name of its file
    message = f'two pipelines are called "{source.pipeline.name}": the other is {other.loaded.location(("name",))}'
    return source.loaded.problem("name-clash", ("name",), message, "give one of them another `name:`")


# Queues and exchanges


def _different_partitions(source: LoadedPipeline, other: LoadedPipeline) -> Iterator[Problem]:
    """Compare the partitions of queues that both pipelines declare: both must choose the same one for a message."""
    for name, queue in source.spec.queues.items():
        there = other.spec.queues.get(name, queue)
        for key in ("partitions", "partition_by"):
            ours, theirs = getattr(queue, key), getattr(there, key)
            if ours != theirs:
                path: KeyPath = ("queues", name, key)
                values = f"{key} is {_shown(path, ours)} here, {_shown(path, theirs)} there"
                yield _mismatch(source, other, f'queue "{name}"', (path, path), values)
                break


def _different_topologies(source: LoadedPipeline, other: LoadedPipeline) -> Iterator[Problem]:
    """Compare the queues and exchanges that both pipelines need."""
    ours, theirs = source.pipeline.topology, other.pipeline.topology
    here: list[Queue | Exchange] = [*ours.queues, *ours.exchanges]
    there: list[Queue | Exchange] = [*theirs.queues, *theirs.exchanges]
    by_name = {(type(item), item.name): item for item in there}
    partitionings = source.pipeline.partitionings.values()
    queues = {each.names[0]: each.queue for each in partitionings}  # all partitions are alike
    skipped = {name for each in partitionings for name in (each.processes.name, *each.names[1:])}
    for item in here:
        known = by_name.get((type(item), item.name), item)
        if item != known and item.name not in skipped:
            stated = _stated_options(source, item), _stated_options(other, known)
            if (key := _difference(*stated)) is not None:
                kind = "queue" if isinstance(item, Queue) else "exchange"
                item = replace(item, name=queues.get(item.name, item.name))
                paths = (_option_path(source, item, key), _option_path(other, item, key))
                yield _mismatch(source, other, f'{kind} "{item.name}"', paths, _values(key, *stated))


def _option_path(source: LoadedPipeline, thing: Queue | Exchange, key: KeyPath) -> KeyPath:
    is_queue = isinstance(thing, Queue)
    return _queue_path(source, thing.name, key) if is_queue else _exchange_path(source, thing.name, key)


def _mismatch(
    source: LoadedPipeline, other: LoadedPipeline, what: str, paths: tuple[KeyPath, KeyPath], values: str
) -> Problem:
    message = f"{what} differs from {other.loaded.location(paths[1])}: {values}"
    help_text = "give both the same options, or define it in one file that both include"
    return source.loaded.problem("topology-conflict", paths[0], message, help_text)


def _queue_options(queue: Queue) -> Options:
    """Return the options of a queue by their keys. An option comes before those that depend on it."""
    arguments = {"x-queue-type": "classic", **queue.arguments}
    options: dict[KeyPath, Any] = {("type",): arguments["x-queue-type"]}
    options |= {(key,): getattr(queue, key) for key in ("durable", "exclusive", "auto_delete")}
    known = {**OPTION_OF_ARGUMENT, "x-max-age": "message_ttl"}
    for argument, key in known.items():
        if options.get((key,)) is None:
            options[(key,)] = arguments.get(argument)
    return options | {("arguments", name): value for name, value in arguments.items() if name not in known}


def _exchange_options(exchange: Exchange) -> Options:
    options: dict[KeyPath, Any] = {(key,): getattr(exchange, key) for key in ("type", "durable")}
    return options | {("arguments", name): value for name, value in exchange.arguments.items()}


def _stated_options(source: LoadedPipeline, thing: Queue | Exchange) -> _StatedOptions:
    """Return the options of a queue or an exchange. Without `declare`, only those in the file are known."""
    options = _queue_options(thing) if isinstance(thing, Queue) else _exchange_options(thing)
    if thing.declare:
        return _StatedOptions(options, is_all=True)
    path: KeyPath = ("exchanges", thing.name)
    if isinstance(thing, Queue):
        own = {own_queue(source.loaded.name, item): item for item in source.spec.subscribers}
        is_own = thing.name not in source.spec.queues
        path = ("subscribers", own[thing.name], "queue") if is_own else ("queues", thing.name)
    return _StatedOptions({key: value for key, value in options.items() if source.states((*path, *key))}, is_all=False)


def _difference(ours: _StatedOptions, theirs: _StatedOptions) -> KeyPath | None:
    """Return the first key whose values differ, None if all known values agree."""
    keys = [
        key
        for key in {**ours.options, **theirs.options}
        if (ours.is_all or key in ours.options) and (theirs.is_all or key in theirs.options)
    ]
    return next((key for key in keys if ours.options.get(key) != theirs.options.get(key)), None)


def _values(key: KeyPath, ours: _StatedOptions, theirs: _StatedOptions) -> str:
    here, there = ours.options.get(key), theirs.options.get(key)
    return f"{key[-1]} is {_shown(key, here)} here, {_shown(key, there)} there"


def _shown(key: KeyPath, value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    return format_duration(value / 1000) if key == ("message_ttl",) and isinstance(value, int) else str(value)


def _queue_path(source: LoadedPipeline, name: str, key: KeyPath) -> KeyPath:
    """Return the path that determines an option of a queue: the option, a subscriber that needs it, or a name."""
    spec = source.spec
    own = {own_queue(source.loaded.name, item): item for item in spec.subscribers}
    if name in spec.queues:
        path: KeyPath = ("queues", name, *key)
        readers = [item for item, subscriber in spec.subscribers.items() if name in subscriber.from_]
    elif name in own and not reads_queue(spec, spec.subscribers[own[name]]):
        path, readers = ("subscribers", own[name], "queue", *key), [own[name]]
    else:
        return _dead_letter_path(source, name)
    if key == ("single_active_consumer",) and not source.has(path):
        wanting = [reader for reader in readers if spec.subscribers[reader].order_by is not None]
        return ("subscribers", wanting[0], "order_by") if wanting else path
    return path


def _dead_letter_path(source: LoadedPipeline, name: str) -> KeyPath:
    """Return the path that makes an undeclared queue a dead-letter queue, () if it is none."""
    queues = queue_options(source.loaded.name, source.spec)
    return next(((*path, "dead_letter") for path, own, queue in queues if dead_letter_queue(own, queue) == name), ())


def _exchange_path(source: LoadedPipeline, name: str, key: KeyPath) -> KeyPath:
    """Return the path of an option of a declared exchange, or of the first event on an undeclared one."""
    if name in source.spec.exchanges:
        return ("exchanges", name, *key)
    for event_name, event in source.spec.events.items():
        if event_address(event_name, event).exchange == name:
            return ("events", event_name, "exchange")
    return ()


# Schemas


def _different_schemas(source: LoadedPipeline, other: LoadedPipeline) -> Iterator[Problem]:
    """Compare the schemas of names with the same address: each must be able to read what the other publishes."""
    pipeline, there = source.pipeline, other.pipeline
    for name, schema in pipeline.schemas.items():
        wanted = there.schemas.get(name)
        is_one_place = name in there.destinations and (
            there.destinations[name].address == pipeline.destinations[name].address
        )
        if wanted is not None and wanted != schema and is_one_place:
            where = other.loaded.location(_schema_path(other, name))
            message = f'the schema of "{name}" is {display_path(schema)}, but {display_path(wanted)} in {where}'
            help_text = "use one type for both, from a module or file that both name"
            yield source.loaded.problem("schema-conflict", _schema_path(source, name), message, help_text)


def _schema_path(source: LoadedPipeline, name: str) -> KeyPath:
    return ("queues" if name in source.spec.queues else "events", name, "schema")
