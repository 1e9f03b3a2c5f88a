"""Publishes payloads of producers and handlers until the broker has confirmed them. Retries keep the message id."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from datetime import datetime
from functools import partial
from hashlib import blake2b
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import uuid4

from runner import log
from runner.backoff import backoff_delays
from runner.clock import utc_now
from runner.config.messages import did_you_mean
from runner.errors import NoAnswer, PublishFailed, PublishUnknown, RunnerError
from runner.message import (
    DELAY_TO,
    EXPIRES_AT,
    MAX_BODY_BYTES,
    MAX_DELAY_S,
    NO_HEADERS,
    Address,
    Envelope,
    Message,
    Publish,
    PublishOptions,
)
from runner.metrics import PUBLISH_OUTCOMES, REPLY, Publications
from runner.pipeline.codec import encode
from runner.pipeline.delays import delay_headers, delay_steps, delay_topology, step_name
from runner.pipeline.delivery_rules import PRIORITIES_HINT, unsupported_option
from runner.pipeline.model import Destination, delay_prefix
from runner.runtime.answers import Answer, read_answer
from runner.runtime.deduplication import identity
from runner.trace_context import shared_trace_headers, with_trace_headers
from runner.transports.amqp_limits import MAX_EXPIRATION_MS, NormalEnvelope, check_routing_key, normalize_envelope
from runner.transports.base import OnPublished, PublishStarted, Transport
from runner.transports.direct_reply import is_answerable, is_direct_reply
from runner.units import format_duration

if TYPE_CHECKING:
    from runner.runtime.tracing import Tracer

FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.1, 5.0
"""The shortest and the longest delay before a message is published again."""

MAX_DIRECT_REPLY_ATTEMPTS = 2
"""How often a direct reply is published if the broker does not confirm it. The caller may have been connected to a node
that is gone: RabbitMQ then closes the connection that publishes to it, each time.
"""

WARN_AFTER_S = 5.0
"""A warning is logged when a queue has been full for this long."""

WARN_INTERVAL_S = 60.0
"""At most one such warning for each destination is logged in this time."""

_new = tuple.__new__
"""Makes named tuples three times as fast as their constructors."""

_NOT_PLAIN = (Publish, list, tuple, NoneType)
"""Types of results that may be no message, several, or one with settings of its own."""

T = TypeVar("T")
Error = TypeVar("Error", bound=Exception)


class OutgoingMessage(NamedTuple):
    """A message with its destination. `key` replaces the routing key of an event; it is the partition of a queue.

    `trace` are the trace headers of the message or request that it results from. `span` belongs to the tracer.
    """

    destination: Destination
    envelope: Envelope
    key: str | None = None
    trace: Mapping[str, str] = NO_HEADERS
    span: Any = None


class ResultOrigin(NamedTuple):
    """The messages that a handler's results come from. `digest` identifies all of them; None if one has no id."""

    digest: bytes | None
    correlation_id: str | None
    reply_to: str | None
    trace: Mapping[str, str] = NO_HEADERS
    parents: Sequence[Envelope] = ()

    def of(self, message: Message) -> ResultOrigin:
        """Return the origin of a result that belongs to one of the messages. Raises PublishFailed("invalid")."""
        for parent in self.parents:
            if (parent.message_id, parent.correlation_id) == (message.id, message.correlation_id):
                return result_origin((parent,))
        raise PublishFailed("`of` names a message that this call did not get", reason="invalid")


def result_origin(parents: Sequence[Envelope]) -> ResultOrigin:
    """Return the origin of results. For a batch, correlation id and `reply_to` are those of its first message."""
    if len(parents) == 1:
        (only,) = parents
        digested = blake2b(identity(only), digest_size=16).digest() if only.message_id is not None else None
        trace = shared_trace_headers(parents) if only.headers else NO_HEADERS
        return ResultOrigin(digested, only.correlation_id or only.message_id, only.reply_to, trace, parents)
    digest = blake2b(digest_size=16)
    for parent in parents:
        digest.update(identity(parent))
    first = parents[0]
    has_ids = all(parent.message_id is not None for parent in parents)
    trace, correlation_id = shared_trace_headers(parents), first.correlation_id or first.message_id
    return ResultOrigin(digest.digest() if has_ids else None, correlation_id, first.reply_to, trace, parents)


