"""Lets each message be handled once within a window, as far as a store can tell."""

from __future__ import annotations

from hashlib import blake2b
from itertools import count
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
        self._numbers = count()

    def claim_of(self, envelope: Envelope) -> Step | None:
        """Return the claim of a delivery; None if its message has no id: then it is never taken for a duplicate.

        Raises InvalidMessage where the payload lacks the key.
        """
        if self._options.key_of is None and envelope.message_id is None:
            return None
        key = self._options.key_of(envelope) if self._options.key_of is not None else identity(envelope)
        digest = blake2b(key, digest_size=16).hexdigest()
        return Step("claim", f"{self._scope}:{digest}", f"{self._owner}{next(self._numbers)}")

    async def claim(self, claim: Step, envelope: Envelope) -> bool | None:
        """Return True if the message is to be handled now, None if it was handled before.

        False: a message with this key is being handled. Raises StoreUnavailable.
        """
        found = await self._store.do(claim)
        if isinstance(found, bytes):
            done = int(found) if found.isdigit() else 0
            if done >= replays_of(envelope.headers):
                return None
            found = await self._store.do(claim._replace(kind="again"))
        return found is True

    async def finish(self, claim: Step, envelope: Envelope) -> None:
        """Note that a claimed message was handled. Raises StoreUnavailable."""
        replays = b"%d" % replays_of(envelope.headers)
        await self._store.do(claim._replace(kind="finish", value=replays, seconds=self._options.window_s))

    async def release(self, claim: Step) -> None:
        """Let others handle messages with a claimed key. Raises StoreUnavailable."""
        await self._store.do(claim._replace(kind="release"))
