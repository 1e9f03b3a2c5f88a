"""Turns payloads into published, confirmed messages; sends again, with the same id, what may not have arrived."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from runner import log
from runner.errors import PublishFailed, PublishUnknown
from runner.message import NO_HEADERS, Address, Envelope, Publish
from runner.pipeline.model import Destination
from runner.transports.base import Begun, OnEnd, Transport

LONGEST_PAUSE_S = 5.0

TELL_S = 5.0
"""After how long of waiting at a full queue that is told."""

TELL_AGAIN_S = 60.0

_envelope = Envelope._make


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


class Outgoing(NamedTuple):
    """One message on its way: where to, and as what."""

    destination: Destination
    envelope: Envelope
    key: str | None = None


class Publisher:
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
    ) -> None:
        self._transport = transport
        self._app_id = app_id
        self._destinations = destinations
        self._new_id = new_id
        self._now = now
        self._tell_next: dict[str, float] = {}

    def address(
        self, result: Any, to: tuple[Destination, ...], *, parent: Envelope | None = None, seed: str = ""
    ) -> list[Outgoing]:
        """Return the messages that a result becomes, encoded: one for each destination, none for None.

        Ids are derived from the parent's id and `seed`, so that a second attempt publishes the same ids; without a
        parent from `seed` and the body, since a producer that begins again may find other items in the same places.
        They are new where there is neither.
        Raises PublishFailed for a payload that does not fit and for an unknown `to`.
        """
        if isinstance(result, Publish):
            targets = (self._destination(result.to),) if result.to is not None else to
            headers, key = result.headers or NO_HEADERS, result.key
            payload = result.payload
        elif result is None:
            return []
        else:
            targets, headers, key, payload = to, NO_HEADERS, None, result
        return [Outgoing(target, self._envelope(payload, headers, target, parent, seed), key) for target in targets]

    def begin(self, outgoing: Outgoing, on_end: OnEnd) -> Begun:
        """Publish once without being awaited; see `Transport.begin`. What fails there may be sent again by `send`."""
        return self._transport.begin(_address(outgoing), outgoing.envelope, on_end)

    @property
    def can_publish(self) -> bool:
        """See `Transport.can_publish`."""
        return self._transport.can_publish

    async def send(self, outgoing: Outgoing, *, patience_s: float = math.inf, waits_for_broker: bool = True) -> None:
        """Publish until the broker has confirmed it. Raises PublishFailed where trying again cannot help.

        Without `waits_for_broker` it raises PublishUnknown as soon as there is nothing to publish with. A full queue is
        tried again for `patience_s`: not for ever where a handler waits that may itself be the one to make room.
        """
        address = _address(outgoing)
        loop = asyncio.get_running_loop()
        give_up_at, tell_at = loop.time() + patience_s, loop.time() + TELL_S
        pause = 0.1
        while True:
            try:
                await self._transport.publish(address, outgoing.envelope)
                return
            except PublishUnknown:
                pass
            except PublishFailed as failure:
                if failure.reason != "refused" or loop.time() >= give_up_at:
                    raise
                if loop.time() >= tell_at:
                    self._tell_waiting(outgoing.destination.name, failure)
                    tell_at = math.inf
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, LONGEST_PAUSE_S)
            if not waits_for_broker and not self.can_publish:  # the loss of a connection is known after the pause
                raise PublishUnknown(f'the broker was lost while publishing to "{address}"')

    def _tell_waiting(self, name: str, failure: PublishFailed) -> None:
        """Say that a destination keeps us waiting; once in a while, for all messages that wait for it."""
        now = asyncio.get_running_loop().time()
        if now >= self._tell_next.get(name, 0.0):
            self._tell_next[name] = now + TELL_AGAIN_S
            log.get_logger().warning("publish.waiting", to=name, error=str(failure))

    def _destination(self, name: str) -> Destination:
        destination = self._destinations.get(name)
        if destination is None:
            known = ", ".join(self._destinations)
            raise PublishFailed(
                f'no queue or event of this pipeline is called "{name}"', reason="invalid", hint=f"known: {known}"
            )
        return destination

    def _envelope(
        self, payload: Any, headers: Mapping[str, Any], target: Destination, parent: Envelope | None, seed: str
    ) -> Envelope:
        body, content_type = target.encode(payload)
        if parent is not None:
            message_id = self._derived(parent.message_id, seed, target)
            correlation_id = parent.correlation_id or parent.message_id or message_id
        else:
            message_id = correlation_id = self._of_item(body, seed, target)
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

    def _derived(self, origin: str | None, seed: str, target: Destination) -> str:
        """Return the id of a result: the same for the same message, place and destination."""
        if origin is None:
            return self._new_id()
        place = f"{origin}:{seed}:{target.name}".encode("utf-8", "surrogatepass")
        return blake2b(place, digest_size=16).hexdigest()

    def _of_item(self, body: bytes, seed: str, target: Destination) -> str:
        """Return the id of a producer's item: the same for the same place, destination and body."""
        if not seed:
            return self._new_id()
        return blake2b(b"%b:%b\0%b" % (seed.encode(), target.name.encode(), body), digest_size=16).hexdigest()


def _address(outgoing: Outgoing) -> Address:
    destination, _, key = outgoing
    if key is not None and destination.is_event:
        return destination.address._replace(key=key)
    return destination.address
