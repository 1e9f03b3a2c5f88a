"""Acknowledges in batches: one frame for all up to the last of the settled ones, and never one that is not settled."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

MAX_ACK_DELAY_S = 0.005
"""How long an acknowledgement may wait for others. A crash within it brings the message again."""

MAX_OUT_OF_ORDER = 1000
"""How many deliveries that are settled out of turn are kept in their place behind one that is not."""

WriteAck = Callable[[int, bool], None]
"""Puts an acknowledgement on its way: the delivery tag, and whether it stands for all before it."""


class AckBatcher:
    """The acknowledgements of one channel. `batch` is how many settled deliveries are worth a frame at once.

    Every delivery of the channel must be noted, in order, also those that nobody settles: they end the stretch that one
    frame may cover.
    """

    __slots__ = (
        "_acked",
        "_alone",
        "_batch",
        "_order",
        "_timer",
        "_waiting",
        "_write",
    )

    def __init__(self, batch: int, write: WriteAck) -> None:
        self._batch = max(1, batch)
        self._write = write
        self._order: deque[int] = deque()
        self._acked: set[int] = set()
        self._alone: set[int] = set()
        """Tags that the broker has been told of by themselves."""
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    def note(self, tag: int) -> None:
        """Note a delivery. Tags come in order."""
        self._order.append(tag)

    def ack(self, tag: int) -> None:
        """Acknowledge a delivery soon."""
        self._acked.add(tag)
        self._waiting += 1
        if self._waiting >= self._batch:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MAX_ACK_DELAY_S, self.flush)

    def forget(self, tag: int) -> None:
        """Note that the broker is told of this delivery in another way."""
        self._alone.add(tag)

    def flush(self) -> None:
        """Put everything that was acknowledged on its way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        order, acked, alone = self._order, self._acked, self._alone
        last, covered = 0, 0
        while order:
            tag = order[0]
            if tag in acked:
                acked.remove(tag)
                last = tag
                covered += 1
            elif tag in alone:
                alone.remove(tag)
            else:
                break
            order.popleft()
        if covered:
            self._write(last, covered > 1)
        for tag in sorted(acked):
            self._write(tag, False)
        alone |= acked
        acked.clear()
        self._waiting = 0
        if len(alone) > MAX_OUT_OF_ORDER:  # a handler that takes hours: what has passed it by needs no place any more
            self._order = deque(tag for tag in order if tag not in alone)
            alone.clear()
