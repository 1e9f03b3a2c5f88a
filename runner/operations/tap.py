"""Finds the bindings with which a name of a pipeline can be tapped, and turns messages into recorded lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runner.errors import InvalidUsage
from runner.message import Envelope
from runner.operations.targets import ambiguous_target, unknown_target
from runner.outcome import InvalidMessage
from runner.pipeline.body_encoding import utf8
from runner.pipeline.codec import JsonText, encode, guess_payload
from runner.pipeline.file_source import MAX_LINE_BYTES
from runner.pipeline.model import Pipeline
from runner.pipeline.topic_patterns import is_pattern, matches
from runner.pipeline.topology import Binding


class TappedMessage(NamedTuple):
    """A message, and the address that it was published to."""

    envelope: Envelope
    exchange: str
    routing_key: str


class CannotTap(InvalidUsage):
    """A queue without bindings cannot be tapped: a copy would have to be taken from it."""


@dataclass(frozen=True, slots=True)
class TapSource:
    """The bindings to tap, and a sentence on the messages that they do not cover."""

    bindings: tuple[Binding, ...]
    not_covered: str = ""


def tap_source(pipeline: Pipeline, name: str) -> TapSource:
    """Return how to tap an event, a pattern of events, a queue or a subscriber. Raises UnknownTarget and CannotTap.

    Only exchanges copy messages. A message published to a queue by its name goes to that queue alone.
    """
    destination = pipeline.destinations.get(name)
    if destination is not None and destination.is_event:
        return TapSource((Binding(destination.address.exchange, "", destination.address.key),))
    subscribers = {subscriber.name: subscriber for subscriber in pipeline.subscribers}
    queue = subscribers[name].queue if name in subscribers else name
    if queue not in pipeline.partitionings and queue not in {each.name for each in pipeline.topology.queues}:
        if is_pattern(name) and (found := _event_bindings(pipeline, name)):
            return TapSource(found)
        known = dict.fromkeys([*pipeline.destinations, *subscribers])
        raise unknown_target(name, "queue, event or subscriber", known)
    bindings = tuple(binding for binding in pipeline.topology.bindings if binding.queue == queue)
    if not bindings:
        way = "bind it to an event (`events:` of the queue) and publish that; " * (queue not in pipeline.partitionings)
        raise CannotTap(
            f'queue "{queue}" is not bound to an exchange: messages are published to it directly, and could '
            "only be seen by consuming them",
            f"{way}`runner status` shows how many messages it has, and `runner dead show` a message that failed",
        )
    return TapSource(bindings, f'messages published to queue "{queue}" by its name, and retries')


def _event_bindings(pipeline: Pipeline, pattern: str) -> tuple[Binding, ...]:
    """Return the bindings of the events that a pattern matches."""
    events = [each for each in pipeline.destinations.values() if each.is_event and matches(pattern, each.name)]
    keys = [(each.address.exchange, each.address.key) for each in events]
    return tuple(Binding(exchange, "", key) for exchange, key in dict.fromkeys(keys))


def recorded_line(envelope: Envelope) -> bytes | None:
    """Return a message as one line that a producer with `file:` can publish again; None if that is impossible.

    JSON stays byte for byte, except for line breaks between its parts; text becomes a JSON string. Other bytes cannot
    be written as a line.
    """
    try:
        payload = guess_payload(utf8(envelope))
    except (InvalidMessage, UnicodeDecodeError):
        return None
    if isinstance(payload, bytes) and not isinstance(payload, JsonText):
        return None
    is_json = isinstance(payload, JsonText)
    line = bytes(payload) if isinstance(payload, JsonText) else encode([payload])[0][1:-1]
    line = line.replace(b"\r", b" ").replace(b"\n", b" ") if is_json else line
    return line if line.strip() and len(line) < MAX_LINE_BYTES else None


def pipeline_with_target(pipelines: Sequence[Pipeline], name: str) -> Pipeline:
    """Return the pipeline that has the name, or the first one if none has: its error then lists the names.

    Raises UnknownTarget if the name means different things in several pipelines.
    """
    found = []
    for pipeline in pipelines:
        names = {*pipeline.destinations, *(subscriber.name for subscriber in pipeline.subscribers)}
        if name in names or name in {queue.name for queue in pipeline.topology.queues}:
            found.append(pipeline)
    if any(_place(pipeline, name) != _place(found[0], name) for pipeline in found):
        raise ambiguous_target(name, (pipeline.path for pipeline in found))
    return (found or pipelines)[0]


def _place(pipeline: Pipeline, name: str) -> object:
    """Return what a name of a pipeline refers to on the broker."""
    destination = pipeline.destinations.get(name)
    queues = {subscriber.name: subscriber.queue for subscriber in pipeline.subscribers}
    place = destination.address if destination is not None else queues.get(name, name)
    return pipeline.broker, place
