"""Runs pipelines: starts subscribers, then producers; waits; stops in reverse order within the grace period."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from runner import log
from runner.clock import SecondClock, utc_now
from runner.metrics import Metrics, PipelineCounts, ProducerCounts, Samples, SubscriberCounts, Totals
from runner.pipeline.delays import HOLDS_DELAYED
from runner.pipeline.model import Pipeline, Producer, Remembering, Subscriber
from runner.release import version_fields
from runner.runtime.deduplication import Deduplicator
from runner.runtime.execution import Execution
from runner.runtime.handler_invoker import HandlerInvoker
from runner.runtime.message_lines import MessageSummary, line_filter
from runner.runtime.pausing import PipelinePauses
from runner.runtime.producer import CONFIRM_TIMEOUT_S, MAX_SLEEP_S, ProducerRuntime
from runner.runtime.producer_group import ProducerGroup
from runner.runtime.publisher import PipelinePublisher, make_publisher
from runner.runtime.resources import Resources
from runner.runtime.store import MemoryStore, SharedStore, Store, open_store
from runner.runtime.subscriber import SubscriberRuntime
from runner.runtime.watchdog import RunningHandler
from runner.tasks import cancel_and_wait, for_each
from runner.transports.base import Delivery, SubscriptionOptions, Transport
from runner.transports.leadership import Candidate
from runner.transports.pauses import Pause
from runner.units import pluralize

if TYPE_CHECKING:
    from runner.runtime.http_server import HttpServer, MakeRoutes, ReadinessCheck, ReadMetrics
    from runner.runtime.tracing import Tracer

MAX_UNSETTLED_S = 25 * 60.0
"""How long a message may stay unsettled: RabbitMQ's default consumer timeout of 30 minutes, minus a margin."""

SCHEDULED_POLL_S = 15.0
IDLE_POLL_S = 0.1
IDLE_CHECKS = 3
"""How many checks in a row must find nothing to do, with no delivery in between, before the process counts as idle."""

MAX_FAILURES_UNTIL_IDLE = 3

MAX_CONCURRENT_STARTS = 16
"""How many subscribers start at the same time. Each waits for a few answers of the broker."""


@dataclass
class RunReport:
    """How a run ended: counts, and what was left unfinished."""

    totals: Totals
    unfinished: dict[str, int] = field(default_factory=dict)
    """The number of handlers that were still running when the grace period was over, by subscriber."""
    left_in_memory: int = 0
    """Messages that were still in the in-process broker when it ended, and are lost."""
    failed_producers: tuple[str, ...] = ()
    """Finite producers that were given up after repeated failures."""
    idle_unknown_reason: str = ""
    """Why it is unknown whether work is left, after `until_idle`."""


