"""Records what happens to messages, from hooks in the publisher, in the execution and in the in-process broker."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from runner import log
from runner.errors import CallFailed, NoAnswer, RunnerError
from runner.message import NO_HEADERS, Envelope, attempt_of
from runner.metrics import REPLY
from runner.outcome import Ack, DeadLetter, InvalidMessage, Outcome, Retry
from runner.pipeline import codec
from runner.pipeline.body_encoding import JSON
from runner.pipeline.delays import HOLDS_DELAYED, delay_in
from runner.pipeline.model import Pipeline
from runner.runtime.answers import Answer
from runner.runtime.execution import Detachable, Execution
from runner.runtime.invocation import Results
from runner.runtime.publisher import OutgoingMessage, PipelinePublisher, address_of
from runner.testing.records import Record, RecordKind
from runner.transports.base import Delivery
from runner.transports.failure_copies import foreign_headers
from runner.transports.memory import MemoryBroker
from runner.transports.memory.queue import MemoryQueue
from runner.transports.memory.queue_buffer import QueuedMessage

MAX_HOPS = 2_000
"""How many times in a row handlers may publish because of one message. More is an endless loop."""

MAX_AT_ONCE = 50_000
"""How many records may have the same virtual time. More is an endless producer."""

_decode = codec.decoder(inspect.Parameter.empty)
_parents: ContextVar[Sequence[Envelope]] = ContextVar("runner_parents", default=())
"""The messages of the current call of a handler."""


class NeverIdle(RunnerError):
    """The pipelines would never be idle, or at least not within a bound."""


class Recorder:
    """The records of a test. `now` is the wall clock. `on_endless` is called when a loop of messages never ends."""

    def __init__(self, now: Callable[[], datetime], on_endless: Callable[[NeverIdle], None]) -> None:
        self.now = now
        self.on_endless = on_endless
        self._slots: list[Record | None] = []
        self._hops: dict[str, int] = {}
        self._same_time = 0
        self._last_at: datetime | None = None

    @property
    def records(self) -> list[Record]:
        """All records, in order. A message that is not confirmed has none yet."""
        return [record for record in self._slots if record is not None]

    @property
    def count(self) -> int:
        """How many records there are, roughly."""
        return len(self._slots)

    def reserve(self) -> int:
        """Return a place in the order, for a record that comes later: what follows from it may be recorded first."""
        self._slots.append(None)
        return len(self._slots) - 1

    def add(self, kind: RecordKind, envelope: Envelope, *, slot: int | None = None, **more: Any) -> None:
        """Add a record of a message."""
        at = self.now()
        record = Record(
            kind=kind,
            at=at,
            message_id=envelope.message_id or "",
            payload=decode(envelope),
            headers=foreign_headers(envelope.headers),
            **more,
        )
        if slot is None:
            self._slots.append(record)
        else:
            self._slots[slot] = record
        self._same_time = self._same_time + 1 if at == self._last_at else 0
        self._last_at = at
        if record.kind == "published" and record.cause is not None:
            hops = self._hops[record.message_id] = self._hops.get(record.cause, 0) + 1
            if hops > MAX_HOPS:
                text = f"a message has led to {MAX_HOPS} others in a row, in a circle: {self._circle(record)}"
                self.on_endless(NeverIdle(text, "replace one of these handlers, or let one end the circle"))
        elif self._same_time > MAX_AT_ONCE:
            latest = reversed(self._slots[-1000:])
            producer = next((each.producer for each in latest if each and each.producer), _name_of(record))
            text = f"{producer} does not end: more than {MAX_AT_ONCE} things have happened at {at:%H:%M:%S}"
            self.on_endless(NeverIdle(text, "replace it, or give it a `rate` or a schedule"))

    def _circle(self, last: Record) -> str:
        """Return the names that an endless chain of messages goes through, as in `ship → shipped → bill → … → ship`."""
        published = {record.message_id: record for record in self.records if record.kind == "published"}
        steps: list[tuple[str, str]] = []
        record: Record | None = last
        while record is not None and record.cause is not None:
            name = _name_of(record)
            steps.insert(0, (name, str(record.to)))
            repeated = [index for index, step in enumerate(steps) if step[0] == name]
            if len(repeated) > 1:
                return " → ".join([part for step in steps[: repeated[1]] for part in step] + [name])
            record = published.get(record.cause)
        return " → ".join(part for step in steps for part in step)


def decode(envelope: Envelope) -> Any:
    """Return the payload as a handler without an annotation gets it; the body where it cannot be decoded."""
    try:
        return _decode(envelope)
    except InvalidMessage:
        return envelope.body


def _name_of(record: Record) -> str:
    return record.subscriber or record.producer or record.pipeline or "the test"


class RecordingBroker(MemoryBroker):
    """A broker that records what it gives up itself, such as expired messages."""

    def __init__(self, recorder: Recorder, pipelines: Sequence[Pipeline]) -> None:
        super().__init__(clock=recorder.now, on_dead_letter=self._record)
        self._recorder = recorder
        self.subscribed = {name: each.queue for one in pipelines for each in one.subscribers for name in each.queues}

    def _record(self, queue: MemoryQueue, message: QueuedMessage, reason: str) -> None:
        """Record a dead letter. What has only been delayed, for a retry for example, is none."""
        is_delayed = HOLDS_DELAYED.fullmatch(queue.name)
        if reason != "expired" or not (is_delayed or self.leads_to(queue, message, self.subscribed)):
            attempt, to = attempt_of(message.envelope.headers), queue.rules.dead_letter_key
            name = self.subscribed.get(queue.name, queue.name)
            self._recorder.add("dead", message.envelope, queue=name, reason=reason, attempt=attempt, to=to)


class RecordingPublisher(PipelinePublisher):
    """A publisher that records what is confirmed. `broker` knows whether an event has reached a queue."""

    def __init__(self, recorder: Recorder, broker: MemoryBroker, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._recorder = recorder
        self._broker = broker

    def start(self, outgoing: OutgoingMessage) -> OutgoingMessage:
        fields = log.context.get()
        parents = _parents.get() if "subscriber" in fields else ()
        about = {
            "slot": self._recorder.reserve(),
            "pipeline": fields.get("pipeline"),
            "subscriber": fields.get("subscriber"),
            "producer": fields.get("producer"),
            "cause": parents[0].message_id if parents else None,
        }
        return super().start(outgoing)._replace(span=about)

    def end(self, outgoing: OutgoingMessage, error: BaseException | None = None) -> None:
        super().end(outgoing, error)
        if error is None:
            destination = outgoing.destination
            is_caller = destination.counted_as == REPLY and destination.name not in self._destinations
            to = REPLY if is_caller else destination.name
            delay = delay_in(outgoing.envelope.headers)
            arrives = None if delay is None else self._recorder.now() + delay
            options = dict(zip(("delay", "expires", "priority"), destination.options or (), strict=False))
            about = {**outgoing.span, **options, "arrives": arrives}
            self._recorder.add("published", outgoing.envelope, to=to, **about)
            address = address_of(outgoing)
            if not (outgoing.destination.needs_queue or self._broker.route(address, outgoing.envelope.headers)):
                about = {**outgoing.span, "slot": None}
                self._recorder.add("unheard", outgoing.envelope, to=to, **about)

    async def call(self, outgoing: OutgoingMessage, timeout_s: float, *, waited_s: float = 0.0) -> Answer:
        try:
            answer = await super().call(outgoing, timeout_s, waited_s=waited_s)
        except (CallFailed, NoAnswer) as failure:
            about = {name: getattr(failure, name, "") or None for name in ("reason", "error_type", "error")}
            self._note_answer(outgoing, Answer(None, b"null", JSON, NO_HEADERS), **about)
            raise
        self._note_answer(outgoing, answer)
        return answer

    def _note_answer(self, question: OutgoingMessage, answer: Answer, **about: Any) -> None:
        asked, to = question.envelope.message_id, question.destination.name
        envelope = Envelope(answer.body, asked, content_type=answer.content_type, headers=answer.headers)
        self._recorder.add("answered", envelope, to=to, **about)


class RecordingExecution(Execution):
    """An execution that records how each delivery ends."""

    def __init__(self, recorder: Recorder, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._recorder = recorder

    async def release(self, delivery: Delivery) -> None:
        await super().release(delivery)
        self._record("released", delivery)

    async def _attempt(
        self, calling: Awaitable[Results], parents: Sequence[Envelope], detachable: Detachable | None = None
    ) -> tuple[BaseException | None, int]:
        _parents.set(parents)
        return await super()._attempt(calling, parents, detachable)

    def _report(
        self, outcome: Outcome, error: BaseException | None, delivery: Delivery, published: int, started: float
    ) -> None:
        super()._report(outcome, error, delivery, published, started)
        match outcome:
            case Ack():
                self._record("handled", delivery)
            case Retry():
                failure = {"error": outcome.error, "error_type": outcome.error_type}
                attempt = delivery.attempt - (self.retry_locally is not None)  # counted up already
                self._record("retried", delivery, after=outcome.after_s, **failure, attempt=attempt)
            case DeadLetter():
                failure = {"error": outcome.error, "error_type": outcome.error_type, "reason": outcome.reason}
                self._record("dead", delivery, to=delivery.options.dead_letter, **failure)

    async def _ack_duplicate(self, delivery: Delivery) -> None:
        await super()._ack_duplicate(delivery)
        self._record("duplicate", delivery)

    def _record(self, kind: RecordKind, delivery: Delivery, **more: Any) -> None:
        about = {"attempt": delivery.attempt, "queue": self._subscriber.queue, **more}
        about |= {"pipeline": self._pipeline, "subscriber": self._subscriber.name}
        self._recorder.add(kind, delivery.envelope, **about)
