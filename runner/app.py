"""Composition: loaded pipelines become a running system. This and `publisher` import all layers."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from runner.errors import BrokerUnavailable
from runner.pipeline.delivery_rules import check_targets
from runner.release import version
from runner.units import pluralize

if TYPE_CHECKING:
    import asyncio

    from runner.metrics import Metrics
    from runner.operations.batch_publisher import BatchPublisher
    from runner.page.access import Access
    from runner.page.page import Page
    from runner.runtime.answers import Answer
    from runner.runtime.supervisor import RunReport, Supervisor
    from runner.runtime.trace_export import TraceExport
    from runner.system import System
    from runner.transports.base import OnTransportEvent, Transport, TransportEvent
    from runner.transports.memory import MemoryBroker
    from runner.workers.worker import Worker


def make_transport(
    system: System,
    on_transport_event: OnTransportEvent,
    *,
    worker: str = "",
    only_publishes: bool = False,
    memory: MemoryBroker | None = None,
    owns: bool = False,
) -> Transport:
    """Return the transport for the broker settings, not connected. `worker` is added to its connection name.

    One that `only_publishes` opens no connection to consume; one that `owns` a file delivers its messages. `memory` is
    the in-process broker, if it has been there before; otherwise the transport has a new one.
    """
    if system.broker.is_memory:
        from runner.transports.memory import MemoryTransport

        return MemoryTransport(broker=memory, on_transport_event=on_transport_event)
    if system.broker.file is not None:
        from runner.transports.file import FileBroker, FileTransport

        file = FileBroker(system.broker.file, is_owner=owns, who=f"runner up ({system.name})")
        return FileTransport(file, on_transport_event=on_transport_event)
    from runner.transports.rabbitmq import RabbitTransport

    name = f"{system.name} · {worker}" if worker else system.name
    return RabbitTransport(
        system.broker,
        name=name,
        on_transport_event=on_transport_event,
        release=system.release,
        only_publishes=only_publishes,
    )


def make_trace_export(system: System, on_transport_event: OnTransportEvent) -> TraceExport | None:
    """Return what exports spans; None where no pipeline asks for them. Raises TracesUnavailable."""
    if not system.is_traced:
        return None
    from runner.runtime.trace_export import TraceExport

    return TraceExport(system.name, system.release, system.broker, on_transport_event)


@dataclass(frozen=True)
class StartupStep:
    """One line of the start-up output."""

    name: str
    text: str
    seconds: float | None = None


@dataclass(frozen=True)
class Continued:
    """What outlives one run of the pipelines in this process, and is passed on to the next one.

    `rerun` are finite producers to run again, as names of pipeline and producer; those that have ended in `start_id`
    do not otherwise.
    """

    memory: MemoryBroker
    start_id: str
    rerun: set[tuple[str, str]] = field(default_factory=set)
    is_first: bool = False


async def up(
    system: System,
    stop: asyncio.Event,
    *,
    until_idle: bool = False,
    http: tuple[str, int] | None = None,
    access: Access | None = None,
    on_step: Callable[[StartupStep], None] = lambda _: None,
    worker: Worker | None = None,
    continued: Continued | None = None,
) -> RunReport | None:
    """Connect, declare, run until `stop` is set or the system is idle, and drain. None if stopped before anything ran.

    A worker waits for its turn to connect, and only the first one runs the HTTP server. `access` says who may do what
    on the page. `continued` comes from the run before in this process. Logging must be configured. Raises
    BrokerUnavailable and TopologyMismatch.
    """
    from runner.metrics import Metrics
    from runner.runtime.supervisor import Supervisor
    from runner.tasks import finished_before

    metrics, lost = Metrics(version()), list[BrokerUnavailable]()
    note = partial(_note_event, metrics, stop, lost)
    memory, rerun = (continued.memory, continued.rerun) if continued else (None, set[tuple[str, str]]())
    transport = make_transport(system, note, worker=worker.name if worker else "", memory=memory, owns=True)
    start = continued or worker
    start_id = start.start_id if start else None
    traces = make_trace_export(system, log_transport_event)
    tracer = traces.tracer if traces else None
    make = partial(Supervisor, start_id=start_id, rerun=rerun, metrics=metrics, tracer=tracer)
    supervisor = make(system.pipelines, transport, until_idle=until_idle, http=http)
    page: Page | None = None
    try:
        if worker is not None:
            worker.report_readiness(supervisor.unready_reasons, metrics)
        if supervisor.has_http and (worker is None or worker.serves_http):
            page = await _serve(system, supervisor, transport, worker, access, on_step)
        if worker is not None and not await finished_before(worker.wait_for_turn(), stop):
            return None
        if not await finished_before(_connect_and_declare(system, transport, on_step), stop):
            return None
        report = await _run(system, supervisor, metrics, stop, on_step, continued is None or continued.is_first)
        if lost:
            raise lost[0]
        return report
    finally:
        for opened in (page, transport, supervisor, traces):
            if opened is not None:
                await opened.close()


async def _run(
    system: System,
    supervisor: Supervisor,
    metrics: Metrics,
    stop: asyncio.Event,
    on_step: Callable[[StartupStep], None],
    is_first: bool,
) -> RunReport:
    """Run until `stop` is set or the system is idle, and drain. `is_first`: nothing ran in this process before."""
    from runner.runtime.watchdog import handler_watchdog
    from runner.tasks import finished_before

    try:
        async with handler_watchdog(supervisor.handlers, metrics.loop_lag):
            if await finished_before(supervisor.start(), stop):
                if is_first:  # later it would keep the garbage of the run before
                    gc.freeze()  # a full collection looks only at what came since, not at all that was imported
                gc.collect(0)  # of little; from here on, collections come as often as usual
                on_step(_running_step(system))
                await supervisor.wait(stop)
    finally:
        gc.unfreeze()
        report = await supervisor.drain()
    return report


def _note_event(metrics: Metrics, stop: asyncio.Event, lost: list[BrokerUnavailable], change: TransportEvent) -> None:
    """Log an event of a transport, and count it. When the file of a broker is lost, the run ends."""
    log_transport_event(change)
    metrics.note_event(change.event, change.fields)
    if change.event == "broker.file_lost":
        lost.append(BrokerUnavailable(change.fields["error"], change.fields["hint"]))
        stop.set()


async def _serve(
    system: System,
    supervisor: Supervisor,
    transport: Transport,
    worker: Worker | None,
    access: Access | None,
    on_step: Callable[[StartupStep], None],
) -> Page:
    """Start the HTTP server with probes, metrics, producers and the page, for all workers. Raises CannotListen."""
    from runner.operations.graph.model import build_graph
    from runner.page.access import Access
    from runner.page.broker_view import connect
    from runner.page.page import Page, PageSource

    samples = worker.whole_metrics if worker else supervisor.own_metrics
    source = PageSource(
        system.pipelines,
        graph=partial(build_graph, system.specs),
        connect=partial(connect, system.pipelines, system.name, transport),
        state=lambda: supervisor.state,
        unready_reasons=worker.all_unready_reasons if worker else supervisor.own_unready_reasons,
        samples=samples,
        pauses=supervisor.pauses,
        release=system.release,
        workers=worker.worker_env.size if worker else 1,
    )
    page = Page(source, access or Access())
    url = await supervisor.listen(source.unready_reasons, samples, page.routes)
    on_step(StartupStep("page", page.access.shown(url)))
    return page


async def _connect_and_declare(system: System, transport: Transport, on_step: Callable[[StartupStep], None]) -> None:
    """Connect, declare what is missing, and report both steps."""
    from runner import log

    started = time.perf_counter()
    product = await transport.connect()
    target = system.broker.shown()
    check_targets(system.pipelines, transport.capabilities.quorum_priorities)
    features = transport.capabilities.features
    more: dict[str, Any] = {"features": [*features]} if features else {}
    log.get_logger().info("broker.connected", broker=target, product=product, **more)
    text = f"{product} (messages are lost if the process dies)" if system.broker.is_memory else f"{product} · {target}"
    on_step(StartupStep("broker", text, time.perf_counter() - started))
    if features:
        on_step(StartupStep("", f"with {' · '.join(features)}"))
    started = time.perf_counter()
    declared = await transport.declare(system.topology)
    counts = {"exchange": declared.exchanges, "queue": declared.queues, "binding": declared.bindings}
    text = " · ".join(pluralize(count, kind) for kind, count in counts.items())
    new = f"  ({declared.new} new)" if declared.new else ""
    on_step(StartupStep("topology", text + new, time.perf_counter() - started))


def _running_step(system: System) -> StartupStep:
    subscribers = sum(len(pipeline.subscribers) for pipeline in system.pipelines)
    producers = sum(len(pipeline.producers) for pipeline in system.pipelines)
    text = f"{pluralize(subscribers, 'subscriber')} · {pluralize(producers, 'producer')} · Ctrl-C to stop"
    return StartupStep("running", text)


def log_transport_event(change: TransportEvent) -> None:
    """Log an event of a transport."""
    import logging

    from runner import log

    log.get_logger().log(logging.getLevelNamesMapping()[change.level.upper()], change.event, **change.fields)


async def publish(
    system: System,
    name: str,
    bodies: Sequence[bytes],
    *,
    headers: Mapping[str, str] | None = None,
    per_second: float | None = None,
    lines: Sequence[int] = (),
    on_confirmed: Callable[[], None] = lambda: None,
    on_transport_event: OnTransportEvent = lambda _: None,
    memory: MemoryBroker | None = None,
    **message_options: Any,
) -> list[str]:
    """Publish bodies to a queue or event of the first pipeline. Return their ids, in order, once all are confirmed.

    Declares what is missing first, so that nothing is lost if no subscriber has run yet. `lines` are the line numbers
    of the bodies, for error messages. `on_confirmed` is called for each confirm. `memory` is this process's own
    in-process broker. Raises PublishFailed, BrokerUnavailable, TopologyMismatch, and ValueError for a reserved header.
    `message_options` are more arguments of `Publish`.
    """
    transport = make_transport(system, on_transport_event, memory=memory)
    opening = _batch_publisher(system, name, bodies, headers, transport, on_transport_event, lines, message_options)
    async with opening as publication:
        await transport.declare(system.topology)
        await publication.send(per_second, on_confirmed)
    return publication.ids


async def call(
    system: System,
    name: str,
    body: bytes,
    headers: Mapping[str, str],
    message_id: str | None,
    timeout_s: float,
    on_transport_event: OnTransportEvent,
) -> Answer:
    """Publish a body to a queue or event of the first pipeline, and return the answer to it. Declares nothing.

    Raises what `publish` does, NoAnswer and CallFailed.
    """
    transport = make_transport(system, on_transport_event, only_publishes=True)
    options = {"id": message_id}
    opening = _batch_publisher(system, name, [body], headers, transport, on_transport_event, (), options)
    async with opening as publication:
        return await publication.call(timeout_s)


@asynccontextmanager
async def _batch_publisher(
    system: System,
    name: str,
    bodies: Sequence[bytes],
    headers: Mapping[str, str] | None,
    transport: Transport,
    on_transport_event: OnTransportEvent,
    lines: Sequence[int] = (),
    message_options: Mapping[str, Any] = {},
) -> AsyncIterator[BatchPublisher]:
    """Check bodies, and connect."""
    from runner.operations.batch_publisher import BatchPublisher

    pipeline = system.pipelines[0]
    target = pipeline.destinations[name]
    traces = make_trace_export(system, on_transport_event) if pipeline.is_traced else None
    tracer = traces.tracer if traces else None
    publication = BatchPublisher(transport, pipeline, target, bodies, headers or {}, lines, tracer, message_options)
    try:
        await transport.connect()
        yield publication
    finally:
        await transport.close()
        if traces is not None:
            await traces.close()
