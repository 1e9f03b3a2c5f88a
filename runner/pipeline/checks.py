"""Meaning: problems that only the whole spec shows. Dead ends are errors, oddities warnings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from runner.config.diagnostics import closest
from runner.config.document import KeyPath, Scalar
from runner.config.loading import Loaded
from runner.config.spec import PipelineSpec, QueueSpec
from runner.errors import Problem
from runner.pipeline.patterns import is_pattern, matches
from runner.pipeline.wiring import dead_letter_queue, own_queue, reads_queue

CONSUMER_TIMEOUT_S = 30 * 60.0
"""RabbitMQ takes a message away that stays unsettled for longer (its default `consumer_timeout`)."""

LONGEST_HELD_S = 25 * 60.0
"""How long a message may be held unsettled with a margin to that."""

BUILT_IN_EXCHANGES = frozenset({"amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match"})


def check_names(loaded: Loaded, spec: PipelineSpec) -> list[Problem]:
    """Return every problem with the names of a spec, and with the flow of messages that they describe."""
    checks = (
        _shared_names,
        _sources,
        _streams,
        _batches,
        _own_queues,
        _targets,
        _queue_sources,
        _event_exchanges,
        _http_paths,
    )
    problems = [problem for check in checks for problem in check(loaded, spec)]
    if loaded.spec is not None and not any(problem.severity == "error" for problem in problems):
        oddities = (
            _shared_orders,
            _unread_queues,
            _idle_events,
            _cycles,
            _dropped_failures,
            _plain_passwords,
            _long_timeouts,
        )
        problems += [problem for check in oddities for problem in check(loaded, spec)]
    return problems


def _shared_names(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    for name in spec.events:
        if name in spec.queues:
            message = f'"{name}" is a queue and an event: `from` and `to` could not tell them apart'
            yield loaded.problem("name-clash", ("events", name), message, "rename one of them", on="key")


def _sources(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    """Check what subscribers take from: one queue, or events and patterns of events."""
    dead = {dead_letter_queue(name, queue) for name, queue in spec.queues.items()} - {*spec.queues, *spec.events}
    for name, subscriber in spec.subscribers.items():
        path = ("subscribers", name, "from")
        for index, source in enumerate(subscriber.from_):
            if source in spec.queues:
                if len(subscriber.from_) > 1:
                    help_text = "write one subscriber for each queue; only events can be listed together"
                    yield loaded.problem("bad-source", (*path, index), f'"{source}" is a queue in a list', help_text)
                    break
            elif is_pattern(source):
                if not any(matches(source, event) for event in spec.events):
                    message = f'no event of this pipeline matches "{source}"'
                    yield loaded.problem(
                        "unmatched-pattern",
                        (*path, index),
                        message,
                        "list the events you mean under `events:`",
                        severity="warning",
                    )
            elif source in dead:
                message = f'"{source}" is a dead-letter queue that is not declared'
                help_text = f'add "{source}:" under `queues:` to read it'
                yield loaded.problem("unknown-name", (*path, index), message, help_text)
            elif source not in spec.events:
                yield _unknown(loaded, (*path, index), source, [*spec.queues, *spec.events])


def _streams(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    """Refuse to read streams: nothing is taken out of them, so acknowledging and dead-lettering have no meaning."""
    for name, subscriber in spec.subscribers.items():
        for index, source in enumerate(subscriber.from_):
            if source in spec.queues and spec.queues[source].type == "stream":
                message = f'"{source}" is a stream, which a subscriber cannot read: it can only be published to'
                help_text = "bind a queue to the same events and read that"
                yield loaded.problem("bad-source", ("subscribers", name, "from", index), message, help_text)
        if subscriber.queue is not None and subscriber.queue.type == "stream":
            path = ("subscribers", name, "queue", "type")
            yield loaded.problem("bad-source", path, "a subscriber cannot read a stream", "write quorum or classic")


def _batches(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    for name, subscriber in spec.subscribers.items():
        size = subscriber.batch.size if subscriber.batch is not None else 0
        if subscriber.prefetch is not None and subscriber.prefetch < size:
            message = f"a batch of {size} can never be full: only {subscriber.prefetch} messages are held at once"
            help_text = f"write at least {size}, or remove prefetch"
            yield loaded.problem("conflicting-options", ("subscribers", name, "prefetch"), message, help_text)


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


def _own_queues(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    for name, subscriber in spec.subscribers.items():
        if reads_queue(spec, subscriber):
            if subscriber.queue is not None:
                help_text = f"write its options under `queues: {subscriber.from_[0]}:`"
                message = "`queue` sets options of a subscriber's own queue, but this one reads a declared queue"
                yield loaded.problem("bad-source", ("subscribers", name, "queue"), message, help_text, on="key")
        elif own_queue(loaded.name, name) in spec.queues:
            queue = own_queue(loaded.name, name)
            message = f'its own queue would be called "{queue}", which is declared under `queues:`'
            yield loaded.problem("name-clash", ("subscribers", name), message, "rename one of them", on="key")


def _targets(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    known = [*spec.queues, *spec.events]
    for section, items in (("producers", spec.producers), ("subscribers", spec.subscribers)):
        for name, item in items.items():
            for index, target in enumerate(item.to):
                if target not in spec.queues and target not in spec.events:
                    yield _unknown(loaded, (section, name, "to", index), target, known)


def _queue_sources(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    """Check what queues are bound to: declared events, and declared or built-in exchanges."""
    for name, queue in spec.queues.items():
        for index, event in enumerate(queue.events):
            if not is_pattern(event) and event not in spec.events:
                yield _unknown(loaded, ("queues", name, "events", index), event, spec.events, "event")
        for index, bind in enumerate(queue.bind):
            if bind.exchange not in spec.exchanges and bind.exchange not in BUILT_IN_EXCHANGES:
                path = ("queues", name, "bind", index, "exchange")
                yield _unknown(loaded, path, bind.exchange, spec.exchanges, "exchange")


def _event_exchanges(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    for name, event in spec.events.items():
        exchange = spec.exchanges.get(event.exchange or "")
        if exchange is not None and exchange.type not in ("topic", "direct"):
            message = f'events travel by routing key, but "{event.exchange}" is a {exchange.type} exchange'
            help_text = "use a topic exchange, or bind a queue to this one with `bind:`"
            yield loaded.problem("bad-exchange", ("events", name, "exchange"), message, help_text)


def _http_paths(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name, producer in spec.producers.items():
        if producer.http is not None and (other := seen.setdefault(producer.http, name)) != name:
            message = f'"{producer.http}" is the path of "{other}" already'
            help_text = "write another path, or list both names in one `to:`"
            yield loaded.problem("conflicting-options", ("producers", name, "http"), message, help_text)


def _unread_queues(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of queues that fill up unread, unless they are dead-letter queues or only passed on to others."""
    read = {source for subscriber in spec.subscribers.values() for source in subscriber.from_}
    dead = {dead_letter_queue(name, queue) for name, queue in spec.queues.items()}
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
    patterns += [event for queue in spec.queues.values() for event in queue.events]
    heard = set(_heard(spec, patterns))
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
        patterns = spec.queues[sources[0]].events if sources else subscriber.from_
        for source in [*sources, *_heard(spec, patterns)]:
            found.setdefault(source, []).append(name)
    return found


