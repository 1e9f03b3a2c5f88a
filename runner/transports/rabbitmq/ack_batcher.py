"""Decides which acknowledgements to write: one frame covers all settled deliveries up to the first unsettled one."""

from __future__ import annotations

from collections import deque

MAX_OUT_OF_ORDER = 1000
"""How many deliveries that were settled behind an unsettled one keep their place in the order."""


class AckBatcher:
    """The acknowledgements of one channel. `batch` is how many settled deliveries are worth a frame at once.

    Note every delivery of the channel, in the order of its tags, also those that will not be settled: an
    acknowledgement with `multiple` covers all tags before its own, so it must end before the first unsettled one.
    """

    __slots__ = ("_acked", "_alone", "_batch", "_order", "waiting")

    def __init__(self, batch: int) -> None:
        self._batch = max(1, batch)
        self._order: deque[int] = deque()
        self._acked: set[int] = set()
        self._alone: set[int] = set()
        """Tags behind an unsettled one whose acknowledgement was written already, each in a frame of its own."""
        self.waiting = 0
        """How many deliveries were acknowledged since the last `take`."""

    def note(self, tag: int) -> None:
        """Note a delivery. Tags come in order."""
        self._order.append(tag)

    def ack(self, tag: int) -> bool:
        """Acknowledge a delivery; return whether the batch is full, so that it should be written now."""
        self._acked.add(tag)
        self.waiting += 1
        return self.waiting >= self._batch

    def forget(self, tag: int) -> None:
        """Note that the broker learns the end of this delivery in another way."""
        self._alone.add(tag)

    def take(self) -> list[tuple[int, bool]]:
        """Return the acknowledgements to write: delivery tags, and whether each stands for all tags before it."""
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
        frames = [(last, covered > 1)] if covered else []
        frames += [(tag, False) for tag in sorted(acked)]
        alone |= acked
        acked.clear()
        self.waiting = 0
        if len(alone) > MAX_OUT_OF_ORDER:
            # One handler has been at work for so long that a thousand others have finished since. Their tags leave the
            # order: the first unsettled tag still stands before all that come later.
            self._order = deque(tag for tag in order if tag not in alone)
            alone.clear()
        return frames
