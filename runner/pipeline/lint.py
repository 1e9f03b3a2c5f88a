"""Warnings about options that are allowed, but probably not meant."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from runner.config.document import KeyOrValue, KeyPath, ScalarNode, walk_nodes
from runner.config.interpolation import substitute
from runner.config.loader import PipelineFile
from runner.config.messages import closest, quoted, typo_of
from runner.config.queue_spec import QueueSpec
from runner.config.spec import PipelineSpec
from runner.errors import Problem
from runner.pipeline.flow_checks import Peer, flow_warnings
from runner.pipeline.topic_patterns import is_pattern
from runner.pipeline.topology import BUILT_IN_EXCHANGES
from runner.pipeline.topology_builder import (
    DEFAULT_EXCHANGE,
    order_of,
    queue_options,
    reads_queue,
    reads_stream,
)
from runner.units import format_duration, pluralize

CONSUMER_TIMEOUT_S = 30 * 60.0
"""RabbitMQ requeues a message that is not acknowledged for longer: the default of `consumer_timeout`."""

MAX_HELD_S = 25 * 60.0
"""The maximum time to hold a message, with a margin to `CONSUMER_TIMEOUT_S`."""

COMMON_NAMES = frozenset({"app", "config", "index", "main", "pipeline", "pipelines", "runner", "worker", "workers"})
"""Names of files that are common to many projects."""

_BROKER_URL = re.compile(r"(?:amqp|redis)s?://\S*")
_FREE: Final = frozenset({"with", "arguments", "headers"})
"""Maps whose values are passed on unchanged."""

_WITHOUT_SUMMER = {"EST": "America/New_York", "MST": "America/Denver"}
"""Zones that are fixed, each with a place that may be meant."""

_ODD = re.compile(r"^[-\s]+|[-\s,;:.\\\"'(){}\[\]]+$")
"""What a name has at its ends by mistake."""

_VARIABLE = re.compile(r"\$\{[^}]*\}")


def lint_warnings(loaded: PipelineFile, spec: PipelineSpec, together: Sequence[Peer]) -> list[Problem]:
    """Return the warnings about a valid spec, which is loaded together with others."""
    return [
        *_shared_orders(loaded, spec),
        *_frequent_crons(loaded, spec),
        *_undeclared_exchanges(loaded, spec, together),
        *flow_warnings(loaded, spec, together),
        *_idle_keys(loaded, spec),
        *_cut_values(loaded),
        *_odd_names(loaded, spec),
        *_dropped_failures(loaded, spec),
        *_lost_dead_letters(loaded, spec),
        *_plain_passwords(loaded, spec),
        *_logged_in_clear(loaded, spec),
        *_array_files(loaded, spec),
        *_long_timeouts(loaded, spec),
        *_short_grace(loaded, spec),
        *_low_prefetch(loaded, spec),
        *_shared_queues(loaded, spec, together),
        *_unused_options(loaded, spec),
        *_idle_trips(loaded, spec),
        *_common_name(loaded, spec),
    ]


def _common_name(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of a name that another project may have: on one broker, they would take each other's messages."""
    if spec.name is None and loaded.name in COMMON_NAMES and spec.broker.urls:
        message = f'other projects on this broker may have the name of the file, "{loaded.name}", too'
        help_text = "add `name:`, as in `name: shop`"
        yield loaded.problem("common-name", ("version",), message, help_text, severity="warning")


