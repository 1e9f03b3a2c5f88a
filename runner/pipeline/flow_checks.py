"""Warnings about the flow of messages through all pipelines that are loaded together and share a broker."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from runner.config.loader import PipelineFile
from runner.config.messages import typo_of
from runner.config.spec import PipelineSpec
from runner.config.target_spec import target_names
from runner.errors import Problem
from runner.message import Address
from runner.pipeline.model import HTTP_TIMEOUT_S
from runner.pipeline.topic_patterns import is_pattern, matches
from runner.pipeline.topology import BUILT_IN_EXCHANGES
from runner.pipeline.topology_builder import (
    DEFAULT_EXCHANGE,
    dead_letter_queues,
    event_address,
    event_sources,
    reads_queue,
)
from runner.units import format_duration

_MAX_NEAR = 50
"""With more queues without a subscriber, names that are near to them are not looked for: that takes long."""


class Peer(NamedTuple):
    """One of the pipelines that are loaded together."""

    name: str
    spec: PipelineSpec


SubscriberRef = tuple[int, str]
"""A subscriber: the index of its pipeline, and its name."""


def peers(files: Sequence[PipelineFile], *, is_one_broker: bool = False) -> list[list[Peer]]:
    """Return, for each file, the pipelines on its broker in their order, itself included.

    If a file cannot be read, all lists are empty: its content is unknown, so nothing can be reported as missing.
    """
    specs = [loaded.spec or loaded.recovered for loaded in files]
    known = [Peer(loaded.name, spec) for loaded, spec in zip(files, specs, strict=True) if spec is not None]
    return [
        [peer for peer in known if is_one_broker or peer.spec.broker.urls == spec.broker.urls]
        if spec is not None and len(known) == len(files)
        else []
        for spec in specs
    ]


def flow_warnings(loaded: PipelineFile, spec: PipelineSpec, together: Sequence[Peer]) -> Iterator[Problem]:
    """Yield the warnings about one of the pipelines."""
    if together:
        yield from _unread_queues(loaded, spec, together)
        yield from _unfilled_queues(loaded, spec, together)
        yield from _idle_events(loaded, spec, together)
        yield from _cycles(loaded, spec, together)
        yield from _unanswered_calls(loaded, spec, together)


def matches_any_event(pattern: str, together: Sequence[Peer]) -> bool:
    """Whether a pattern matches an event of any pipeline, or the pipelines are not known."""
    addresses = (event_address(*item) for peer in together for item in peer.spec.events.items())
    return not together or any(
        address.exchange == DEFAULT_EXCHANGE and matches(pattern, address.key) for address in addresses
    )


def _unread_queues(loaded: PipelineFile, spec: PipelineSpec, together: Sequence[Peer]) -> Iterator[Problem]:
    """Warn of queues without a subscriber, except dead-letter queues."""
    read = {source for peer in together for item in peer.spec.subscribers.values() for source in item.from_}
    dead = {name for peer in together for name in dead_letter_queues(peer.name, peer.spec)}
    if not spec.subscribers:
        return  # a pipeline that only publishes
    others, used = [name for name in spec.queues if name in read], read | dead
    unread = [name for name, queue in spec.queues.items() if name not in used and queue.unread != "ignore"]
    for name in unread:
        message = f'queue "{name}" has no subscriber'
        help_text = "add a subscriber, or write `unread: ignore` under it if another program reads it"
        if len(unread) <= _MAX_NEAR and (meant := typo_of(name, others)):
            help_text = f'did you mean "{meant}"? If not, {help_text}'
        yield loaded.problem("unread-queue", ("queues", name), message, help_text, severity="warning", on="key")


def _unfilled_queues(loaded: PipelineFile, spec: PipelineSpec, together: Sequence[Peer]) -> Iterator[Problem]:
    """Warn of a subscriber of dead letters that are in another queue."""
    lists = [item.to for peer in together for item in peer.spec.producers.values()]
    lists += [item.to for peer in together for item in peer.spec.subscribers.values()]
    fed = {name for targets in lists for name in target_names(targets)}
    known = fed.union(*(dead_letter_queues(peer.name, peer.spec) for peer in together))
    own = {queue.dead_letter: name for name, queue in spec.queues.items() if isinstance(queue.dead_letter, str)}
    undeclared = [target for target in own if target not in spec.queues]
    for name, subscriber in spec.subscribers.items():
        source = subscriber.from_[0]
        queue = spec.queues.get(source)
        if queue is None or queue.events or queue.bind or source in known:
            continue
        meant = next((each for each in undeclared if source == f"{own[each]}.dead"), typo_of(source, undeclared))
        if meant is not None:
            message = f'nothing fills "{source}": the dead letters of "{own[meant]}" are in "{meant}"'
            help_text = f'write "{meant}", here and under `queues:`'
            path = ("subscribers", name, "from")
            yield loaded.problem("unfilled-queue", path, message, help_text, severity="warning")


def _unanswered_calls(loaded: PipelineFile, spec: PipelineSpec, together: Sequence[Peer]) -> Iterator[Problem]:
    """Warn of calls by HTTP whose subscribers are known, and do not answer, or too late."""
    subscribers = [pair for peer in together for pair in peer.spec.subscribers.items()]
    for name, producer in spec.producers.items():
        target = producer.to[0].name
        asked = [pair for pair in subscribers if any(matches(pattern, target) for pattern in pair[1].from_)]
        if producer.reply and asked and not any(item.answers for _, item in asked):
            message = f'no subscriber of "{target}" answers: each POST would wait until its timeout'
            able = next((subscriber for subscriber, item in asked if item.batch is None), None)
            help_text = f'add `reply: true` to the subscriber "{able}", or remove it here' if able else "remove it here"
            path = ("producers", name, "reply")
            yield loaded.problem("unanswered-call", path, message, help_text, severity="warning")
        waits = HTTP_TIMEOUT_S if producer.timeout is None else producer.timeout
        for subscriber, item in asked if producer.reply else []:
            if item.answers and (item.timeout or 0) > waits:
                taken = format_duration(item.timeout or 0)
                message = f'a POST waits {format_duration(waits)} for the answer, and "{subscriber}" may take {taken}'
                help_text = f'write `timeout: {taken}` or more here, or a shorter timeout at "{subscriber}"'
                path = ("producers", name, "reply" if producer.timeout is None else "timeout")
                yield loaded.problem("unanswered-call", path, message, help_text, severity="warning")


def _idle_events(loaded: PipelineFile, spec: PipelineSpec, together: Sequence[Peer]) -> Iterator[Problem]:
    """Warn of events without a publisher or without a subscriber in the pipelines."""
    published = {address for peer in together for address in _published(peer.spec)}
    publishes = any(_targets(spec))
    unheard = {name for name, event in spec.events.items() if not any(_queues_of(event_address(name, event), together))}
    for name, event in spec.events.items():
        path, address = ("events", name), event_address(name, event)
        if name in unheard and event.unheard != "ignore":
            message = f'event "{name}" has no subscriber'
            help_text = "publishing it fails while no queue gets it: add a subscriber, or write `unheard: ignore`"
            if meant := _meant_by(name, together, published):
                help_text = meant
            yield loaded.problem("unheard-event", path, message, help_text, severity="warning", on="key")
        elif name not in unheard and address not in published and publishes:
            help_text = "add it to a `to:`, or ignore this if a handler or another program publishes it"
            if guess := typo_of(name, unheard):
                help_text = f'did you mean "{guess}", which has no subscriber? write the same name in both places'
            message = f'event "{name}" has no publisher'
            yield loaded.problem("unpublished-event", path, message, help_text, severity="warning", on="key")


def _meant_by(name: str, together: Sequence[Peer], published: Set[Address]) -> str:
    """Return the help for an event that a subscriber of another name, or of a pattern, may be meant to hear; or ""."""
    names = [(peer, event) for peer in together for event in peer.spec.events if event != name]
    idle = {event: peer for peer, event in names if event_address(event, peer.spec.events[event]) not in published}
    if guess := typo_of(name, idle):
        where = "" if name in idle[guess].spec.events else f" of {idle[guess].name}"
        return f'did you mean "{guess}"{where}, which has no publisher? write the same name in both places'
    for peer in together:
        for subscriber, item in peer.spec.subscribers.items():
            for pattern in item.from_:
                wide = re.sub(r"\*(?:\.\*)*", "#", pattern)
                if wide != pattern and matches(wide, name):
                    was = f'the "{pattern}" of "{subscriber}", whose * is one word'
                    return f'write "{wide}" for {was}, or add a subscriber'
    return ""


def _targets(spec: PipelineSpec) -> Iterator[str]:
    for producer in spec.producers.values():
        yield from target_names(producer.to)
    for subscriber in spec.subscribers.values():
        yield from target_names(subscriber.to)


def _published(spec: PipelineSpec) -> Iterator[Address]:
    return (event_address(name, spec.events[name]) for name in _targets(spec) if name in spec.events)


def _queues_of(address: Address, together: Sequence[Peer]) -> Iterator[str | SubscriberRef]:
    """Yield the queues that receive messages to an address: declared ones by name, own ones by subscriber."""
    for index, (_, spec) in enumerate(together):
        for name, queue in spec.queues.items():
            bound = [(bind.exchange, bind.key or "") for bind in queue.bind]
            if _is_bound(address, spec, queue.events, bound):
                yield name
        for name, subscriber in spec.subscribers.items():
            if not reads_queue(spec, subscriber) and _is_bound(address, spec, subscriber.from_, []):
                yield index, name


def _is_bound(address: Address, spec: PipelineSpec, patterns: Sequence[str], bound: Sequence[tuple[str, str]]) -> bool:
    for exchange, key in (*bound, *(source for pattern in patterns for source in event_sources(pattern, spec))):
        if exchange == address.exchange:
            known = spec.exchanges.get(exchange)
            kind = known.type if known is not None else BUILT_IN_EXCHANGES.get(exchange, "topic")
            if matches(key, address.key) if kind == "topic" else key == address.key or kind != "direct":
                return True
    return False


def _cycles(loaded: PipelineFile, spec: PipelineSpec, together: Sequence[Peer]) -> Iterator[Problem]:
    """Warn of cycles of subscribers, each once, in the first of its pipelines."""
    successors = _successors(together)
    own = next(index for index, peer in enumerate(together) if peer.spec is spec)
    reported: set[frozenset[SubscriberRef]] = set()
    for name in spec.subscribers:
        cycle = _shortest_cycle((own, name), successors)
        if cycle and frozenset(cycle) not in reported and all(index >= own for index, _ in cycle):
            reported.add(frozenset(cycle))
            names = [item if index == own else f"{together[index].name}.{item}" for index, item in cycle]
            message = f"results loop back: {' → '.join([*names, names[0]])}"
            lists = [each.to for each in spec.subscribers.values()] + [each.to for each in spec.producers.values()]
            fed = {target.name for targets in lists for target in targets}
            unfed = ", ".join([queue for queue in spec.queues if queue not in fed][:3])
            other = f"write another queue: nothing publishes to {unfed}" if unfed else "remove one `to:`"
            help_text = f"make sure that the handlers stop at some point, or {other}"
            if len(cycle) == 1 and (others := _without_own(spec, name)):
                help_text = (
                    f"write `from: [{', '.join(others)}]`, if it is not to hear its own; else make sure that it stops"
                )
            yield loaded.problem("cycle", ("subscribers", name, "to"), message, help_text, severity="warning")


def _without_own(spec: PipelineSpec, name: str) -> list[str]:
    """Return the events that the patterns of a subscriber match, without those that it publishes; [] for names."""
    subscriber = spec.subscribers[name]
    own = {target.name for target in subscriber.to}
    if not any(map(is_pattern, subscriber.from_)):
        return []
    return [
        event for event in spec.events if event not in own and any(matches(each, event) for each in subscriber.from_)
    ]


def _successors(together: Sequence[Peer]) -> dict[SubscriberRef, list[SubscriberRef]]:
    """Return, for each subscriber, the subscribers that receive its results."""
    readers: dict[str, list[SubscriberRef]] = {}
    for index, (_, spec) in enumerate(together):
        for name, subscriber in spec.subscribers.items():
            if reads_queue(spec, subscriber):
                readers.setdefault(subscriber.from_[0], []).append((index, name))
    successors: dict[SubscriberRef, list[SubscriberRef]] = {}
    for index, (_, spec) in enumerate(together):
        for name, subscriber in spec.subscribers.items():
            found: dict[SubscriberRef, None] = {}
            for target in target_names(subscriber.to):
                event = spec.events.get(target)
                queues = [target] if event is None else _queues_of(event_address(target, event), together)
                for queue in queues:
                    found.update(dict.fromkeys(readers.get(queue, []) if isinstance(queue, str) else [queue]))
            successors[index, name] = list(found)
    return successors


def _shortest_cycle(
    start: SubscriberRef, successors: Mapping[SubscriberRef, list[SubscriberRef]]
) -> list[SubscriberRef]:
    """Return the shortest cycle through a subscriber, [] if there is none."""
    paths = [[start]]
    seen: set[SubscriberRef] = set()
    while paths:
        path = paths.pop(0)
        for successor in successors[path[-1]]:
            if successor == start:
                return path
            if successor not in seen:
                seen.add(successor)
                paths.append([*path, successor])
    return []
