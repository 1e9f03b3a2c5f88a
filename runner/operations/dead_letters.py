"""Parses the messages of dead-letter queues (reason, time, origin), and makes the messages that are sent back.

A dead letter was written by the runner, as a copy with `x-runner-` headers, or by the broker, which adds `x-death`
(https://www.rabbitmq.com/docs/dlx#effects). Anyone may publish to the queue, so its content is not trusted: a message
is sent back only to a queue whose dead letters arrive here according to the pipeline.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, get_args

from runner import message as names
from runner.config.messages import closest
from runner.message import Address, Envelope, replays_of
from runner.operations.targets import ambiguous_target, unknown_target
from runner.outcome import InvalidMessage, Reason
from runner.pipeline.codec import value_at
from runner.pipeline.model import Pipeline
from runner.pipeline.partitioning import Partitioning
from runner.pipeline.topic_patterns import matches
from runner.transports.failure_copies import foreign_headers, printable, printable_lines, text_header

_RUNNER_REASONS = frozenset(get_args(Reason))


@dataclass(frozen=True, slots=True)
class DeadLetterQueue:
    """A dead-letter queue, the queues that dead-letter to it, and its delivery limit if the pipeline sets one.

    A queue with partitions is one origin; `partitionings` are those of the origins that have partitions. `subscriber`
    is the one that reads a stream, whose dead letters have a queue of their own.
    """

    name: str
    origins: frozenset[str]
    delivery_limit: int | None = None
    partitionings: tuple[Partitioning, ...] = ()
    subscriber: str = ""

    def origin_of(self, queue: str) -> str:
        """Return the queue that a partition belongs to; any other queue is itself."""
        return next((each.queue for each in self.partitionings if each.has(queue)), queue)

    def address_of(self, origin: str, envelope: Envelope) -> Address:
        """Return where a message for an origin goes. Raises PublishFailed if it has no key for a partition."""
        found = next((each.address_of(envelope) for each in self.partitionings if each.queue == origin), None)
        return found or Address("", origin)


class SelectedQueue(NamedTuple):
    """A dead-letter queue to read, and the one queue whose dead letters are selected; None for all."""

    dlq: DeadLetterQueue
    origin: str | None = None


def dead_letter_queues(pipelines: Iterable[Pipeline]) -> list[DeadLetterQueue]:
    """Return the dead-letter queues of the pipelines, in the order of the files."""
    origins: dict[str, set[str]] = {}
    limits: dict[str, int] = {}
    partitionings: dict[str, Partitioning] = {}
    readers: dict[str, str] = {}
    for pipeline in pipelines:
        partitionings |= pipeline.partitionings
        parts = {name: each.queue for each in pipeline.partitionings.values() for name in each.names}
        for queue in pipeline.topology.queues:
            target = queue.arguments.get("x-dead-letter-routing-key")
            if isinstance(target, str) and queue.arguments.get("x-dead-letter-exchange") == "":
                origins.setdefault(target, set()).add(parts.get(queue.name, queue.name))
            limit = queue.arguments.get("x-delivery-limit")
            limits |= {queue.name: limit} if isinstance(limit, int) else {}
        for subscriber in pipeline.subscribers:
            if subscriber.dead_letter is not None:
                origins.setdefault(subscriber.dead_letter, set()).add(subscriber.queue)
                if subscriber.stream is not None:
                    readers[subscriber.dead_letter] = subscriber.name
    return [
        DeadLetterQueue(
            name,
            frozenset(found),
            limits.get(name),
            tuple(each for queue, each in partitionings.items() if queue in found),
            readers.get(name, ""),
        )
        for name, found in origins.items()
    ]


def select_dead_letter_queues(pipelines: Sequence[Pipeline], name: str | None) -> list[SelectedQueue]:
    """Return the dead-letter queues of a dead-letter queue, a queue or a subscriber of this name; of None, all.

    Raises UnknownTarget, also for a name that several subscribers have.
    """
    found = dead_letter_queues(pipelines)
    if name is None:
        return [SelectedQueue(dlq) for dlq in found]
    for dlq in found:
        if name in (dlq.name, dlq.subscriber):
            return [SelectedQueue(dlq)]
    subscribers = {subscriber.name: subscriber.queue for pipeline in pipelines for subscriber in pipeline.subscribers}
    queues = {queue for dlq in found for queue in dlq.origins}
    named = {item.queue: pipeline for pipeline in pipelines for item in pipeline.subscribers if item.name == name}
    if name not in queues and len(named) > 1:
        raise ambiguous_target(name, (pipeline.path for pipeline in named.values()))
    queue = name if name in queues else subscribers.get(name)
    chosen = [SelectedQueue(dlq, queue) for dlq in found if queue in dlq.origins]
    if chosen:
        return chosen
    known = dict.fromkeys([*(dlq.name for dlq in found), *sorted(queues), *subscribers])
    is_id = closest(name, known) is None and any(character.isdecimal() for character in name)
    hint = f"if it is the id of a message, write --id {name}; the queues are {', '.join(known)}" if is_id else ""
    raise unknown_target(name, "queue with dead letters, or subscriber,", known, hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterMessage:
    """A message in a dead-letter queue.

    `by` says what dead-lettered it; None if the message does not tell. `claimed` is the queue that it says it failed
    in, and `origin` the same if that queue dead-letters to this one, otherwise None. `attempts` is None for messages
    dead-lettered by the broker, which counts deliveries. `since` is the time of the first failure (runner), of the dead
    lettering (broker), or of the publication.
    """

    queue: str
    id: str
    envelope: Envelope
    by: Literal["runner", "broker"] | None
    reason: str
    error_type: str
    error: str
    attempts: int | None
    since: datetime | None
    origin: str | None
    claimed: str
    exchange: str
    routing_key: str
    subscriber: str
    replays: int
    traceback: str = ""
    host: str = ""
    release: str = ""

    @property
    def size(self) -> int:
        """Size of the body in bytes."""
        return len(self.envelope.body)

    def age_s(self, now: datetime) -> float | None:
        """Return its age in seconds; at least 0, even if the sender's clock is ahead."""
        return None if self.since is None else max(0.0, (now - self.since).total_seconds())


