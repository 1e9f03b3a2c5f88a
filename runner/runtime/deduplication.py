"""Remembers handled messages, so that a second delivery of one is acknowledged without calling the handler again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b

from runner import log
from runner.message import Envelope

MAX_REMEMBERED = 100_000
"""The most messages that a subscriber remembers, the newest ones: about 15 MB."""


def identity(envelope: Envelope) -> bytes:
    """Return a hash of id and body. Two messages with the same id and different bodies are different messages."""
    digest = blake2b(envelope.body, digest_size=16)
    digest.update(len(envelope.body).to_bytes(8))
    digest.update((envelope.message_id or "").encode("utf-8", "surrogatepass"))
    return digest.digest()


class Deduplicator:
    """The messages that were handled within a window of seconds, in the memory of this process.

    A message without an id is never taken for a duplicate.
    """

    def __init__(self, window_s: float, limit: int = MAX_REMEMBERED) -> None:
        self._window_s = window_s
        self._limit = limit
        self._has_warned = False
        self._expires_at: OrderedDict[bytes, float] = OrderedDict()
        self._running: dict[bytes, asyncio.Future[None]] = {}

    def __contains__(self, key: bytes) -> bool:
        self._expire()
        return key in self._expires_at

    def add(self, key: bytes) -> None:
        """Remember a message for the window."""
        now = asyncio.get_running_loop().time()
        self._expires_at.pop(key, None)
        self._expires_at[key] = now + self._window_s
        if len(self._expires_at) > self._limit:
            _, until = self._expires_at.popitem(last=False)
            if until > now:
                self._warn_evicted(until - now)

    @asynccontextmanager
    async def exclusive(self, key: bytes) -> AsyncIterator[None]:
        """Wait until no other delivery of this message is handled; hold the others back inside the block."""
        while (other := self._running.get(key)) is not None:
            await asyncio.shield(other)
        mine = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._running[key]
            mine.set_result(None)

    def _warn_evicted(self, early_s: float) -> None:
        """Warn, once, that the window is shorter than configured because too many messages arrive."""
        if not self._has_warned:
            self._has_warned = True
            fields = {"window_s": round(self._window_s - early_s, 3), "asked_s": self._window_s}
            log.get_logger().warning("dedupe.forgets", remembered=self._limit, **fields)

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._expires_at and next(iter(self._expires_at.values())) <= now:
            self._expires_at.popitem(last=False)
