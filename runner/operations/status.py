"""Turns what the broker says of a pipeline's queues into one row for each: what waits, who takes it, what is dead.

AMQP tells how many messages are ready and how many consumers there are; the management API, where it answers, the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.operations.dead_letters import dead_letter_queues
from runner.operations.leftovers import classify, pipeline_names_in
from runner.operations.queue_access import QueueAccess
from runner.operations.rabbitmq.queue_browser import BrowseSession, QueueLocked, QueueNotPermitted
from runner.pipeline.model import BrokerSettings, Pipeline
from runner.transports.rabbitmq.channels import QueueCounts
from runner.transports.rabbitmq.management_api import ManagementApi, ManagementFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """One queue now; None is unknown. Rates are messages a second; `dead` is the depth of its dead-letter queue."""

    name: str
    exists: bool | None
    ready: int | None = None
    unacked: int | None = None
    consumers: int | None = None
    publish_rate: float | None = None
    deliver_rate: float | None = None
    dead_letter: str | None = None
    dead: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as `status --json` says it."""
        return {
            "queue": self.name,
            "exists": self.exists,
            "ready": self.ready,
            "unacked": self.unacked,
            "consumers": self.consumers,
            "publish_rate": self.publish_rate,
            "deliver_rate": self.deliver_rate,
            "dead_letter": self.dead_letter,
            "dead": self.dead,
        }


@dataclass(frozen=True, slots=True)
class PipelineStatus:
    """A pipeline's queues now, and how many messages wait for a retry: its wait queues belong to all of them."""

    name: str
    path: str
    queues: tuple[QueueStatus, ...]
    retrying: int | None
    leftovers: tuple[QueueStatus, ...] = ()
    """Queues that begin with its name and are in no pipeline; only the management API knows them."""

    def as_json(self) -> dict[str, Any]:
        """Return it as `status --json` says it."""
        return {
            "pipeline": self.name,
            "path": self.path,
            "retrying": self.retrying,
            "queues": [queue.as_json() for queue in self.queues],
            "leftovers": [queue.as_json() for queue in self.leftovers],
        }


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """What is to be asked for one pipeline: work queues, with their dead-letter queues, and wait queues."""

    pipeline: Pipeline
    queues: tuple[tuple[str, str | None], ...]
    waits: tuple[str, ...]


def status_query(pipeline: Pipeline) -> StatusQuery:
    """Return what is to be asked for a pipeline. Dead-letter queues that somebody reads are work queues, too."""
    is_wait = re.compile(rf"{re.escape(pipeline.wait_prefix)}\.\d+").fullmatch
    targets = {origin: dlq.name for dlq in dead_letter_queues([pipeline]) for origin in dlq.origins}
    read = {subscriber.queue for subscriber in pipeline.subscribers}
    names = [queue.name for queue in pipeline.topology.queues]
    dead = set(targets.values()) - read
    work = [name for name in names if not is_wait(name) and name not in dead]
    return StatusQuery(
        pipeline,
        tuple((name, targets.get(name)) for name in work),
        tuple(name for name in names if is_wait(name)),
    )


def unknown_status(pipeline: Pipeline) -> PipelineStatus:
    """Return the state of a pipeline as long as the broker has told nothing."""
    queues = [QueueStatus(name=name, exists=None, dead_letter=dead) for name, dead in status_query(pipeline).queues]
    return PipelineStatus(pipeline.name, pipeline.path, tuple(queues), None)


class StatusReader:
    """Asks a broker for the state of pipelines, as often as it is asked itself. Raises BrokerUnavailable."""

    def __init__(self, pipelines: Sequence[Pipeline], browser: QueueAccess, management: ManagementApi | None) -> None:
        self._plans = [status_query(pipeline) for pipeline in pipelines]
        self._names = {pipeline.name for pipeline in pipelines}
        self._known = {queue.name for pipeline in pipelines for queue in pipeline.topology.queues}
        self._browser = browser
        self._management = management

    async def look(self) -> list[PipelineStatus]:
        """Return how things are now."""
        told = await self._told()
        return [await self._status(status_query, told) for status_query in self._plans]

    async def _told(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what the management API says of each queue; nothing where it does not answer."""
        if self._management is None:
            return {}
        try:
            return {str(queue.get("name")): queue for queue in await self._management.queues()}
        except ManagementFailed:
            return {}

    async def _status(self, status_query: StatusQuery, told: Mapping[str, Mapping[str, Any]]) -> PipelineStatus:
        queues = [await self._queue(name, dead_letter, told) for name, dead_letter in status_query.queues]
        prefix = f"{status_query.pipeline.wait_prefix}."
        waits = {
            *status_query.waits,
            *(name for name in told if name.startswith(prefix) and name[len(prefix) :].isdecimal()),
        }
        waiting = [await self._depth(name) for name in sorted(waits)]
        retrying = sum(depth.messages for depth in waiting if isinstance(depth, QueueCounts))
        left = [await self._queue(name, None, told) for name in self._leftovers(status_query.pipeline.name, told)]
        found = tuple(queue for queue in left if queue.exists)
        return PipelineStatus(status_query.pipeline.name, status_query.pipeline.path, tuple(queues), retrying, found)

    def _leftovers(self, pipeline: str, told: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Return the queues of a pipeline that it does not have, and no other one that is looked at."""
        others = pipeline_names_in(told) | self._names
        names = (name for name, item in told.items() if name not in self._known and not item.get("exclusive"))
        return sorted(name for name in names if classify(name, (pipeline,), others) in ("queue", "doubtful"))

    async def _queue(self, name: str, dead_letter: str | None, told: Mapping[str, Mapping[str, Any]]) -> QueueStatus:
        depth = await self._depth(name)
        dead = await self._depth(dead_letter) if dead_letter is not None else None
        more = told.get(name, {})
        return QueueStatus(
            name=name,
            exists=True if name in told else None if isinstance(depth, QueueNotPermitted) else depth is not None,
            ready=depth.messages if isinstance(depth, QueueCounts) else _number(more.get("messages_ready")),
            unacked=_number(more.get("messages_unacknowledged")),
            consumers=depth.consumers if isinstance(depth, QueueCounts) else _number(more.get("consumers")),
            publish_rate=_rate(more, "publish") if more else None,
            deliver_rate=_rate(more, "deliver_get") if more else None,
            dead_letter=dead_letter,
            dead=dead.messages if isinstance(dead, QueueCounts) else None,
        )

    async def _depth(self, name: str) -> QueueCounts | QueueLocked | QueueNotPermitted | None:
        """Return what a queue has, None where it does not exist, and why not where the broker does not show it."""
        try:
            return await self._browser.depth(name)
        except (QueueLocked, QueueNotPermitted) as hidden:
            return hidden


async def find_management(
    settings: BrokerSettings, url: str | None, browser: BrowseSession
) -> tuple[ManagementApi | None, str]:
    """Return the broker's management API, and why there is none. Another broker's on the same host is none."""
    reasons: list[str] = []
    found = await ManagementApi.find(settings, url, on_absent=reasons.append)
    if found is not None and not found.is_broker_of(browser.server):
        return None, f"what answers at {found.shown} belongs to another broker"
    return found, "".join(reasons[:1])


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _rate(queue: Mapping[str, Any], kind: str) -> float:
    """Return a rate; the API leaves out those of queues where nothing has happened yet."""
    stats = queue.get("message_stats")
    details = stats.get(f"{kind}_details") if isinstance(stats, dict) else None
    rate = details.get("rate") if isinstance(details, dict) else None
    return float(rate) if isinstance(rate, int | float) else 0.0