def parse_dead_letter(envelope: Envelope, dlq: DeadLetterQueue) -> DeadLetterMessage:
    """Parse a message of a dead-letter queue."""
    headers = envelope.headers
    death = _death(headers, dlq)
    reason = text_header(headers, names.REASON)
    is_ours = not death and bool(reason)
    claimed = dlq.origin_of(str(death.get("queue", "")) or text_header(headers, names.ORIGIN))
    is_copy = is_ours or names.attempt_of(headers) > 1 or replays_of(headers) > 0
    tells_origin = is_copy and names.ORIGIN_KEY in headers
    return DeadLetterMessage(
        queue=dlq.name,
        id=envelope.message_id or fingerprint(envelope),
        envelope=envelope,
        by="broker" if death or (reason and reason not in _RUNNER_REASONS) else "runner" if is_ours else None,
        reason=printable(str(death.get("reason", ""))) or reason or "unknown",
        error_type=text_header(headers, names.ERROR_TYPE),
        error=text_header(headers, names.ERROR),
        attempts=names.attempt_of(headers) if is_ours and reason in _RUNNER_REASONS else None,
        since=_moment(death.get("time")) or _moment(headers.get(names.FIRST_FAILED_AT)) or _moment(envelope.timestamp),
        origin=claimed if claimed in dlq.origins else None,
        claimed=printable(claimed),
        exchange=text_header(headers, names.ORIGIN_EXCHANGE) if tells_origin else str(death.get("exchange", "")),
        routing_key=text_header(headers, names.ORIGIN_KEY) if tells_origin else _first(death.get("routing-keys")),
        subscriber=text_header(headers, names.SUBSCRIBER),
        replays=replays_of(headers),
        traceback=_lines(headers, names.TRACEBACK),
        host=text_header(headers, names.HOST),
        release=text_header(headers, names.RELEASE),
    )


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Conditions that a dead letter must all meet.

    `error` is part of an error's type or text, or of a reason; `failure` is a whole reason and a whole type. `event` is
    a name or a pattern. `headers` are names with values (None: any value), `body` dotted paths into a JSON body with
    values, both as text.
    """

    ids: frozenset[str] = frozenset()
    error: str = ""
    older_than_s: float | None = None
    origin: str | None = None
    failure: tuple[str, str] | None = None
    event: str = ""
    headers: tuple[tuple[str, str | None], ...] = ()
    body: tuple[tuple[str, str], ...] = ()

    @property
    def selects_all(self) -> bool:
        """Whether there is no condition but the queue."""
        return replace(self, origin=None) == DeadLetterFilter()

    def matches(self, letter: DeadLetterMessage, now: datetime) -> bool:
        """Whether a dead letter meets all conditions. One without a time is never older than anything."""
        if self.ids and letter.id not in self.ids:
            return False
        if self.origin is not None and letter.origin != self.origin:
            return False
        if self.failure is not None and (letter.reason, letter.error_type) != self.failure:
            return False
        age_s = letter.age_s(now)
        if self.older_than_s is not None and (age_s is None or age_s < self.older_than_s):
            return False
        wanted = self.error.casefold()
        texts = (f"{letter.error_type}: {letter.error}", letter.reason)
        if wanted and not any(wanted in text.casefold() for text in texts):
            return False
        return self._matches_content(letter)

    def _matches_content(self, letter: DeadLetterMessage) -> bool:
        events = (letter.envelope.type or "", letter.routing_key)
        if self.event and not any(matches(self.event, event) for event in events):
            return False
        headers = letter.envelope.headers
        if not all(name in headers and value in (None, _as_text(headers[name])) for name, value in self.headers):
            return False
        try:
            return all(_as_text(value_at(letter.envelope, path)) == value for path, value in self.body)
        except (LookupError, ValueError, InvalidMessage):
            return False


def replay_envelope(
    letter: DeadLetterMessage, now: datetime, *, is_redirected: bool = False, edited: bytes | None = None
) -> Envelope:
    """Return the message to send back: the original one, on its first attempt, marked as replayed.

    It has no expiration, or it would expire again. One that is redirected does not say where it was first published.
    `edited` replaces the body; the message keeps its id, and a header says when that was.
    """
    moment = now.astimezone(UTC).isoformat(timespec="seconds")
    headers = foreign_headers(letter.envelope.headers)
    if not is_redirected:
        headers[names.ORIGIN_EXCHANGE] = printable(letter.exchange)
        headers[names.ORIGIN_KEY] = printable(letter.routing_key)
    headers[names.REPLAYED_AT] = moment
    headers[names.REPLAYS] = letter.replays + 1
    if edited is not None:
        headers[names.EDITED_AT] = moment
    elif earlier := text_header(letter.envelope.headers, names.EDITED_AT):
        headers[names.EDITED_AT] = earlier
    envelope = letter.envelope._replace(headers=headers, expiration_ms=None)
    return envelope if edited is None else envelope._replace(body=edited, content_encoding=None)


def preserved_copy(letter: DeadLetterMessage) -> Envelope:
    """Return a copy that can replace a dead letter in its queue without losing information.

    RabbitMQ 4 ignores an `x-death` header that a client publishes, so `x-runner-` headers carry its content.
    """
    headers = foreign_headers(letter.envelope.headers)
    headers |= {name: value for name, value in letter.envelope.headers.items() if name.startswith("x-runner-")}
    if letter.by == "broker":
        headers[names.REASON] = letter.reason
        headers[names.ORIGIN] = letter.claimed
        headers[names.ORIGIN_EXCHANGE] = printable(letter.exchange)
        headers[names.ORIGIN_KEY] = printable(letter.routing_key)
        if letter.since is not None:
            headers[names.FIRST_FAILED_AT] = letter.since.astimezone(UTC).isoformat(timespec="seconds")
    return letter.envelope._replace(headers=headers, expiration_ms=None)


def fingerprint(envelope: Envelope) -> str:
    """Return an id for a message without one: `~` and a hash of its body and properties."""
    digest = blake2b(envelope.body, digest_size=6)
    for part in (envelope.type, envelope.correlation_id, envelope.app_id, envelope.timestamp):
        digest.update(f"\0{part}".encode("utf-8", "surrogatepass"))
    return f"~{digest.hexdigest()}"


def _death(headers: Mapping[str, Any], dlq: DeadLetterQueue) -> Mapping[str, Any]:
    """Return the newest `x-death` entry if it is what brought the message here, otherwise an empty mapping."""
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(latest, dict) or not isinstance(latest.get("queue"), str):
        return {}
    return latest if dlq.origin_of(latest["queue"]) in dlq.origins or names.REASON not in headers else {}


def _as_text(value: object) -> str:
    """Return a value as it is written on a command line: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _first(value: object) -> str:
    return value[0] if isinstance(value, list) and value and isinstance(value[0], str) else ""


def _lines(headers: Mapping[str, Any], name: str) -> str:
    value = headers.get(name)
    return printable_lines(value) if isinstance(value, str) else ""


def _moment(value: object) -> datetime | None:
    """Return a time in UTC; None for anything that is not a time."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (OverflowError, ValueError):
        return None
