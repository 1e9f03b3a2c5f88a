"""Checks of a whole spec: names that do not exist, and options that cannot work together."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from runner.config.diagnostics import display_path
from runner.config.loader import PipelineFile, mend_slips
from runner.config.messages import closest, typo_of
from runner.config.name_fields import MAX_NAME_BYTES
from runner.config.queue_spec import QueueSpec
from runner.config.recovery import UNKNOWN
from runner.config.spec import PipelineSpec
from runner.config.store_urls import REDIS, SQLITE
from runner.config.target_spec import target_names
from runner.errors import Problem, Severity, has_errors
from runner.outcome import MAX_DELAY_S
from runner.pipeline.body_encoding import ZSTD
from runner.pipeline.delays import arrival_name
from runner.pipeline.delivery_rules import option_problems, receiving_queues
from runner.pipeline.flow_checks import Peer, matches_any_event
from runner.pipeline.model import delay_prefix
from runner.pipeline.partitioning import partitioning_of
from runner.pipeline.sound_warnings import sound_warnings
from runner.pipeline.topic_patterns import is_pattern, matches
from runner.pipeline.topology import BUILT_IN_EXCHANGES, pause_queue, wait_name
from runner.pipeline.topology_builder import (
    dead_letter_queue,
    dead_letter_queues,
    has_own_queue,
    needs_dead_letter_queue,
    own_queue,
    queue_arguments,
    queue_options,
    reads_queue,
    reads_stream,
)
from runner.redaction import mask_passwords

_DEAD = re.compile(r"[._-](dlq|dead|dlx|deadletter|dead[._-]?letters?|errors?|failed|poison)$")
"""How other tools end the name of a dead-letter queue."""

_PARTS = re.compile(r"[._-]")
_LIKELY = 0.7
"""How similar a name must be to one that nothing else uses, to be taken for it."""

TRACE_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def check_names(loaded: PipelineFile, together: Sequence[Peer] | None = None) -> tuple[PipelineFile, list[Problem]]:
    """Return all problems of a file and its spec, and the file with the slips mended that its names show."""
    for _ in range(2):
        spec = loaded.spec or loaded.recovered
        found = check_spec(loaded, spec, together) if spec is not None else []
        mended = mend_slips(loaded, found) if has_errors(found) else loaded
        if mended is loaded:
            break
        loaded = mended
    return loaded, [*loaded.problems, *found]


def check_spec(loaded: PipelineFile, spec: PipelineSpec, together: Sequence[Peer] | None = None) -> list[Problem]:
    """Return the problems of a spec with its names and the flow of its messages.

    `together` are the pipelines that are loaded together, from `peers`. Default: only this one.
    """
    together = [Peer(loaded.name, spec)] if together is None else together
    names = (_shared_names, _own_queues, _reserved_names, _derived_names, _targets, _queue_sources, _event_exchanges)
    options = (_streams, _partitions, _target_options, _http_paths, _traces, _compression, _stores)
    found = (problem for check in (*names, *options) for problem in check(loaded, spec))
    wrong = {problem.path for problem in loaded.problems}
    sections = [name for name in ("queues", "events", "exchanges") if name in wrong and not getattr(spec, name)]
    problems = [
        problem
        for problem in (*_sources(loaded, spec, together), *found)
        if problem.code != "unknown-name" or not sections or problem.path.endswith(".store")
    ]
    for misspelt, unknown in _misspelt_declarations(loaded, spec, problems):
        problems = [misspelt, *(problem for problem in problems if problem not in unknown)]
    errors = [problem for problem in (*loaded.problems, *problems) if problem.severity == "error"]
    return [*problems, *sound_warnings(loaded, spec, together, errors)]


def _misspelt_declarations(
    loaded: PipelineFile, spec: PipelineSpec, problems: Sequence[Problem]
) -> Iterator[tuple[Problem, list[Problem]]]:
    """Yield a problem for each queue or event that nothing names, where a name like it is used twice or more.

    With each come the problems of that name, in place of which it stands.
    """
    lists = [item.to for item in spec.producers.values()] + [item.to for item in spec.subscribers.values()]
    used = [target for targets in lists for target in target_names(targets)]
    used += [source for item in spec.subscribers.values() for source in item.from_]
    used += [event for queue in spec.queues.values() for event in queue.events]
    idle = [name for name in (*spec.queues, *spec.events) if name not in used]
    missing = [problem for problem in problems if problem.code == "unknown-name"]
    for name in dict.fromkeys(used):
        unknown = [problem for problem in missing if problem.message.endswith(f' called "{name}"')]
        meant = typo_of(name, idle) if len(unknown) > 1 else None
        if meant is not None:
            path = ("queues" if meant in spec.queues else "events", meant)
            message = f'nothing names "{meant}", and {len(unknown)} places name "{name}"'
            problem = loaded.problem("unknown-name", path, message, f'did you mean "{name}"?', on="key")
            fix = loaded.document.rewriting(path, name) if loaded.document is not None else None
            yield replace(problem, fix=fix), unknown


def _shared_names(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    for name in spec.events:
        if name in spec.queues:
            message = f'"{name}" is a queue and an event: `from` and `to` could not tell them apart'
            help_text = (
                f"rename the queue, and write `events: [{name}]` in it if it gets the event; or remove it if it is "
            )
            help_text += "that of one subscriber, and write its options there, under `queue:`"
            yield loaded.problem("name-clash", ("events", name), message, help_text, on="key")


def _sources(loaded: PipelineFile, spec: PipelineSpec, together: Sequence[Peer]) -> Iterator[Problem]:
    """Check the sources of subscribers: one queue, or events and patterns of events."""
    for name, subscriber in spec.subscribers.items():
        path = ("subscribers", name, "from")
        for index, source in enumerate(subscriber.from_):
            if source == UNKNOWN:
                continue
            if source in spec.queues:
                if len(subscriber.from_) > 1:
                    help_text = "write one subscriber for each queue; only events can be listed together"
                    yield loaded.problem("bad-source", (*path, index), f'"{source}" is a queue in a list', help_text)
                    break
            elif is_pattern(source):
                if not any(matches(source, event) for event in spec.events) and not matches_any_event(source, together):
                    message = f'no event of this pipeline matches "{source}"'
                    help_text = _pattern_meant(source, spec) or "list the events you mean under `events:`"
                    yield loaded.problem("unmatched-pattern", (*path, index), message, help_text, severity="warning")
            elif source not in spec.events and source in spec.exchanges:
                message = f'"{source}" is an exchange, and subscribers read queues and events'
                help_text = "bind a queue to it with `bind:`, and read that"
                yield loaded.problem("unknown-name", (*path, index), message, help_text)
            elif source not in spec.events:
                read = {each for item in spec.subscribers.values() for each in item.from_}
                known = [*spec.queues, *spec.events]
                idle = [each for each in known if each not in read]
                yield _unknown(loaded, (*path, index), source, known, likelier=idle)


def _streams(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Refuse what a subscriber of a stream cannot do, and `offset` for all others."""
    for name, subscriber in spec.subscribers.items():
        path = ("subscribers", name)
        if reads_stream(spec, subscriber):
            if subscriber.batch is not None:
                message = f'"{subscriber.from_[0]}" is a stream, whose messages are handled one by one'
                help_text = "remove it, and let the handler take one message in place of a list"
                yield loaded.problem("conflicting-options", (*path, "batch"), message, help_text)
        elif subscriber.offset is not None and subscriber.from_[0] in {*spec.queues, *spec.events}:
            message = f'"{subscriber.from_[0]}" is not a stream, and only a stream has offsets'
            help_text = "remove it, or write `type: stream` in the queue"
            yield loaded.problem("conflicting-options", (*path, "offset"), message, help_text)
        if subscriber.queue is not None and subscriber.queue.type == "stream":
            message = "the own queue of a subscriber cannot be a stream"
            help_text = "declare the stream under `queues:` with `events:`, and read it"
            yield loaded.problem("bad-source", (*path, "queue", "type"), message, help_text)


