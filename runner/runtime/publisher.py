"""Turns payloads into published, confirmed messages; sends again, with the same id, what may not have arrived."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

from runner import log
from runner.errors import PublishFailed, PublishUnknown
from runner.message import NO_HEADERS, Address, Envelope, Publish
from runner.metrics import PUBLISH_OUTCOMES, REPLY, Publications
from runner.pipeline.codec import encode
from runner.pipeline.model import Destination
from runner.runtime.deduplication import identity
from runner.transports.amqp_limits import check_routing_key, normalize_envelope
from runner.transports.base import OnPublished, PublishStarted, Transport
from runner.transports.direct_reply import is_answerable, is_direct_reply

MAX_BACKOFF_S = 5.0

MAX_DIRECT_REPLY_ATTEMPTS = 2
"""How often a direct reply is sent when it is not known whether it has arrived. Its caller may have been connected to a
node that is gone: then RabbitMQ ends the connection that publishes to it, each time."""

WARN_AFTER_S = 5.0
"""After how long of waiting at a full queue that is told."""

WARN_INTERVAL_S = 60.0

_envelope = Envelope._make

Error = TypeVar("Error", bound=Exception)


class SecondClock:
    """The wall clock in whole seconds, UTC: the same object for a second long."""

    def __init__(self) -> None:
        self._second = 0
        self._moment = datetime.fromtimestamp(0, UTC)

    def __call__(self) -> datetime:
        second = int(time.time())
        if second != self._second:
            self._second, self._moment = second, datetime.fromtimestamp(second, UTC)
        return self._moment


class OutgoingMessage(NamedTuple):
    """One message on its way: where to, and as what."""

    destination: Destination
    envelope: Envelope
    key: str | None = None


class ResultOrigin(NamedTuple):
    """What a handler's results come from: `digest` stands for all messages of the attempt, None if one has no id."""

    digest: bytes | None
    correlation_id: str | None
    reply_to: str | None


def result_origin(parents: Sequence[Envelope]) -> ResultOrigin:
    """Return what the results of these messages come from; of a batch, the first one lends the rest."""
    digest = blake2b(digest_size=16)
    for parent in parents:
        digest.update(identity(parent))
    first = parents[0]
    has_ids = all(parent.message_id is not None for parent in parents)
    return ResultOrigin(digest.digest() if has_ids else None, first.correlation_id or first.message_id, first.reply_to)