class Supervisor:
    """All pipelines of this process. The transport is connected and has declared their topology."""

    def __init__(
        self,
        pipelines: Sequence[Pipeline],
        transport: Transport,
        *,
        until_idle: bool = False,
        http: tuple[str, int] | None = None,
        new_id: Callable[[], str] = lambda: uuid4().hex,
        now: Callable[[], datetime] | None = None,
        start_id: str | None = None,
        rerun: set[tuple[str, str]] | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        execution: Callable[..., Execution] = Execution,
        publisher: Callable[..., PipelinePublisher] = PipelinePublisher,
    ) -> None:
        """`start_id` identifies the start of the pipelines, if several workers or versions of them share it. `rerun`
        are finite producers (pipeline and name) that run again in it; they are removed when they do. `tracer` makes the
        spans of pipelines with `traces`; `execution` and `publisher` are the classes for all others. `now` is the wall
        clock, UTC. One that is given must agree with the loop's time.
        """
        self._pipelines = pipelines
        self._transport = transport
        self._until_idle = until_idle
        self._new_id = new_id
        self._tracer = tracer
        self._execution = execution
        self._publisher = publisher
        self._is_clock_given = now is not None
        self._now = now or utc_now
        self._sent_at = now or SecondClock()
        self._start_id = start_id or uuid4().hex
        self._rerun = rerun if rerun is not None else set()
        self._is_one_of_several = start_id is not None
        self._idle_unknown_reason = ""
        self._logger = log.get_logger()
        self._resources = Resources()
        self._stores: dict[str, SharedStore] = {}  # by their URLs
        self.metrics = metrics or Metrics()
        self.metrics.pipelines = {pipeline.name: _counts(pipeline) for pipeline in pipelines}
        self.metrics.broker.is_connected = lambda: not transport.unready_reasons
        self._filters = {pipeline.name: line_filter(pipeline.logging.messages) for pipeline in pipelines}
        self._summaries = [
            MessageSummary(self.metrics.pipelines[each.name], each.logging.summary_every_s)
            for each in pipelines
            if each.logging.messages == "summary"
        ]
        self.subscribers: list[SubscriberRuntime] = []
        self._groups: list[ProducerGroup] = []
        self._pauses: list[PipelinePauses] = []
        self._publishers = {pipeline.name: self._make_publisher(pipeline) for pipeline in pipelines}
        self._server = self._make_server(http)
        self.metrics.is_timed = self._server is not None
        self._state = "starting"
        self._poison_lock = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._bug: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def totals(self) -> Totals:
        """The counts of all pipelines together."""
        return self.metrics.totals

    @property
    def has_http(self) -> bool:
        """Whether an HTTP server is configured: by a producer, the file or the command line."""
        return self._server is not None

    async def listen(self, unready_reasons: ReadinessCheck, metrics: ReadMetrics, routes: MakeRoutes) -> str:
        """Start the HTTP server and return its URL. Raises CannotListen."""
        assert self._server is not None
        await self._server.start(unready_reasons, metrics, routes)
        return self._server.url

    @property
    def state(self) -> str:
        """One of `starting`, `running` and `stopping`."""
        return self._state

    async def close(self) -> None:
        """Stop the HTTP server, and close the stores. Idempotent."""
        if self._server is not None:
            await self._server.close()
        await self._close_stores()

    def unready_reasons(self) -> list[str]:
        """Return the reasons why this process is not ready; none when it is."""
        if self._state != "running":
            return [self._state]
        stores = [store.unready_reason for store in self._stores.values() if store.unready_reason]
        own = [text for item in self.subscribers for text in item.unready_reasons]
        return [*self._transport.unready_reasons, *stores, *own]

    async def own_unready_reasons(self) -> list[str]:
        """Return `unready_reasons`, for a process without other workers."""
        return self.unready_reasons()

    async def own_metrics(self) -> Samples:
        """Return the samples of this process."""
        from runner.runtime import exposition

        return await asyncio.to_thread(exposition.read, self.metrics)

    def pauses(self) -> dict[tuple[str, str], Pause]:
        """Return the pauses of the subscribers of this process, by pipeline and subscriber."""
        return {place: pause for each in self._pauses for place, pause in each.all()}

    def handlers(self) -> Iterator[tuple[Delivery, RunningHandler]]:
        """Yield the running handlers, by delivery."""
        for subscriber in self.subscribers:
            yield from subscriber.handlers()

    async def start(self) -> None:
        """Open resources, start subscribers, then producers. Raises ResourceFailed.

        Producers start last, so that their messages find their subscribers running.
        """
        for pipeline in self._pipelines:
            await self._resources.open(pipeline)
            publisher = self._publishers[pipeline.name]
            single_active = {
                queue.name for queue in pipeline.topology.queues if queue.arguments.get("x-single-active-consumer")
            }
            subscribers = [
                self._make_subscriber(pipeline, item, publisher, is_single_active=single_active.issuperset(item.queues))
                for item in pipeline.subscribers
            ]
            self.subscribers += subscribers
            self._groups.append(self._make_group(pipeline, publisher))
            pauses = PipelinePauses(pipeline.name, subscribers, self._now)
            self._pauses.append(pauses)
            await pauses.start(self._transport)
        await asyncio.gather(*(store.open() for store in self._stores.values()))
        await for_each(
            self.subscribers, lambda subscriber: subscriber.start(self._transport), limit=MAX_CONCURRENT_STARTS
        )
        if self._server is not None:
            self._server.accept_messages()
        for group in self._groups:
            self._start_task(group.run(self._transport), f"producers-{group.pipeline}")
        for pipeline in self._pipelines:
            self._logger.info(
                "pipeline.started",
                pipeline=pipeline.name,
                subscribers=len(pipeline.subscribers),
                producers=len(pipeline.producers),
                queues=len(pipeline.topology.queues),
                **version_fields(pipeline.release),
            )
            if self._server is not None:
                self._start_task(self._count_scheduled(pipeline), f"scheduled-{pipeline.name}")
        for summary in self._summaries:
            summary.start()
        self._state = "running"

    async def wait(self, stop: asyncio.Event) -> None:
        """Wait until `stop` is set or, with `until_idle`, until there is nothing left to do.

        Raises what a worker or a producer could not handle: that is a bug in the runner.
        """
        waiting: list[asyncio.Future[Any]] = [asyncio.create_task(stop.wait()), self._bug]
        if self._until_idle:
            waiting.append(asyncio.create_task(self._wait_until_idle()))
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
        finally:
            for future in waiting:
                future.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def drain(self) -> RunReport:
        """Stop the pipelines within the grace period, and return the report.

        The order matters. First no handler starts any more. Then producers stop and subscriptions end, and what has not
        started goes back to the broker. Only then the running handlers get the rest of the grace period; they may still
        publish results, so the connection is closed after them, and the resources that they use last.
        """
        grace_s = max((pipeline.grace_s for pipeline in self._pipelines), default=0.0)
        deadline = asyncio.get_running_loop().time() + grace_s
        self._state = "stopping"
        for pipeline in self._pipelines:
            own = (item for item in self.subscribers if item.options.wait_prefix == pipeline.wait_prefix)
            running = sum(subscriber.running for subscriber in own)
            self._logger.info("pipeline.draining", pipeline=pipeline.name, running=running, grace_s=grace_s)
        await asyncio.gather(*(pauses.close() for pauses in self._pauses))
        for subscriber in self.subscribers:
            subscriber.stop_starting()
        await asyncio.gather(self._stop_producing(), *(subscriber.stop_consuming() for subscriber in self.subscribers))
        late = await asyncio.gather(*(subscriber.finish(deadline) for subscriber in self.subscribers))
        left_in_memory = 0
        if not self._transport.capabilities.is_persistent:
            left_in_memory = await self._transport.count_pending(self._options(), with_delayed=True)
        await self._transport.close()
        await self._close_stores()
        await self._resources.close()
        names = Counter(item.subscriber.name for item in self.subscribers)
        unfinished = {
            item.subscriber.name if names[item.subscriber.name] == 1 else item.options.subscriber: count
            for item, count in zip(self.subscribers, late, strict=True)
            if count
        }
        for summary in self._summaries:
            await summary.close()
        failed = tuple(name for group in self._groups for name in group.failed)
        for pipeline in self._pipelines:
            totals = self.metrics.pipelines[pipeline.name].totals
            self._logger.info("pipeline.stopped", pipeline=pipeline.name, **totals.as_fields())
        return RunReport(self.totals, unfinished, left_in_memory, failed, self._idle_unknown_reason)

    async def _stop_producing(self) -> None:
        if self._server is not None:
            await self._server.stop_accepting()
        await cancel_and_wait(*self._tasks, repeat_s=3 * CONFIRM_TIMEOUT_S)

    def _start_task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run something until the pipelines stop. Its end with an error is a bug."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._notice_end)
        self._tasks.append(task)

    async def _count_scheduled(self, pipeline: Pipeline) -> None:
        """Count the messages that wait for their delay, for the metric, again and again."""
        names = [queue.name for queue in pipeline.topology.queues if HOLDS_DELAYED.fullmatch(queue.name)]
        holding = [SubscriptionOptions(queue=each, prefetch=1, dead_letter=None, wait_prefix=each) for each in names]
        while holding:
            count = await self._transport.count_pending(holding)
            if not self._transport.unready_reasons:
                self.metrics.pipelines[pipeline.name].scheduled = count
            await asyncio.sleep(SCHEDULED_POLL_S)

    async def _wait_until_idle(self) -> None:
        """Wait until every finite producer has ended and all queues, retries and handlers are empty."""
        for group in self._groups:
            await group.wait_until_finite_ended()
        clock = asyncio.get_running_loop().time
        checks, taken, since = 0, -1, clock()
        while checks < IDLE_CHECKS or not await self._is_idle_elsewhere(clock() - since):
            await asyncio.sleep(IDLE_POLL_S)
            now_taken = sum(subscriber.received for subscriber in self.subscribers)
            is_quiet = now_taken == taken and not any(subscriber.in_flight for subscriber in self.subscribers)
            taken = now_taken
            checks = checks + 1 if is_quiet and await self._is_empty() else 0
            since = since if checks else clock()
        all_options = [each.options for each in self.subscribers]
        pending = await self._transport.count_pending(all_options)
        if (scheduled := await self._transport.count_pending(all_options, with_delayed=True) - pending) > 0:
            self._logger.info("messages.scheduled", messages=scheduled)

    async def _is_idle_elsewhere(self, quiet_s: float) -> bool:
        """Return whether no other process holds messages of our queues.

        If that cannot be found out, the report says why.

        Workers of one master skip this check: each ends when it has nothing left to do, and the last one ends last.
        """
        if self._is_one_of_several:
            return True
        held = await self._transport.count_held_elsewhere(self._options(), quiet_s)
        if isinstance(held, str):
            self._idle_unknown_reason = held
        return isinstance(held, str) or held == 0

    @property
    def unfinished_producers(self) -> list[ProducerRuntime]:
        """The producers without a schedule that have not ended, and the others that do not wait for their next run."""
        return [producer for group in self._groups for producer in group.unfinished]

    async def work_left(self) -> list[str]:
        """Return what is left to do, but for waiting for schedules, in words; nothing when the pipelines are idle."""
        found = [
            f"producer {each.producer.name} has not ended ({pluralize(each.failures, 'failure')})"
            for each in self.unfinished_producers
        ]
        busy = (item for item in self.subscribers if item.in_flight)
        found += [f"{item.subscriber.name} has {pluralize(item.in_flight, 'message')}" for item in busy]
        if count := await self._count_pending():
            found.append(f"{pluralize(count, 'message')} in queues or waiting for a retry")
        return found

    def _notice_bug(self, error: BaseException) -> None:
        if not self._bug.done():
            self._bug.set_exception(error)

    def _notice_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._notice_bug(error)

    async def _is_empty(self) -> bool:
        return await self._count_pending() == 0

    async def _count_pending(self) -> int:
        """Return how many messages wait, but for subscribers that operators have paused."""
        paused = [subscriber for each in self._pauses for subscriber in each.by_operators()]
        return await self._transport.count_pending(self._options(paused))

    def _options(self, without: Sequence[SubscriberRuntime] = ()) -> list[SubscriptionOptions]:
        """Return the options of all queues that are consumed, `without` those of some subscribers."""
        return [options for each in self.subscribers if each not in without for options in each.all_options]

    def _make_publisher(self, pipeline: Pipeline) -> PipelinePublisher:
        make = partial(make_publisher, self._tracer) if pipeline.is_traced and self._tracer else self._publisher
        return make(
            self._transport,
            app_id=pipeline.name,
            destinations=pipeline.destinations,
            new_id=self._new_id,
            now=self._sent_at,
        )

    def _make_server(self, address: tuple[str, int] | None) -> HttpServer | None:
        """Return the HTTP server for producers and probes; None if neither is configured."""
        address = address or next((pipeline.http for pipeline in self._pipelines if pipeline.http), None)
        if address is None and all(item.http_path is None for each in self._pipelines for item in each.producers):
            return None
        from runner.runtime.http_producer import HttpProducer
        from runner.runtime.http_server import DEFAULT_ADDRESS, HttpServer
        from runner.runtime.idempotency import Idempotency

        http_producers = [
            HttpProducer(
                producer,
                pipeline.name,
                self._publishers[pipeline.name],
                self._producer_counts(pipeline, producer),
                self._filters[pipeline.name],
                Idempotency(once.window_s, f"{pipeline.name}.{producer.name}", self._store(once)),
            )
            for pipeline in self._pipelines
            for producer in pipeline.producers
            if producer.http_path is not None and (once := producer.idempotency) is not None
        ]
        release = ", ".join(dict.fromkeys(pipeline.release for pipeline in self._pipelines if pipeline.release))
        return HttpServer(address or DEFAULT_ADDRESS, http_producers, version_fields(release))

    def _store(self, options: Remembering) -> Store:
        if (settings := options.store) is None:
            return MemoryStore()
        if settings.url not in self._stores:
            self._stores[settings.url] = open_store(settings)
        return self._stores[settings.url]

    async def _close_stores(self) -> None:
        stores, self._stores = self._stores, {}
        await asyncio.gather(*(store.close() for store in stores.values()))

    def _make_subscriber(
        self, pipeline: Pipeline, subscriber: Subscriber, publisher: PipelinePublisher, *, is_single_active: bool
    ) -> SubscriberRuntime:
        options = SubscriptionOptions(
            queue=subscriber.queue,
            prefetch=subscriber.prefetch,
            dead_letter=subscriber.dead_letter,
            wait_prefix=pipeline.wait_prefix,
            subscriber=f"{pipeline.name}.{subscriber.name}",
            release=pipeline.release,
            is_single_active=is_single_active,
            held_s=_held_s(pipeline, subscriber),
        )
        counts = self.metrics.pipelines[pipeline.name].subscribers[subscriber.name]
        make = self._execution
        invoker = HandlerInvoker(subscriber, self._resources.of(pipeline.name))
        if pipeline.is_traced and self._tracer is not None:
            from runner.runtime.tracing import TracedExecution, carrier

            make = partial(TracedExecution, self._tracer)
            invoker.carrier = carrier
        dedupe, deduplicator = subscriber.dedupe, None
        if dedupe is not None:
            deduplicator = Deduplicator(dedupe, options.subscriber, self._store(dedupe))
        execution = make(
            subscriber,
            pipeline=pipeline.name,
            deduplicator=deduplicator,
            transport=self._transport,
            publisher=publisher,
            invoker=invoker,
            counts=counts,
            is_timed=self.metrics.is_timed,
            has_line=self._filters[pipeline.name],
            logs_payloads=pipeline.logging.payloads,
            now=self._now,
        )
        bug, member = self._notice_bug, self._member(pipeline)
        return SubscriberRuntime(subscriber, options, execution, invoker, self._poison_lock, bug, counts, member)

    def _member(self, pipeline: Pipeline) -> Candidate:
        where = f"{pipeline.path} on {socket.gethostname()}, process {os.getpid()}"
        return Candidate(self._start_id, pipeline.fingerprint, where)

    def _make_group(self, pipeline: Pipeline, publisher: PipelinePublisher) -> ProducerGroup:
        resources = self._resources.of(pipeline.name)
        producers = [
            ProducerRuntime(
                producer,
                producer.handler,
                pipeline=pipeline.name,
                publisher=publisher,
                resources=resources,
                counts=self._producer_counts(pipeline, producer),
                max_failures=MAX_FAILURES_UNTIL_IDLE if self._until_idle else None,
                now=self._now,
                max_sleep_s=math.inf if self._is_clock_given else MAX_SLEEP_S,
                has_line=self._filters[pipeline.name],
            )
            for producer in pipeline.producers
            if producer.handler is not None
        ]
        group = ProducerGroup(
            pipeline.name,
            producers,
            new_id=self._new_id,
            member=self._member(pipeline),
            is_until_idle=self._until_idle,
            rerun=self._rerun,
        )
        if producers:
            self.metrics.pipelines[pipeline.name].is_leader = lambda: group.is_leader
        return group

    def _producer_counts(self, pipeline: Pipeline, producer: Producer) -> ProducerCounts:
        return self.metrics.pipelines[pipeline.name].producers[producer.name]


def _counts(pipeline: Pipeline) -> PipelineCounts:
    """Return the counts of a pipeline, all 0."""
    subscribers = {
        each.name: SubscriberCounts(each.name, each.queue, [to.name for to in each.to]) for each in pipeline.subscribers
    }
    producers = {each.name: ProducerCounts(each.name, [to.name for to in each.to]) for each in pipeline.producers}
    has_leader = any(each.handler is not None for each in pipeline.producers)
    return PipelineCounts(
        pipeline.name,
        pipeline.release,
        pipeline.content_hash,
        subscribers,
        producers,
        is_leader=(lambda: False) if has_leader else None,
    )


def _held_s(pipeline: Pipeline, subscriber: Subscriber) -> float | None:
    """Return how long a message may be unsettled here, waiting included; None if every broker allows that."""
    is_quorum = any(
        queue.name in subscriber.queues and queue.arguments.get("x-queue-type") == "quorum"
        for queue in pipeline.topology.queues
    )
    if subscriber.timeout_s is None or not is_quorum:
        return None
    waiting = subscriber.prefetch * len(subscriber.queues)
    held_s = subscriber.timeout_s * (1 + math.ceil(waiting / subscriber.concurrency))
    return held_s if held_s > MAX_UNSETTLED_S else None
