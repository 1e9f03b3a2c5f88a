"""Meaning: what is allowed in a spec and would surprise its author. All of these are warnings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from runner.config.diagnostics import closest
from runner.config.document import KeyPath, Scalar, walk
from runner.config.interpolation import substitute
from runner.config.loading import Loaded
from runner.config.spec import PipelineSpec, QueueSpec
from runner.errors import Problem
from runner.pipeline.patterns import is_pattern, matches
from runner.pipeline.wiring import (
    BUILT_IN_EXCHANGES,
    DEFAULT_EXCHANGE,
    dead_letter_queues,
    event_address,
    own_queue,
    reads_queue,
)

CONSUMER_TIMEOUT_S = 30 * 60.0
"""RabbitMQ takes a message away that stays unsettled for longer (its default `consumer_timeout`)."""

LONGEST_HELD_S = 25 * 60.0
"""How long a message may be held unsettled with a margin to that."""

_BROKER_URL = re.compile(r"amqps?://\S*")
_VARIABLE = re.compile(r"\$\{[^}]*\}")


def oddities(loaded: Loaded, spec: PipelineSpec) -> list[Problem]:
    """Return the warnings about a spec that is right."""
    checks = (
        _shared_orders,
        _undeclared_exchanges,
        _unread_queues,
        _idle_events,
        _cycles,
        _dropped_failures,
        _plain_passwords,
        _long_timeouts,
    )
    return [problem for check in checks for problem in check(loaded, spec)]


def _shared_orders(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of an order that a second process would break, and of retries that RabbitMQ does not wait for."""
    for name, subscriber in spec.subscribers.items():
        if subscriber.order_by is None:
            continue
        path = ("subscribers", name, "order_by")
        own = subscriber.queue or QueueSpec()
        queue = spec.queues[subscriber.from_[0]] if reads_queue(spec, subscriber) else own
        if (queue.type == "classic" or not queue.declare) and not queue.single_active_consumer:
            message = "a second process on this queue would break the order"
            help_text = "add `single_active_consumer: true` to the queue, or run one process"
            yield loaded.problem("shared-order", path, message, help_text, severity="warning")
        if subscriber.retry.attempts > 1 and subscriber.retry.delay >= LONGEST_HELD_S:
            message = "with order_by a retry waits in this process, and RabbitMQ takes it back after 30 minutes"
            help_text = "use a delay of less than 25 minutes"
            yield loaded.problem("long-timeout", path, message, help_text, severity="warning")