class PipelinePublisher:
    """Publishes what producers and handlers hand out, for one pipeline.

    `new_id` and `now` are injected: ids are hex strings, times aware datetimes in UTC.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        app_id: str,
        destinations: Mapping[str, Destination],
        new_id: Callable[[], str],
        now: Callable[[], datetime],
        counts: Publications | None = None,
    ) -> None:
        self._transport = transport
        self._app_id = app_id
        self._destinations = destinations
        self._new_id = new_id
        self._now = now
        self._counts = counts or Publications(())
        self._next_warning_at: dict[str, float] = {}

    def counting(self, counts: Publications) -> PipelinePublisher:
        """Return the same publisher, which counts what it publishes there."""
        other = copy(self)
        other._counts = counts
        return other

    def prepare(
        self,
        results: Iterable[Any],
        to: tuple[Destination, ...],
        *,
        seed: str = "",
        before: int = 0,
        origin: ResultOrigin | None = None,
    ) -> list[OutgoingMessage]:
        """Return the messages that results become, encoded: all is checked before the first can be sent.

        `before` counts the messages of the same work that were sent earlier. `seed` names the place: the pipeline, and
        what runs in it. Ids are derived from the origin, `seed` and the message's number, so that a second attempt
        publishes the same ids; without an origin from `seed`, the number and the body, since a producer that begins
        again may find other items in the same places. They are new where there is neither. Raises
        PublishFailed("invalid").
        """
        found: list[OutgoingMessage] = []
        for result in results:
            for each in split_results(result):
                found += self._messages_of(each, to, origin, seed and f"{seed}:{before + len(found)}")
        for outgoing in found:
            if len(found) > 1 or outgoing.key is not None or outgoing.envelope.headers is not NO_HEADERS:
                check_routing_key(_target_address(outgoing).key)
                normalize_envelope(outgoing.envelope)
        return found

    def _messages_of(
        self, result: Any, to: tuple[Destination, ...], origin: ResultOrigin | None, seed: str
    ) -> list[OutgoingMessage]:
        """Return the messages that a result becomes: one for each destination, none for None."""
        if isinstance(result, Publish):
            targets = self._named_destinations(result.to, origin) if result.to is not None else to
            headers, key = result.headers or NO_HEADERS, result.key
            payload = result.payload
        elif result is None:
            return []
        else:
            targets, headers, key, payload = to, NO_HEADERS, None, result
        return [
            OutgoingMessage(target, self._envelope(payload, headers, target, origin, seed), key) for target in targets
        ]

    def publish_nowait(self, outgoing: OutgoingMessage, on_published: OnPublished) -> PublishStarted:
        """Publish once without being awaited; see `Transport.publish_nowait`. What fails there may be sent again by
        `send`."""
        destination, started = outgoing.destination, time.perf_counter()
        note_end = partial(self._note_end, on_published, destination, started)
        begun = self._transport.publish_nowait(_target_address(outgoing), outgoing.envelope, note_end)
        if begun == "confirmed":
            self._counts.note_confirmed(destination.counted_as or destination.name, time.perf_counter() - started)
        return begun

    def _note_end(
        self, on_published: OnPublished, destination: Destination, started: float, error: Exception | None
    ) -> None:
        """Count a publication that has ended, and pass that on: where it needs no queue, it may have had none."""
        on_published(self._count(destination, time.perf_counter() - started, error))

    def _count(self, destination: Destination, seconds: float, error: Error | None) -> Error | None:
        """Count a publication that has ended; return its error, if it is one: where it needs no queue, it may have had
        none.
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
        """See `Transport.can_publish`."""
        return self._transport.can_publish

    async def publish(
        self, outgoing: OutgoingMessage, *, full_queue_timeout_s: float = math.inf, waits_for_broker: bool = True
    ) -> None:
        """Publish until the broker has confirmed it. Raises PublishFailed where trying again cannot help.

        Without `waits_for_broker` it raises PublishUnknown as soon as there is nothing to publish with. A full queue is
        tried again for `full_queue_timeout_s`: not for ever where a handler waits that may itself be the one to make
        room.
        """
        address = _target_address(outgoing)
        loop = asyncio.get_running_loop()
        give_up_at, warn_at = loop.time() + full_queue_timeout_s, loop.time() + WARN_AFTER_S
        pause, unconfirmed = 0.1, 0
        while True:
            try:
                await self._publish(outgoing, address)
                return
            except PublishUnknown as error:
                unconfirmed += 1
                if unconfirmed >= MAX_DIRECT_REPLY_ATTEMPTS and is_direct_reply(address):
                    log.get_logger().info("reply.given_up", to=address.key, error=str(error))
                    return
            except PublishFailed as failure:
                if failure.reason != "refused" or loop.time() >= give_up_at:
                    raise
                if loop.time() >= warn_at:
                    self._warn_waiting(outgoing.destination.name, failure)
                    warn_at = math.inf
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, MAX_BACKOFF_S)
            if not waits_for_broker and not self.can_publish:  # the loss of a connection is known after the pause
                raise PublishUnknown(f'the broker was lost while publishing to "{address}"')

    async def _publish(self, outgoing: OutgoingMessage, address: Address) -> None:
        """Publish once, and count how that ends."""
        destination, started = outgoing.destination, time.perf_counter()
        try:
            await self._transport.publish(address, outgoing.envelope)
        except (PublishFailed, PublishUnknown) as error:
            if self._count(destination, time.perf_counter() - started, error) is not None:
                raise
        else:
            self._count(destination, time.perf_counter() - started, None)

    def _warn_waiting(self, name: str, failure: PublishFailed) -> None:
        """Say that a destination keeps us waiting; once in a while, for all messages that wait for it."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_warning_at.get(name, 0.0):
            self._next_warning_at[name] = now + WARN_INTERVAL_S
            log.get_logger().warning("publish.waiting", to=name, error=str(failure))

    def _named_destinations(self, name: str, origin: ResultOrigin | None) -> tuple[Destination, ...]:
        """Return the destination that a `Publish` names, none for an asker who cannot be answered."""
        destination = self._destinations.get(name)
        if destination is not None:
            return (destination,)
        if origin is not None and name == origin.reply_to:
            return reply_destinations(name)
        known = ", ".join(self._destinations)
        text = f'no queue or event of this pipeline is called "{name}"'
        raise PublishFailed(text, reason="invalid", hint=f"known: {known}")

    def _envelope(
        self, payload: Any, headers: Mapping[str, Any], target: Destination, origin: ResultOrigin | None, seed: str
    ) -> Envelope:
        body, content_type = target.encode(payload)
        if origin is not None:
            message_id = self._result_id(origin.digest, seed, target)
            correlation_id = origin.correlation_id or message_id
        else:
            message_id = correlation_id = self._item_id(body, seed, target)
        kind = target.name if target.is_event else None
        sent_at = self._now().replace(microsecond=0)  # the resolution of AMQP
        none = None
        return _envelope(
            (
                body,
                message_id,
                correlation_id,
                kind,
                self._app_id,
                sent_at,
                content_type,
                none,
                none,
                none,
                none,
                headers,
            )
        )

    def _result_id(self, origin: bytes | None, seed: str, target: Destination) -> str:
        """Return the id of a result: the same for the same messages, place and destination."""
        if origin is None:
            return self._new_id()
        place = f"{seed}:{target.name}".encode("utf-8", "surrogatepass")
        return blake2b(origin + place, digest_size=16).hexdigest()

    def _item_id(self, body: bytes, seed: str, target: Destination) -> str:
        """Return the id of a producer's item: the same for the same place, destination and body."""
        if not seed:
            return self._new_id()
        return blake2b(b"%b:%b\0%b" % (seed.encode(), target.name.encode(), body), digest_size=16).hexdigest()


def split_results(result: Any) -> Sequence[Any]:
    """Return what a handler has returned or yielded as results: of a list or a tuple of nothing but `Publish`, each."""
    if isinstance(result, list | tuple) and result and all(isinstance(item, Publish) for item in result):
        return result
    return (result,)


def reply_destinations(address: str) -> tuple[Destination, ...]:
    """Return where the answer to a message goes that names a queue, or a caller that waits for a direct reply.

    A caller that has gone is no error. RabbitMQ 3 says of direct replies, too, that no queue takes them. A forged
    address counts as that of a caller that has gone.
    """
    if not is_answerable(address):
        return ()
    return (
        Destination(address, Address("", address), is_event=False, encode=encode, needs_queue=False, counted_as=REPLY),
    )


def _target_address(outgoing: OutgoingMessage) -> Address:
    destination, _, key = outgoing
    if key is not None and destination.is_event:
        return destination.address._replace(key=key)
    return destination.address
