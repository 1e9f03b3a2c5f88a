"""Which queues can expire messages and give them priorities. One rule for `to:` in the YAML and for `Publish`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from runner.config.queue_spec import QueueSpec
from runner.config.spec import PipelineSpec
from runner.errors import PublishFailed, TopologyMismatch
from runner.message import PublishOptions
from runner.pipeline.model import Pipeline, Producer, Subscriber
from runner.pipeline.topic_patterns import matches
from runner.pipeline.topology_builder import dead_letter_queues, own_queue, queue_arguments, reads_queue

QUORUM_MAX_PRIORITY = 31
"""The highest priority of a quorum queue. Source: https://www.rabbitmq.com/docs/quorum-queues#priorities."""


PRIORITIES_HINT = "remove it, run RabbitMQ 4.3 or newer, or write `type: classic` with `max_priority` in the queue"


class ReceivingQueue(NamedTuple):
    """A queue that gets the messages of a destination. Without `expires_to_dead`, the broker drops what expires."""

    spec: QueueSpec
    expires_to_dead: bool


def receiving_queues(pipeline: str, spec: PipelineSpec, target: str) -> Mapping[str, ReceivingQueue]:
    """Return the queues of a pipeline that get what is published to a queue or an event, by their names."""
    dead = dead_letter_queues(pipeline, spec)
    found = {
        name: queue
        for name, queue in spec.queues.items()
        if name == target or any(matches(pattern, target) for pattern in queue.events)
    }
    for name, subscriber in spec.subscribers.items():
        if not reads_queue(spec, subscriber) and any(matches(pattern, target) for pattern in subscriber.from_):
            found[own_queue(pipeline, name)] = subscriber.queue or QueueSpec()
    return {name: ReceivingQueue(queue, _expires_to_dead(name, queue, dead)) for name, queue in found.items()}


def _expires_to_dead(name: str, queue: QueueSpec, dead: set[str]) -> bool:
    """Return whether expired messages are dead-lettered, or dropped because the file says so."""
    arguments = queue_arguments(name, queue, is_dead_letter=name in dead)
    return queue.dead_letter is False or not queue.declare or "x-dead-letter-exchange" in arguments


def option_problems(options: PublishOptions, queues: Mapping[str, ReceivingQueue]) -> Iterator[tuple[str, str, str]]:
    """Yield the options that a queue does not have: the name of the option, what is wrong, and what to write."""
    for name, queue in queues.items():
        if options.priority is not None:
            yield from _priority_problems(name, queue.spec, options.priority)
        if options.expires_s is not None:
            yield from _expiry_problems(name, queue, is_delayed=bool(options.delay_s))


def _priority_problems(name: str, queue: QueueSpec, priority: int) -> Iterator[tuple[str, str, str]]:
    highest = QUORUM_MAX_PRIORITY if queue.type == "quorum" else queue.max_priority
    if queue.type == "stream":
        yield "priority", f'queue "{name}" is a stream, which has no priorities', "remove it"
    elif highest is None:
        yield "priority", f'queue "{name}" has no priorities', f'add "max_priority: {priority or 10}" to the queue'
    elif priority > highest:
        yield (
            "priority",
            f'queue "{name}" has priorities up to {highest}, not {priority}',
            f"write a number from 0 to {highest}",
        )


def _expiry_problems(name: str, queue: ReceivingQueue, *, is_delayed: bool) -> Iterator[tuple[str, str, str]]:
    if queue.spec.type == "stream":
        message = f'queue "{name}" is a stream, in which single messages do not expire'
        yield "expires", message, 'remove it, or write "message_ttl" in the stream'
    elif not queue.expires_to_dead and not is_delayed:
        message = f'queue "{name}" has no dead letters of the broker: messages that expire would be dropped'
        yield "expires", message, f'add "dead_letter: {name}.dead" to the queue, or "dead_letter: false" to drop them'


def check_options(queues: Mapping[str, ReceivingQueue], options: PublishOptions) -> None:
    """Raise PublishFailed("invalid") for options that the queues of a destination do not have."""
    for key, message, help_text in option_problems(options, queues):
        raise PublishFailed(f"{key}: {message}", reason="invalid", hint=help_text)


def check_targets(pipelines: Iterable[Pipeline], quorum_priorities: int) -> None:
    """Raise TopologyMismatch for options in a `to` that a broker lacks. See `unsupported_option`."""
    for pipeline in pipelines:
        items: list[Producer | Subscriber] = [*pipeline.producers, *pipeline.subscribers]
        for item in items:
            for target in item.to:
                options = target.options or PublishOptions()
                if problem := unsupported_option(options, quorum_priorities, target.has_quorum_queues):
                    text = f'{item.name} of {pipeline.name}, to "{target.name}": {problem}'
                    raise TopologyMismatch(text, PRIORITIES_HINT)


def unsupported_option(options: PublishOptions, quorum_priorities: int, has_quorum_queues: bool) -> str:
    """Return what a broker lacks for the options of a destination, "" if it lacks nothing.

    `quorum_priorities` is how many priorities its quorum queues have. With two, they take turns, so that a delayed
    message would wait behind later ones of another priority.
    """
    if options.priority is None:
        return ""
    if has_quorum_queues and not quorum_priorities:
        return "priority: quorum queues of this broker have no priorities"
    if options.delay_s and quorum_priorities == 2:
        return "priority: this broker cannot delay messages with priorities exactly"
    return ""
