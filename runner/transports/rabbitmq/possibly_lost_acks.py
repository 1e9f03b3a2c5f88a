"""Remembers deliveries that were acknowledged just before their channel was lost: the broker may deliver them again.

An acknowledgement has no answer. When a channel ends, it is not known which of the last ones the broker has read.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from runner.message import FIRST_FAILED_AT, REASON, replays_of
from runner.outcome import Outcome
from runner.transports.base import Delivery

MAX_POSSIBLY_LOST = 1000
"""How many of the last acks on a closed channel are treated as possibly lost."""

POSSIBLY_LOST_S = 3600.0

MessageKey = tuple[str, int, int, int, int, str, str]


def message_key(delivery: Delivery) -> MessageKey | None:
    """Return what tells a message from others; None for one without an id.

    The attempt, the replay and the dead letter are part of it: a retry has the id and the body of the first attempt,
    and what became of that says nothing about the retry.
    """
    message_id, body, headers = delivery.envelope.message_id, delivery.envelope.body, delivery.envelope.headers
    if message_id is None:
        return None
    if not headers:
        return message_id, len(body), hash(body), 1, 0, "", ""
    letter = str(headers.get(REASON, "")), str(headers.get(FIRST_FAILED_AT, ""))
    return message_id, len(body), hash(body), delivery.attempt, replays_of(headers), *letter


class PossiblyLostAcks:
    """The messages of one consumer whose acknowledgement the broker may not have read.

    Only handled messages are among them, not those that were replaced by a retry or a dead letter: such a copy may come
    back with the same content, and it must be handled.

    It also keeps how attempts ended whose retry or dead letter could not be published: they come once more.
    """

    def __init__(self) -> None:
        self._found: OrderedDict[MessageKey, tuple[int, float]] = OrderedDict()
        self._outcomes: OrderedDict[MessageKey, Outcome] = OrderedDict()

    def add(self, keys: Iterable[MessageKey]) -> None:
        """Note messages that were acknowledged, perhaps in vain."""
        until = asyncio.get_running_loop().time() + POSSIBLY_LOST_S
        for key in keys:
            count, _ = self._found.pop(key, (0, 0.0))
            self._found[key] = (count + 1, until)
        while len(self._found) > 10 * MAX_POSSIBLY_LOST:
            self._found.popitem(last=False)

    def take(self, delivery: Delivery) -> bool:
        """Return whether this redelivery was handled before. The next delivery of the same message then was not."""
        key = message_key(delivery) if self._found else None
        if key is None or key not in self._found:
            return False
        count, until = self._found.pop(key)
        if until < asyncio.get_running_loop().time():
            return False
        if count > 1:
            self._found[key] = (count - 1, until)
        return True

    def remember_outcome(self, delivery: Delivery, outcome: Outcome) -> None:
        """Remember how an attempt ended that could not be settled."""
        key = message_key(delivery)
        if key is not None:
            self._outcomes[key] = outcome
            while len(self._outcomes) > MAX_POSSIBLY_LOST:
                self._outcomes.popitem(last=False)

    def take_outcome(self, delivery: Delivery) -> Outcome | None:
        """Return how a redelivery ended before. Only once: a dead letter that was moved back looks the same."""
        key = message_key(delivery) if self._outcomes else None
        return None if key is None else self._outcomes.pop(key, None)