class PipelinePublisher:
    """Publishes for one pipeline.

    `new_id` returns a new id as a hex string, `now` an aware datetime in UTC.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        app_id: str,
        destinations: Mapping[str, Destination],
        new_id: Callable[[], str] = lambda: uuid4().hex,
        now: Callable[[], datetime] = utc_now,
        counts: Publications | None = None,
    ) -> None:
        self._transport = transport
        self._app_id = app_id
        self._destinations = destinations
        self._new_id = new_id
        self._now = now
        self._counts = counts or Publications(())
        self._next_warning_at: dict[str, float] = {}
        self._known_to_work: set[tuple[str, bool, bool]] = set()
        """Destinations whose options the broker can do: their names, whether they are delayed and have a priority."""
        self._declaring = asyncio.Lock()
        self._normal: set[tuple[Any, ...]] = set()
        """What messages without headers, with ids of their own, were checked with."""
        self._seed = ""
        self._seeded = blake2b(digest_size=16)

    def counting(self, counts: Publications) -> PipelinePublisher:
        """Return a copy of this publisher that counts its publications in `counts`."""
        other = copy(self)
        other._counts = counts
        return other

    def prepare(
        self,
        results: Sequence[Any],
        to: tuple[Destination, ...],
        *,
        seed: str = "",
        before: int = 0,
        origin: ResultOrigin | None = None,
        trace: Mapping[str, str] = NO_HEADERS,
    ) -> list[OutgoingMessage]:
        """Return the encoded messages for results. All are validated before the first one is published.

        Ids are derived, so that a second attempt publishes the same ids and consumers can drop the duplicates. The id
        of a handler's result derives from `origin`, `seed` and the result's number (with `Publish.of`: from that one
        message and the number among its results, since it may be retried with other messages); that of a producer's
        item from `seed`, the number and the body, since a restarted producer may yield other items in the same places.
        Without either, ids are new. `seed` names the pipeline and what runs in it; `before` counts the messages of the
        same call that were published earlier.
        `trace` are the trace headers of a request. Raises PublishFailed("invalid").
        """
        trace = trace if origin is None else origin.trace
        if len(results) == len(to) == 1 and not isinstance(results[0], _NOT_PLAIN):  # nearly always
            target = to[0]
            if target.options is None and target.partitioning is None:
                envelope = self._envelope(results[0], NO_HEADERS, target, origin, seed, before)
                return [_new(OutgoingMessage, (target, envelope, None, trace, None))]
        found: list[OutgoingMessage] = []
        numbers: Counter[bytes | None] | None = None
        for result in results:
            for each in split_results(result):
                if isinstance(each, Publish) and each.of is not None and origin is not None:
                    own, numbers = origin.of(each.of), numbers or Counter()
                    number = numbers[own.digest]
                    numbers[own.digest] += 1
                    found += self._messages_of(each, to, own, own.trace, f"{seed}:{before}", number)
                else:
                    found += self._messages_of(each, to, origin, trace, seed, before + len(found))
        for outgoing in found:
            if len(found) > 1 or outgoing.key is not None or outgoing.envelope.headers is not NO_HEADERS:
                check_routing_key(address_of(outgoing).key)
                normalize_envelope(outgoing.envelope)
        return found

    def _messages_of(
        self,
        result: Any,
        to: tuple[Destination, ...],
        origin: ResultOrigin | None,
        trace: Mapping[str, str],
        seed: str,
        number: int,
    ) -> list[OutgoingMessage]:
        """Return the messages for one result: one for each destination, none for None."""
        if isinstance(result, Publish):
            targets = self._named_destinations(result.to, origin) if result.to is not None else to
            headers, key = result.headers or NO_HEADERS, result.key
            payload, options, id_ = result.payload, result.options, result.id
        elif result is None:
            return []
        else:
            targets, headers, key, payload, options, id_ = to, NO_HEADERS, None, result, None, None
        found = []
        for target in targets:
            envelope = self._envelope(payload, headers, target, origin, seed, number)
            if id_ is not None:
                is_own = envelope.correlation_id == envelope.message_id
                envelope = envelope._replace(message_id=id_, correlation_id=id_ if is_own else envelope.correlation_id)
                normalize_envelope(envelope)
            its_key = key if target.partitioning is None else target.partitioning.address_of(envelope).key
            outgoing: OutgoingMessage = _new(OutgoingMessage, (target, envelope, its_key, trace, None))
            given = target.options if options is None else options
            found.append(outgoing if given is None else self._with_options(outgoing, given))
        return found

    def _with_options(self, outgoing: OutgoingMessage, options: PublishOptions) -> OutgoingMessage:
        """Return a message that is delivered by these options. Raises PublishFailed("invalid").

        A delayed message goes to the first step of the ladder, and its headers say the rest.
        """
        target, envelope, headers = outgoing.destination, outgoing.envelope, dict(outgoing.envelope.headers)
        delay_s, expires_s, priority = options = options.over(target.options) if target.options else options
        target.check_options(options)
        address = target.address
        if delay_s and target.counted_as:
            raise PublishFailed("an answer cannot be delayed: its caller waits for it", reason="invalid")
        if delay_s:
            steps = delay_steps(math.ceil(delay_s * 1000), self._transport.capabilities.delay_rounding)
            address = address._replace(exchange=step_name(delay_prefix(self._app_id), steps[0]))
            headers |= delay_headers(steps, target.name)
        if delay_s and expires_s is not None:
            headers[EXPIRES_AT] = math.ceil((self._now().timestamp() + 1 + delay_s + expires_s) * 1000)  # whole seconds
        elif expires_s is not None:
            envelope = envelope._replace(expiration_ms=math.ceil(expires_s * 1000))
        return outgoing._replace(
            destination=replace(target, address=address, options=options, origin=target),
            envelope=envelope._replace(priority=priority, headers=headers or NO_HEADERS),
        )

    def resume(self, kept: OutgoingMessage) -> OutgoingMessage:
        """Return a message that an outbox has kept. One with a delay may need what holds it."""
        origin = self._destinations.get(kept.destination.name)
        if origin is None or DELAY_TO not in kept.envelope.headers:
            return kept
        options = PublishOptions(delay_s=MAX_DELAY_S)  # its length is in its headers
        destination = replace(origin, address=kept.destination.address, options=options, origin=origin)
        return kept._replace(destination=destination)

    def start(self, outgoing: OutgoingMessage) -> OutgoingMessage:
        """Return a message as it is sent, however often: with its trace. `end` says that it is sent, or given up."""
        if not outgoing.trace:
            return outgoing
        envelope = outgoing.envelope
        return outgoing._replace(
            envelope=envelope._replace(headers=with_trace_headers(envelope.headers, outgoing.trace))
        )

    def end(self, outgoing: OutgoingMessage, error: BaseException | None = None) -> None:
        """Note how the publication of a message has ended: confirmed, or with an error."""

    @contextmanager
    def publication(self, outgoing: OutgoingMessage) -> Iterator[OutgoingMessage]:
        """Give a message as it is sent, and note how the block ends."""
        started = self.start(outgoing)
        try:
            yield started
        except BaseException as error:
            self.end(started, error)
            raise
        self.end(started)

    def publish_nowait(self, outgoing: OutgoingMessage, on_published: OnPublished) -> PublishStarted:
        """Publish once without waiting; see `Transport.publish_nowait`. After a failure, `publish` may be called."""
        destination, started = outgoing.destination, time.perf_counter()
        if destination.counted_as == REPLY or (
            destination.origin is not None and not self._is_known_to_work(destination)
        ):
            return "busy"  # answers have a way of their own
        note_end = partial(self._note_end, on_published, destination, started)
        address = destination.address if outgoing.key is None else address_of(outgoing)
        begun = self._transport.publish_nowait(address, outgoing.envelope, note_end)
        if begun == "confirmed":
            self._counts.note_confirmed(destination.counted_as or destination.name, time.perf_counter() - started)
        return begun

    def _note_end(
        self, on_published: OnPublished, destination: Destination, started: float, error: Exception | None
    ) -> None:
        """Count a publication that has ended, and pass its result on."""
        on_published(self._count(destination, time.perf_counter() - started, error))

    def _count(self, destination: Destination, seconds: float, error: Error | None) -> Error | None:
        """Count a publication that has ended, and return its error.

        Unroutable is no error for a destination that need not have a queue, such as a reply.
        """
        to = destination.counted_as or destination.name
        reason = error.reason if isinstance(error, PublishFailed) else ""
        if error is None or (reason == "unroutable" and not destination.needs_queue):
            self._counts.note_confirmed(to, seconds)
            return None
        self._counts.note(to, reason if reason in PUBLISH_OUTCOMES else "failed", seconds)
        return error

    @property
    def can_publish(self) -> bool:
        return self._transport.can_publish

    async def publish(
        self,
        outgoing: OutgoingMessage,
        *,
        full_queue_timeout_s: float = math.inf,
        waits_for_broker: bool = True,
        error: Exception | None = None,
    ) -> None:
        """Publish until the broker has confirmed the message. Raises PublishFailed if retrying cannot help.

        A full queue is retried for `full_queue_timeout_s`. A handler must not wait forever for a queue that it may
        itself have to empty. Without `waits_for_broker`, PublishUnknown is raised as soon as there is no connection.
        `error` is that of an attempt that has just failed.
        """
        if error is None:
            published: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
            begun = self.publish_nowait(outgoing, partial(_resolve, published))
            if begun == "confirmed" or (begun == "started" and (error := await published) is None):
                return
        await self._publish_repeatedly(outgoing, error, full_queue_timeout_s, waits_for_broker)

    async def _publish_repeatedly(
        self, outgoing: OutgoingMessage, error: Exception | None, full_queue_timeout_s: float, waits_for_broker: bool
    ) -> None:
        """Publish as `publish` does. `error` is that of an attempt that has just failed."""
        address = address_of(outgoing)
        loop = asyncio.get_running_loop()
        give_up_at, warn_at = loop.time() + full_queue_timeout_s, loop.time() + WARN_AFTER_S
        unconfirmed = 0
        for delay_s in backoff_delays(FIRST_BACKOFF_S, MAX_BACKOFF_S):
            try:
                if (failed := error) is not None:
                    error = None
                    raise failed
                if outgoing.destination.origin is not None:
                    await self._make_options_work(outgoing.destination)
                await self._publish(outgoing, address)
                return
            except PublishUnknown as unknown:
                unconfirmed += 1
                if unconfirmed >= MAX_DIRECT_REPLY_ATTEMPTS and is_direct_reply(address):
                    log.get_logger().info("reply.given_up", to=address.key, error=str(unknown))
                    return
            except PublishFailed as failure:
                if failure.reason != "refused" or loop.time() >= give_up_at:
                    raise
                if loop.time() >= warn_at:
                    self._warn_waiting(outgoing.destination.name, failure)
                    warn_at = math.inf
                delay_s = min(delay_s, max(0.0, give_up_at - loop.time()))  # the last attempt is at the very end
            await asyncio.sleep(delay_s)
            if not waits_for_broker and not self.can_publish:  # a lost connection is noticed by the end of the delay
                raise PublishUnknown(f'the broker was lost while publishing to "{address}"')

    async def call(self, outgoing: OutgoingMessage, timeout_s: float, *, waited_s: float = 0.0) -> Answer:
        """Publish a question, once, and return its first answer. It expires when nothing waits for the answer any more.

        Of the timeout, `waited_s` have passed. Raises PublishFailed (certainly not published), NoAnswer, and CallFailed
        (the handler gave up).
        """
        destination = replace(outgoing.destination, needs_queue=True)
        if DELAY_TO in outgoing.envelope.headers:
            raise PublishFailed("a question cannot be delayed: its caller waits for the answer", reason="invalid")
        left_s = timeout_s - waited_s
        expires_ms = min(max(1, math.ceil(left_s * 1000)), outgoing.envelope.expiration_ms or MAX_EXPIRATION_MS)
        # Publications may share an id, and so a correlation id. Answers must not.
        envelope = outgoing.envelope._replace(correlation_id=self._new_id(), expiration_ms=expires_ms)
        try:
            async with asyncio.timeout(left_s):
                with self.publication(outgoing._replace(destination=destination, envelope=envelope)) as sent:
                    waiting = await self._counted(destination, self._transport.ask(address_of(sent), sent.envelope))
                assert waiting is not None
                return read_answer(await waiting, destination.name)
        except TimeoutError:
            text = f'"{destination.name}" has not answered within {format_duration(timeout_s)}'
            raise NoAnswer(text, reason="timeout") from None
        except PublishUnknown as error:
            raise NoAnswer(str(error), reason="lost") from error

    def _is_known_to_work(self, destination: Destination) -> bool:
        return _use_of(destination) in self._known_to_work

    async def _make_options_work(self, destination: Destination) -> None:
        """Declare what holds delayed messages, and compare the options with the broker, once for each destination.

        Raises PublishFailed, or PublishUnknown while there is no connection.
        """
        async with self._declaring:
            if self._is_known_to_work(destination):
                return
            assert destination.options is not None
            assert destination.origin is not None
            try:
                if destination.options.delay_s and not destination.is_delayed_to:
                    await self._transport.declare(delay_topology(self._app_id, destination.origin))
            except RunnerError as error:
                if not self.can_publish:
                    raise PublishUnknown("the broker was lost before publishing") from error
                text = f'the queues that hold messages for "{destination.name}" cannot be declared: {error}'
                raise PublishFailed(text, reason="unavailable", hint=_DELAYS_HINT) from error
            priorities = self._transport.capabilities.quorum_priorities
            if problem := unsupported_option(destination.options, priorities, destination.has_quorum_queues):
                raise PublishFailed(problem, reason="invalid", hint=PRIORITIES_HINT)
            self._known_to_work.add(_use_of(destination))

    async def _publish(self, outgoing: OutgoingMessage, address: Address) -> None:
        """Publish once and count the result."""
        destination = outgoing.destination
        is_answer = destination.counted_as == REPLY
        await self._counted(destination, self._transport.publish(address, outgoing.envelope, is_answer=is_answer))

    async def _counted(self, destination: Destination, publishing: Awaitable[T]) -> T | None:
        """Await a publication, count it, and return its result; None where no queue has to take it, and none does."""
        started = time.perf_counter()
        try:
            result = await publishing
        except (PublishFailed, PublishUnknown) as error:
            if self._count(destination, time.perf_counter() - started, error) is not None:
                raise
            return None
        self._count(destination, time.perf_counter() - started, None)
        return result

    def _warn_waiting(self, name: str, failure: PublishFailed) -> None:
        """Warn that a destination is full, at most once every `WARN_INTERVAL_S`."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_warning_at.get(name, 0.0):
            self._next_warning_at[name] = now + WARN_INTERVAL_S
            log.get_logger().warning("publish.waiting", to=name, error=str(failure))

    def _named_destinations(self, name: str, origin: ResultOrigin | None) -> tuple[Destination, ...]:
        """Return the destination that a `Publish` names; none for a reply that cannot be delivered."""
        destination = self._destinations.get(name)
        if destination is not None:
            return (destination,)
        if origin is not None and name == origin.reply_to:
            return reply_destinations(name)
        raise unknown_name(name, self._destinations)

    def _envelope(
        self,
        payload: Any,
        headers: Mapping[str, Any],
        target: Destination,
        origin: ResultOrigin | None,
        seed: str,
        number: int,
    ) -> Envelope:
        body, content_type = target.encode(payload)
        if origin is not None:
            message_id = self._result_id(origin.digest, seed, number, target)
            correlation_id = origin.correlation_id or message_id
        else:
            message_id = correlation_id = self._item_id(body, seed, number, target)
        encoding = None
        if target.compress is not None:
            body, encoding = target.compress(body)
        kind = target.name if target.is_event else None
        if (sent_at := self._now()).microsecond:
            sent_at = sent_at.replace(microsecond=0)  # AMQP timestamps have whole seconds
        ids = (message_id, correlation_id, kind, self._app_id)
        fields = (body, *ids, sent_at, content_type, encoding, None, None, None, headers)
        if headers is not NO_HEADERS or correlation_id is not message_id or len(body) > MAX_BODY_BYTES:
            return _new(Envelope, fields)
        if (what := (kind, content_type, encoding, sent_at.tzinfo)) not in self._normal:
            if normalize_envelope(envelope := _new(Envelope, fields)) is not envelope:
                return envelope
            self._normal.add(what)
        return _new(NormalEnvelope, fields)  # only the id and the body differ from one that was checked

    def _result_id(self, origin: bytes | None, seed: str, number: int, target: Destination) -> str:
        """Return the id of a handler's result: the same for the same messages, place and destination."""
        if origin is None:
            return self._new_id()
        place = f"{seed and f'{seed}:{number}'}:{target.name}".encode("utf-8", "surrogatepass")
        return blake2b(origin + place, digest_size=16).hexdigest()

    def _item_id(self, body: bytes, seed: str, number: int, target: Destination) -> str:
        """Return the id of a producer's item: the same for the same place, destination and body."""
        if not seed:
            return self._new_id()
        if seed is not self._seed:  # all items of a run have the same one: its hash is begun once
            self._seed, self._seeded = seed, blake2b(seed.encode(), digest_size=16)
        digest = self._seeded.copy()
        digest.update(b":%d:%b\0%b" % (number, target.name.encode(), body))
        return digest.hexdigest()