def _heard(spec: PipelineSpec, patterns: Iterable[str]) -> Iterator[str]:
    """Yield the events that names and patterns stand for."""
    for pattern in patterns:
        if pattern in spec.events:
            yield pattern
        elif is_pattern(pattern):
            yield from (event for event in spec.events if matches(pattern, event))


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
    """Warn of passwords that stand in the file itself; those that come from `${…}` do not."""
    paths: list[KeyPath] = [
        ("broker",),
        ("broker", "url"),
        *(("broker", "urls", i) for i in range(len(spec.broker.urls))),
    ]
    for path in paths:
        node = loaded.document.node(path) if loaded.document else None
        if isinstance(node, Scalar) and path not in loaded.interpolated and _password(str(node.value)):
            message = "the broker's password stands in the file"
            help_text = "write ${RABBITMQ_URL} or ${file:/run/secrets/rabbitmq_url} instead"
            yield loaded.problem("plain-password", path, message, help_text, severity="warning")


def _password(url: str) -> bool:
    try:
        return bool(urlsplit(url).password)
    except ValueError:
        return False


def _long_timeouts(loaded: Loaded, spec: PipelineSpec) -> Iterator[Problem]:
    for name, subscriber in spec.subscribers.items():
        if subscriber.timeout is not None and subscriber.timeout >= CONSUMER_TIMEOUT_S:
            message = "RabbitMQ takes a message back that is unsettled for 30 minutes (its consumer_timeout)"
            help_text = "use a shorter timeout, or raise consumer_timeout on the broker"
            path = ("subscribers", name, "timeout")
            yield loaded.problem("long-timeout", path, message, help_text, severity="warning")


def _unknown(
    loaded: Loaded, path: tuple[str | int, ...], name: str, known: Iterable[str], kind: str = "queue or event"
) -> Problem:
    guess = closest(name, list(known))
    section = {"queue or event": "`queues:` or `events:`", "event": "`events:`", "exchange": "`exchanges:`"}[kind]
    help_text = f'did you mean "{guess}"?' if guess else f"add it under {section}"
    return loaded.problem("unknown-name", path, f'no {kind} is called "{name}"', help_text)
