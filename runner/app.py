"""Composition: paths become pipelines, and they become a running system. This and `publisher` import all layers."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.config.broker_urls import parse_broker_url
from runner.config.diagnostics import with_text
from runner.config.messages import closest
from runner.errors import BrokerUnavailable, PipelineInvalid, Problem, RunnerError
from runner.message import Address
from runner.operations.pipeline_files import CheckedSpec, resolve_all
from runner.pipeline.codec import encode
from runner.pipeline.cross_pipeline_checks import LoadedPipeline, cross_pipeline_problems, unsupported_options
from runner.pipeline.delivery_rules import check_targets
from runner.pipeline.model import BrokerSettings, Destination, Pipeline, Producer, Subscriber, absolute_broker
from runner.pipeline.topology import Topology, leadership_queue, merge_topologies, pause_queue
from runner.redaction import mask_passwords
from runner.release import version
from runner.units import pluralize

if TYPE_CHECKING:
    import asyncio

    from runner.config.loader import PipelineFile
    from runner.config.overlays import Overlay
    from runner.metrics import Metrics
    from runner.operations.batch_publisher import BatchPublisher
    from runner.page.access import Access
    from runner.page.page import Page
    from runner.runtime.answers import Answer
    from runner.runtime.supervisor import RunReport, Supervisor
    from runner.runtime.trace_export import TraceExport
    from runner.transports.base import OnTransportEvent, Transport, TransportEvent
    from runner.transports.memory import MemoryBroker
    from runner.workers.worker import Worker


class UnknownName(RunnerError):
    """The name of a producer or subscriber on the command line does not exist, or is disabled."""

    exit_code = 2


class SingleProcessOnly(RunnerError):
    """`--workers` is given, but something in the pipelines can exist in one process only."""

    exit_code = 2


class TlsRequired(RunnerError):
    """`--broker` would drop the encryption that the file asks for."""

    exit_code = 2


@dataclass(frozen=True)
class System:
    """Pipelines that run in one process on one broker, and the warnings about them."""

    pipelines: tuple[Pipeline, ...]
    warnings: tuple[Problem, ...]
    load_s: float
    """The seconds that reading and checking took, imports included."""
    specs: tuple[CheckedSpec, ...] = field(default=(), repr=False)
    """The content of the files, from which the page draws the graph."""

    @property
    def broker(self) -> BrokerSettings:
        """The broker of all pipelines."""
        return self.pipelines[0].broker

    @property
    def topology(self) -> Topology:
        """Everything that must exist on the broker."""
        return merge_topologies(pipeline.topology for pipeline in self.pipelines)

    @property
    def whole_topology(self) -> Topology:
        """The topology with what is declared at run time: queues for the election of a leader, and for pauses."""
        if self.broker.file is not None:  # it has other ways to keep both
            return self.topology
        leading = [
            leadership_queue(f"{pipeline.name}.producers")
            for pipeline in self.pipelines
            if any(producer.handler is not None for producer in pipeline.producers)
        ]
        leading += [leadership_queue(f"{name}.{each.name}") for name, each in self.stream_readers()]
        pausing = (pause_queue(pipeline.name) for pipeline in self.pipelines if pipeline.subscribers)
        return merge_topologies([self.topology, Topology(queues=(*leading, *pausing))])

    @property
    def name(self) -> str:
        """The name in the broker's list of connections."""
        return ", ".join(pipeline.name for pipeline in self.pipelines)

    @property
    def release(self) -> str:
        """The releases of the users' code; empty if no file or variable names one."""
        return ", ".join(dict.fromkeys(pipeline.release for pipeline in self.pipelines if pipeline.release))

    @property
    def is_traced(self) -> bool:
        """Whether any of them is exported as spans."""
        return any(pipeline.is_traced for pipeline in self.pipelines)

    def names(self) -> list[str]:
        """Return the names of the pipelines and of all their producers and subscribers."""
        return [pipeline.name for pipeline in self.pipelines] + [item.name for item in self.items()]

    def stream_readers(self) -> list[tuple[str, Subscriber]]:
        """Return the subscribers of streams, with the names of their pipelines."""
        return [(each.name, item) for each in self.pipelines for item in each.subscribers if item.stream is not None]

    def items(self) -> Iterator[Producer | Subscriber]:
        """Yield all producers and subscribers."""
        for pipeline in self.pipelines:
            yield from pipeline.producers
            yield from pipeline.subscribers


