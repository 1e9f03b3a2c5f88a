"""Turns messages of dead-letter queues into dead letters: why, since when, from where; and into what is sent back.

Two wrote them: the runner, as copies with `x-runner-` headers, or the broker itself, which says so in `x-death`
(https://www.rabbitmq.com/docs/dlx#effects). Anybody may have put anything into the queue: nothing in it is trusted, and
a message goes back only to a queue whose dead letters, says the pipeline, come here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, get_args

from runner import message as names
from runner.message import Envelope, replays_of
from runner.operations.targets import ambiguous_target, unknown_target
from runner.outcome import Reason
from runner.pipeline.model import Pipeline
from runner.transports.failure_copies import foreign_headers, printable, printable_lines

_REASONS_OF_OURS = frozenset(get_args(Reason))


@dataclass(frozen=True, slots=True)
class DeadLetterQueue:
    """A dead-letter queue, the queues whose dead letters go there, and its delivery limit if the pipeline says one."""

    name: str
    origins: frozenset[str]
    delivery_limit: int | None = None


class SelectedQueue(NamedTuple):
    """A dead-letter queue to look at, and the one queue whose dead letters are meant, None for all."""

    dlq: DeadLetterQueue
    origin: str | None = None


def dead_letter_queues(pipelines: Iterable[Pipeline]) -> list[DeadLetterQueue]:
    """Return the dead-letter queues of pipelines, in their order."""
    origins: dict[str, set[str]] = {}
    limits: dict[str, int] = {}
    for pipeline in pipelines:
        for queue in pipeline.topology.queues:
            target = queue.arguments.get("x-dead-letter-routing-key")
            if isinstance(target, str) and queue.arguments.get("x-dead-letter-exchange") == "":
                origins.setdefault(target, set()).add(queue.name)
            limit = queue.arguments.get("x-delivery-limit")
            limits |= {queue.name: limit} if isinstance(limit, int) else {}
        for subscriber in pipeline.subscribers:
            if subscriber.dead_letter is not None:
                origins.setdefault(subscriber.dead_letter, set()).add(subscriber.queue)
    return [DeadLetterQueue(name, frozenset(found), limits.get(name)) for name, found in origins.items()]


def select_dead_letter_queues(pipelines: Sequence[Pipeline], name: str | None) -> list[SelectedQueue]:
    """Return what a name on the command line means: a dead-letter queue, a queue or a subscriber; None means all.

    Raises UnknownPlace, also for a name of several subscribers.
    """
    found = dead_letter_queues(pipelines)
    if name is None:
        return [SelectedQueue(dlq) for dlq in found]
    for dlq in found:
        if dlq.name == name:
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
    raise unknown_target(name, "queue with dead letters, or subscriber,", known)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterMessage:
    """A message that was given up on.

    `by` is who did: the runner, the broker, or neither as far as the message tells. `origin` is the queue it failed
    in; None where it names none whose dead letters belong here, and `claimed` is what it does name. `attempts` is None
    where the broker gave it up: it counts deliveries, not attempts. `since` is when it first failed, as the runner
    tells, when it died, as the broker tells, or else when it was published.
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

    @property
    def size(self) -> int:
        """How many bytes its body has."""
        return len(self.envelope.body)

    def age_s(self, now: datetime) -> float | None:
        """Return how old it is; never less than nothing, whatever its sender's clock says."""
        return None if self.since is None else max(0.0, (now - self.since).total_seconds())


