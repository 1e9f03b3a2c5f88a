"""Lets each message be handled once within a window, as far as a store can tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from uuid import uuid4

from runner.message import Envelope, replays_of
from runner.pipeline.model import Remembering
from runner.runtime.store import Step, Store


def identity(envelope: Envelope) -> bytes:
    """Return a hash of id and body. Two messages with the same id and different bodies are different messages."""
    digest = blake2b(envelope.body, digest_size=16)
    digest.update(len(envelope.body).to_bytes(8))
    digest.update((envelope.message_id or "").encode("utf-8", "surrogatepass"))
    return digest.digest()


class Deduplicator:
    """The messages that a subscriber has handled within its window. `scope` is the subscriber's name for all processes.

    A replay is let through once: the entry of a key says with which replay it was done, 0 for none.
    """

    def __init__(self, options: Remembering, scope: str, store: Store) -> None:
        self._options = options
        self._scope = scope
        self._store = store
        self._owner = uuid4().hex
        self._running: dict[str, asyncio.Future[None]] = {}

    def key(self, envelope: Envelope) -> str | None:
        """Return what identifies a message; None if it has no id: then it is never taken for a duplicate.

        Raises InvalidMessage where the payload lacks the key.
        """
        if self._options.key_of is not None:
            digest = blake2b(self._options.key_of(envelope), digest_size=16).hexdigest()
            return f"{self._scope}:{digest}"
        return None if envelope.message_id is None else f"{self._scope}:{identity(envelope).hex()}"

    async def claim(self, key: str, envelope: Envelope) -> bool | None:
        """Return True if the message is to be handled now, None if it was handled before.

        False: another process handles a message with this key. Raises StoreUnavailable.
        """
        found = await self._store.do(Step("claim", key, self._owner))
        if isinstance(found, bytes):
            done = int(found) if found.isdigit() else 0
            if done >= replays_of(envelope.headers):
                return None
            found = await self._store.do(Step("again", key, self._owner))
        return found is True

    async def finish(self, key: str, envelope: Envelope) -> None:
        """Note that a claimed message was handled. Raises StoreUnavailable."""
        replays = b"%d" % replays_of(envelope.headers)
        await self._store.do(Step("finish", key, self._owner, replays, self._options.window_s))

    async def release(self, key: str) -> None:
        """Let others handle messages with a claimed key. Raises StoreUnavailable."""
        await self._store.do(Step("release", key, self._owner))

    @asynccontextmanager
    async def exclusive(self, key: str) -> AsyncIterator[None]:
        """Wait until this process handles no other message with the key; hold the others back inside the block."""
        while (other := self._running.get(key)) is not None:
            await asyncio.shield(other)
        mine = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._running[key]
            mine.set_result(None)
