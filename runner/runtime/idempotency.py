"""Answers repeated POSTs with the first answer: the `Idempotency-Key` of draft-ietf-httpapi-idempotency-key-header."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import blake2b
from typing import Any
from uuid import uuid4

from runner.runtime.answers import Answer
from runner.runtime.store import Step, Store, StoreUnavailable

HEADER = "Idempotency-Key"
OTHER_BODY = f"this {HEADER} came with another body before: write a new key"
IN_WORK = f"a request with this {HEADER} is being answered: repeat it later"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")  # AMQP's limit for the id of a message

Response = tuple[int, dict[str, Any] | Answer]


def read_key(header: str) -> str:
    """Return the key in a header: a string of RFC 8941, or the same without quotes. Raises ValueError."""
    key = header.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = re.sub(r"\\(.)", r"\1", key[1:-1])
    if not _KEY.fullmatch(key):
        raise ValueError(f"{HEADER} must have 1 to 255 visible ASCII characters")
    return key


class Idempotency:
    """The answers to the POSTs of one producer, by their keys. `scope` names the producer."""

    def __init__(self, window_s: float, scope: str, store: Store) -> None:
        self._window_s = window_s
        self._scope = scope
        self._store = store

    async def answer(self, key: str, body: bytes, work: Callable[[], Awaitable[Response]]) -> Response:
        """Return the first answer to a key; without one, that of `work`. Only a success is remembered.

        409: a request with the key is being answered; 422: the first request had another body; 503: the store is away.
        """
        hashed = _hash(body)
        claim = Step("claim", f"{self._scope}:{_hash(key.encode())}", uuid4().hex)
        try:
            found = await self._store.do(claim)
        except StoreUnavailable as error:
            return 503, {"error": f"{error}: nothing was published"}
        if found is False:
            return 409, {"error": IN_WORK}
        if found is not True:
            first, status, answer, kind = json.loads(found)
            if first != hashed:
                return 422, {"error": OTHER_BODY}
            return status, Answer(None, b64decode(answer), kind, {}) if kind else answer
        end = claim._replace(kind="release")
        try:
            status, answer = await work()
            if status < 300:
                parts: tuple[Any, str] = (answer, "")
                if isinstance(answer, Answer):
                    parts = (b64encode(answer.body).decode(), answer.content_type)
                value = json.dumps([hashed, status, *parts]).encode()
                end = claim._replace(kind="finish", value=value, seconds=self._window_s)
            return status, answer
        finally:
            with suppress(StoreUnavailable):  # what is published is published; a claim ends by itself
                await self._store.do(end)


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