def _undeclared_exchanges(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of events on an exchange that is missing where others are declared: a slip of the pen makes a new one."""
    for name, event in spec.events.items():
        exchange = event.exchange or DEFAULT_EXCHANGE
        if spec.exchanges and exchange not in {*spec.exchanges, *BUILT_IN_EXCHANGES, DEFAULT_EXCHANGE}:
            guess = closest(exchange, spec.exchanges)
            message = f'"{exchange}" is not declared like the other exchanges, and becomes a new topic exchange'
            help_text = f'did you mean "{guess}"?' if guess else f'add "{exchange}: topic" under `exchanges:`'
            path = ("events", name, "exchange")
            yield loaded.problem("undeclared-exchange", path, message, help_text, severity="warning")


def _unread_queues(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of queues that fill up unread, unless they are dead-letter queues or only passed on to others."""
    read = {source for subscriber in spec.subscribers.values() for source in subscriber.from_}
    dead = dead_letter_queues(loaded.name, spec)
    if not spec.subscribers:
        return  # a pipeline that only sends: others read
    for name in spec.queues:
        if name not in read and name not in dead:
            help_text = "add a subscriber, or ignore this if another program reads it"
            yield loaded.problem(
                "unread-queue",
                ("queues", name),
                f'nobody reads queue "{name}"',
                help_text,
                severity="warning",
                on="key",
            )


def _idle_events(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of events that nobody here publishes, or nobody hears."""
    published = {target for producer in spec.producers.values() for target in producer.to}
    published |= {target for subscriber in spec.subscribers.values() for target in subscriber.to}
    patterns = [source for subscriber in spec.subscribers.values() for source in subscriber.from_]
    heard = {*_heard(spec, patterns), *(event for queue in spec.queues.values() for event in _comes_to(spec, queue))}
    for name in spec.events:
        path = ("events", name)
        if name not in heard:
            message = f'nobody hears event "{name}"'
            help_text = "publishing it fails while no queue is bound to it: add a subscriber"
            yield loaded.problem("unheard-event", path, message, help_text, severity="warning", on="key")
        elif name not in published and published:
            help_text = "add it to a `to:`, or ignore this if a handler or another program publishes it"
            message = f'nobody publishes event "{name}"'
            yield loaded.problem("unpublished-event", path, message, help_text, severity="warning", on="key")


def _cycles(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of subscribers whose results come back to them, each cycle once."""
    readers = _readers(spec)
    heirs = {
        name: list(dict.fromkeys(reader for target in subscriber.to for reader in readers.get(target, ())))
        for name, subscriber in spec.subscribers.items()
    }
    reported: set[frozenset[str]] = set()
    for name in spec.subscribers:
        cycle = _way_back(name, heirs)
        if cycle and frozenset(cycle) not in reported:
            reported.add(frozenset(cycle))
            message = f"results come back in a circle: {' → '.join([*cycle, cycle[0]])}"
            help_text = "make sure that the handlers stop at some point, or remove one `to:`"
            yield loaded.problem("cycle", ("subscribers", name, "to"), message, help_text, severity="warning")


def _readers(spec: PipelineSpec) -> dict[str, list[str]]:
    """Return the subscribers that each queue and each event comes to, also by a queue that is bound to the event."""
    found: dict[str, list[str]] = {}
    for name, subscriber in spec.subscribers.items():
        sources = [subscriber.from_[0]] if reads_queue(spec, subscriber) else []
        heard = _comes_to(spec, spec.queues[sources[0]]) if sources else _heard(spec, subscriber.from_)
        for source in [*sources, *heard]:
            found.setdefault(source, []).append(name)
    return found


def _heard(spec: PipelineSpec, patterns: Iterable[str]) -> Iterator[str]:
    """Yield the events that names and patterns stand for."""
    for pattern in patterns:
        if pattern in spec.events:
            yield pattern
        elif is_pattern(pattern):
            yield from (event for event in spec.events if matches(pattern, event))


def _comes_to(spec: PipelineSpec, queue: QueueSpec) -> Iterator[str]:
    """Yield the events that a queue gets, by `events` or by a binding to the exchange that they are published to."""
    yield from _heard(spec, queue.events)
    for bind in queue.bind:
        known = spec.exchanges.get(bind.exchange)
        kind = known.type if known is not None else BUILT_IN_EXCHANGES.get(bind.exchange, "topic")
        for name, event in spec.events.items():
            address, key = event_address(name, event), bind.key or ""
            fits = matches(key, address.key) if kind == "topic" else key == address.key or kind != "direct"
            if address.exchange == bind.exchange and fits:
                yield name


def _way_back(start: str, heirs: Mapping[str, list[str]]) -> list[str]:
    """Return the shortest way from a subscriber back to itself, [] if there is none."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        for heir in heirs[way[-1]]:
            if heir == start:
                return way
            if heir not in seen:
                seen.add(heir)
                ways.append([*way, heir])
    return []


def _dropped_failures(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    paths: list[tuple[KeyPath, QueueSpec, str]] = [
        *((("queues", name), queue, name) for name, queue in spec.queues.items()),
        *(
            (("subscribers", name, "queue"), subscriber.queue, own_queue(loaded.name, name))
            for name, subscriber in spec.subscribers.items()
            if subscriber.queue is not None
        ),
    ]
    for path, queue, name in paths:
        if queue.dead_letter is False:
            message = f'what fails in queue "{name}" is dropped'
            help_text = "remove `dead_letter: false` to keep it in a dead-letter queue"
            yield loaded.problem("drops-failures", (*path, "dead_letter"), message, help_text, severity="warning")


def _plain_passwords(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of passwords that stand in the file itself, also in the default of a variable."""
    document = loaded.document
    broker = document.node(("broker",)) if document is not None else None
    if document is None or broker is None:
        return
    for path, node in walk(broker, ("broker",)):
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            continue
        written = document.part(node.place).text[node.start : node.end]
        password = _password(substitute(written, {}, lambda _: "").text if node.origins else node.value)
        if password:
            message = "the broker's password stands in the file"
            help_text = "write ${RABBITMQ_URL} or ${file:/run/secrets/rabbitmq_url} instead"
            if password not in _VARIABLE.sub("", written):
                message += ", in the default of a variable"
                help_text = "write no default, or one without a password, and set the variable"
            yield loaded.problem("plain-password", path, message, help_text, severity="warning")


def _password(text: str) -> str:
    """Return the password of the URL in a text, "" if there is none."""
    url = _BROKER_URL.search(text)
    try:
        return (urlsplit(url[0]).password or "") if url else ""
    except ValueError:
        return ""


def _long_timeouts(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    for name, subscriber in spec.subscribers.items():
        if subscriber.timeout is not None and subscriber.timeout >= CONSUMER_TIMEOUT_S:
            message = "RabbitMQ takes a message back that is unsettled for 30 minutes (its consumer_timeout)"
            help_text = "use a shorter timeout, or raise consumer_timeout on the broker"
            path = ("subscribers", name, "timeout")
            yield loaded.problem("long-timeout", path, message, help_text, severity="warning")
