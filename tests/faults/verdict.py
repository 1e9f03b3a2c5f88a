"""The one verdict that every fault ends in: nothing lost, nothing invented, and no more done twice than was stated."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tests.foreign import Foreign
from tests.project import until

RECOVERY_S = 40.0
"""The longest pause between two attempts to connect is 30 s; the rest is for a slow machine."""


class Fault:
    """One case: what it is, and what it has cost."""

    def __init__(self, number: str, what: str) -> None:
        self.row: dict[str, Any] = {"number": number, "what": what}
        self.row |= dict.fromkeys(("messages", "lost", "twice", "bound", "seconds"))

    async def recovery(self, condition: Callable[[], object], what: str, timeout: float = RECOVERY_S) -> None:
        """Wait until it works again. To be called as soon as the cause is gone; the longest of a case is recorded."""
        since = time.monotonic()
        await until(condition, what, timeout)
        self.row["seconds"] = max(time.monotonic() - since, self.row["seconds"] or 0.0)

    def judge(self, expected: Iterable[str], done: Counter[str], *, twice: int) -> None:
        """Check that all that was confirmed was done, nothing else was, and at most `twice` calls were superfluous."""
        wanted = set(expected)
        lost, invented = wanted - done.keys(), done.keys() - wanted
        superfluous = done.total() - len(done)
        self.row |= {"messages": len(wanted), "lost": len(lost), "twice": superfluous, "bound": twice}
        assert lost == set(), "lost"
        assert invented == set(), "nobody has sent these"
        assert superfluous <= twice, f"done twice: {[name for name, count in done.items() if count > 1]}"


def check_empty(foreign: Foreign, *queues: str) -> None:
    """Check that nothing is left in these queues, neither to be done nor given up on."""
    left = {queue: count for queue in queues if foreign.has_queue(queue) and (count := foreign.count(queue))}
    assert left == {}, "messages are left"
