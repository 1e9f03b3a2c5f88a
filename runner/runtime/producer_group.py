"""Runs the producers of a pipeline in exactly one of all processes and machines: in the leader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from runner import log
from runner.runtime.producer import CONFIRM_TIMEOUT_S, ProducerRuntime
from runner.runtime.producer_state import ProducerState
from runner.tasks import cancel_and_wait
from runner.transports.base import Transport
from runner.transports.leadership import Candidate, Leadership, NotLeader

STANDBY_AFTER_S = 3.0
"""After waiting this long for the leadership, the process logs that it is on standby."""

LEADER_POLL_S = 1.0
"""How often `--until-idle` on standby asks whether the leader's producers have ended."""


class ProducerGroup:
    """The producers of one pipeline. They run while this process is the leader.

    The leadership stores `{"ticks": {name: time}, "runs": {name: id}, "done": {name: start}, "once": {name: value}}`,
    which makes producers survive a change of the leader:

    A finite producer runs once per start of the pipeline, not once per leader. `done` holds the start in which it
    ended; see `Leadership.start`. With `once` it runs once per value of that key. When the leadership is lost it
    pauses, and continues if this process gets it back, unless another leader has finished it meanwhile. An unfinished
    run keeps its id, and with it the ids of its messages.

    What a process has remembered of producers in `rerun` (pipeline and name) is forgotten first.
    """

    def __init__(
        self,
        pipeline: str,
        producers: Sequence[ProducerRuntime],
        *,
        new_id: Callable[[], str],
        member: Candidate,
        is_until_idle: bool,
        rerun: set[tuple[str, str]] | None = None,
    ) -> None:
        self.pipeline = pipeline
        self._producers = producers
        self._new_id = new_id
        self._member = member
        self._is_until_idle = is_until_idle
        self._rerun = rerun if rerun is not None else set()
        self._is_leader = asyncio.Event()
        self._runs: dict[ProducerRuntime, asyncio.Task[None]] = {}
        self._finite_ended = asyncio.Event()
        if not any(producer.is_finite for producer in producers):
            self._finite_ended.set()

    @property
    def failed(self) -> list[str]:
        """The finite producers that were given up."""
        return [producer.producer.name for producer in self._producers if producer.has_failed]

    @property
    def is_leader(self) -> bool:
        """Whether this process runs the producers."""
        return self._is_leader.is_set()

    @property
    def unfinished(self) -> list[ProducerRuntime]:
        has_ended = self._finite_ended.is_set()
        return [each for each in self._producers if (each.is_finite and not has_ended) or each.is_running]

    async def wait_until_finite_ended(self) -> None:
        """Wait until all finite producers have ended, here or in the leader."""
        await self._finite_ended.wait()

    async def run(self, transport: Transport) -> None:
        """Produce whenever this process is the leader, until cancelled."""
        if not self._producers:
            return
        leadership = await transport.campaign(f"{self.pipeline}.producers", self._member)
        try:
            while True:
                await self._stand_by(leadership)
                await self._produce(leadership)
        finally:
            await cancel_and_wait(*self._runs.values(), repeat_s=2 * CONFIRM_TIMEOUT_S)
            for producer in self._producers:
                producer.close()
            await leadership.resign()

    async def _stand_by(self, leadership: Leadership) -> None:
        waiting = asyncio.ensure_future(leadership.wait_won())
        try:
            await asyncio.wait([waiting], timeout=STANDBY_AFTER_S)
            if not waiting.done():
                log.get_logger().info("producers.standby", pipeline=self.pipeline)
            while self._is_until_idle and not (waiting.done() or self._finite_ended.is_set()):
                await self._poll_leader(leadership)
                await asyncio.wait([waiting], timeout=LEADER_POLL_S)
            await waiting
        finally:
            waiting.cancel()

    async def _poll_leader(self, leadership: Leadership) -> None:
        """Ask the leader whether all finite producers have ended."""
        led = await leadership.ask_leader()
        if led is not None:
            memory = ProducerState(led.state, led.start)
            if all(memory.has_ended(each.producer) for each in self._producers if each.is_finite):
                self._finite_ended.set()

    async def _produce(self, leadership: Leadership) -> None:
        """Run all producers until the leadership is lost."""
        memory = _SavedState(leadership)
        for each in [each for each in self._producers if (self.pipeline, each.producer.name) in self._rerun]:
            memory.memory.forget(each.producer)
            self._rerun.discard((self.pipeline, each.producer.name))
        lost = asyncio.ensure_future(leadership.wait_lost())
        self._is_leader.set()
        finite = [asyncio.create_task(self._finish(each, memory)) for each in self._producers if each.is_finite]
        due = [
            asyncio.create_task(each.run_on_schedule(_SavedTicks(memory, each.producer.name)))
            for each in self._producers
            if not each.is_finite
        ]
        try:
            if finite:
                await _wait_all_or_lost(finite, lost)
            if not lost.done():
                self._finite_ended.set()
                await _wait_all_or_lost(due, lost)
            await lost
        finally:
            self._is_leader.clear()
            await cancel_and_wait(*finite, *due, lost, repeat_s=2 * CONFIRM_TIMEOUT_S)

    async def _finish(self, producer: ProducerRuntime, saved: _SavedState) -> None:
        """Start or resume a finite producer, and record its end."""
        task = self._runs.get(producer)
        if saved.memory.has_ended(producer.producer):
            if task is not None:
                await cancel_and_wait(task)
            return
        if task is None:
            run, is_new = saved.memory.run(producer.producer, self._new_id)
            if is_new:
                await saved.save()
            task = self._runs[producer] = asyncio.create_task(producer.run_until_complete(run, self._is_leader))
        await asyncio.shield(task)
        if not producer.has_failed:
            saved.memory.note_end(producer.producer)
            await saved.save()


class _SavedState:
    """The producers' state, saved through the leadership."""

    def __init__(self, leadership: Leadership) -> None:
        self.memory = ProducerState(leadership.state, leadership.start)
        self._leadership = leadership
        self._saving = asyncio.Lock()

    async def save(self) -> None:
        """Save the state. If the leadership is lost, wait here to be cancelled."""
        async with self._saving:
            try:
                await self._leadership.save(self.memory.state)
            except NotLeader:
                await asyncio.Event().wait()


class _SavedTicks:
    """The ticks of one producer."""

    def __init__(self, saved: _SavedState, name: str) -> None:
        self._saved = saved
        self._name = name

    def last_tick(self) -> datetime | None:
        return self._saved.memory.last_tick(self._name)

    async def save_tick(self, due: datetime) -> None:
        self._saved.memory.note_tick(self._name, due)
        await self._saved.save()


async def _wait_all_or_lost(tasks: Sequence[asyncio.Task[None]], lost: asyncio.Future[None]) -> None:
    """Wait until all tasks have ended or the leadership is lost. Raises a task's error: a bug in the runner."""
    waiting: set[asyncio.Future[None]] = set(tasks)
    while waiting and not lost.done():
        done, _ = await asyncio.wait({*waiting, lost}, return_when=asyncio.FIRST_COMPLETED)
        for task in done & waiting:
            task.result()
        waiting -= done
