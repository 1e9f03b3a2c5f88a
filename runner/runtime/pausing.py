"""Pauses and resumes the subscribers of one pipeline: as operators say, or because they have tripped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from runner import log
from runner.backoff import backoff_delays
from runner.errors import BrokerUnavailable
from runner.runtime.subscriber import SubscriberRuntime
from runner.runtime.trip import Trip
from runner.tasks import cancel_and_wait
from runner.transports.base import Transport
from runner.transports.pauses import Pause, Pauses


class SubscriberPause:
    """The pause of one subscriber. What is wanted may change while it is being paused or resumed: the last one counts.

    An operator's pause ends that of a trip, and an operator who resumes the subscriber ends both. `now` is the
    wall clock, UTC.
    """

    def __init__(self, pipeline: str, runtime: SubscriberRuntime, now: Callable[[], datetime]) -> None:
        self.runtime = runtime
        self._now = now
        self._logger = log.get_logger()
        self._fields = {"pipeline": pipeline, "subscriber": runtime.subscriber.name, "queue": runtime.options.queue}
        self.pause: Pause | None = None
        """The pause that is wanted."""
        self.operators: Pause | None = None
        """The pause that an operator has set."""
        self._task: asyncio.Task[None] | None = None
        self._trip: Trip | None = None
        if runtime.subscriber.trip is not None:
            self._trip = Trip(runtime.subscriber.trip, runtime, now, self._set)
            runtime.on_failure(self._trip.note_failure)

    def start(self) -> None:
        """Begin to count failures, if it can trip."""
        if self._trip is not None:
            self._trip.start()

    def set(self, pause: Pause | None, is_new: bool) -> None:
        """Begin, change or end the pause of an operator. A new end also ends the pause of a trip."""
        if pause != self.operators or (is_new and pause is None and self.pause is not None):
            self.operators = pause
            if self._trip is not None:
                self._trip.reset()
            self._set(pause)

    async def close(self) -> None:
        """Pause and resume no more."""
        if self._trip is not None:
            await self._trip.close()
        await cancel_and_wait(self._task)

    def _set(self, pause: Pause | None) -> None:
        before, self.pause = self.pause, pause
        self.runtime.is_paused = pause is not None
        if pause is not None:
            since = pause.since.isoformat()
            self._logger.warning("subscriber.paused", **self._fields, since=since, reason=pause.reason)
        elif before is not None:
            paused_s = round((self._now() - before.since).total_seconds(), 1)
            self._logger.info("subscriber.resumed", **self._fields, paused_s=paused_s, reason=before.reason)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._apply(), name=f"pause-{self._fields['subscriber']}")

    async def _apply(self) -> None:
        """Pause or resume, until the subscriber is what it should be."""
        delays = backoff_delays()
        while self.runtime.must_change:
            try:
                await (self.runtime.pause() if self.runtime.is_paused else self.runtime.resume())
            except BrokerUnavailable as error:
                self._logger.warning("consumer.lost", **self._fields, error=str(error))
                await asyncio.sleep(next(delays))


class PipelinePauses:
    """The pauses of one pipeline."""

    def __init__(self, pipeline: str, subscribers: Sequence[SubscriberRuntime], now: Callable[[], datetime]) -> None:
        self._pipeline = pipeline
        self._is_closed = False
        self._by_name: Mapping[str, SubscriberPause] = {
            each.subscriber.name: SubscriberPause(pipeline, each, now) for each in subscribers
        }

    async def start(self, transport: Transport) -> None:
        """Learn the pauses before the subscribers start, and follow them from then on."""
        for each in self._by_name.values():
            each.start()
        if self._by_name:
            self._set_all(await transport.follow_pauses(self._pipeline, self._set_all))

    def all(self) -> Iterator[tuple[tuple[str, str], Pause]]:
        """Yield the paused subscribers, each as pipeline and name, with the pause."""
        for name, each in self._by_name.items():
            if each.pause is not None:
                yield (self._pipeline, name), each.pause

    def by_operators(self) -> list[SubscriberRuntime]:
        """Return the subscribers that stay paused until an operator resumes them."""
        return [each.runtime for each in self._by_name.values() if each.operators is not None]

    async def close(self) -> None:
        """Pause and resume no more, whatever operators say from now on."""
        self._is_closed = True
        await asyncio.gather(*(each.close() for each in self._by_name.values()))

    def _set_all(self, pauses: Pauses, changed: str = "") -> None:
        for name, each in self._by_name.items() if not self._is_closed else ():
            each.set(pauses.get(name), is_new=name == changed)
