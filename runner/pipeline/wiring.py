"""Turns the names of a spec into addresses and topology: what must exist on the broker, as values.

The AMQP arguments are those of https://www.rabbitmq.com/docs/quorum-queues and https://www.rabbitmq.com/docs/maxlength.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runner.config.spec import EventSpec, PipelineSpec, QueueSpec, SubscriberSpec
from runner.message import Address
from runner.outcome import RetryPolicy
from runner.pipeline.patterns import is_pattern, matches
from runner.pipeline.topology import Binding, Exchange, Queue, Topology, merge, wait_milliseconds, wait_topology

DEFAULT_EXCHANGE = "events"
DEFAULT_DELIVERY_LIMIT = 20


def event_address(name: str, event: EventSpec) -> Address:
    """Return where an event is published to."""
    return Address(event.exchange or DEFAULT_EXCHANGE, event.key or name)


def own_queue(pipeline: str, subscriber: str) -> str:
    """Return the name of the queue that a subscriber of events has to itself."""
    return f"{pipeline}.{subscriber}"


def dead_letter_queue(name: str, queue: QueueSpec) -> str | None:
    """Return the queue for what is given up on, None where it is dropped."""
    if queue.dead_letter is False:
        return None
    return queue.dead_letter or f"{name}.dead"


def reads_queue(spec: PipelineSpec, subscriber: SubscriberSpec) -> bool:
    """Whether a subscriber reads a declared queue, and not events."""
    return len(subscriber.from_) == 1 and subscriber.from_[0] in spec.queues


def compute_topology(name: str, spec: PipelineSpec, policies: Iterable[RetryPolicy]) -> Topology:
    """Return everything that the pipeline called `name` needs on the broker. The spec's names are known to be right."""
    parts = [_event_exchanges(spec), _declared_exchanges(spec)]
    for queue_name, queue in spec.queues.items():
        parts.append(_queue_topology(queue_name, queue, spec))
        parts.append(Topology(bindings=_event_bindings(queue_name, queue.events, spec)))
        parts.append(Topology(bindings=_foreign_bindings(queue_name, queue)))
    for subscriber_name, subscriber in spec.subscribers.items():
        if not reads_queue(spec, subscriber):
            queue_name = own_queue(name, subscriber_name)
            parts.append(_queue_topology(queue_name, subscriber.queue or QueueSpec(), spec))
            parts.append(Topology(bindings=_event_bindings(queue_name, subscriber.from_, spec)))
    waits = {wait_milliseconds(delay) for policy in policies for delay in policy.delays()}
    parts += [wait_topology(f"{name}.retry", milliseconds) for milliseconds in sorted(waits)]
    return merge(parts)


def queue_arguments(name: str, queue: QueueSpec) -> dict[str, Any]:
    """Return the AMQP arguments of a queue; a classic queue with no other option has none at all."""
    arguments: dict[str, Any] = {}
    if queue.type != "classic":
        arguments["x-queue-type"] = queue.type
    if queue.type == "quorum":
        arguments["x-delivery-limit"] = DEFAULT_DELIVERY_LIMIT if queue.delivery_limit is None else queue.delivery_limit
    optional = {
        "x-max-length": queue.max_length,
        "x-max-length-bytes": queue.max_bytes,
        "x-message-ttl": None if queue.message_ttl is None else round(queue.message_ttl * 1000),
        "x-max-priority": queue.max_priority,
        "x-single-active-consumer": queue.single_active_consumer or None,
    }
    arguments.update({key: value for key, value in optional.items() if value is not None})
    arguments.update(_overflow(queue))
    arguments.update(_dead_lettering(name, queue))
    arguments.update(queue.arguments)
    return arguments


def _overflow(queue: QueueSpec) -> dict[str, Any]:
    if queue.overflow is not None:
        return {"x-overflow": queue.overflow}
    has_limit = queue.max_length is not None or queue.max_bytes is not None
    return {"x-overflow": "reject-publish"} if has_limit or queue.type == "quorum" else {}


def _dead_lettering(name: str, queue: QueueSpec) -> dict[str, Any]:
    """Let the broker dead-letter what it gives up on by itself: crashed deliveries, expired and dropped messages."""
    target = dead_letter_queue(name, queue)
    loses_messages = queue.message_ttl is not None or queue.overflow in ("drop-head", "reject-publish-dlx")
    if target is None or not (queue.type == "quorum" or loses_messages or queue.dead_letter):
        return {}
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target}
    # At-least-once needs a quorum queue that refuses publications when it is full.
    if queue.type == "quorum" and queue.overflow in (None, "reject-publish"):
        arguments["x-dead-letter-strategy"] = "at-least-once"
    return arguments


def _queue_topology(name: str, queue: QueueSpec, spec: PipelineSpec) -> Topology:
    """Return a queue and the dead-letter queue behind it, where something can end there and nobody else declares it."""
    made = Queue(
        name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        declare=queue.declare,
        arguments=queue_arguments(name, queue),
    )
    target = dead_letter_queue(name, queue)
    is_used = "x-dead-letter-routing-key" in made.arguments and queue.declare
    is_read = name not in spec.queues or any(name in subscriber.from_ for subscriber in spec.subscribers.values())
    if target is None or target in spec.queues or not (is_used or is_read):
        return Topology(queues=(made,))
    return Topology(queues=(Queue(target, arguments={"x-queue-type": "quorum"}), made))


def _event_exchanges(spec: PipelineSpec) -> Topology:
    """Return the topic exchanges that events go to and that the spec does not describe itself."""
    names = {address.exchange for address in (event_address(*item) for item in spec.events.items())}
    if any(not reads_queue(spec, subscriber) for subscriber in spec.subscribers.values()):
        names |= _exchanges_heard(spec)
    names |= {
        exchange
        for queue in spec.queues.values()
        for pattern in queue.events
        for exchange, _ in _sources(pattern, spec)
    }
    return Topology(exchanges=tuple(Exchange(name) for name in sorted(names) if name not in spec.exchanges))


def _exchanges_heard(spec: PipelineSpec) -> set[str]:
    return {
        exchange
        for subscriber in spec.subscribers.values()
        if not reads_queue(spec, subscriber)
        for pattern in subscriber.from_
        for exchange, _ in _sources(pattern, spec)
    }


def _declared_exchanges(spec: PipelineSpec) -> Topology:
    return Topology(
        exchanges=tuple(
            Exchange(name, exchange.type, exchange.durable, exchange.declare, dict(exchange.arguments))
            for name, exchange in spec.exchanges.items()
        )
    )


def _event_bindings(queue: str, patterns: Iterable[str], spec: PipelineSpec) -> tuple[Binding, ...]:
    return tuple(Binding(exchange, queue, key) for pattern in patterns for exchange, key in _sources(pattern, spec))


def _sources(pattern: str, spec: PipelineSpec) -> list[tuple[str, str]]:
    """Return the exchanges and binding keys by which an event, or a pattern of events, is heard.

    A pattern is bound as it stands on the default exchange and on each exchange that a matching event names; an event
    with a routing key of its own is bound by that key.
    """
    if not is_pattern(pattern):
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
