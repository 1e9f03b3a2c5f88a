"""Runs pipelines on the in-process broker with virtual time, driven from any thread."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from runner.app import log_transport_event
from runner.config.overlays import Overlay
from runner.errors import PublishFailed, RunnerError
from runner.message import Publish
from runner.operations.targets import pipeline_with_destination
from runner.pipeline import codec
from runner.pipeline.model import Destination, Pipeline
from runner.pipeline.topology import Topology, made_declarable
from runner.runtime.answers import Answer
from runner.runtime.publisher import OutgoingMessage
from runner.runtime.supervisor import Supervisor
from runner.system import select
from runner.testing.loading import environment, loaded
from runner.testing.loop_thread import LoopThread
from runner.testing.recorder import NeverIdle, Recorder, RecordingBroker, RecordingExecution, RecordingPublisher
from runner.testing.records import Record
from runner.testing.stand_ins import StandIn, StandIns, noted_calls
from runner.testing.virtual_time import DUE_TOLERANCE_S, Standstill, VirtualTimeLoop
from runner.transports.memory import MemoryTransport
from runner.units import parse_duration, pluralize

T = TypeVar("T")
Duration = str | float | timedelta
"""A duration as in the YAML, such as `5m`; a number is in seconds."""

MAX_IDLE_S = 400 * 86_400.0
"""How much virtual time may pass until the pipelines are idle."""

FULL_QUEUE_TIMEOUT_S = 30.0
"""How long a test waits, in virtual time, to publish into a full queue."""

CALL_TIMEOUT_S = 3600.0
"""How long a test waits, in virtual time, for an answer."""

MAX_IDLE_RECORDS = 20_000
"""How many records there may be until the pipelines are idle, if they need virtual time for it."""

MAX_IDLE_FAILURES = 20
"""How often producers may fail until the pipelines are idle: one without a schedule starts over for ever."""


class Engine:
    """Pipelines under test: the real ones, on an in-process broker of their own, in a thread of their own.

    Nothing happens and no time passes while no method runs. Methods may be called from any thread but the engine's own,
    where the coroutines of handlers run.

    - `env` has the variables for `${…}`; of the real environment there are only `PATH` and `HOME`.
    - `replace` has stand-ins by the names of subscribers and producers, and under `resources` by those of resources.
    - `now` is where virtual time starts, by default now.
    - `only` are the names of the producers and subscribers that run, by default all.
    - `overlays` change the pipelines, as `--overlay` does.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        replace: Mapping[str, StandIn | Mapping[str, Any]] | None = None,
        now: datetime | None = None,
        only: Sequence[str] = (),
        overlays: Sequence[str | Overlay] = (),
    ) -> None:
        self._paths = paths
        self._env = environment(env or {})
        self._replace = replace or {}
        self._only = only
        self._overlays = overlays
        self._start = (now or datetime.now(UTC).replace(microsecond=0)).astimezone(UTC)
        self._opened = ExitStack()
        self._numbers = itertools.count(1)
        self._pipelines: tuple[Pipeline, ...] = ()
        self._thread: LoopThread | None = None
        self._questions: set[asyncio.Task[Answer]] = set()
        self._recorder: Recorder
        self._supervisor: Supervisor
        self._broker: RecordingBroker
        self._transport: MemoryTransport

    def start(self) -> None:
        """Load the pipelines and start them.

        Raises PipelineInvalid, whose text is what `validate` prints, and ResourceFailed.
        """
        try:
            self.begin().result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the pipelines. Handlers that are still running are cancelled. Idempotent."""
        try:
            self.end().result()
        finally:
            self.clean_up()

    @property
    def now(self) -> datetime:
        """The virtual time, UTC."""
        return self._start + timedelta(seconds=self._thread.loop.time() if self._thread else 0.0)

    @property
    def records(self) -> list[Record]:
        """Everything that has happened, in order, after everything that can happen at this moment."""
        if self._thread is not None and self._thread.is_open and not self._thread.is_current:
            self.wait(self._settling())
        return self._recorder.records

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """The pipelines, with the stand-ins."""
        return self._pipelines

    # The same for callers that do not block: on other event loops, await `asyncio.wrap_future(engine.submit(…))`.

    def begin(self) -> Future[None]:
        """Load the pipelines, and return the future of their start."""
        system = self._opened.enter_context(loaded(self._paths, self._env, self._overlays))
        system = select(system, self._only)
        queues = [reader.queue for _, reader in system.stream_readers()]
        if shared := sorted(name for name in queues if queues.count(name) > 1):
            text = f'several subscribers read the stream "{shared[0]}", which is a queue in a test'
            raise RunnerError(text, "name one of them in `only`")
        self._pipelines = StandIns(system, self._replace).pipelines
        self._thread = LoopThread()
        self._recorder = Recorder(lambda: self.now, self._thread.loop.fail)
        return self._thread.submit(self._starting(made_declarable(system.topology)))

    def submit(self, command: Coroutine[Any, Any, T]) -> Future[T]:
        """Run one of the coroutines below."""
        if self._thread is None:
            command.close()
            raise RuntimeError("the pipelines under test have not been started")
        return self._thread.submit(command)

    def end(self) -> Future[None]:
        """Return the future of the stop. Call `clean_up` after it."""
        if self._thread is not None:
            return self._thread.close(self._stopping())
        ended: Future[None] = Future()
        ended.set_result(None)
        return ended

    def clean_up(self) -> None:
        """Undo what the pipelines have changed in the process."""
        if self._thread is not None:
            self._thread.join()
        self._opened.close()

    async def publishing(self, to: str, payload: Any, **message: Any) -> str:
        """See `Running.publish`. A `Publish` as the payload has all options."""
        publisher, outgoing = self._prepare(to, payload, **message)
        with publisher.publication(outgoing) as sent:
            await self._loop.drive(publisher.publish(sent, full_queue_timeout_s=FULL_QUEUE_TIMEOUT_S))
        return sent.envelope.message_id or ""

    async def asking(self, to: str, payload: Any, *, timeout: Duration, **message: Any) -> None:
        """Ask, and record the answer when it comes. Raises PublishFailed."""
        publisher, outgoing = self._prepare(to, payload, **message)
        asking = asyncio.create_task(publisher.call(outgoing, _seconds(timeout)))
        asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # it is recorded
        self._questions.add(asking)
        asking.add_done_callback(self._questions.discard)
        await self._loop.quiet(is_bounded=True)
        if asking.done() and isinstance(error := asking.exception(), PublishFailed):
            raise error

    async def calling(self, to: str, payload: Any, *, timeout: Duration, **message: Any) -> Any:
        publisher, outgoing = self._prepare(to, payload, **message)
        return (await self._loop.drive(publisher.call(outgoing, _seconds(timeout)))).payload

    def _prepare(
        self,
        to: str,
        payload: Any,
        *,
        id: str | None = None,
        headers: Mapping[str, Any] | None = None,
        key: str | None = None,
        is_foreign: bool = False,
    ) -> tuple[RecordingPublisher, OutgoingMessage]:
        pipeline, target = self._destination(to)
        if is_foreign:
            target = replace(target, encode=codec.encode)
        publisher = RecordingPublisher(
            self._recorder,
            self._broker,
            self._transport,
            app_id=pipeline.name,
            destinations=pipeline.destinations,
            new_id=lambda: f"test-{next(self._numbers)}",
            now=lambda: self.now,
        )
        message = payload if isinstance(payload, Publish) else Publish(payload, key=key, headers=headers, id=id)
        (outgoing,) = publisher.prepare([message], (target,))
        return publisher, outgoing

    async def advancing(self, duration: Duration) -> None:
        loop = self._loop
        moment = loop.time() + _seconds(duration)
        while (due := await loop.quiet(is_bounded=True)) is not None and due <= moment + DUE_TOLERANCE_S:
            loop.jump(due)
        loop.jump(moment)

    async def idling(self) -> None:
        loop = self._loop
        since, most = loop.time(), self._recorder.count + MAX_IDLE_RECORDS
        while True:
            due = await loop.quiet()
            left = await self._supervisor.work_left()
            if self._questions:
                left.append(f"{pluralize(len(self._questions), 'question')} that may be answered")
            if count := self._broker.count_expiring(self._broker.subscribed):
                left.append(f"{pluralize(count, 'message')} that will expire into a subscriber's queue")
            if not left:
                return
            busy = "; ".join(left)
            if due is None:
                text = f"nothing is left that could happen, but the pipelines are not idle: {busy}"
                raise NeverIdle(text, "a handler waits for something that never comes")
            failures = max((each.failures for each in self._supervisor.unfinished_producers), default=0)
            if due > since + MAX_IDLE_S or self._recorder.count > most or failures > MAX_IDLE_FAILURES:
                passed = timedelta(seconds=round(loop.time() - since))
                text = f"after {passed} of virtual time the pipelines are still not idle: {busy}"
                raise NeverIdle(text, "replace what does not end, or use `advance` to stop at a certain time")
            loop.jump(due)

    async def _settling(self) -> None:
        """Let everything happen that can happen at this moment."""
        with suppress(NeverIdle):
            await self._loop.quiet(is_bounded=True)

    async def _starting(self, topology: Topology) -> None:
        recorder = self._recorder
        broker = RecordingBroker(recorder, self._pipelines)
        self._broker, self._transport = broker, MemoryTransport(broker=broker, on_transport_event=log_transport_event)
        self._supervisor = Supervisor(
            noted_calls(tuple(map(_made_testable, self._pipelines))),
            self._transport,
            new_id=lambda: f"run-{next(self._numbers)}",
            now=recorder.now,
            execution=partial(RecordingExecution, recorder),
            publisher=partial(RecordingPublisher, recorder, broker),
        )
        await self._transport.connect()
        await self._transport.declare(topology)
        await self._drive(self._supervisor.start(), "to open a resource")
        watching = asyncio.create_task(self._supervisor.wait(asyncio.Event()))
        watching.add_done_callback(self._note_bug)

    async def _stopping(self) -> None:
        self._recorder.on_endless = lambda _: None
        self._loop.recover()
        await self._drive(self._supervisor.drain(), "to close a resource")
        await self._supervisor.close()

    async def _drive(self, work: Coroutine[Any, Any, T], what: str) -> T:
        """Await the opening or closing of resources, which is the user's code. Raises NeverIdle."""
        try:
            with self._loop.user_call():
                return await self._loop.drive(work)
        except Standstill:
            raise NeverIdle(f"what is needed {what} waits for something that never comes") from None

    def _note_bug(self, watching: asyncio.Task[None]) -> None:
        if not watching.cancelled() and isinstance(error := watching.exception(), Exception):
            self._loop.fail(error)

    def _destination(self, name: str) -> tuple[Pipeline, Destination]:
        """Return what a name means. Pipelines that share an event mean the same by it. Raises UnknownTarget."""
        found = [pipeline for pipeline in self._pipelines if name in pipeline.destinations]
        if len({pipeline.destinations[name].address for pipeline in found}) != 1:
            found = [pipeline_with_destination(self._pipelines, name)]
        return found[0], found[0].destinations[name]

    @property
    def _loop(self) -> VirtualTimeLoop:
        assert self._thread is not None
        return self._thread.loop

    def wait(self, command: Coroutine[Any, Any, T]) -> T:
        """Run one of the coroutines above to its end. Not for callers on the engine's own loop."""
        if self._thread is not None and self._thread.is_current:
            command.close()
            raise RuntimeError(
                "a coroutine of a handler cannot wait for the pipelines that it runs in: "
                "return the message, or await the method of `running`"
            )
        return self.submit(command).result()


def _seconds(duration: Duration) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else parse_duration(duration)


def _made_testable(pipeline: Pipeline) -> Pipeline:
    """Return a pipeline that listens at no port, exports nothing, stops at once, and remembers in memory."""
    producers = tuple(producer for producer in pipeline.producers if producer.handler is not None)
    subscribers = tuple(
        replace(each, dedupe=replace(each.dedupe, store=None)) if each.dedupe is not None else each
        for each in pipeline.subscribers
    )
    return replace(pipeline, producers=producers, subscribers=subscribers, http=None, is_traced=False, grace_s=0.0)