def parse_dead_letter(envelope: Envelope, dlq: DeadLetterQueue) -> DeadLetterMessage:
    """Return what a message of a dead-letter queue says of itself."""
    headers = envelope.headers
    death = _death(headers, dlq)
    reason = _text(headers, names.REASON)
    is_ours = not death and bool(reason)
    claimed = str(death.get("queue", "")) or _text(headers, names.ORIGIN)
    is_copy = is_ours or names.attempt_of(headers) > 1 or replays_of(headers) > 0
    tells_origin = is_copy and names.ORIGIN_KEY in headers
    return DeadLetterMessage(
        queue=dlq.name,
        id=envelope.message_id or fingerprint(envelope),
        envelope=envelope,
        by="broker" if death or (reason and reason not in _REASONS_OF_OURS) else "runner" if is_ours else None,
        reason=printable(str(death.get("reason", ""))) or reason or "unknown",
        error_type=_text(headers, names.ERROR_TYPE),
        error=_text(headers, names.ERROR),
        attempts=names.attempt_of(headers) if is_ours and reason in _REASONS_OF_OURS else None,
        since=_moment(death.get("time")) or _moment(headers.get(names.FIRST_FAILED_AT)) or _moment(envelope.timestamp),
        origin=claimed if claimed in dlq.origins else None,
        claimed=printable(claimed),
        exchange=_text(headers, names.ORIGIN_EXCHANGE) if tells_origin else str(death.get("exchange", "")),
        routing_key=_text(headers, names.ORIGIN_KEY) if tells_origin else _first(death.get("routing-keys")),
        subscriber=_text(headers, names.SUBSCRIBER),
        replays=replays_of(headers),
        traceback=_lines(headers, names.TRACEBACK),
    )


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters are meant: all that fit everything given. `error` is a part of a type, a text or a reason;
    `failure` is a whole reason and a whole type.
    """

    ids: frozenset[str] = frozenset()
    error: str = ""
    older_than_s: float | None = None
    origin: str | None = None
    failure: tuple[str, str] | None = None

    @property
    def selects_all(self) -> bool:
        """Whether nothing is filtered by but the queue."""
        return not self.ids and not self.error and self.older_than_s is None and self.failure is None

    def matches(self, letter: DeadLetterMessage, now: datetime) -> bool:
        """Whether a dead letter is meant. One without a time is older than nothing."""
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
        return not wanted or any(wanted in text.casefold() for text in texts)


def replay_envelope(letter: DeadLetterMessage, now: datetime) -> Envelope:
    """Return what a dead letter is sent back as: the message as it first came, on its first attempt, and marked.

    It has no expiration: it would die of it again.
    """
    headers = foreign_headers(letter.envelope.headers)
    headers[names.ORIGIN_EXCHANGE] = printable(letter.exchange)
    headers[names.ORIGIN_KEY] = printable(letter.routing_key)
    headers[names.REPLAYED_AT] = now.astimezone(UTC).isoformat(timespec="seconds")
    headers[names.REPLAYS] = letter.replays + 1
    return letter.envelope._replace(headers=headers, expiration_ms=None)


def preserved_copy(letter: DeadLetterMessage) -> Envelope:
    """Return the copy that takes a dead letter's place in its queue, with everything that it says of itself.

    RabbitMQ 4 ignores an `x-death` that a client publishes; so what it said is said by headers of ours.
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
    """Return a name for a message that has no id: `~` and some digits of its body and its properties."""
    digest = blake2b(envelope.body, digest_size=6)
    for part in (envelope.type, envelope.correlation_id, envelope.app_id, envelope.timestamp):
        digest.update(f"\0{part}".encode("utf-8", "surrogatepass"))
    return f"~{digest.hexdigest()}"


def _death(headers: Mapping[str, Any], dlq: DeadLetterQueue) -> Mapping[str, Any]:
    """Return the broker's own account of the last death, if that is what brought the message here, else nothing."""
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(latest, dict) or not isinstance(latest.get("queue"), str):
        return {}
    return latest if latest["queue"] in dlq.origins or names.REASON not in headers else {}


def _first(value: object) -> str:
    return value[0] if isinstance(value, list) and value and isinstance(value[0], str) else ""


def _text(headers: Mapping[str, Any], name: str) -> str:
    value = headers.get(name)
    return printable(value) if isinstance(value, str) else ""


def _lines(headers: Mapping[str, Any], name: str) -> str:
    value = headers.get(name)
    return printable_lines(value) if isinstance(value, str) else ""


def _moment(value: object) -> datetime | None:
    """Return a time in UTC; None for what is none."""
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
