"""Pipelines from paths: read, checked, and selected. `app` runs them, and commands work on them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.config.broker_urls import parse_broker_url
from runner.config.diagnostics import with_text
from runner.config.messages import closest
from runner.errors import BrokerUnavailable, InvalidUsage, PipelineInvalid, Problem, has_errors
from runner.message import Address
from runner.operations.pipeline_files import CheckedSpec, resolve_all
from runner.pipeline.codec import encode
from runner.pipeline.cross_pipeline_checks import LoadedPipeline, cross_pipeline_problems, unsupported_options
from runner.pipeline.model import BrokerSettings, Destination, Pipeline, Producer, Subscriber, absolute_broker
from runner.pipeline.topology import Topology, leadership_queue, merge_topologies, pause_queue
from runner.redaction import mask_passwords

if TYPE_CHECKING:
    from runner.config.loader import PipelineFile
    from runner.config.overlays import Overlay


class UnknownName(InvalidUsage):
    """The name of a producer or subscriber on the command line does not exist, or is disabled."""


class SingleProcessOnly(InvalidUsage):
    """`--workers` is given, but something in the pipelines can exist in one process only."""


class TlsRequired(InvalidUsage):
    """`--broker` would drop the encryption that the file asks for."""


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
    if has_errors(problems):
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
            "write `broker: file:shop.queue` in the file for programs of this machine, or `broker: amqp://…`, set "
            "RUNNER_BROKER, or pass `broker=`; in tests, use runner.testing"
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


def _with_broker(pipeline: Pipeline, broker: str | None) -> Pipeline:
    if broker is None:
        return pipeline
    if pipeline.broker.tls is not None and broker.startswith("amqp://"):
        hint = "write amqps://, or remove broker.tls from the file"
        raise TlsRequired(f"{pipeline.path} asks for TLS, and {mask_passwords(broker)} is without", hint)
    urls = () if broker == "memory" else (absolute_broker(broker, Path()),)
    return replace(pipeline, broker=replace(pipeline.broker, urls=urls))


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
            hint = _unknown_name_hint(system, "--only" if name in only else "--except", name)
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
        replace(each, producers=tuple(filter(runs, each.producers)), subscribers=tuple(filter(runs, each.subscribers)))
        for each in system.pipelines
    )
    return replace(system, pipelines=pipelines)


def _unknown_name_hint(system: System, option: str, name: str) -> str:
    parts = name.replace(",", " ").split()
    if len(parts) > 1:
        return f"write the option once for each name: {' '.join(f'{option} {part}' for part in parts)}"
    subscribers = (each for pipeline in system.pipelines for each in pipeline.subscribers)
    readers = [each.name for each in subscribers if name in (each.queue, *each.event_patterns)]
    if readers:
        return f'write {" ".join(f"{option} {each}" for each in readers)}, which reads "{name}"'
    known = [item.name for item in system.items()]
    guess = closest(name, known)
    return f'did you mean "{guess}"?' if guess else f"there are: {', '.join(known)}"


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
