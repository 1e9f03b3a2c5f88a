"""Spans of publications and attempts, following OpenTelemetry's semantic conventions for messaging.

https://opentelemetry.io/docs/specs/semconv/messaging/

A publication is a PRODUCER span, and its context travels with the message. An attempt is a CONSUMER span: the child of
the publication, and linked to it. The attempt of a batch is linked to the publication of each of its messages. Retries,
dead letters and replays are CLIENT spans, and their messages keep the context of the publication. This module needs the
extra `otel`, so it is imported only if a pipeline has `traces`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

from runner.errors import PublishFailed
from runner.message import Address, Envelope
from runner.outcome import Ack, InvalidMessage, Outcome, ResultFailed, Retry, error_text, error_type
from runner.pipeline.model import BrokerSettings
from runner.runtime.execution import Execution
from runner.runtime.publisher import OutgoingMessage, PipelinePublisher, address_of
from runner.runtime.result_publisher import PublishingStopped
from runner.trace_context import trace_id_of
from runner.transports.base import Delivery
from runner.transports.failure_copies import original_address, printable

DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}

Attributes = dict[str, str | int]


def carrier() -> dict[str, str]:
    """Return the current context as headers, to pass it to another process."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def attach(headers: Mapping[str, str]) -> None:
    """Make the context in these headers the current one."""
    otel_context.attach(_extracted(headers, Context()))


class Tracer:
    """Creates the spans of the messages on one broker. `tracer` is OpenTelemetry's."""

    def __init__(self, tracer: trace.Tracer, broker: BrokerSettings) -> None:
        self._tracer = tracer
        self._system = "rabbitmq" if broker.is_rabbitmq else "memory"
        self._server = _server(broker)

    def publication(self, pipeline: str, outgoing: OutgoingMessage, *, is_reply: bool) -> OutgoingMessage:
        """Start the span of a publication; return the message with its context, and the span.

        If the handler has set a context on the message, it stays unchanged and the span is linked to it.
        """
        envelope, address = outgoing.envelope, address_of(outgoing)
        destination = "" if is_reply else outgoing.destination.name
        about = self._about("publish", "send", destination, _route(address.exchange, address.key), pipeline)
        about |= _message_ids(envelope)
        if self._system == "rabbitmq":
            about["messaging.rabbitmq.destination.routing_key"] = _unicode(address.key)
        if is_reply:  # the queue belongs to one caller, and its name is random
            about |= {"messaging.destination.temporary": True, "messaging.destination.anonymous": True}
        name = f"publish {destination}".rstrip()
        if trace_id_of(envelope.headers) is not None:
            links = _links([_extracted(envelope.headers, Context())])
            span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=about, links=links)
            return outgoing._replace(span=span)
        parent = otel_context.get_current()
        if not trace.get_current_span(parent).get_span_context().is_valid:
            parent = _extracted(outgoing.trace, parent)
        span = self._tracer.start_span(name, parent, SpanKind.PRODUCER, about)
        headers: dict[str, Any] = {}
        propagate.inject(headers, trace.set_span_in_context(span, parent))
        return outgoing._replace(envelope=envelope._replace(headers={**headers, **envelope.headers}), span=span)

    def attempt(self, pipeline: str, subscriber: str, deliveries: Sequence[Delivery], *, is_batch: bool) -> Span:
        """Start the span of an attempt, and make it the current one of this context."""
        first = deliveries[0]
        contexts = [_extracted(delivery.envelope.headers, Context()) for delivery in deliveries]
        parent = Context() if is_batch else contexts[0]
        about = self._about("process", "process", first.options.queue, _source_of(first), pipeline)
        about["runner.subscriber"] = subscriber
        if is_batch:
            about["messaging.batch.message_count"] = len(deliveries)
        else:
            about |= {**_message_ids(first.envelope), "runner.attempt": first.attempt}
        links = _links(contexts)
        name = f"process {first.options.queue}"
        span = self._tracer.start_span(name, parent, SpanKind.CONSUMER, about, links)
        otel_context.attach(trace.set_span_in_context(span, parent))
        return span

    @contextmanager
    def settling(self, what: str, pipeline: str, delivery: Delivery, **about: str | int) -> Iterator[Span]:
        """Start the span of a retry or a dead letter; it ends with the block."""
        queue, envelope = delivery.options.queue, delivery.envelope
        attributes = self._about(what, "settle", queue, _source_of(delivery), pipeline)
        attributes |= {**_message_ids(envelope), **about}
        with self._client_span(f"{what} {queue}", attributes, envelope) as span:
            yield span

    @contextmanager
    def replay(self, queue: str, envelope: Envelope) -> Iterator[None]:
        """Start the span of a dead letter's replay; it ends with the block."""
        attributes = self._about("replay", "send", queue, queue) | _message_ids(envelope)
        with self._client_span(f"replay {queue}", attributes, envelope):
            yield

    @contextmanager
    def _client_span(self, name: str, attributes: Attributes, envelope: Envelope) -> Iterator[Span]:
        links = _links([_extracted(envelope.headers, Context())])
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes, links=links)
        try:
            yield span
        except BaseException as error:
            mark_failed(span, error)
            raise
        finally:
            span.end()

    def _about(self, name: str, kind: str, destination: str, route: str, pipeline: str = "") -> Attributes:
        """Return the attributes that all spans have. `destination` is the name in the pipeline file."""
        about: Attributes = {
            "messaging.system": self._system,
            "messaging.operation.name": name,
            "messaging.operation.type": kind,
            "messaging.destination.name": _unicode(route),
            **self._server,
        }
        if pipeline:
            about["runner.pipeline"] = pipeline
        if destination:
            about["messaging.destination.template"] = destination
        return about


