"""Resolves a spec into a Pipeline: names into addresses, import paths into handlers. Collects all problems."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

from pydantic import TypeAdapter

from runner.config.fields import DAY_S
from runner.config.loader import PipelineFile
from runner.config.name_fields import is_schema_file
from runner.config.queue_spec import CompressSpec, QueueSpec
from runner.config.spec import PipelineSpec
from runner.config.store_urls import SQLITE
from runner.config.subscriber_spec import DedupeSpec, RetrySpec, SubscriberSpec, TripSpec
from runner.config.target_spec import TargetSpec
from runner.errors import Problem, has_errors
from runner.message import Address, Message
from runner.outcome import RetryPolicy, TripPolicy
from runner.pipeline import codec, topology_builder
from runner.pipeline.body_encoding import compressor
from runner.pipeline.delays import delay_topology
from runner.pipeline.delivery_rules import check_options, receiving_queues
from runner.pipeline.event_names import event_of
from runner.pipeline.flow_checks import Peer
from runner.pipeline.handler_calls import source_warnings, untaken_resources
from runner.pipeline.import_problems import ImportProblem
from runner.pipeline.import_report import ImportReport
from runner.pipeline.importer import import_callable, import_exception
from runner.pipeline.model import (
    HTTP_TIMEOUT_S,
    Batch,
    BrokerSettings,
    Destination,
    Handler,
    LoggingSettings,
    Pipeline,
    Producer,
    Remembering,
    Resource,
    StoreSettings,
    Subscriber,
    TlsSettings,
    absolute_broker,
    fingerprint_of,
)
from runner.pipeline.module_search import ModuleSearch, module_searches
from runner.pipeline.partitioning import partitioning_of
from runner.pipeline.payload_use import missing_attributes, without_attribute
from runner.pipeline.result_checks import lost_results, missing_results, unfit_results, unread_lists
from runner.pipeline.schema_checks import (
    event_mismatches,
    handler_mismatches,
    path_mismatches,
    subscriber_path_mismatches,
)
from runner.pipeline.signature import (
    payload_annotation,
    read_factory,
    read_handler,
)
from runner.pipeline.spec_checks import check_names
from runner.pipeline.topic_patterns import matches
from runner.pipeline.topology import Topology, merge_topologies
from runner.redaction import mask_passwords
from runner.schedule import Cron, Every, Schedule
from runner.units import parse_address

PathParts = tuple[str | int, ...]
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Resolved:
    """A pipeline, None if there are errors, and all problems."""

    pipeline: Pipeline | None
    problems: list[Problem] = field(default_factory=list)


def resolve(
    loaded: PipelineFile,
    *,
    imports: bool = True,
    handlers: bool = True,
    modules: ModuleSearch | None = None,
    together: Sequence[Peer] | None = None,
) -> Resolved:
    """Check the names of a spec, import its handlers, and build the pipeline. Collects all problems.

    The import runs the code of the handlers' modules. `modules` finds them if several pipelines share the process, and
    `together` are the pipelines that share the broker. Without `imports`, no code of the user runs: import paths are
    checked in the source files, and the result has no pipeline. Without `handlers`, only schemas are imported, and the
    result is a pipeline to publish to: it has no producers, no subscribers and no resources.
    """
    loaded, problems = check_names(loaded, together)
    spec = loaded.spec or loaded.recovered
    if spec is None:
        return Resolved(None, problems)
    imported = ImportReport(loaded, modules or module_searches([loaded])[0])
    resolver = _Resolver(loaded, spec, problems, imported)
    pipeline = None
    if imports:
        pipeline = resolver.pipeline(handlers=handlers)
    if not imports:
        resolver.check_statically()
    elif imported.has_failures:
        imported.look_again(resolver.check_statically)
    problems += _independent(imported.problems(), problems)
    is_invalid = has_errors(problems)
    if pipeline is not None and not is_invalid:
        problems += [*untaken_resources(loaded, pipeline), *unread_lists(loaded, pipeline)]
        is_invalid = has_errors(problems)
    return Resolved(None if is_invalid else pipeline, problems)


def _independent(found: Sequence[Problem], earlier: Sequence[Problem]) -> list[Problem]:
    """Return problems of handlers, without those of values in `with:` that have an error already."""
    wrong = {problem.path for problem in earlier if problem.severity == "error"}
    return [
        problem
        for problem in found
        if not (problem.code == "bad-argument" and problem.path in wrong)
        and not (problem.code == "wrong-parameters" and f"{problem.path.rpartition('.')[0]}.with" in wrong)
    ]


class _Resolver:
    """Resolves one spec. Problems are collected, and wrong parts are left out."""

    def __init__(
        self, loaded: PipelineFile, spec: PipelineSpec, problems: list[Problem], imported: ImportReport
    ) -> None:
        self._loaded = loaded
        self._spec = spec
        self._problems = problems
        self._imported = imported
        self._adapters: dict[str, TypeAdapter[Any]] = {}
        self._schemas: dict[str, Any] = {}
        self._interpolated = loaded.interpolated

    def pipeline(self, *, handlers: bool = True) -> Pipeline | None:
        """Resolve everything. None if there are errors: then no topology can be computed."""
        self._check_tls_files()
        self._read_schemas()
        destinations = self._destinations()
        resources = self._resources() if handlers else ()
        found_producers = (self._producer(name, destinations) for name in self._spec.producers if handlers)
        found_subscribers = (self._subscriber(name, destinations) for name in self._spec.subscribers if handlers)
        producers = tuple(found for found in found_producers if found)
        subscribers = tuple(found for found in found_subscribers if found)
        if has_errors([*self._problems, *self._imported.problems()]):
            return None
        spec, name = self._spec, self._loaded.name
        return Pipeline(
            name=name,
            path=str(self._loaded.path),
            broker=self._broker(),
            destinations=destinations,
            producers=producers,
            subscribers=subscribers,
            topology=self._topology(destinations),
            resources=resources,
            schemas=self._schema_paths(),
            schema_files=self._schema_files(),
            logging=_logging(spec),
            grace_s=spec.shutdown.grace,
            release=spec.release or "",
            http=parse_address(spec.telemetry.http) if spec.telemetry.http is not None else None,
            is_traced=spec.telemetry.traces == "otlp",
            fingerprint=fingerprint_of(subscribers, producers),
            content_hash=_content_hash(spec),
            redact=spec.redact,
        )

    def _topology(self, destinations: Mapping[str, Destination]) -> Topology:
        spec, name = self._spec, self._loaded.name
        subscribers = spec.subscribers.values()
        policies = [_delays(item.retry) for item in subscribers if not topology_builder.reads_stream(spec, item)]
        delayed = delay_topology(name, *(destinations[target] for target in _delayed_targets(spec)))
        return merge_topologies([topology_builder.compute_topology(name, spec, policies), delayed])

    def check_statically(self) -> None:
        """Check all import paths in the source files."""
        from runner.pipeline import static_checks

        for name, schema in self._schema_paths().items():
            self._imported.attempt(self._schema_key(name), schema, static_checks.check_schema)
        for name, resource in self._spec.resources.items():
            variables = self._variables(("resources", name))
            check_factory = partial(static_checks.check_factory, arguments=resource.with_, variables=variables)
            self._imported.attempt(("resources", name, "factory"), resource.factory, check_factory)
        for name, producer in self._spec.producers.items():
            if producer.handler is not None:
                self._check_handler(("producers", name), producer.handler, producer.with_, takes_payload=False)
        for name, subscriber in self._spec.subscribers.items():
            path: PathParts = ("subscribers", name)
            is_batch = subscriber.batch is not None
            self._check_handler(path, subscriber.handler, subscriber.with_, takes_payload=True, is_batch=is_batch)
            trip = subscriber.trip.on if subscriber.trip is not None else None
            lists = {
                ("retry", "on"): subscriber.retry.on,
                ("retry", "not_on"): subscriber.retry.not_on,
                ("trip", "on"): trip,
            }
            for keys, exceptions in lists.items():
                for index, exception in enumerate(exceptions or ()):
                    if ":" in exception:
                        self._imported.attempt((*path, *keys, index), exception, static_checks.find_definition)

    def _check_handler(
        self, path: PathParts, target: str, arguments: Mapping[str, Any], *, takes_payload: bool, is_batch: bool = False
    ) -> None:
        from runner.pipeline import static_checks

        check = partial(
            static_checks.check_handler,
            arguments=arguments,
            takes_payload=takes_payload,
            resources=self._spec.resources,
            is_batch=is_batch,
            variables=self._variables(path),
        )
        self._imported.attempt((*path, "handler"), target, check)

    def _check_tls_files(self) -> None:
        """Check that certificates exist beside the file. Absolute paths are often mounted where the pipeline runs."""
        tls = self._spec.broker.tls
        for key in ("ca", "cert", "key") if tls is not None else ():
            name = getattr(tls, key)
            if name and not os.path.isabs(name) and not (self._loaded.path.parent / name).is_file():
                path: PathParts = ("broker", "tls", key)
                self._no_file(path, name)

    def _no_file(self, path: PathParts, name: str) -> None:
        from runner.config.guesses import file_near

        meant = file_near(self._loaded.path.parent, name)
        help_ = f'did you mean "{meant}"?' if meant else "the path is relative to this file"
        if found := sorted(self._loaded.path.parent.glob(name)) if "*" in name else []:
            names = " and ".join(each.name for each in found[:3])
            help_ = f"it is no pattern: write a producer for each file, as for {names}"
        self._note("no-such-file", path, f'there is no file "{name}"', help_)

    def _broker(self) -> BrokerSettings:
        broker, folder = self._spec.broker, self._loaded.path.parent
        tls = None
        if broker.tls is not None:
            files = (broker.tls.ca, broker.tls.cert, broker.tls.key)
            # Absolute, because they are read for each connection, and a handler may change the working directory.
            tls = TlsSettings(*((folder / name).absolute() if name else None for name in files))
        urls = tuple(absolute_broker(url, folder) for url in broker.node_urls)
        return BrokerSettings(urls, broker.connect_timeout, broker.heartbeat, broker.topology, tls)

    def _read_schemas(self) -> None:
        """Import the schemas of queues and events, and make their validators."""
        for name, schema in self._schema_paths().items():
            from runner.pipeline.schemas import read_schema

            found = self._imported.attempt(self._schema_key(name), schema, read_schema)
            if found is not None:
                self._schemas[name], self._adapters[name] = found
        for name, queue in self._spec.queues.items():
            events = [event for event in self._spec.events if any(matches(pattern, event) for pattern in queue.events)]
            if name in self._schemas:
                schemas = {event: self._schemas[event] for event in events if event in self._schemas}
                for mismatch in event_mismatches(name, self._schemas[name], schemas):
                    self._note("schema-mismatch", ("queues", name, "schema"), *mismatch)
            if queue.partition_by is not None and name in self._schemas:
                for mismatch in path_mismatches(queue.partition_by, [self._schemas[name]]):
                    self._note("bad-payload-path", ("queues", name, "partition_by"), *mismatch)

    def _schema_key(self, name: str) -> PathParts:
        return ("queues" if name in self._spec.queues else "events", name, "schema")

    def _schema_files(self) -> tuple[Path, ...]:
        if not self._schemas:
            return ()
        from runner.pipeline.schema_files import schema_file

        read = filter(None, map(schema_file, self._schemas.values()))
        return tuple(file for schema in read for file in schema.documents)

    def _schema_paths(self) -> dict[str, str | Path]:
        """Return the import path or the file of each schema, by queue or event."""
        written = {name: queue.schema_ for name, queue in self._spec.queues.items()}
        written |= {name: event.schema_ for name, event in self._spec.events.items()}
        return {
            name: self._loaded.folder(self._schema_key(name)).absolute() / path if is_schema_file(path) else path
            for name, path in written.items()
            if path is not None
        }

    def _destinations(self) -> Mapping[str, Destination]:
        addresses = {name: (Address("", name), False) for name in self._spec.queues}
        addresses |= {name: (address, True) for name, address in self._event_addresses().items()}
        found, delayed = {}, _delayed_targets(self._spec)
        for name, (address, is_event) in addresses.items():
            queues = receiving_queues(self._loaded.name, self._spec, name)
            found[name] = Destination(
                name,
                address,
                is_event,
                codec.encoder(self._adapters.get(name), name),
                needs_queue=not is_event or self._spec.events[name].unheard == "error",
                compress=compressor(how.encoding, how.over) if (how := self._compression(name)) else None,
                partitioning=None if is_event else partitioning_of(name, self._spec.queues[name]),
                check_options=partial(check_options, queues),
                is_delayed_to=name in delayed,
                has_quorum_queues=any(queue.spec.type == "quorum" for queue in queues.values()),
            )
        return found

    def _compression(self, name: str) -> CompressSpec | None:
        item = self._spec.queues[name] if name in self._spec.queues else self._spec.events[name]
        return item.compress

    def _event_addresses(self) -> Mapping[str, Address]:
        return {name: topology_builder.event_address(name, event) for name, event in self._spec.events.items()}

    def _producer(self, name: str, destinations: Mapping[str, Destination]) -> Producer | None:
        spec = self._spec.producers[name]
        path: PathParts = ("producers", name)
        to = _targets(spec.to, destinations)
        if spec.http is not None:
            timeout_s = HTTP_TIMEOUT_S if spec.timeout is None else spec.timeout
            once = self._remembering(spec.idempotency) if spec.idempotency is not None else Remembering(DAY_S)
            return Producer(
                name,
                None,
                to,
                http_path=spec.http,
                http_timeout_s=timeout_s,
                is_call=spec.reply,
                idempotency=once,
                is_enabled=spec.enabled,
            )
        checks = [target.encode for target in to if target.name in self._adapters]
        handler = self._reader(path, spec.file, checks) if spec.file is not None else None
        if spec.handler is not None:
            handler = self._handler(path, spec.handler, spec.with_, takes_payload=False)
            if handler is not None:
                self._problems += missing_results(self._loaded, path, spec, handler)
        schedule: Schedule | None = Every(spec.every) if spec.every is not None else None
        if spec.cron is not None:
            schedule = Cron(spec.cron, spec.timezone)
        if handler is None:
            return None
        return Producer(name, handler, to, schedule, per_second=spec.rate, once=spec.once, is_enabled=spec.enabled)

    def _reader(self, path: PathParts, file: str, checks: Sequence[codec.Encode]) -> Handler | None:
        """Return the handler that reads the records of a file, None if there is no such file."""
        found = file if file == "-" else str((self._loaded.path.parent / file).absolute())
        if file != "-" and not os.path.isfile(found):
            self._no_file((*path, "file"), file)
            return None
        from runner.pipeline.file_source import read_records

        return Handler(file, partial(read_records, found, checks), "generator", codec.decoder(bytes))

    def _subscriber(self, name: str, destinations: Mapping[str, Destination]) -> Subscriber | None:
        spec = self._spec.subscribers[name]
        path: PathParts = ("subscribers", name)
        handler = self._handler(path, spec.handler, spec.with_, takes_payload=True, is_batch=spec.batch is not None)
        retry = self._retry((*path, "retry"), spec.retry)
        trip = self._trip((*path, "trip"), spec.trip)
        if handler is None or retry is None or (trip is None and spec.trip is not None):
            return None
        self._check_run_in(path, spec, handler)
        self._check_result(path, spec, handler)
        is_queue = topology_builder.reads_queue(self._spec, spec)
        own = topology_builder.own_queue(self._loaded.name, name)
        queue = spec.from_[0] if is_queue else own
        options = self._spec.queues[queue] if is_queue else spec.queue or QueueSpec()
        order_by = topology_builder.order_of(self._spec, spec)
        is_stream = topology_builder.reads_stream(self._spec, spec)
        return Subscriber(
            name=name,
            queue=queue,
            event_patterns=self._event_patterns(spec, options, is_queue=is_queue),
            dead_letter=f"{own}.dead" if is_stream else topology_builder.dead_letter_queue(queue, options),
            handler=self._with_schema(path, spec, options, handler, is_queue=is_queue),
            to=_targets(spec.to, destinations),
            concurrency=spec.concurrency,
            prefetch=spec.prefetch or topology_builder.derived_prefetch(self._spec, spec),
            timeout_s=spec.timeout,
            retry=retry,
            batch=Batch(spec.batch.size, spec.batch.wait) if spec.batch is not None else None,
            key_of=codec.key_reader(order_by) if order_by is not None else None,
            per_second=spec.rate,
            dedupe=self._remembering(spec.dedupe) if spec.dedupe is not None else None,
            runs_in_process=spec.run_in == "process",
            trip=trip,
            event_of=event_of(self._event_addresses(), topology_builder.DEFAULT_EXCHANGE),
            is_responder=spec.reply is True,
            partitioning=partitioning_of(queue, options) if is_queue else None,
            replies=spec.answers,
            is_enabled=spec.enabled,
            stream=(spec.offset or "stored") if is_stream else None,
        )

    def _remembering(self, spec: DedupeSpec) -> Remembering:
        url = self._spec.stores.get(spec.store or "", "")
        if url.startswith(SQLITE):  # absolute, because a handler may change the working directory
            url = f"{SQLITE}{(self._loaded.path.parent / url.removeprefix(SQLITE)).absolute()}"
        store = StoreSettings(spec.store, url) if spec.store is not None and url else None
        return Remembering(spec.window, store, codec.identity_reader(spec.key) if spec.key is not None else None)

    def _check_run_in(self, path: PathParts, spec: SubscriberSpec, handler: Handler) -> None:
        if spec.run_in is not None and handler.is_async:
            help_text = "an `async def` runs on the event loop: remove run_in, or write `def`"
            self._note("bad-run-in", (*path, "run_in"), f'"{spec.handler}" is `async def`', help_text)
        if spec.run_in == "process" and handler.resources:
            name = handler.resources[0]
            message = f'"{spec.handler}" takes the resource "{name}", which exists only in this process'
            resource, hidden = self._spec.resources[name], self._variables(("resources", name))
            given = ", ".join(f"{key}={'…' if key in hidden else repr(it)}" for key, it in resource.with_.items())
            made = mask_passwords(f"{name} = {resource.factory.rpartition(':')[2]}({given})".replace("'", '"'))
            help_text = f"write `{made}` at the top of its module, in place of the parameter, or run it in a thread"
            self._note("bad-run-in", (*path, "run_in"), message, help_text)

    def _check_result(self, path: PathParts, spec: SubscriberSpec, handler: Handler) -> None:
        self._problems += missing_results(self._loaded, path, spec, handler)
        self._problems += unfit_results(self._loaded, path, spec, handler, self._schemas)
        item = ".".join(map(str, path))
        if not any(each.path.startswith(item) and '"to"' in each.message for each in self._problems):
            self._problems += lost_results(self._loaded, path, spec, handler)

    def _resources(self) -> tuple[Resource, ...]:
        found = []
        for name, spec in self._spec.resources.items():
            path: PathParts = ("resources", name)
            factory = self._factory(path, spec.factory, spec.with_)
            if factory is not None:
                found.append(Resource(name, spec.factory, factory))
        return tuple(found)

    def _factory(self, path: PathParts, target: str, arguments: Mapping[str, Any]) -> Callable[[], Any] | None:
        def read(target: str) -> Callable[[], Any]:
            return read_factory(target, import_callable(target), arguments, variables=self._variables(path))

        return self._imported.attempt((*path, "factory"), target, read)

    def _event_patterns(self, spec: SubscriberSpec, options: QueueSpec, *, is_queue: bool) -> tuple[str, ...]:
        """Return the names of the declared events that a subscriber receives."""
        patterns: Sequence[str] = options.events if is_queue else spec.from_
        return tuple(name for name in self._spec.events if any(matches(pattern, name) for pattern in patterns))

    def _with_schema(
        self, path: PathParts, spec: SubscriberSpec, options: QueueSpec, handler: Handler, *, is_queue: bool
    ) -> Handler:
        """Return the handler with a check of the schemas of its source before decoding."""
        names = [*self._event_patterns(spec, options, is_queue=is_queue), *(spec.from_ if is_queue else ())]
        schemas = {name: self._schemas[name] for name in names if name in self._schemas}
        annotation = payload_annotation(handler.call, handler, is_batch=spec.batch is not None)
        for mismatch in handler_mismatches(handler.path, annotation, schemas):
            self._note("schema-mismatch", (*path, "handler"), *mismatch)
        if spec.batch is None:  # in a batch both are lists
            objects = ((handler.payload_parameter, annotation), (handler.message_parameter, Message))
            for parameter, kind in objects:
                for found in missing_attributes(handler.call, parameter, kind):
                    problem = without_attribute(handler, kind, found, schemas)
                    self._imported.note((*path, "handler"), handler.path, problem, "warning")
        certain = spec.from_ if is_queue else names
        known = [schemas[name] for name in certain] if all(name in schemas for name in certain) else []
        for code, at, mismatch, severity in subscriber_path_mismatches(spec, known, annotation):
            self._problems.append(self._loaded.problem(code, (*path, *at), *mismatch, severity=severity))
        unchecked = {name: schema for name, schema in schemas.items() if schema is not annotation}
        if not unchecked:
            return handler
        events = {name: self._adapters[name] for name in unchecked if name in self._spec.events}
        only = next((self._adapters[name] for name in unchecked if name in self._spec.queues), None)
        return replace(handler, check=codec.checker(events, only))

    def _handler(
        self,
        path: PathParts,
        target: str,
        arguments: Mapping[str, Any],
        *,
        takes_payload: bool,
        is_batch: bool = False,
    ) -> Handler | None:
        def read(target: str) -> Handler:
            call, odd = import_callable(target), None
            if callable(call) and (not isinstance(call, FunctionType) or vars(call)):
                from runner.pipeline.handler_objects import foreign_object

                odd = foreign_object(target, call)
            try:
                made = read_handler(
                    target,
                    call,
                    arguments,
                    takes_payload=takes_payload,
                    resources=self._spec.resources,
                    is_batch=is_batch,
                    variables=self._variables(path),
                )
            except ImportProblem as error:
                from runner.pipeline.handler_objects import with_uses

                raise odd or with_uses(error, call) from None
            # it can be called, but may do something else than it says
            for problem in (*([odd] if odd is not None else []), *source_warnings(target, call)):
                self._imported.note((*path, "handler"), target, problem, "warning")
            return made

        return self._imported.attempt((*path, "handler"), target, read)

    def _retry(self, path: PathParts, spec: RetrySpec) -> RetryPolicy | None:
        only_on, not_on = self._exceptions((*path, "on"), spec.on), self._exceptions((*path, "not_on"), spec.not_on)
        if (spec.on is not None and only_on is None) or (spec.not_on is not None and not_on is None):
            return None
        for index, wider in enumerate(not_on or ()):
            if covered := [each.__name__ for each in only_on or () if issubclass(each, wider) and each is not wider]:
                message = f'{wider.__name__} includes {" and ".join(covered)} of "on": nothing of it is retried'
                help_text = "remove it: what is not in `on:` is not retried"
                at = (*path, "not_on", index)
                problem = self._loaded.problem("unused-option", at, message, help_text, severity="warning")
                self._problems.append(problem)
        return replace(_delays(spec), only_on=only_on, not_on=not_on or ())

    def _trip(self, path: PathParts, spec: TripSpec | None) -> TripPolicy | None:
        """Return the kill switch; None without one, and if an exception cannot be imported."""
        if spec is None:
            return None
        on = self._exceptions((*path, "on"), spec.on)
        if spec.on is not None and on is None:
            return None
        return TripPolicy(spec.failures, spec.over, spec.least, spec.pause, on)

    def _exceptions(self, path: PathParts, names: Sequence[str] | None) -> tuple[type[BaseException], ...] | None:
        """Import exceptions. None without names, and if one cannot be imported."""
        found = [self._imported.attempt((*path, i), name, import_exception) for i, name in enumerate(names or ())]
        return None if None in found or names is None else tuple(each for each in found if each)

    def _variables(self, path: PathParts) -> set[str]:
        """Return the keys of `with:` whose values come from variables."""
        return {str(key[-1]) for key in self._interpolated if key[:-1] == (*path, "with")}

    def _note(self, code: str, path: PathParts, message: str, help_text: str = "") -> None:
        self._problems.append(self._loaded.problem(code, path, message, help_text))


def _logging(spec: PipelineSpec) -> LoggingSettings:
    it = spec.logging
    return LoggingSettings(it.format, it.level, dict(it.levels), it.messages, it.payloads, it.every)


def _delays(spec: RetrySpec) -> RetryPolicy:
    """Return when a message is retried, without the exceptions for which it is."""
    return RetryPolicy(spec.attempts, spec.backoff, spec.delay, spec.max_delay, jitter=spec.jitter or 0.0)


def _targets(targets: Sequence[TargetSpec], destinations: Mapping[str, Destination]) -> tuple[Destination, ...]:
    """Return the destinations of a `to`, with the options that it gives them."""
    known = (target for target in targets if target.name in destinations)
    return tuple(replace(destinations[target.name], options=target.options) for target in known)


def _delayed_targets(spec: PipelineSpec) -> tuple[str, ...]:
    """Return the queues and events that are known to get delayed messages."""
    lists = [*(item.to for item in spec.producers.values()), *(item.to for item in spec.subscribers.values())]
    targets = [target for each in lists for target in each]
    return tuple(dict.fromkeys([*(target.name for target in targets if target.delay), *spec.delays]))


def _content_hash(spec: PipelineSpec) -> str:
    """Return what changes with any value of a file. A broker's URL differs between machines, and has a password."""
    content = repr(spec.model_dump(exclude={"broker"})).encode("utf-8", "surrogatepass")
    return blake2b(content, digest_size=8).hexdigest()
