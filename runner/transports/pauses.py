"""Contract: the pauses of a pipeline's subscribers, which all sessions of a broker share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

MAX_REASON = 500
"""Longer reasons are cut to this number of characters."""


class Pause(NamedTuple):
    """Why a subscriber takes no messages. `since` is when the pause began: UTC, whole seconds."""

    since: datetime
    reason: str = ""

    @property
    def text(self) -> str:
        """The pause in words, as in `paused since 2026-11-30T12:03:00+00:00: carrier is down`."""
        return f"paused since {self.since.isoformat()}{f': {self.reason}' if self.reason else ''}"


Pauses = Mapping[str, Pause]
"""The pauses of one pipeline, by the names of its subscribers."""

OnPauses = Callable[[Pauses, str], None]
"""Takes all pauses after a change, and the subscriber that it is about; "" if it may be about several."""


class PauseChange(NamedTuple):
    """The beginning of a pause, its end (None), or nothing (no subscriber)."""

    subscriber: str = ""
    pause: Pause | None = None

    def applied_to(self, pauses: Pauses) -> Pauses:
        """Return the pauses after this change."""
        if not self.subscriber:
            return pauses
        others = {name: pause for name, pause in pauses.items() if name != self.subscriber}
        return others if self.pause is None else {**others, self.subscriber: self.pause}


def write_change(change: PauseChange) -> bytes:
    """Return a change as the body of a message."""
    pause = change.pause and {"since": change.pause.since.isoformat(), "reason": change.pause.reason}
    return json.dumps({"subscriber": change.subscriber, "pause": pause}).encode()


def read_change(body: bytes) -> PauseChange:
    """Return the change in the body of a message; nothing for any other body."""
    try:
        found = json.loads(body)
        subscriber, pause = found["subscriber"], found["pause"]
        if pause is None:
            return PauseChange(str(subscriber))
        since = datetime.fromisoformat(pause["since"]).astimezone(UTC)
        return PauseChange(str(subscriber), Pause(since, str(pause["reason"])[:MAX_REASON]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return PauseChange()
