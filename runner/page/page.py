"""The content of the page: the process, its figures, and the state of the broker. All browsers share one copy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runner.clock import utc_now
from runner.metrics import Samples
from runner.operations.graph.model import Graph
from runner.operations.status import PipelineStatus, unknown_status
from runner.page.access import Access, Denied
from runner.page.broker_view import BrokerView, Session
from runner.page.dead_letters import DeadLetterDesk, PauseDesk
from runner.page.figures import Figures
from runner.pipeline.model import BrokerSettings, Destination, Pipeline
from runner.pipeline.topology_builder import DEFAULT_EXCHANGE
from runner.redaction import mask_passwords
from runner.release import version
from runner.transports.pauses import Pause, Pauses

if TYPE_CHECKING:
    from aiohttp import web

FRESH_S = 1.0
"""Age up to which the state is reused, so that many browsers cost no more than one."""

MAX_DRAWN = 400
"""Maximum number of boxes in the drawing: larger ones are slow to make and cannot be read."""


@dataclass
class PageSource:
    """The sources of the page. `state` returns a word such as `running`; `samples` is None if no handlers run here."""

    pipelines: Sequence[Pipeline]
    graph: Callable[[], Graph]
    connect: Callable[[], Awaitable[Session]]
    state: Callable[[], str]
    unready_reasons: Callable[[], Awaitable[Sequence[str]]]
    samples: Callable[[], Awaitable[Samples]] | None = None
    pauses: Callable[[], Mapping[tuple[str, str], Pause]] = dict
    """Returns the pauses of the subscribers that run here, by pipeline and subscriber."""
    release: str = ""
    workers: int = 1
    since: datetime = field(default_factory=utc_now)


class Page:
    """The page of one process. Nothing is read or drawn before a request needs it."""

    def __init__(self, source: PageSource, access: Access) -> None:
        self.access = access
        self._source = source
        self._broker = BrokerView(source.connect)
        self.desk = DeadLetterDesk(source.pipelines, self._broker)
        self.pause_desk = PauseDesk(source.pipelines, self._broker)
        self._unknown = [unknown_status(pipeline) for pipeline in source.pipelines]
        self._figures = Figures()
        self._making = asyncio.Lock()
        self._state = b""
        self._made_at = float("-inf")
        self._drawing: asyncio.Future[str] | None = None
        self._ids = {
            (pipeline.name, each.name): _node_id(each)
            for pipeline in source.pipelines
            for each in pipeline.destinations.values()
        }

    async def state(self) -> bytes:
        """Return the current state as JSON."""
        async with self._making:
            clock = asyncio.get_running_loop().time
            if clock() - self._made_at >= FRESH_S:
                self._state = json.dumps(await self._make()).encode()
                self._made_at = clock()
            return self._state

    async def drawing(self) -> str:
        """Return the flow as SVG. Raises Denied if it is too large to draw."""
        if self._drawing is None:
            self._drawing = asyncio.ensure_future(asyncio.to_thread(self._draw))
        return await asyncio.shield(self._drawing)

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes for the HTTP server. Needs aiohttp."""
        from runner.page.routes import page_routes

        return page_routes(self)

    async def close(self) -> None:
        """Stop running requests after their current message, and disconnect. Idempotent."""
        self.desk.stop()
        await self._broker.close()

    def _draw(self) -> str:
        """Return the drawing. Runs in a thread, because a hundred boxes take a tenth of a second."""
        from runner.operations.graph.svg import to_svg

        graph = self._source.graph()
        if len(graph.nodes) > MAX_DRAWN:
            text = f"The flow has {len(graph.nodes)} parts, too many to draw here. Write a drawing with `runner graph`."
            raise Denied(404, text)
        return to_svg(graph)

    async def _make(self) -> dict[str, Any]:
        source = self._source
        await self._broker.ask()
        if source.samples is not None:
            with contextlib.suppress(TimeoutError):  # the workers' master does not answer: `unready_reasons` says so
                self._figures.add(await source.samples(), asyncio.get_running_loop().time())
        statuses = self._broker.statuses or self._unknown
        queues = list({queue.name: queue for status in statuses for queue in status.queues}.values())
        return {
            "runner": await self._runner(),
            "may_read": self.access.token is not None,
            "may_act": self.access.may_act,
            "has_figures": source.samples is not None,
            "broker_error": mask_passwords(self._broker.error),
            "pipelines": [
                {
                    "name": each.name,
                    "path": each.path,
                    "retrying": _counted(each.name, statuses, "retrying"),
                    "scheduled": _counted(each.name, statuses, "scheduled"),
                    "queues": [
                        queue.name for status in statuses if status.name == each.name for queue in status.queues
                    ],
                }
                for each in source.pipelines
            ],
            "queues": [queue.as_json() for queue in queues],
            "dead": [
                {"name": name, "dead": dead}
                for name, dead in {queue.dead_letter: queue.dead for queue in queues if queue.dead_letter}.items()
            ],
            "subscribers": list(self._subscribers()),
            "producers": list(self._producers()),
            "destinations": list(self._destinations()),
        }

    async def _runner(self) -> dict[str, Any]:
        source = self._source
        workers = f", {source.workers} workers" if source.workers > 1 else ""
        return {
            "state": source.state(),
            "trouble": list(await source.unready_reasons()),
            "version": version(),
            "release": source.release,
            "host": socket.gethostname(),
            "process": f"{os.getpid()}{workers}",
            "since": source.since.isoformat(timespec="milliseconds"),
            "broker": _broker_address(source.pipelines[0].broker),
        }

    def _subscribers(self) -> Iterable[dict[str, Any]]:
        """Yield a row for each subscriber; unknown values are None."""
        known = {(row["pipeline"], row["name"]): row for row in self._figures.subscribers()}
        pauses = {status.name: status.pauses or {} for status in self._broker.statuses}
        for pipeline in self._source.pipelines:
            for subscriber in pipeline.subscribers:
                row = known.get((pipeline.name, subscriber.name), {})
                totals = row.get("totals", {})
                figures = ("rate", "failure_rate", "p50", "p99", "in_flight", "concurrency", "paused", "oldest")
                yield {
                    "id": f"subscriber:{pipeline.name}.{subscriber.name}",
                    "pipeline": pipeline.name,
                    "name": subscriber.name,
                    "queue": subscriber.queue,
                    **{name: row.get(name) for name in figures},
                    "failed": totals["retried"] + totals["dead_lettered"] if totals else None,
                    "dead_lettered": totals.get("dead_lettered"),
                    "errors": row.get("errors", []),
                    "pause": self._pause(pipeline.name, subscriber.name, pauses),
                }

    def _pause(self, pipeline: str, subscriber: str, pauses: Mapping[str, Pauses]) -> dict[str, str] | None:
        """Return why and since when a subscriber is paused: here, or on the broker. None if it is not."""
        here = self._source.pauses().get((pipeline, subscriber))
        pause = here or pauses.get(pipeline, {}).get(subscriber)
        return pause and {"since": pause.since.isoformat(), "reason": pause.reason}

    def _producers(self) -> Iterable[dict[str, Any]]:
        names = {(pipeline.name, each.name): None for pipeline in self._source.pipelines for each in pipeline.producers}
        for row in self._figures.producers(names):
            yield {"id": f"producer:{row['pipeline']}.{row['name']}", **row}

    def _destinations(self) -> Iterable[dict[str, Any]]:
        """Yield the publish rate of each queue and event, by the id of its box."""
        rates: dict[str, float] = {}
        for (pipeline, name), rate in self._figures.destinations().items():
            id_ = self._ids.get((pipeline, name))  # None for answers to a caller
            if id_ is not None and rate is not None:
                rates[id_] = rates.get(id_, 0.0) + rate
        yield from ({"id": id_, "rate": rate} for id_, rate in rates.items())


def _broker_address(settings: BrokerSettings) -> str:
    """Return the broker's address without the user name, because the page shows it without a token."""
    urls = map(urlsplit, settings.urls)
    places = (f"{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}" for url in urls)
    return ", ".join(places) or "in-process broker"


def _node_id(destination: Destination) -> str:
    """Return the id of the box of a queue or an event, as `runner graph` writes it."""
    exchange, key = destination.address
    if not destination.is_event:
        return f"queue:{destination.name}"
    return f"event:{key}" if exchange == DEFAULT_EXCHANGE else f"event:{exchange}/{key}"


def _counted(name: str, statuses: Sequence[PipelineStatus], field: str) -> int | None:
    return next((getattr(status, field) for status in statuses if status.name == name), None)
