"""Computes the addresses and the topology of a spec: everything that must exist on the broker.

The AMQP arguments are those of https://www.rabbitmq.com/docs/quorum-queues and https://www.rabbitmq.com/docs/maxlength.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from runner.config.queue_spec import OPTION_OF_ARGUMENT, QueueSpec
from runner.config.spec import EventSpec, PipelineSpec
from runner.config.subscriber_spec import SubscriberSpec
from runner.message import Address
from runner.outcome import RetryPolicy
from runner.pipeline.partitioning import partitioning_of
from runner.pipeline.topic_patterns import is_pattern, matches
from runner.pipeline.topology import (
    BUILT_IN_EXCHANGES,
    Binding,
    Exchange,
    Queue,
    Topology,
    merge_topologies,
    wait_milliseconds,
    wait_topology,
)

DEFAULT_EXCHANGE = "events"
DEFAULT_DELIVERY_LIMIT = 20

DEAD_LETTER_ARGUMENTS: Mapping[str, Any] = {"x-queue-type": "quorum"}
"""The arguments of a dead-letter queue without options, declared or not."""

_DECLARED_OPTIONS = {*OPTION_OF_ARGUMENT.values(), "durable", "exclusive", "auto_delete", "arguments"} - {"dead_letter"}
"""The options of a queue that change its declaration, except `dead_letter`."""


def event_address(name: str, event: EventSpec) -> Address:
    """Return the address that an event is published to."""
    return Address(event.exchange or DEFAULT_EXCHANGE, event.key or name)


def own_queue(pipeline: str, subscriber: str) -> str:
    """Return the name of the own queue of a subscriber of events."""
    return f"{pipeline}.{subscriber}"


def dead_letter_queue(name: str, queue: QueueSpec) -> str | None:
    """Return the name of the dead-letter queue of a queue, None if it has none."""
    if queue.dead_letter is False or queue.type == "stream":
        return None
    return queue.dead_letter or f"{name}.dead"


def needs_dead_letter_queue(queue: QueueSpec, arguments: Mapping[str, Any], *, is_read: bool) -> bool:
    """Whether subscribers or the broker send messages to the dead-letter queue of a queue."""
    return is_read or ("x-dead-letter-routing-key" in arguments and queue.declare)


def dead_letter_queues(pipeline: str, spec: PipelineSpec) -> set[str]:
    """Return the names of the dead-letter queues of a pipeline, by its name: of declared and of own queues."""
    targets = (dead_letter_queue(name, queue) for _, name, queue in queue_options(pipeline, spec))
    return {target for target in targets if target is not None}


def queue_options(pipeline: str, spec: PipelineSpec) -> Iterator[tuple[tuple[str, ...], str, QueueSpec]]:
    """Yield the path, the name and the options of each queue: those of a pipeline, and those of its subscribers."""
    for name, queue in spec.queues.items():
        yield ("queues", name), name, queue
    for name, subscriber in spec.subscribers.items():
        if has_own_queue(spec, subscriber):
            yield ("subscribers", name, "queue"), own_queue(pipeline, name), subscriber.queue or QueueSpec()


def reads_queue(spec: PipelineSpec, subscriber: SubscriberSpec) -> bool:
    """Whether a subscriber reads a declared queue, not events."""
    return len(subscriber.from_) == 1 and subscriber.from_[0] in spec.queues


def reads_stream(spec: PipelineSpec, subscriber: SubscriberSpec) -> bool:
    """Whether a subscriber reads a stream."""
    return reads_queue(spec, subscriber) and spec.queues[subscriber.from_[0]].type == "stream"


def has_own_queue(spec: PipelineSpec, subscriber: SubscriberSpec) -> bool:
    """Whether there is a queue for a subscriber alone: of its events, or for the leadership of those who read a stream.

    Its dead letters have the name that they have for such a queue.
    """
    return not reads_queue(spec, subscriber) or reads_stream(spec, subscriber)


def order_of(spec: PipelineSpec, subscriber: SubscriberSpec) -> str | None:
    """Return the path by whose value messages are handled in order: `order_by`, or `partition_by` of its queue."""
    is_queue = subscriber.order_by is None and reads_queue(spec, subscriber)
    return spec.queues[subscriber.from_[0]].partition_by if is_queue else subscriber.order_by


def derived_prefetch(spec: PipelineSpec, subscriber: SubscriberSpec) -> int:
    """Return the default prefetch of a subscriber, for each partition of its queue if it has any.

    Twice the concurrency keeps handlers busy. Batches need enough messages for all of them. In an order, messages that
    wait for others with their key need room beside those that can be handled.
    """
    partitions = (spec.queues[subscriber.from_[0]].partitions if reads_queue(spec, subscriber) else None) or 1
    if subscriber.batch is not None:
        wanted = subscriber.batch.size * (subscriber.concurrency + 1)
    elif order_of(spec, subscriber) is not None:
        wanted = max(2 * subscriber.concurrency, max(100, 10 * subscriber.concurrency) // partitions)
    else:
        wanted = 2 * subscriber.concurrency
    return min(wanted, 65_535)


def compute_topology(name: str, spec: PipelineSpec, policies: Iterable[RetryPolicy]) -> Topology:
    """Return everything that the pipeline `name` needs on the broker. The names of the spec must have been checked."""
    parts = [_event_exchanges(spec), _declared_exchanges(spec)]
    readers = [subscriber for subscriber in spec.subscribers.values() if reads_queue(spec, subscriber)]
    read = {subscriber.from_[0] for subscriber in readers}
    ordered = {subscriber.from_[0] for subscriber in readers if order_of(spec, subscriber) is not None}
    dead = dead_letter_queues(name, spec)
    for queue_name, queue in spec.queues.items():
        is_ordered, is_read, is_dead = queue_name in ordered, queue_name in read, queue_name in dead
        arguments = queue_arguments(queue_name, queue, is_ordered=is_ordered, is_dead_letter=is_dead)
        made = _queue_topology(queue_name, queue, spec, arguments, is_read=is_read)
        parts.append(_partitioned(queue_name, queue, made))
        bindings = (*_event_bindings(queue_name, queue.events, spec), *_foreign_bindings(queue_name, queue))
        parts.append(Topology(bindings=bindings))
    for subscriber_name, subscriber in spec.subscribers.items():
        queue_name = own_queue(name, subscriber_name)
        if reads_stream(spec, subscriber) and f"{queue_name}.dead" not in spec.queues:
            parts.append(Topology(queues=(Queue(f"{queue_name}.dead", arguments=DEAD_LETTER_ARGUMENTS),)))
        if not reads_queue(spec, subscriber):
            own, is_ordered = subscriber.queue or QueueSpec(), subscriber.order_by is not None
            arguments = queue_arguments(queue_name, own, is_ordered=is_ordered)
            parts.append(_queue_topology(queue_name, own, spec, arguments, is_read=True))
            parts.append(Topology(bindings=_event_bindings(queue_name, subscriber.from_, spec)))
    waits = {wait_milliseconds(delay) for policy in policies for delay in policy.delays()}
    parts += [wait_topology(f"{name}.retry", milliseconds) for milliseconds in sorted(waits)]
    return merge_topologies(parts)


def queue_arguments(
    name: str, queue: QueueSpec, *, is_ordered: bool = False, is_dead_letter: bool = False
) -> dict[str, Any]:
    """Return the AMQP arguments of a queue. A classic queue without other options has none.

    A quorum queue with an ordered subscriber has a single active consumer. A dead-letter queue without options has the
    same arguments as if it were not declared, so that an existing one can be declared.
    """
    if is_dead_letter and not _has_options(queue):
        return {**DEAD_LETTER_ARGUMENTS, **({"x-single-active-consumer": True} if is_ordered else {})}
    if queue.type == "stream":
        return _stream_arguments(queue)
    arguments: dict[str, Any] = {}
    if queue.type != "classic":
        arguments["x-queue-type"] = queue.type
    if queue.type == "quorum":
        arguments["x-delivery-limit"] = DEFAULT_DELIVERY_LIMIT if queue.delivery_limit is None else queue.delivery_limit
    is_single_active = queue.single_active_consumer or queue.partitions or (is_ordered and queue.type == "quorum")
    optional = {
        "x-max-length": queue.max_length,
        "x-max-length-bytes": queue.max_bytes,
        "x-message-ttl": None if queue.message_ttl is None else round(queue.message_ttl * 1000),
        "x-max-priority": queue.max_priority,
        "x-single-active-consumer": True if is_single_active else None,
    }
    arguments.update({key: value for key, value in optional.items() if value is not None})
    arguments.update(_overflow(queue))
    arguments.update(_dead_lettering(name, queue))
    arguments.update(queue.arguments)
    return arguments


def _has_options(queue: QueueSpec) -> bool:
    fields = QueueSpec.model_fields
    return bool(queue.dead_letter) or any(getattr(queue, name) != fields[name].default for name in _DECLARED_OPTIONS)


def _stream_arguments(queue: QueueSpec) -> dict[str, Any]:
    """Return the arguments of a stream. Source: https://www.rabbitmq.com/docs/streams#retention."""
    arguments: dict[str, Any] = {"x-queue-type": "stream"}
    if queue.max_bytes is not None:
        arguments["x-max-length-bytes"] = queue.max_bytes
    if queue.message_ttl is not None:
        arguments["x-max-age"] = f"{max(1, round(queue.message_ttl))}s"
    return {**arguments, **queue.arguments}