def _partitions(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Refuse what a queue with partitions cannot do, and names that its partitions need."""
    eventful = (name for name, item in spec.subscribers.items() if not reads_queue(spec, item))
    taken = {own_queue(loaded.name, name): ("subscribers", name) for name in eventful}
    taken |= {name: ("queues", name) for name in spec.queues}
    for name, queue in spec.queues.items():
        if (partitioning := partitioning_of(name, queue)) is not None:
            names = (partitioning.processes.name, *partitioning.names)
            for path in (taken[each] for each in names if each in taken):
                message = f'"{path[-1]}" has the name of a queue that the partitions of "{name}" need'
                yield loaded.problem("name-clash", path, message, "rename one of them", on="key")
            yield from _too_long(loaded, ("queues", name), names[0], "the queue for the number of its partitions")
        if (target := spec.queues.get(queue.dead_letter or "")) is not None and target.partitions is not None:
            message = f'"{queue.dead_letter}" has partitions, and the broker cannot choose one for a dead letter'
            help_text = "write a queue without partitions"
            yield loaded.problem("conflicting-options", ("queues", name, "dead_letter"), message, help_text)
    for name, subscriber in spec.subscribers.items():
        if subscriber.queue is not None and subscriber.queue.partitions is not None:
            message = "the own queue of a subscriber receives events, and the broker cannot choose a partition for them"
            help_text = "declare the queue under `queues:`, and publish to it by its name"
            yield loaded.problem(
                "conflicting-options", ("subscribers", name, "queue", "partitions"), message, help_text
            )
        is_queue = subscriber.batch is not None and reads_queue(spec, subscriber)
        if is_queue and spec.queues[subscriber.from_[0]].partitions is not None:
            message = f'"{subscriber.from_[0]}" has partitions to keep an order, and batches have none'
            yield loaded.problem("conflicting-options", ("subscribers", name, "batch"), message, "remove one of them")


def _own_queues(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    for name, subscriber in spec.subscribers.items():
        if reads_queue(spec, subscriber) and subscriber.queue is not None:
            help_text = f"write its options under `queues: {subscriber.from_[0]}:`"
            message = "`queue` sets options of a subscriber's own queue, but this one reads a declared queue"
            yield loaded.problem("bad-source", ("subscribers", name, "queue"), message, help_text, on="key")
        if has_own_queue(spec, subscriber) and own_queue(loaded.name, name) in spec.queues:
            queue = own_queue(loaded.name, name)
            message = f'its own queue would be called "{queue}", which is declared under `queues:`'
            yield loaded.problem("name-clash", ("subscribers", name), message, "rename one of them", on="key")


def _reserved_names(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Refuse the names of the queues that hold the pauses of subscribers and the state of producers."""
    uses = {pause_queue(loaded.name).name: "`runner pause` keeps its pauses"}
    if any(producer.http is None for producer in spec.producers.values()):
        uses[f"{loaded.name}.producers"] = "the producers elect their leader"
    for path, name, _ in queue_options(loaded.name, spec):
        if name in uses:
            message = f'the queue "{name}" is the one in which {uses[name]}'
            yield loaded.problem("name-clash", path[:2], message, "write another name", on="key")


def _derived_names(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Refuse names whose derived names would be too long."""
    read = {subscriber.from_[0] for subscriber in spec.subscribers.values() if reads_queue(spec, subscriber)}
    dead = dead_letter_queues(loaded.name, spec)
    for name, queue in spec.queues.items():
        arguments = queue_arguments(name, queue, is_dead_letter=name in dead)
        if needs_dead_letter_queue(queue, arguments, is_read=name in read):
            yield from _too_long(loaded, ("queues", name), dead_letter_queue(name, queue), "its dead-letter queue")
    for name, subscriber in spec.subscribers.items():
        if has_own_queue(spec, subscriber):
            queue_name = own_queue(loaded.name, name)
            target = dead_letter_queue(queue_name, subscriber.queue or QueueSpec())
            yield from _too_long(loaded, ("subscribers", name), target or queue_name, "its own dead-letter queue")
    for index, target in enumerate(spec.delays):
        queue_name = arrival_name(delay_prefix(loaded.name), target)
        yield from _too_long(loaded, ("delays", index), queue_name, "the queue of its delayed messages")
    if spec.subscribers or spec.producers:
        longest = wait_name(f"{loaded.name}.retry", round(MAX_DELAY_S * 1000))
        yield from _too_long(loaded, ("name",), longest, "a queue in which its retries wait")


def _too_long(loaded: PipelineFile, path: tuple[str | int, ...], name: str | None, what: str) -> Iterator[Problem]:
    if name is not None and len(name.encode()) > MAX_NAME_BYTES:
        message = f"the name is too long: {what} would have a name of more than {MAX_NAME_BYTES} bytes"
        on: Literal["key", "value"] = "value" if path == ("name",) else "key"
        yield loaded.problem("bad-name", path, message, "write a shorter name", on=on)


def _targets(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    known = [*spec.queues, *spec.events]
    lists = [item.to for item in spec.producers.values()] + [item.to for item in spec.subscribers.values()]
    fed = {name for targets in lists for name in target_names(targets)}
    for section, items in (("producers", spec.producers), ("subscribers", spec.subscribers)):
        for name, item in items.items():
            for index, target in enumerate(target_names(item.to)):
                if target in spec.queues or target in spec.events or target == UNKNOWN:
                    continue
                if target in spec.exchanges:
                    yield _exchange_as_target(loaded, spec, (section, name, "to", index), target)
                else:
                    own = getattr(item, "from_", ())  # no cycle is meant
                    idle = [each for each in known if each not in fed and each not in own]
                    yield _unknown(loaded, (section, name, "to", index), target, known, likelier=idle, unlikely=own)
    for index, target in enumerate(spec.delays):
        if target not in known:
            yield _unknown(loaded, ("delays", index), target, known)


def _target_options(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Check that the queues of a destination have what its options need."""
    for section, items in (("producers", spec.producers), ("subscribers", spec.subscribers)):
        for name, item in items.items():
            for index, target in enumerate(item.to):
                if target.options is None or target.name == UNKNOWN:
                    continue
                queues = receiving_queues(loaded.name, spec, target.name)
                for key, message, help_text in option_problems(target.options, queues):
                    path = (section, name, "to", index, key)
                    yield loaded.problem("unsupported-option", path, message, help_text)


def _exchange_as_target(loaded: PipelineFile, spec: PipelineSpec, path: tuple[str | int, ...], name: str) -> Problem:
    bound = [queue for queue, item in spec.queues.items() if any(bind.exchange == name for bind in item.bind)]
    help_text = f'add an event with "exchange: {name}", and write its name'
    if spec.exchanges[name].type not in ("topic", "direct"):
        instead = f'"{bound[0]}", which is bound to it' if bound else "a queue that is bound to it"
        help_text = f"events need a topic or direct exchange: write {instead}"
    message = f'"{name}" is an exchange, and messages go to queues and events'
    return loaded.problem("unknown-name", path, message, help_text)


def _queue_sources(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Check the bindings of queues: to declared events, and to declared or built-in exchanges."""
    for name, queue in spec.queues.items():
        for index, event in enumerate(queue.events):
            if not is_pattern(event) and event not in spec.events:
                yield _unknown(loaded, ("queues", name, "events", index), event, spec.events, "event")
        for index, bind in enumerate(queue.bind):
            if bind.exchange not in spec.exchanges and bind.exchange not in BUILT_IN_EXCHANGES:
                path = ("queues", name, "bind", index, "exchange")
                yield _unknown(loaded, path, bind.exchange, spec.exchanges, "exchange")


def _event_exchanges(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    for name, event in spec.events.items():
        exchange = spec.exchanges.get(event.exchange or "")
        if exchange is not None and exchange.type not in ("topic", "direct"):
            message = f'events are routed by their routing key, but "{event.exchange}" is a {exchange.type} exchange'
            help_text = "use a topic exchange, or bind a queue to this one with `bind:`"
            yield loaded.problem("bad-exchange", ("events", name, "exchange"), message, help_text)


def _http_paths(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name, producer in spec.producers.items():
        if producer.http is not None and (other := seen.setdefault(producer.http, name)) != name:
            message = f'"{producer.http}" is already the path of "{other}"'
            help_text = "write another path, or list both names in one `to:`"
            yield loaded.problem("conflicting-options", ("producers", name, "http"), message, help_text)


def _traces(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    if spec.telemetry.traces == "otlp" and not all(map(_is_installed, TRACE_MODULES)):
        message = "exporting traces needs OpenTelemetry's SDK and its exporter, which are not installed"
        help_text = 'install them: pip install "mqrunner[otel]"'
        yield loaded.problem("missing-extra", ("telemetry", "traces"), message, help_text)


def _compression(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    for section, items in (("queues", spec.queues), ("events", spec.events)):
        for name, item in items.items():
            if item.compress is not None and item.compress.encoding == "zstd" and not _is_installed(ZSTD):
                path = (section, name, "compress", "encoding")
                help_text = 'install it: pip install "mqrunner[zstd]", or write "gzip"'
                yield loaded.problem("missing-extra", path, "zstd needs a library, which is not installed", help_text)


def _stores(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Check that stores exist, are used, and can be reached with what is installed."""
    uses = [(("subscribers", name, "dedupe"), each.dedupe) for name, each in spec.subscribers.items()]
    uses += [(("producers", name, "idempotency"), each.idempotency) for name, each in spec.producers.items()]
    used = {path: each.store for path, each in uses if each is not None and each.store is not None}
    are_known = not any(problem.path == "stores" for problem in loaded.problems)  # else some are left out
    for path, store in used.items():
        if store not in spec.stores and are_known and store != UNKNOWN:
            url = "redis://localhost:6379/0" if "redis" in store.lower() else f"sqlite:{store}.db"
            add = f"{store}: {url}" if spec.stores else f"stores: {{{store}: {url}}}"
            help_text = f"add `{add}` {'under `stores:`' if spec.stores else 'at the top of the file'}"
            of_kind = [name for name, known in spec.stores.items() if known.startswith(f"{store.lower()}:")]
            if guess := closest(store, spec.stores) or (of_kind[0] if len(of_kind) == 1 else None):
                help_text = f'did you mean "{guess}"?'
            if same := [name for name, known in spec.stores.items() if known == store]:
                help_text = f'write the name of the store: "{same[0]}"'
            elif ":" in store and "@" not in store and not spec.stores:
                help_text = f"write `store: seen`, and at the top of the file `stores: {{seen: {store}}}`"
            message = f'no store is called "{mask_passwords(store)}"'
            yield loaded.problem("unknown-name", (*path, "store"), message, help_text)
    is_sound = not any(problem.path.startswith("stores") for problem in loaded.problems)
    for name, url in spec.stores.items():
        if name not in used.values() and is_sound and {*used.values()} <= {*spec.stores}:  # else one may be misspelt
            message = f'nothing uses the store "{name}"'
            help_text = f"write `dedupe: {{window: 1h, store: {name}}}` at a subscriber, or remove it"
            if alone := [str(path[1]) for path, each in uses if each is not None and each.store is None]:
                help_text = (
                    f'write "store: {name}" under `dedupe:` or `idempotency:` of {" and ".join(alone)}, or remove it'
                )
            yield loaded.problem("unused-option", ("stores", name), message, help_text, severity="warning", on="key")
        if url.startswith(SQLITE) and (wrong := _unusable(loaded.path.parent / url.removeprefix(SQLITE), url)):
            severity: Severity = "warning" if Path(url.removeprefix(SQLITE)).is_absolute() else "error"
            yield loaded.problem("bad-url", ("stores", name), *wrong, severity=severity)
        if url.startswith(REDIS) and not _is_installed("redis"):
            message = "a store in Redis needs the package redis, which is not installed"
            help_text = 'install it: pip install "mqrunner[redis]"'
            yield loaded.problem("missing-extra", ("stores", name), message, help_text)


def _pattern_meant(source: str, spec: PipelineSpec) -> str:
    """Return the help for a pattern that matches no event: one that does, "" if none is near."""
    from runner.config import guesses

    def is_good(pattern: str) -> bool:
        return any(matches(pattern, event) for event in spec.events)

    if is_good(meant := guesses.event_pattern(source)):
        return f'write "{meant}": "*" is one word, "#" any number of them'
    exchanges = {*spec.exchanges, *(event.exchange for event in spec.events.values() if event.exchange)}
    for exchange in exchanges:
        if source.startswith(f"{exchange}.") and is_good(rest := source.removeprefix(f"{exchange}.")):
            return f'write "{rest}": "{exchange}" is an exchange, and a pattern is one of names of events'
    if is_good(deeper := re.sub(r"\*$", "#", source)):
        return f'write "{deeper}": "*" is one word, "#" any number of them'
    known = {word for event in spec.events for word in event.split(".")}
    near = ".".join(word if word in ("*", "#") else closest(word, known) or word for word in source.split("."))
    return f'did you mean "{near}"?' if is_good(near) else ""


def _unusable(file: Path, url: str) -> tuple[str, str] | None:
    """Return why no store can be in a file, and what to do; None if one can be, or is."""
    if not file.parent.is_dir():
        return f"there is no folder {display_path(file.parent)}", "make it: the store is a file in it"
    if file.is_dir():
        return f"{display_path(file)} is a folder", f"name a file in it, as in {url.rstrip('/')}/seen.db"
    return None


def _is_installed(module: str) -> bool:
    """Whether a module can be found; the packages that it lies in are imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _item_called(loaded: PipelineFile, name: str, *, is_source: bool) -> str:
    """Return the help for the name of a subscriber or producer in place of a queue or event, "" for other names.

    As a source it means what the item publishes to, as a destination what it reads.
    """
    spec = loaded.spec or loaded.recovered
    if spec is None or name not in {*spec.subscribers, *spec.producers}:
        return ""
    reader, writer = spec.subscribers.get(name), spec.producers.get(name)
    targets = target_names(reader.to if reader is not None else writer.to if writer is not None else ())
    reads = reader is not None and not (is_source and targets)
    meant = reader.from_[0] if reader is not None and reads else targets[0]
    if meant in (name, UNKNOWN):
        return ""
    kind, does = "producer" if reader is None else "subscriber", "reads" if reads else "publishes to"
    return f'"{name}" is a {kind} that {does} "{meant}": write "{meant}"'


def _dead_letters_called(loaded: PipelineFile, name: str) -> str:
    """Return the help for a dead-letter queue that is not declared, or has a name of another tool; "" for others."""
    spec = loaded.spec or loaded.recovered
    source = _DEAD.sub("", name)
    for path, queue, options in queue_options(loaded.name, spec) if spec is not None else ():
        target = dead_letter_queue(queue, options)
        events = spec.subscribers[path[1]].from_ if spec is not None and path[0] == "subscribers" else ()
        if target is not None and (target == name or (source != name and source in (path[1], *events))):
            parts = [] if target == name else ["write that"]
            parts += [] if spec is None or target in spec.queues else [f'add "{target}:" under `queues:`']
            return f'the dead letters of "{path[1]}" are in "{target}": {", and ".join(parts)}'
    return ""


def _unknown(
    loaded: PipelineFile,
    path: tuple[str | int, ...],
    name: str,
    known: Iterable[str],
    kind: str = "queue or event",
    likelier: Iterable[str] = (),
    unlikely: Sequence[str] = (),
) -> Problem:
    """Return the problem of a name. The `likelier` ones are those that nothing else uses in this way."""
    from runner.config import guesses

    known = list(known)
    parts = len(_PARTS.split(name))
    likelier = [
        each for each in likelier if len(_PARTS.split(each)) == parts and closest(name, [each], likeness=_LIKELY)
    ]
    guess = closest(name, known)
    pattern = guesses.event_pattern(name) if kind == "queue or event" and path[2:3] == ("from",) else ""
    address = guesses.address(name, known) if kind == "queue or event" else ""
    section = {"queue or event": "`queues:` or `events:`", "event": "`events:`", "exchange": "`exchanges:`"}[kind]
    help_text = f"add it under {section}"
    if kind == "queue or event" and (dead := _dead_letters_called(loaded, name)):
        help_text = dead
    elif pattern and any(matches(pattern, event) for event in known):
        help_text = f'write "{pattern}": "*" is one word, "#" any number of them'
    elif address:
        help_text = address
    elif typo := typo_of(name, [each for each in known if each not in unlikely], likelier) or typo_of(name, known):
        odd = next((sign for sign in name if sign > "\x7f" and sign not in typo), "")
        help_text = (
            f'did you mean "{typo}"?{f" Its {unicodedata.name(odd, odd).lower()} is another sign" if odd else ""}'
        )
    elif item := _item_called(loaded, name, is_source=path[2:3] == ("from",)):
        help_text = item
    elif guess:
        help_text = f'add it under {section}, or write "{guess}" if that is meant'
    return loaded.problem("unknown-name", path, f'no {kind} is called "{name}"', help_text)
