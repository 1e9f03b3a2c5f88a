"""The state of a pipeline's queues, one row each: messages, consumers, rates, dead letters.

Ready messages and consumers come over AMQP. The rest needs the management API, or a process that answers HTTP: see
`process_status`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from runner.operations.dead_letters import dead_letter_queues
from runner.operations.leftovers import classify, pipeline_names_in
from runner.operations.queue_access import QueueAccess
from runner.operations.rabbitmq.queue_browser import BrowseSession, QueueLocked, QueueNotPermitted
from runner.pipeline.delays import HOLDS_DELAYED, STEPS_MS, step_name
from runner.pipeline.model import BrokerSettings, Pipeline
from runner.release import PRODUCT
from runner.transports.pauses import Pauses
from runner.transports.rabbitmq.channels import QueueCounts
from runner.transports.rabbitmq.management_api import ManagementApi, ManagementFailed

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """The state of one queue; None is unknown. Rates are per second; `dead` is the depth of its dead-letter queue.

    `oldest_s` is the age of the oldest message that waits in it. `failed` counts the attempts at its messages that have
    failed since the process that says so started.
    """

    name: str
    exists: bool | None
    ready: int | None = None
    unacked: int | None = None
    consumers: int | None = None
    publish_rate: float | None = None
    deliver_rate: float | None = None
    oldest_s: float | None = None
    failed: int | None = None
    is_paused: bool | None = None
    dead_letter: str | None = None
    dead: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the object that `status --json` prints."""
        names = {"name": "queue", "is_paused": "paused"}
        return {names.get(name, name): value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A process that runs a pipeline, by its own words. `since` is when it started: ISO 8601, UTC."""

    host: str
    process: str
    version: str
    release: str
    since: str


@dataclass(frozen=True, slots=True)
class PipelineStatus:
    """The state of a pipeline's queues. `retrying` counts the messages in wait queues, which all its queues share."""

    name: str
    path: str
    queues: tuple[QueueStatus, ...]
    retrying: int | None
    scheduled: int | None = None
    """How many delayed messages have not arrived yet."""
    leftovers: tuple[QueueStatus, ...] = ()
    """Queues that begin with its name and are in no pipeline. Empty without the management API."""
    processes: tuple[RunningProcess, ...] | None = None
    """The processes that run it; None is unknown."""
    disabled: tuple[str, ...] = ()
    """The producers and subscribers that no process runs, because the file says so."""
    pauses: Pauses | None = None
    """Its paused subscribers; None is unknown."""

    def as_json(self) -> dict[str, Any]:
        """Return the object that `status --json` prints."""
        return {
            "pipeline": self.name,
            "path": self.path,
            "retrying": self.retrying,
            "scheduled": self.scheduled,
            "queues": [queue.as_json() for queue in self.queues],
            "disabled": list(self.disabled),
            "leftovers": [queue.as_json() for queue in self.leftovers],
            "processes": None if self.processes is None else [asdict(each) for each in self.processes],
            "pauses": None if self.pauses is None else pauses_to_json(self.pauses),
        }


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """The queues of one pipeline to ask about: work queues, each with its dead-letter queue, and wait queues."""

    pipeline: Pipeline
    queues: tuple[tuple[str, str | None], ...]
    waits: tuple[str, ...]


def status_query(pipeline: Pipeline) -> StatusQuery:
    """Return the queues of a pipeline to ask about. A dead-letter queue with a subscriber counts as a work queue."""
    waits = pipeline.topology.waits(pipeline.wait_prefix)
    targets = {origin: dlq.name for dlq in dead_letter_queues([pipeline]) for origin in dlq.origins}
    read = {subscriber.queue for subscriber in pipeline.subscribers}
    names = [queue.name for queue in pipeline.topology.queues]
    dead = set(targets.values()) - read
    work = [name for name in names if not (name in waits or name in dead or HOLDS_DELAYED.fullmatch(name))]
    hidden = {each.processes.name for each in pipeline.partitionings.values()}
    declared = {part: name for name, each in pipeline.partitionings.items() for part in each.names}
    shown = dict.fromkeys(declared.get(name, name) for name in work if name not in hidden)
    return StatusQuery(pipeline, tuple((name, targets.get(name)) for name in shown), tuple(waits))


def unknown_status(pipeline: Pipeline) -> PipelineStatus:
    """Return the state of a pipeline as long as the broker has told nothing."""
    queues = [QueueStatus(name=name, exists=None, dead_letter=dead) for name, dead in status_query(pipeline).queues]
    return PipelineStatus(pipeline.name, pipeline.path, tuple(queues), None, disabled=pipeline.disabled)


class StatusReader:
    """Reads the state of pipelines from a broker. Raises BrokerUnavailable."""

    def __init__(self, pipelines: Sequence[Pipeline], browser: QueueAccess, management: ManagementApi | None) -> None:
        self._queries = [status_query(pipeline) for pipeline in pipelines]
        self._names = {pipeline.name for pipeline in pipelines}
        self._known = {queue.name for pipeline in pipelines for queue in pipeline.topology.queues}
        self._browser = browser
        self._management = management

    async def read(self) -> list[PipelineStatus]:
        """Return the state of all pipelines at this moment."""
        live = await self._ask(ManagementApi.queues) or {}
        connections = await self._ask(ManagementApi.connections)
        statuses = [await self._status(query, live) for query in self._queries]
        if connections is None:
            return statuses
        processes = running_processes(connections)
        return [replace(each, processes=tuple(processes.get(each.name, ()))) for each in statuses]

    async def _ask(self, question: Callable[[ManagementApi], Awaitable[T]]) -> T | None:
        """Return the answer of the management API; None if it is not available."""
        try:
            return await question(self._management) if self._management is not None else None
        except ManagementFailed:
            return None

    async def _status(self, query: StatusQuery, live: Mapping[str, Mapping[str, Any]]) -> PipelineStatus:
        queues = [await self._work_queue(query.pipeline, *each, live) for each in query.queues]
        prefix = f"{query.pipeline.wait_prefix}."
        waits = {
            *query.waits,
            *(name for name in live if name.startswith(prefix) and name[len(prefix) :].isdecimal()),
        }
        retrying = await self._count(sorted(waits))
        scheduled = await self._count(await self._delay_queues(query.pipeline, live))
        left = [await self._queue(name, None, live) for name in self._leftovers(query.pipeline.name, live)]
        found = tuple(queue for queue in left if queue.exists)
        pipeline = query.pipeline
        pauses = await self._browser.pauses(pipeline.name) if pipeline.subscribers else {}
        if pauses is not None:
            paused = {each.queue for each in pipeline.subscribers if each.name in pauses}
            queues = [replace(queue, is_paused=queue.name in paused) for queue in queues]
        return PipelineStatus(
            pipeline.name,
            pipeline.path,
            tuple(queues),
            retrying,
            scheduled,
            found,
            disabled=pipeline.disabled,
            pauses=pauses,
        )

    async def _count(self, names: Iterable[str]) -> int:
        depths = [await self._depth(name) for name in names]
        return sum(depth.messages for depth in depths if isinstance(depth, QueueCounts))

    async def _delay_queues(self, pipeline: Pipeline, live: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Return the names of the queues that hold delayed messages. They may have been declared on demand."""
        known = (*live, *(queue.name for queue in pipeline.topology.queues))
        names = {
            name for name in known if (found := HOLDS_DELAYED.fullmatch(name)) and found["pipeline"] == pipeline.name
        }
        steps = [step_name(pipeline.delay_prefix, step) for step in STEPS_MS]
        if not names and await self._depth(steps[0]) is not None:
            return steps
        return sorted(names)

    def _leftovers(self, pipeline: str, live: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Return the leftover queues of a pipeline, without those of the other pipelines."""
        others = pipeline_names_in(live) | self._names
        names = (name for name, item in live.items() if name not in self._known and not item.get("exclusive"))
        return sorted(name for name in names if classify(name, (pipeline,), others) in ("queue", "doubtful"))

    async def _work_queue(
        self, pipeline: Pipeline, name: str, dead_letter: str | None, live: Mapping[str, Mapping[str, Any]]
    ) -> QueueStatus:
        """Return the state of a queue. One with partitions has their sums, and a consumer for each process."""
        partitioning = pipeline.partitionings.get(name)
        if partitioning is None:
            return await self._queue(name, dead_letter, live)
        parts = [await self._queue(part, dead_letter, live) for part in partitioning.names]
        processes = await self._depth(partitioning.processes.name)

        ways = {"exists": min, "oldest_s": max} | dict.fromkeys(
            ("ready", "unacked", "publish_rate", "deliver_rate"), sum
        )
        values = {key: [getattr(part, key) for part in parts] for key in ways}
        known = {key: None if None in found else ways[key](found) for key, found in values.items()}
        consumers = processes.consumers if isinstance(processes, QueueCounts) else None
        return replace(parts[0], **known, name=name, consumers=consumers)

    async def _queue(self, name: str, dead_letter: str | None, live: Mapping[str, Mapping[str, Any]]) -> QueueStatus:
        depth = await self._depth(name)
        dead = await self._depth(dead_letter) if dead_letter is not None else None
        more = live.get(name, {})
        return QueueStatus(
            name=name,
            exists=True if name in live else None if isinstance(depth, QueueNotPermitted) else depth is not None,
            ready=depth.messages if isinstance(depth, QueueCounts) else _number(more.get("messages_ready")),
            unacked=_number(more.get("messages_unacknowledged")),
            consumers=depth.consumers if isinstance(depth, QueueCounts) else _number(more.get("consumers")),
            publish_rate=_rate(more, "publish") if more else None,
            deliver_rate=_rate(more, "deliver_get") if more else None,
            dead_letter=dead_letter,
            dead=dead.messages if isinstance(dead, QueueCounts) else None,
            oldest_s=_oldest_s(more, depth, time.time()),
        )

    async def _depth(self, name: str) -> QueueCounts | QueueLocked | QueueNotPermitted | None:
        """Return a queue's counts, None if it does not exist, or the error if the broker does not show it."""
        try:
            return await self._browser.depth(name)
        except (QueueLocked, QueueNotPermitted) as hidden:
            return hidden


def pauses_to_json(pauses: Pauses) -> list[dict[str, str]]:
    """Return pauses as plain JSON data."""
    return [
        {"subscriber": name, "since": pause.since.isoformat(), "reason": pause.reason}
        for name, pause in sorted(pauses.items())
    ]


async def find_management(
    settings: BrokerSettings, url: str | None, browser: QueueAccess
) -> tuple[ManagementApi | None, str]:
    """Return the broker's management API, or None and the reason. The API of another broker does not count."""
    if not isinstance(browser, BrowseSession):
        return None, ""
    return await ManagementApi.find(settings, url, browser.server)


def running_processes(connections: Iterable[Mapping[str, Any]]) -> Mapping[str, Sequence[RunningProcess]]:
    """Return the processes that run each pipeline: each says on its connections what it is."""
    found: dict[str, dict[tuple[str, str], RunningProcess]] = {}
    for connection in connections:
        told = connection.get("client_properties")
        if isinstance(told, Mapping) and told.get("product") == PRODUCT and "started_at" in told:
            texts = (str(told.get(key, "")) for key in ("host", "pid", "version", "release", "started_at"))
            process = RunningProcess(*texts)
            for name in str(told.get("pipelines", "")).partition(" · ")[0].split(", "):
                found.setdefault(name, {})[process.host, process.process] = process
    return {name: sorted(several.values(), key=lambda each: each.since) for name, several in found.items()}


def _oldest_s(queue: Mapping[str, Any], depth: object, now: float) -> float | None:
    """Return the age of the message at the head of a queue. The API tells when it was published, of classic queues."""
    if isinstance(depth, QueueCounts) and not depth.messages:
        return 0.0
    sent = _number(queue.get("head_message_timestamp"))
    return None if sent is None else max(0.0, now - sent)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _rate(queue: Mapping[str, Any], kind: str) -> float:
    """Return a rate; the API leaves it out for a queue that has had no traffic."""
    stats = queue.get("message_stats")
    details = stats.get(f"{kind}_details") if isinstance(stats, dict) else None
    rate = details.get("rate") if isinstance(details, dict) else None
    return float(rate) if isinstance(rate, int | float) else 0.0