def _shared_orders(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of an order that a second process would break, and of retries that are longer than RabbitMQ allows."""
    for name, subscriber in spec.subscribers.items():
        own = subscriber.queue or QueueSpec()
        queue = spec.queues[subscriber.from_[0]] if reads_queue(spec, subscriber) else own
        if order_of(spec, subscriber) is None:
            is_chosen = "concurrency" in subscriber.model_fields_set or subscriber.batch is not None
            if queue.single_active_consumer and not is_chosen and subscriber.concurrency > 1:
                message = (
                    f"its queue has one consumer at a time, which handles {subscriber.concurrency} messages at once"
                )
                help_text = "write `concurrency: 1` for their order, or `order_by:` for one per key"
                yield loaded.problem(
                    "shared-order", ("subscribers", name), message, help_text, severity="warning", on="key"
                )
            continue
        path = ("subscribers", name, "order_by" if subscriber.order_by is not None else "retry")
        if (queue.type == "classic" or not queue.declare) and not queue.single_active_consumer:
            message = "a second process on this queue would break the order"
            help_text = "add `single_active_consumer: true` to the queue, or run one process"
            yield loaded.problem("shared-order", path, message, help_text, severity="warning")
        if subscriber.retry.attempts > 1 and subscriber.retry.delay >= MAX_HELD_S:
            message = "with order_by, a retry waits in this process, and RabbitMQ requeues the message after 30 minutes"
            help_text = "use a delay of less than 25 minutes"
            yield loaded.problem("long-timeout", path, message, help_text, severity="warning")


def _frequent_crons(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of a cron line that is due more often than it seems, such as `* 6 * * *`, and of a zone without summer."""
    for name, producer in spec.producers.items():
        if place := _WITHOUT_SUMMER.get(producer.timezone or ""):
            message = f"{producer.timezone} has no summer time"
            path: KeyPath = ("producers", name, "timezone")
            yield loaded.problem("fixed-timezone", path, message, f"write {place}, which has", severity="warning")
        _, _, day, _, weekday = (producer.cron or "* * * * *").split()
        if "*" not in (day[:1], weekday[:1]):
            message = f'"{producer.cron}" is due on each day that one of "{day}" and "{weekday}" names'
            help_text = "write * for one of the two, and let the handler check the other: cron joins them by `or`"
            yield loaded.problem("frequent-cron", ("producers", name, "cron"), message, help_text, severity="warning")
        minute, hour, *days = (producer.cron or "0 0 * * *").split()
        if minute == "*" and re.fullmatch(r"\d+(,\d+)*|\*/\d+", hour):
            line = " ".join(["0", hour, *days])
            message = f'"{producer.cron}" is due in each minute of the hour {hour}, not once'
            help_text = f'write "{line}" for once at its beginning, or "*/1" for each minute'
            yield loaded.problem("frequent-cron", ("producers", name, "cron"), message, help_text, severity="warning")


def _undeclared_exchanges(loaded: PipelineFile, spec: PipelineSpec, together: Sequence[Peer]) -> Iterator[Problem]:
    """Warn of an event on an undeclared exchange, if others are declared: it may be a typo."""
    declared = {name for peer in together for name in peer.spec.exchanges}
    for name, event in spec.events.items():
        exchange = event.exchange or DEFAULT_EXCHANGE
        if spec.exchanges and exchange not in {*spec.exchanges, *declared, *BUILT_IN_EXCHANGES, DEFAULT_EXCHANGE}:
            guess = closest(exchange, spec.exchanges)
            message = f'"{exchange}" is not declared, unlike the other exchanges, and becomes a new topic exchange'
            help_text = f'did you mean "{guess}"?' if guess else f'add "{exchange}: topic" under `exchanges:`'
            path = ("events", name, "exchange")
            yield loaded.problem("undeclared-exchange", path, message, help_text, severity="warning")


def _type_of(spec: PipelineSpec, exchange: str) -> str:
    """Return the type of an exchange; empty if its owner has chosen it, and the file does not say it."""
    known = spec.exchanges.get(exchange)
    if known is None:
        return BUILT_IN_EXCHANGES.get(exchange, "topic")
    return known.type if known.declare or "type" in known.model_fields_set else ""


def _idle_keys(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of bindings whose key is empty, or a pattern at an exchange that knows none: they match no usual message."""
    for name, queue in spec.queues.items():
        for index, bind in enumerate(queue.bind):
            kind = _type_of(spec, bind.exchange)
            path: KeyPath = ("queues", name, "bind", index, "key")
            if kind == "direct" and is_pattern(bind.key or ""):
                message = f'"{bind.exchange}" is a direct exchange, where * and # stand for themselves'
                help_text = f"write `{bind.exchange}: topic` under `exchanges:`, or the whole key"
                yield loaded.problem("unmatched-pattern", path, message, help_text, severity="warning")
            if bind.key or kind not in ("topic", "direct"):
                continue
            message = (
                f'the binding to the {kind} exchange "{bind.exchange}" has no key: it matches only an empty routing key'
            )
            help_text = 'add a key, as in key: "#" for every message' if kind == "topic" else "add a key"
            if loaded.document is not None and loaded.document.comment_behind(path).startswith("#"):
                help_text = 'a "#" without quotes starts a comment: write key: "#"'
            yield loaded.problem("empty-key", path, message, help_text, severity="warning")


def _odd_names(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of names of the pipeline and its parts with a sign that a slip of the keyboard leaves, such as `shop,`."""
    found: list[tuple[KeyPath, str]] = [(("name",), spec.name or "")]
    found += [(("producers", name), name) for name in spec.producers]
    found += [(("subscribers", name), name) for name in spec.subscribers]
    for path, name in found:
        if (bare := _ODD.sub("", name)) != name and not {*"([{"} & {*bare}:
            on: KeyOrValue = "value" if path == ("name",) else "key"
            message, help_text = f"{quoted(name)} begins or ends with a sign", f"write {quoted(bare)} if that is meant"
            yield loaded.problem("odd-name", path, message, help_text, severity="warning", on=on)


def _cut_values(loaded: PipelineFile) -> Iterator[Problem]:
    """Warn of texts that end before a "#" that seems to be a part of them."""
    document = loaded.document
    for path, node in walk_nodes(document.root) if document is not None else ():
        is_free = path[-1:] in (("key",), ("description",), ("owner",)) or _FREE & {*path[2:-1]}
        if document is None or not isinstance(node, ScalarNode) or not is_free or _is_key_of_a_binding(path, node):
            continue
        comment = document.comment_behind(path)
        if isinstance(node.value, str | None) and comment and comment[1:2].strip():
            message = 'the value ends before a "#", which starts a comment'
            help_text = 'put the whole value in quotes, or a blank behind the "#" of a comment'
            yield loaded.problem("cut-by-comment", path, message, help_text, severity="warning")


def _is_key_of_a_binding(path: KeyPath, node: ScalarNode) -> bool:
    """Whether an empty key of a binding has been reported by `_idle_keys`."""
    return node.value is None and path[2:3] == ("bind",)


def _dropped_failures(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    for path, name, queue in queue_options(loaded.name, spec):
        if queue.dead_letter is False:
            message = f'messages that fail in queue "{name}", or cannot be decoded, are dropped'
            help_text = "remove `dead_letter: false` to keep it in a dead-letter queue"
            yield loaded.problem("drops-failures", (*path, "dead_letter"), message, help_text, severity="warning")


def _lost_dead_letters(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of dead letters that come back, and of dead-letter queues that may be meant to be others."""
    for path, name, queue in queue_options(loaded.name, spec):
        target, chain = queue.dead_letter, [name]
        while (last := spec.queues.get(chain[-1])) is not None and last.dead_letter and last.dead_letter not in chain:
            chain.append(last.dead_letter)
        message = help_text = ""
        code = "undeclared-queue"
        if last is not None and last.dead_letter == name == min(chain) and len(chain) > 1:
            code, message = "cycle", f"dead letters loop back: {' → '.join([*chain, name])}"
            help_text = f'remove `dead_letter:` from "{chain[-1]}": its own then stay in "{chain[-1]}.dead"'
        elif target in spec.events:
            message = f'"{target}" is an event, and dead letters go to a queue: it would be a new queue of that name'
            help_text = f"""write the name of a queue{f', such as "{name}.dead"' if path[0] == "queues" else ""}"""
        elif target and target not in spec.queues and (guess := typo_of(target, spec.queues)):
            message = f'"{target}" is not declared, and becomes a new queue'
            help_text = f'did you mean "{guess}"?'
        if message:
            yield loaded.problem(code, (*path, "dead_letter"), message, help_text, severity="warning")


def _plain_passwords(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of passwords in the file, also in the default of a variable."""
    document = loaded.document
    sections = ((name, document.node((name,))) for name in ("broker", "stores")) if document is not None else ()
    nodes = [pair for name, section in sections if section is not None for pair in walk_nodes(section, (name,))]
    for path, node in nodes:
        if document is None or not isinstance(node, ScalarNode) or not isinstance(node.value, str):
            continue
        written = document.part(node.span).text[node.start : node.end]
        value = substitute(written, {}, lambda _: "").text if node.origins else node.value
        password = value.strip("\"'") if path == ("broker", "password") else _password(value)
        if password:
            message = f"the {str(path[0]).removesuffix('s')}'s password is in the file"
            name = "REDIS_URL" if path[0] == "stores" else "RABBITMQ_URL" if _password(value) else "RABBITMQ_PASSWORD"
            help_text = f"write ${{{name}}} or ${{file:/run/secrets/{name.lower()}}} instead"
            if password not in _VARIABLE.sub("", written):
                message += ", in the default of a variable"
                help_text = "write no default, or one without a password, and set the variable"
            yield loaded.problem("plain-password", path, message, help_text, severity="warning")


def _logged_in_clear(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of payloads that are logged whole, although parts of them are to be masked elsewhere."""
    if spec.redact and spec.logging.payloads:
        message = f'{" and ".join(spec.redact)} are logged in clear: "redact" masks recorded tests only'
        path = ("logging", "payloads")
        yield loaded.problem("logged-in-clear", path, message, "write `payloads: false`", severity="warning")


def _array_files(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of files that are one JSON array of objects: each line is a message, and not each object."""
    for name, producer in spec.producers.items():
        file = producer.file if producer.file not in (None, "-") else None
        path = loaded.path.parent / file if file else None
        if file is None or path is None or file.lower().endswith(".csv") or not path.is_file():
            continue
        with path.open("rb") as opened:
            head = opened.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
        if re.match(rb"\[\s*\{", head):
            message = f"{file} is one JSON array, and each line of a file is a message"
            help_text = f"write one object on each line, as `jq -c '.[]' {file} > {path.stem}.jsonl` does"
            at = ("producers", name, "file")
            yield loaded.problem("not-json-lines", at, message, help_text, severity="warning")


def _password(text: str) -> str:
    """Return the password of the URL in a text, "" if there is none."""
    url = _BROKER_URL.search(text)
    try:
        return (urlsplit(url[0]).password or "") if url else ""
    except ValueError:
        return ""


def _long_timeouts(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    for name, subscriber in spec.subscribers.items():
        if subscriber.timeout is not None and subscriber.timeout >= CONSUMER_TIMEOUT_S:
            message = "RabbitMQ requeues a message that is not acknowledged for 30 minutes (its consumer_timeout)"
            help_text = "use a shorter timeout, or raise consumer_timeout on the broker"
            path = ("subscribers", name, "timeout")
            yield loaded.problem("long-timeout", path, message, help_text, severity="warning")


def _short_grace(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of attempts that may take longer than a stop waits for them: once for each place where that is written."""
    grace, is_set = spec.shutdown.grace, "grace" in spec.shutdown.model_fields_set
    timeouts = {name: item.timeout or 0 for name, item in spec.subscribers.items() if (item.timeout or 0) > grace}
    longest = max(timeouts.values(), default=0)
    found = dict[tuple[str, int, int], Problem]()
    for name, timeout in sorted(timeouts.items(), key=lambda item: item[1] != longest):
        taken = format_duration(timeout)
        message = f'a stop waits {format_duration(grace)} for handlers, and the timeout of "{name}" is {taken}'
        path = ("shutdown", "grace") if is_set else ("subscribers", name, "timeout")
        help_text = f"write `shutdown: {{grace: {format_duration(longest)}}}` to let them finish, or a shorter timeout"
        problem = loaded.problem("short-grace", path, message, help_text, severity="warning")
        found.setdefault((problem.file, problem.line, problem.column), problem)
    yield from found.values()


def _low_prefetch(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    for name, subscriber in spec.subscribers.items():
        held = subscriber.prefetch
        if held is not None and subscriber.batch is None and held < subscriber.concurrency:
            message = f"only {held} of {subscriber.concurrency} handlers can run at once: no more messages are held"
            help_text = f"write `prefetch: {subscriber.concurrency}`, remove it, or write `concurrency: {held}`"
            path = ("subscribers", name, "prefetch")
            yield loaded.problem("low-prefetch", path, message, help_text, severity="warning")


def _shared_queues(loaded: PipelineFile, spec: PipelineSpec, together: Sequence[Peer]) -> Iterator[Problem]:
    """Warn of subscribers that take messages from each other, in each of their pipelines but the first."""
    readers: dict[str, dict[str, str]] = {}
    for peer in together or [Peer(loaded.name, spec)]:
        for name, subscriber in peer.spec.subscribers.items():
            if reads_queue(peer.spec, subscriber) and not reads_stream(peer.spec, subscriber):
                own = name if peer.spec is spec else ""
                readers.setdefault(subscriber.from_[0], {})[own or f"{peer.name}.{name}"] = own
    for queue, names in readers.items():
        if at := next((names[other] for other in [*names][1:] if names[other]), ""):
            shown = [f'"{name}"' for name in names]
            listed = f"{', '.join(shown[:-1][:4])} and {shown[-1] if len(shown) < 6 else f'{len(shown) - 4} more'}"
            message = f'{listed} share the messages of queue "{queue}": each gets some of them'
            each, them = ("both", "the two") if len(names) == 2 else ("all", "them")
            help_text = f'if {each} are to get every message, write "{queue}" under `events:` in place of `queues:`'
            if rest := sorted(spec.queues[queue].model_fields_set - {"schema_", "description", "events"}):
                help_text += f", and {' and '.join(f'`{key}:`' for key in rest)} under `queue:` of each"
            help_text += f"; else merge {them}"
            path = ("subscribers", at, "from")
            yield loaded.problem("shared-queue", path, message, help_text, severity="warning")


def _idle_trips(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of a `trip` that needs more attempts than `rate` allows in its time."""
    for name, subscriber in spec.subscribers.items():
        trip, rate = subscriber.trip, subscriber.rate
        if trip is None or rate is None or trip.least <= (most := int(rate * trip.over)):
            continue
        message = (
            f'"trip" never pauses it: `rate:` allows {pluralize(most, "attempt")} in {format_duration(trip.over)}, '
            f"and `least` is {trip.least}"
        )
        over = format_duration(math.ceil(trip.least / rate))
        help_text = f"write `over: {over}`{f', or `least: {most}`' if most else ''} under `trip:`"
        path = ("subscribers", name, "trip", "least")
        yield loaded.problem("unused-option", path, message, help_text, severity="warning")


def _unused_options(loaded: PipelineFile, spec: PipelineSpec) -> Iterator[Problem]:
    """Warn of options without effect: delays of retries that never happen, and keys that an exchange ignores."""
    for name, subscriber in spec.subscribers.items():
        unused = sorted(subscriber.retry.model_fields_set & {"delay", "max_delay", "backoff", "on"})
        if subscriber.retry.attempts == 1 and unused:
            message = f'"{unused[0]}" has no effect: one attempt means no retry'
            path: KeyPath = ("subscribers", name, "retry", unused[0])
            yield loaded.problem("unused-option", path, message, "write `attempts: 2` or more", severity="warning")
    for name, queue in spec.queues.items():
        for index, bind in enumerate(queue.bind):
            kind = _type_of(spec, bind.exchange)
            ignored = "key" if bind.key and kind in ("fanout", "headers") else ""
            ignored = "headers" if bind.headers and kind not in ("headers", "") else ignored
            if ignored:
                message = f'"{ignored}" has no effect: "{bind.exchange}" is a {kind} exchange, which ignores it'
                path = ("queues", name, "bind", index, ignored)
                yield loaded.problem("unused-option", path, message, "remove it", severity="warning")