def load(
    paths: Sequence[Path],
    environ: Mapping[str, str],
    overlays: Sequence[Overlay] = (),
    *,
    broker: str | None = None,
    is_one_process: bool = True,
    is_test: bool = False,
) -> System:
    """Read and check pipelines with overlays. Raises PipelineInvalid with every problem of every file, and warnings.

    `broker` is a URL or `memory` and overrides the files. With `is_one_process` false, pipelines may have different
    brokers. With `is_test`, options that the in-process broker lacks are no problem: it stands in for another one.
    """
    started = time.perf_counter()
    problems: list[Problem] = []
    sources: list[LoadedPipeline] = []
    for loaded, resolved in resolve_all(paths, environ, overlays, is_one_broker=broker is not None):
        problems += resolved.problems
        if resolved.pipeline is not None:
            pipeline = replace(resolved.pipeline, release=environ.get("RUNNER_RELEASE") or resolved.pipeline.release)
            sources.append(LoadedPipeline(_with_broker(pipeline, broker), loaded))
        problems += unsupported_options(loaded, broker) if not is_test else ()
    problems += cross_pipeline_problems(sources, is_one_process=is_one_process)
    problems = list(dict.fromkeys(problems))  # a file that several pipelines include is reported once
    if any(problem.severity == "error" for problem in problems):
        raise PipelineInvalid(problems)
    pipelines = tuple(source.pipeline for source in sources)
    specs = tuple((replace(source.loaded, document=None), source.spec) for source in sources)
    return System(pipelines, tuple(problems), time.perf_counter() - started, specs)


def load_to_publish(source: str | os.PathLike[str], environ: Mapping[str, str], *, broker: str | None = None) -> System:
    """Return a pipeline to publish to: from its file, or the queues of a broker, by its URL. No handler is imported.

    `broker` overrides the file, and so does the variable RUNNER_BROKER. Raises PipelineInvalid, with the problems in
    its notes, TlsRequired, ValueError for a wrong URL, and BrokerUnavailable for the in-process broker.
    """
    started, text = time.perf_counter(), os.fspath(source)
    if text.startswith(("amqp://", "amqps://", "file:")):
        pipeline, problems = _queues_of_broker(absolute_broker(parse_broker_url(text), Path())), list[Problem]()
    else:
        broker = broker or environ.get("RUNNER_BROKER") or None
        if broker not in (None, "memory"):
            broker = parse_broker_url(broker)
        pipeline, problems = _read_to_publish(Path(text), environ, broker)
    if pipeline.broker.is_memory:
        hint = (
            "write `broker: amqp://…` in the file, set RUNNER_BROKER, or pass `broker=`; in tests, use runner.testing"
        )
        raise BrokerUnavailable(f"{text} runs on the in-process broker, which no other process can reach", hint)
    settings = replace(pipeline.broker, connect_timeout_s=math.inf)  # each message has its own time limit
    release = environ.get("RUNNER_RELEASE") or pipeline.release
    pipeline = replace(pipeline, broker=settings, release=release)
    return System((pipeline,), tuple(problems), time.perf_counter() - started)


def _read_to_publish(path: Path, environ: Mapping[str, str], broker: str | None) -> tuple[Pipeline, list[Problem]]:
    try:
        found = list(resolve_all([path], environ, handlers=False, is_one_broker=broker is not None))
    except PipelineInvalid as invalid:  # there is no such file
        raise with_text(invalid.problems) from None
    problems = list(dict.fromkeys(problem for _, resolved in found for problem in resolved.problems))
    pipelines = [resolved.pipeline for _, resolved in found if resolved.pipeline is not None]
    if len(pipelines) < len(found):
        raise with_text(problems)
    if len(pipelines) > 1:
        names = [pipeline.path for pipeline in pipelines]
        raise UnknownName(f"{path} has {len(names)} pipelines", f"name the file of one of them: {', '.join(names)}")
    return _with_broker(pipelines[0], broker), problems


class _EveryQueue(dict[str, Destination]):
    """The queues of a broker by their names, which are not known."""

    def __missing__(self, name: str) -> Destination:
        self[name] = Destination(name, Address("", name), is_event=False, encode=encode)
        return self[name]


def _queues_of_broker(url: str) -> Pipeline:
    """Return a pipeline that declares nothing, and whose destinations are all queues of a broker."""
    return Pipeline("publisher", "", BrokerSettings((url,)), _EveryQueue(), (), (), Topology())


def check(
    paths: Sequence[Path], environ: Mapping[str, str], overlays: Sequence[Overlay] = ()
) -> tuple[list[Problem], list[PipelineFile]]:
    """Check pipelines without importing their handlers. Return the problems and the files."""
    found = list(resolve_all(paths, environ, overlays, imports=False))
    problems = list(dict.fromkeys(problem for _, resolved in found for problem in resolved.problems))
    return problems, [loaded for loaded, _ in found]