def _overflow(queue: QueueSpec) -> dict[str, Any]:
    if queue.overflow is not None:
        return {"x-overflow": queue.overflow}
    has_limit = queue.max_length is not None or queue.max_bytes is not None
    return {"x-overflow": "reject-publish"} if has_limit or queue.type == "quorum" else {}


def _dead_lettering(name: str, queue: QueueSpec) -> dict[str, Any]:
    """Return the arguments for dead-lettering by the broker: of crashed deliveries, expired and dropped messages."""
    target = dead_letter_queue(name, queue)
    loses_messages = queue.message_ttl is not None or queue.overflow in ("drop-head", "reject-publish-dlx")
    if target is None or not (queue.type == "quorum" or loses_messages or queue.dead_letter):
        return {}
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target}
    # At-least-once needs a quorum queue that rejects publishes when it is full.
    if queue.type == "quorum" and queue.overflow in (None, "reject-publish"):
        arguments["x-dead-letter-strategy"] = "at-least-once"
    return arguments


def _queue_topology(
    name: str, queue: QueueSpec, spec: PipelineSpec, arguments: Mapping[str, Any], *, is_read: bool
) -> Topology:
    """Return a queue, and its dead-letter queue if it is used and not declared."""
    made = Queue(
        name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        declare=queue.declare,
        arguments=arguments,
    )
    target = dead_letter_queue(name, queue)
    if target is None or target in spec.queues or not needs_dead_letter_queue(queue, made.arguments, is_read=is_read):
        return Topology(queues=(made,))
    return Topology(queues=(Queue(target, arguments=DEAD_LETTER_ARGUMENTS), made))


