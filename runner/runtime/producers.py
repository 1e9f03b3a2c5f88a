"""Runs the producers of a pipeline in exactly one of all the processes and machines that run it: in the leader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from runner import log
from runner.runtime.producer import ProducerRuntime
from runner.transports.base import Leadership, NotLeader, Transport

STAND_BY_S = 3.0
"""How long `--until-idle` waits to become the leader, before another process is taken to be the one that produces."""


class ProducerGroup:
    """The producers of one pipeline, and what the leadership remembers of them: `{"ticks": {name: time}, "done": …}`.

    A finite producer that has ended is not run again by a process that was already waiting then: it is run once for
    each start of the pipeline, not once for each change of the leader.
    """

    def __init__(self, pipeline: str, producers: Sequence[ProducerRuntime], now: Callable[[], datetime]) -> None:
        self.pipeline = pipeline
        self._producers = producers
        self._now = now
        self._started_at = now()
        self._finite_ended = asyncio.Event()
        if not any(producer.is_finite for producer in producers):
            self._finite_ended.set()

    @property
    def failed(self) -> list[str]:
        """The finite producers that were given up."""
        return [producer.producer.name for producer in self._producers if producer.has_failed]

    async def wait_until_finite_ended(self) -> None:
        """Return when no finite producer of this process has anything left to do."""
        await self._finite_ended.wait()

    async def run(self, transport: Transport) -> None:
        """Produce whenever we are the leader, until cancelled."""
        if not self._producers:
            return
        leadership = await transport.lead(f"{self.pipeline}.producers")
        try:
            while True:
                await self._stand_by(leadership)
                await self._produce(leadership)
        finally:
            for producer in self._producers:
                producer.close()
            await leadership.resign()

    async def _stand_by(self, leadership: Leadership) -> None:
        waiting = asyncio.ensure_future(leadership.wait())
        try:
            await asyncio.wait([waiting], timeout=STAND_BY_S)
            if not waiting.done():
                log.get_logger().info("producers.standby", pipeline=self.pipeline)
                self._finite_ended.set()
            await waiting
        finally:
            waiting.cancel()

    async def _produce(self, leadership: Leadership) -> None:
        """Run all producers until the leadership is lost."""
        memory = _Memory(leadership)
        lost = asyncio.ensure_future(leadership.lost())
        working = [asyncio.create_task(self._run(producer, memory)) for producer in self._producers]
        finite = [task for task, producer in zip(working, self._producers, strict=True) if producer.is_finite]
        try:
            if finite:
                await _all_of_or(finite, lost)
            if not lost.done():
                self._finite_ended.set()
                await _all_of_or(working, lost)
            await lost
        finally:
            for task in (*working, lost):
                task.cancel()
            await asyncio.gather(*working, lost, return_exceptions=True)

    async def _run(self, producer: ProducerRuntime, memory: _Memory) -> None:
        name = producer.producer.name
        if producer.has_failed:
            return  # given up in an earlier term of ours
        if producer.is_finite and (ended := memory.when("done", name)) is not None and ended > self._started_at:
            return
        await producer.run(_Record(memory, name))
        if producer.is_finite and not producer.has_failed:
            await memory.note("done", name, self._now())


class _Memory:
    """What the leadership's state says of each producer, as times; garbage in it counts as nothing."""

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership
        self._saving = asyncio.Lock()
        self._state: dict[str, dict[str, Any]] = {
            kind: dict(times) for kind, times in leadership.state.items() if isinstance(times, dict)
        }

    def when(self, kind: str, name: str) -> datetime | None:
        value = self._state.get(kind, {}).get(name)
        try:
            return datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            return None

    async def note(self, kind: str, name: str, moment: datetime) -> None:
        """Save a time; who is no longer the leader waits here for its end."""
        async with self._saving:
            self._state.setdefault(kind, {})[name] = moment.isoformat()
            try:
                await self._leadership.save(self._state)
            except NotLeader:
                await asyncio.Event().wait()


class _Record:
    """One producer's part of the memory."""

    def __init__(self, memory: _Memory, name: str) -> None:
        self._memory = memory
        self._name = name

    def last_tick(self) -> datetime | None:
        return self._memory.when("ticks", self._name)

    async def save_tick(self, due: datetime) -> None:
        await self._memory.note("ticks", self._name, due)


async def _all_of_or(tasks: Sequence[asyncio.Task[None]], lost: asyncio.Future[None]) -> None:
    """Wait until all tasks have ended, or the leadership is lost; raises what a task raised: a bug of ours."""
    waiting: set[asyncio.Future[None]] = set(tasks)
    while waiting and not lost.done():
        done, _ = await asyncio.wait({*waiting, lost}, return_when=asyncio.FIRST_COMPLETED)
        for task in done & waiting:
            task.result()
        waiting -= done
