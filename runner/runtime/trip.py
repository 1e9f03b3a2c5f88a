"""The kill switch of one subscriber (`trip`): pauses it when too many attempts fail, and tries again one by one.

It counts what this process handles, and pauses this process: where one process has lost its network, the others go on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from datetime import datetime
from typing import NamedTuple

from runner import log
from runner.backoff import backoff_delays
from runner.errors import BrokerUnavailable
from runner.outcome import TripPolicy, error_type
from runner.runtime.subscriber import SubscriberRuntime
from runner.tasks import cancel_and_wait
from runner.transports.pauses import Pause
from runner.units import format_duration

SAMPLES = 10
"""How many samples divide the window in which failures are counted."""

MAX_PAUSE_FACTOR = 10
"""How many times longer than the first pause later ones may become."""


class _Counts(NamedTuple):
    """How many attempts have succeeded and failed since the start."""

    succeeded: int
    failed: int


class Trip:
    """Pauses a subscriber by itself. `on_pause` is called with each pause, and with None when it is over.

    Successes cost nothing: they are read from the counts of the metrics, a few times in each window.
    """

    def __init__(
        self,
        policy: TripPolicy,
        runtime: SubscriberRuntime,
        now: Callable[[], datetime],
        on_pause: Callable[[Pause | None], None],
    ) -> None:
        self._policy = policy
        self._runtime = runtime
        self._now = now
        self._on_pause = on_pause
        self._failed = 0
        self._is_closed = False
        self._samples: deque[_Counts] = deque(maxlen=SAMPLES)
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()  # a trip is noticed in the context of a message, and is not about that one
        self._timer: asyncio.TimerHandle | None = None
        self._cycle: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to count."""
        self._samples.append(self._current())
        self._timer = self._loop.call_later(self._policy.over_s / SAMPLES, self.start)

    async def close(self) -> None:
        """Count no more, and end a pause of its own without resuming the subscriber."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        await cancel_and_wait(self._cycle)

    def reset(self) -> None:
        """Forget what was counted, and a pause of its own: an operator has paused or resumed the subscriber."""
        if self._cycle is not None:
            self._cycle.cancel()
            self._cycle = None
        self._samples.clear()
        self._samples.append(self._current())

    def note_failure(self, error: BaseException | None) -> None:
        """Count an attempt that has failed, and trip if there are too many."""
        if error is None or not self._policy.counts(error):
            return
        self._failed += 1
        if self._is_closed or (self._cycle is not None and not self._cycle.done()):
            return
        before, current = self._samples[0], self._current()
        failed = current.failed - before.failed
        attempts = failed + current.succeeded - before.succeeded
        if attempts >= self._policy.least and failed >= self._policy.failures * attempts:
            reason = f"{failed} of {attempts} attempts failed in {format_duration(self._policy.over_s)}"
            pause = self._pause(f"{reason}, the last one with {error_type(error)}")
            self._cycle = self._loop.create_task(pause, context=self._context)

    def _current(self) -> _Counts:
        return _Counts(self._runtime.counts.handled, self._failed)

    async def _pause(self, reason: str) -> None:
        """Pause, let one message through, and pause for longer as long as it fails."""
        since, pause_s = self._now().replace(microsecond=0), self._policy.pause_s
        while True:
            self._on_pause(Pause(since, f"{reason}; tries again after {format_duration(pause_s)}"))
            await asyncio.sleep(pause_s)
            if await self._is_well():
                break
            pause_s = min(2 * pause_s, MAX_PAUSE_FACTOR * self._policy.pause_s)
        self._cycle = None
        self.reset()
        self._on_pause(None)

    async def _is_well(self) -> bool:
        """Let messages through, one at a time, until one succeeds or fails with an error that counts."""
        delays = backoff_delays()
        await self._runtime.pause()  # until what still runs has ended
        before = self._current()
        while (after := self._current()) == before:
            try:
                await self._runtime.take_one()
            except BrokerUnavailable as error:
                log.get_logger().warning("consumer.lost", queue=self._runtime.options.queue, error=str(error))
                await asyncio.sleep(next(delays))
        return after.failed == before.failed
