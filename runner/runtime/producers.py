"""Runs the producers of a pipeline in exactly one of all the processes and machines that run it: in the leader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from runner import log
from runner.runtime.producer import CONFIRM_S, ProducerRuntime
from runner.tasks import end
from runner.transports.base import Leadership, NotLeader, Transport

STAND_BY_S = 3.0
"""How long `--until-idle` waits to become the leader, before another process is taken to be the one that produces."""


class ProducerGroup:
    """The producers of one pipeline, and what the leadership remembers of them.

    That is `{"ticks": {name: time}, "runs": {name: id}, "done": {name: time}}`. A finite producer that loses the
    leadership waits, and goes on where it was when it is ours again, unless another process has ended it meanwhile. Who
    was already waiting when it ended does not run it again: it runs once for each start of the pipeline, not once for
    each change of the leader. A run that was begun and has not ended keeps its id, and with it the ids of its messages.
    """

    def __init__(
        self,
        pipeline: str,
        producers: Sequence[ProducerRuntime],
        *,
        new_id: Callable[[], str],
        now: Callable[[], datetime],
        started_at: datetime | None = None,
    ) -> None:
        """`started_at` is when the pipeline was started, where that was not now: one of several workers."""
        self.pipeline = pipeline
        self._producers = producers
        self._new_id = new_id
        self._now = now
        self._started_at = started_at or now()
        self._leading = asyncio.Event()
        self._begun: dict[ProducerRuntime, asyncio.Task[None]] = {}
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
            await end(*self._begun.values(), again_s=2 * CONFIRM_S)
            for producer in self._producers:
                producer.close()
            await leadership.resign()

    async def _stand_by(self, leadership: Leadership) -> None:
        waiting = asyncio.ensure_future(leadership.wait())
        try:
            await asyncio.wait([waiting], timeout=STAND_BY_S)
            if not waiting.done():
                log.get_logger().info("producers.standby", pipeline=self.pipeline)
                if all(task.done() for task in self._begun.values()):
                    self._finite_ended.set()
            await waiting
        finally:
            waiting.cancel()

    async def _produce(self, leadership: Leadership) -> None:
        """Run all producers until the leadership is lost."""
        memory = _Memory(leadership)
        lost = asyncio.ensure_future(leadership.lost())
        self._leading.set()
        finite = [asyncio.create_task(self._finish(each, memory)) for each in self._producers if each.is_finite]
        due = [
            asyncio.create_task(each.run_when_due(_Record(memory, each.producer.name)))
            for each in self._producers
            if not each.is_finite
        ]
        try:
            if finite:
                await _all_of_or(finite, lost)
            if not lost.done():
                self._finite_ended.set()
                await _all_of_or(due, lost)
            await lost
        finally:
            self._leading.clear()
            await end(*finite, *due, lost, again_s=2 * CONFIRM_S)

    async def _finish(self, producer: ProducerRuntime, memory: _Memory) -> None:
        """Begin a finite producer, or let it go on; note when it has ended."""
        name = producer.producer.name
        task = self._begun.get(producer)
        if (ended := memory.when("done", name)) is not None and ended > self._started_at:
            if task is not None:
                await end(task)
            return
        if task is None:
            run = await memory.run(name, self._new_id)
            task = self._begun[producer] = asyncio.create_task(producer.run_to_the_end(run, self._leading))
        await asyncio.shield(task)
        if not producer.has_failed:
            await memory.note("done", name, self._now())


class _Memory:
    """What the leadership's state says of each producer, as times; garbage in it counts as nothing."""

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership
        self._saving = asyncio.Lock()
        self._state: dict[str, dict[str, Any]] = {
            kind: dict(items) for kind, items in leadership.state.items() if isinstance(items, dict)
        }

    def when(self, kind: str, name: str) -> datetime | None:
        value = self._state.get(kind, {}).get(name)
        try:
            return datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            return None

    async def run(self, name: str, new_id: Callable[[], str]) -> str:
        """Return the id of the run that was begun and has not ended, else begin one."""
        found = self._state.get("runs", {}).get(name)
        if isinstance(found, str):
            return found
        run = new_id()
        self._state.setdefault("runs", {})[name] = run
        await self._save()
        return run

    async def note(self, kind: str, name: str, moment: datetime) -> None:
        """Save a time."""
        self._state.setdefault(kind, {})[name] = moment.isoformat()
        if kind == "done":
            self._state.get("runs", {}).pop(name, None)
        await self._save()

    async def _save(self) -> None:
        """Save everything; who is no longer the leader waits here for its end."""
        async with self._saving:
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