def select(system: System, only: Sequence[str] = (), without: Sequence[str] = ()) -> System:
    """Return the system with the producers and subscribers that run: those in `only` if there are any, else all.

    Those in `without` and those with `enabled: false` do not run. The topology stays complete. Raises UnknownName.
    """
    known = [item.name for item in system.items()]
    for name in (*only, *without):
        if name not in known:
            option, parts = "--only" if name in only else "--except", name.replace(",", " ").split()
            every = (each for pipeline in system.pipelines for each in pipeline.subscribers)
            readers = [each.name for each in every if name in (each.queue, *each.event_patterns)]
            guess = closest(name, known) if len(parts) == 1 else ""
            hint = f'did you mean "{guess}"?' if guess else f"there are: {', '.join(known)}"
            if readers:
                hint = f'write {" ".join(f"{option} {each}" for each in readers)}, which reads "{name}"'
            if len(parts) > 1:
                hint = f"write the option once for each name: {' '.join(f'{option} {part}' for part in parts)}"
            raise UnknownName(f'no producer or subscriber is called "{name}"', hint)
    enabled = {item.name for item in system.items() if item.is_enabled}
    for name in only:
        if name not in enabled:
            raise UnknownName(f'"{name}" is disabled in its pipeline', "remove `enabled: false`, or do not name it")

    def runs(item: Producer | Subscriber) -> bool:
        return item.is_enabled and (not only or item.name in only) and item.name not in without

    if without and not any(map(runs, system.items())):
        raise UnknownName("nothing is left to run", f"leave out --except {without[0]}")

    pipelines = tuple(
        replace(
            pipeline,
            producers=tuple(filter(runs, pipeline.producers)),
            subscribers=tuple(filter(runs, pipeline.subscribers)),
        )
        for pipeline in system.pipelines
    )
    return replace(system, pipelines=pipelines)


def select_destination(system: System, name: str) -> System:
    """Return the pipeline with this queue or event, and all others on its broker. Raises UnknownTarget."""
    from runner.operations.targets import pipeline_with_destination

    first = pipeline_with_destination(system.pipelines, name)
    others = (other for other in system.pipelines if other is not first and other.broker == first.broker)
    return replace(system, pipelines=(first, *others))


def check_workers(system: System, workers: int) -> None:
    """Check that the pipelines can run in several processes. Raises SingleProcessOnly."""
    if workers > 1 and system.broker.is_memory:
        text = f"the in-process broker lives in one process: --workers {workers} needs RabbitMQ"
        raise SingleProcessOnly(text, "name one with --broker amqp://… or broker: in the file, or leave --workers out")
    if workers > 1 and system.broker.file:
        text = f"one process owns a broker in a file: --workers {workers} needs RabbitMQ"
        raise SingleProcessOnly(text, "leave --workers out; `run_in: process` of a subscriber uses more cores")
    exclusive = [queue.name for queue in system.topology.queues if queue.exclusive]
    if workers > 1 and exclusive:
        text = f'queue "{exclusive[0]}" is exclusive: it belongs to one process, and --workers asks for {workers}'
        raise SingleProcessOnly(text, "leave --workers out, or `exclusive: true`")


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
    parts = (
        pluralize(declared.exchanges, "exchange"),
        pluralize(declared.queues, "queue"),
        pluralize(declared.bindings, "binding"),
    )
    new = f"  ({declared.new} new)" if declared.new else ""
    on_step(StartupStep("topology", " · ".join(parts) + new, time.perf_counter() - started))


def _running_step(system: System) -> StartupStep:
    subscribers = sum(len(pipeline.subscribers) for pipeline in system.pipelines)
    producers = sum(len(pipeline.producers) for pipeline in system.pipelines)
    return StartupStep(
        "running", f"{pluralize(subscribers, 'subscriber')} · {pluralize(producers, 'producer')} · Ctrl-C to stop"
    )


def log_transport_event(change: TransportEvent) -> None:
    """Log an event of a transport."""
    import logging

    from runner import log

    log.get_logger().log(logging.getLevelNamesMapping()[change.level.upper()], change.event, **change.fields)


def _with_broker(pipeline: Pipeline, broker: str | None) -> Pipeline:
    if broker is None:
        return pipeline
    if pipeline.broker.tls is not None and broker.startswith("amqp://"):
        hint = "write amqps://, or remove broker.tls from the file"
        raise TlsRequired(f"{pipeline.path} asks for TLS, and {mask_passwords(broker)} is without", hint)
    urls = () if broker == "memory" else (absolute_broker(broker, Path()),)
    return replace(pipeline, broker=replace(pipeline.broker, urls=urls))


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
