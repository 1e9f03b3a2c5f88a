"""Turns payloads into published, confirmed messages; sends again, with the same id, what may not have arrived."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any
from uuid import UUID, uuid5

from runner import log
from runner.errors import PublishFailed, PublishUnknown
from runner.message import NO_HEADERS, Envelope, Publish
from runner.pipeline.model import Destination
from runner.transports.base import Transport

LONGEST_PAUSE_S = 5.0

TELL_S = 5.0
"""After how long of waiting at a full queue that is told."""

TELL_AGAIN_S = 60.0
_RESULTS = UUID("5d2c6a3e-54d6-4b0e-9d38-6c3a3f0f7a10")


@dataclass(frozen=True, slots=True)
class Outgoing:
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
        if result is None:
            return []
        wish = result if isinstance(result, Publish) else Publish(result)
        targets = (self._destination(wish.to),) if wish.to is not None else to
        return [Outgoing(target, self._envelope(wish, target, parent, seed), wish.key) for target in targets]

    async def send(self, outgoing: Outgoing, *, patience_s: float = math.inf) -> None:
        """Publish until the broker has confirmed it. Raises PublishFailed where trying again cannot help.

        A full queue is tried again for `patience_s`: not for ever where a handler waits that may itself be the one to
        make room.
        """
        address = outgoing.destination.address
        if outgoing.key is not None and outgoing.destination.is_event:
            address = address._replace(key=outgoing.key)
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

    def _envelope(self, wish: Publish, target: Destination, parent: Envelope | None, seed: str) -> Envelope:
        body, content_type = target.encode(wish.payload)
        message_id = self._message_id(body, target, parent, seed)
        correlation_id = (parent.correlation_id or parent.message_id) if parent else None
        return Envelope(
            body=body,
            message_id=message_id,
            correlation_id=correlation_id or message_id,
            type=target.name if target.is_event else None,
            app_id=self._app_id,
            timestamp=self._now(),
            content_type=content_type,
            headers=wish.headers or NO_HEADERS,
        )

    def _message_id(self, body: bytes, target: Destination, parent: Envelope | None, seed: str) -> str:
        if parent is not None:
            origin = parent.message_id
        else:
            origin = blake2b(body, digest_size=16).hexdigest() if seed else None
        return self._new_id() if origin is None else uuid5(_RESULTS, f"{origin}:{seed}:{target.name}").hex
