"""The wall clock: the only one for schedules, the in-process broker, and the stamps of messages and dead letters.

What needs it takes it as an argument, a function that returns an aware datetime in UTC. These are the defaults.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the time of this machine, UTC."""
    return datetime.now(UTC)


class SecondClock:
    """The time of this machine in whole seconds, UTC.

    It returns the same object for a second, so messages do not pay for a new one.
    """

    def __init__(self) -> None:
        self._second = 0
        self._moment = datetime.fromtimestamp(0, UTC)

    def __call__(self) -> datetime:
        second = int(time.time())
        if second != self._second:
            self._second, self._moment = second, datetime.fromtimestamp(second, UTC)
        return self._moment