_DELAYS_HINT = "list it under `delays:` in the pipeline, and let `runner apply` declare them"


def _use_of(destination: Destination) -> tuple[str, bool, bool]:
    """Return what a broker must have for a destination with options."""
    options = destination.options or PublishOptions()
    return destination.name, bool(options.delay_s), options.priority is not None


def make_publisher(tracer: Tracer | None, *arguments: Any, **named: Any) -> PipelinePublisher:
    """Return a publisher, one that makes spans if there is a tracer. All other arguments are those of `Publisher`."""
    if tracer is None:
        return PipelinePublisher(*arguments, **named)
    from runner.runtime.tracing import TracedPublisher

    return TracedPublisher(tracer, *arguments, **named)


def _resolve(published: asyncio.Future[Exception | None], error: Exception | None) -> None:
    """Pass the end of a publication to the task that waits for it, unless that was cancelled."""
    if not published.done():
        published.set_result(error)


def unknown_name(name: str, known: Iterable[str]) -> PublishFailed:
    """Return the error for a destination that the pipeline does not have; `known` are those that it has."""
    text = f'no queue or event of this pipeline is called "{name}"'
    return PublishFailed(text, reason="invalid", hint=did_you_mean(name, known, "there are"))


def split_results(result: Any) -> Sequence[Any]:
    """Return the results in a return value: the items of a list or tuple that holds only `Publish`, else itself."""
    if isinstance(result, list | tuple) and result and all(isinstance(item, Publish) for item in result):
        return result
    return (result,)


def reply_destinations(address: str) -> tuple[Destination, ...]:
    """Return the destination of a reply: a queue, or a caller that uses direct reply-to. Empty for a forged address.

    A caller that is gone is no error. RabbitMQ 3 reports direct replies as unroutable.
    """
    if not is_answerable(address):
        return ()
    return (
        Destination(address, Address("", address), is_event=False, encode=encode, needs_queue=False, counted_as=REPLY),
    )


def address_of(outgoing: OutgoingMessage) -> Address:
    """Return where a message is published to."""
    destination = outgoing.destination
    if outgoing.key is not None and (destination.is_event or destination.partitioning is not None):
        return destination.address._replace(key=outgoing.key)
    return destination.address
