"""Log lines of single messages, and summaries instead of them, as `logging: {messages: …}` sets.

Failures are always logged. The totals count every message, whether it is logged or not.
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
"""Whether the publication, the handling and the release of a message are logged."""


def line_filter(messages: str) -> LineFilter:
    """Return the filter for `all`, `errors`, `summary`, or a share such as `1%`.

    A share applies to flows, which are the messages with one correlation id: a flow is logged completely or not at all.
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
    """Logs how many messages of each subscriber and producer ended, by outcome, every `every_s` seconds.

    A subscriber or producer without new messages has no line.
    """

    def __init__(self, counts: PipelineCounts, every_s: float) -> None:
        self._counts = counts
        self._every_s = every_s
        self._logged: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._logged_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the first period."""
        self._logged_at = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._run(), name=f"summary-{self._counts.name}")

    async def close(self) -> None:
        """Log the last period, and stop."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._log()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            self._log()

    def _log(self) -> None:
        now = asyncio.get_running_loop().time()
        during_s = round(now - self._logged_at, 1)
        for (kind, name), counts in self._now().items():
            new = {outcome: count - self._logged[kind, name][outcome] for outcome, count in counts.items()}
            if any(new.values()):
                place = {"pipeline": self._counts.name, kind: name}
                log.get_logger().info("message.summary", **place, during_s=during_s, **new)
        self._logged.update(self._now())
        self._logged_at = now

    def _now(self) -> dict[tuple[str, str], Counter[str]]:
        """Return the current counts, by kind (`subscriber` or `producer`) and name."""
        found = {("subscriber", name): Counter(each.outcomes()) for name, each in self._counts.subscribers.items()}
        for name, producer in self._counts.producers.items():
            found["producer", name] = Counter(published=producer.published.confirmed)
        return found