def _partitioned(name: str, queue: QueueSpec, topology: Topology) -> Topology:
    """Return the topology of a queue, with its partitions in place of it if it has any."""
    partitioning = partitioning_of(name, queue)
    if partitioning is None:
        return topology
    *dead, made = topology.queues
    parts = [replace(made, name=each) for each in partitioning.names]
    return Topology(queues=(*dead, partitioning.processes, *parts))


def _event_exchanges(spec: PipelineSpec) -> Topology:
    """Return the exchanges of events that the spec does not declare."""
    names = {event_address(*item).exchange for item in spec.events.items()}
    heard = [queue.events for queue in spec.queues.values()]
    heard += [subscriber.from_ for subscriber in spec.subscribers.values() if not reads_queue(spec, subscriber)]
    names |= {exchange for patterns in heard for each in patterns for exchange, _ in event_sources(each, spec)}
    undeclared = sorted(name for name in names if name not in spec.exchanges)
    return Topology(exchanges=tuple(Exchange(name, BUILT_IN_EXCHANGES.get(name, "topic")) for name in undeclared))


def _declared_exchanges(spec: PipelineSpec) -> Topology:
    return Topology(
        exchanges=tuple(
            Exchange(name, exchange.type, exchange.durable, exchange.declare, dict(exchange.arguments))
            for name, exchange in spec.exchanges.items()
        )
    )


def _event_bindings(queue: str, patterns: Iterable[str], spec: PipelineSpec) -> tuple[Binding, ...]:
    return tuple(
        Binding(exchange, queue, key) for pattern in patterns for exchange, key in event_sources(pattern, spec)
    )


def event_sources(pattern: str, spec: PipelineSpec) -> list[tuple[str, str]]:
    """Return the exchanges and binding keys for an event or a pattern of events.

    There are none for an event that is not declared. A pattern is bound unchanged to the default exchange and to the
    exchanges of matching events. A matching event with its own routing key is bound by that key.
    """
    if not is_pattern(pattern):
        if pattern not in spec.events:
            return []
        address = event_address(pattern, spec.events[pattern])
        return [(address.exchange, address.key)]
    found = [(DEFAULT_EXCHANGE, pattern)]
    for name, event in spec.events.items():
        if matches(pattern, name):
            address = event_address(name, event)
            found.append((address.exchange, pattern if address.key == name else address.key))
    return list(dict.fromkeys(found))


def _foreign_bindings(queue: str, spec: QueueSpec) -> tuple[Binding, ...]:
    return tuple(
        Binding(bind.exchange, queue, bind.key or "", {**bind.headers, "x-match": bind.match} if bind.headers else {})
        for bind in spec.bind
    )