class TracedPublisher(PipelinePublisher):
    """A publisher that makes a span for each message."""

    def __init__(self, tracer: Tracer, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._tracer = tracer

    def start(self, outgoing: OutgoingMessage) -> OutgoingMessage:
        is_reply = outgoing.destination.name not in self._destinations
        return self._tracer.publication(self._app_id, outgoing, is_reply=is_reply)

    def end(self, outgoing: OutgoingMessage, error: BaseException | None = None) -> None:
        if error is not None:
            mark_failed(outgoing.span, error)
        outgoing.span.end()


class TracedExecution(Execution):
    """An execution that makes a span for each attempt."""

    may_detach = False

    def __init__(self, tracer: Tracer, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._tracer = tracer
        self._spans: dict[Delivery, Span] = {}

    async def run(self, delivery: Delivery) -> bool:
        with self._attempt_span([delivery], is_batch=False):
            return await super().run(delivery)

    async def run_batch(self, deliveries: Sequence[Delivery]) -> None:
        with self._attempt_span(deliveries, is_batch=True):
            await super().run_batch(deliveries)

    async def release(self, delivery: Delivery) -> None:
        self._note(delivery, "release")
        await super().release(delivery)

    def log_fields(self, delivery: Delivery) -> dict[str, Any]:
        """Return the log fields of a delivery, with the ids of the attempt's span."""
        span = self._spans.get(delivery)
        return super().log_fields(delivery) | ({} if span is None else _ids(span))

    def _context_fields(self) -> dict[str, Any]:
        return super()._context_fields() | _ids(trace.get_current_span())

    @contextmanager
    def _attempt_span(self, deliveries: Sequence[Delivery], *, is_batch: bool) -> Iterator[None]:
        span = self._tracer.attempt(self._pipeline, self._subscriber.name, deliveries, is_batch=is_batch)
        self._spans |= dict.fromkeys(deliveries, span)
        try:
            yield
        finally:
            for delivery in deliveries:
                del self._spans[delivery]
            span.end()

    async def _finish(self, delivery: Delivery, error: BaseException | None, published: int, started: float) -> None:
        if error is not None and not self.is_past_grace and not isinstance(error, PublishingStopped):
            span = self._spans[delivery]
            if self._subscriber.batch is None or not isinstance(error, InvalidMessage):
                mark_failed(span, error)
            else:  # the error concerns one message of the batch, and the others are handled
                about = _message_ids(delivery.envelope)
                span.add_event("message.dead_lettered", {**about, "error.type": error_type(error)})
        await super()._finish(delivery, error, published, started)

    def _ack(self, delivery: Delivery, published: int, started: float) -> None:
        self._note(delivery, "ack")
        super()._ack(delivery, published, started)

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        if isinstance(outcome, Ack):
            self._note(delivery, "ack")
            return await super()._settle(delivery, outcome)
        is_retry = isinstance(outcome, Retry)
        what = "retry" if is_retry else "dead_letter"
        self._note(delivery, what)
        about: Attributes = {"runner.delay_ms": round(outcome.after_s * 1000)} if isinstance(outcome, Retry) else {}
        if not is_retry and delivery.options.dead_letter is not None:
            about["runner.dead_letter"] = delivery.options.dead_letter
        with self._tracer.settling(what, self._pipeline, delivery, **about) as span:
            is_settled = await super()._settle(delivery, outcome)
            if not is_settled:
                span.set_attribute("error.type", "settle_lost")
                span.set_status(StatusCode.ERROR)
        return is_settled

    async def _ack_duplicate(self, delivery: Delivery) -> None:
        await super()._ack_duplicate(delivery)
        self._note(delivery, "duplicate")

    def _note(self, delivery: Delivery, outcome: str) -> None:
        span = self._spans.get(delivery)
        if span is not None:
            span.set_attribute("runner.outcome", outcome)


def mark_failed(span: Span, error: BaseException) -> None:
    """Mark a span as failed. Passwords in the error's text are masked."""
    error = error.cause if isinstance(error, ResultFailed) else error
    kind = error.reason if isinstance(error, PublishFailed) else error_type(error)
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, printable(error_text(error)))


def _ids(span: Span) -> dict[str, str]:
    found = span.get_span_context()
    if not found.is_valid:
        return {}
    return {"trace_id": trace.format_trace_id(found.trace_id), "span_id": trace.format_span_id(found.span_id)}


def _extracted(headers: Mapping[str, Any], into: Context) -> Context:
    """Return `into` with the context in a message's headers. Headers may have any type, so only texts are read."""
    if not headers:
        return into
    return propagate.extract({name: value for name, value in headers.items() if isinstance(value, str)}, into)


def _links(contexts: Sequence[Context]) -> list[Link]:
    """Return links to the publications of messages, given their contexts. Messages without a trace have none."""
    found = (trace.get_current_span(each).get_span_context() for each in contexts)
    return [Link(each) for each in found if each.is_valid]


def _message_ids(envelope: Envelope) -> Attributes:
    ids = {"messaging.message.id": envelope.message_id, "messaging.message.conversation_id": envelope.correlation_id}
    return {name: _unicode(value) for name, value in ids.items() if value is not None}


def _unicode(text: str) -> str:
    """Return a text without lone surrogates, because with one the exporter would fail for the whole batch of spans."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _source_of(delivery: Delivery) -> str:
    """Return the source of a message as EXCHANGE:KEY:QUEUE. It is the same for all attempts."""
    address = Address(*original_address(delivery))
    return _route(address.exchange, address.key, delivery.options.queue)


def _route(*parts: str) -> str:
    """Return a destination in the form of the conventions for RabbitMQ, without empty or repeated parts."""
    return ":".join(dict.fromkeys(part for part in parts if part))


def _server(broker: BrokerSettings) -> Attributes:
    """Return the broker's address; nothing if there are several nodes, because the connected one can change."""
    if len(broker.urls) != 1:
        return {}
    url = urlsplit(broker.urls[0])
    if not url.hostname:
        return {}
    return {"server.address": url.hostname, "server.port": url.port or DEFAULT_PORTS.get(url.scheme, 5672)}
