"""Which messages have a log line of their own, and what is said of the others: `logging: {messages: …}`.

What fails always has its line. The totals count every message, whatever is logged.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from zlib import crc32

from runner import log
from runner.message import Envelope
from runner.metrics import PipelineCounts
from runner.tasks import cancel_and_wait
from runner.units import parse_share

LineFilter = Callable[[Envelope], bool]
"""Whether a message has a line when it is published, handled or given back."""


def line_filter(messages: str) -> LineFilter:
    """Return the filter for `all`, `errors`, `summary`, or a share such as `1%`.

    A share is one of flows: of a flow, all messages with one correlation id, either every line is written or none.
    """
    if messages == "all":
        return lambda _: True
    if messages in ("errors", "summary"):
        return lambda _: False
    limit = round(parse_share(messages) * 2**32)

    def is_sampled(envelope: Envelope) -> bool:
        flow = envelope.correlation_id or envelope.message_id or ""
        return crc32(flow.encode("utf-8", "surrogatepass")) < limit

    return is_sampled


class MessageSummary:
    """Says every so many seconds how many messages have ended, and how, by subscriber and producer; nothing of none."""

    def __init__(self, counts: PipelineCounts, every_s: float) -> None:
        self._counts = counts
        self._every_s = every_s
        self._told: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._told_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to count."""
        self._told_at = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._run(), name=f"summary-{self._counts.name}")

    async def close(self) -> None:
        """Say what has come since the last time."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._say()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            self._say()

    def _say(self) -> None:
        now = asyncio.get_running_loop().time()
        during_s = round(now - self._told_at, 1)
        for (kind, name), counts in self._now().items():
            new = {outcome: count - self._told[kind, name][outcome] for outcome, count in counts.items()}
            if any(new.values()):
                place = {"pipeline": self._counts.name, kind: name}
                log.get_logger().info("message.summary", **place, during_s=during_s, **new)
        self._told.update(self._now())
        self._told_at = now

    def _now(self) -> dict[tuple[str, str], Counter[str]]:
        """Return all counts, by whether it is a subscriber or a producer, and its name."""
        found = {("subscriber", name): Counter(each.outcomes()) for name, each in self._counts.subscribers.items()}
        for name, producer in self._counts.producers.items():
            found["producer", name] = Counter(published=producer.published.confirmed)
        return found
