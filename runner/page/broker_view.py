"""The state of the queues on the broker, refreshed while a browser shows the page, and not otherwise.

The page has a session of its own: another connection to RabbitMQ, or the process's in-process broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from runner.errors import BrokerUnavailable
from runner.operations.memory_access import MemoryAccess, make_access
from runner.operations.queue_access import QueueAccess
from runner.operations.status import PipelineStatus, StatusReader, find_management
from runner.pipeline.model import Pipeline
from runner.tasks import cancel_and_wait, wait_set
from runner.transports.base import Transport
from runner.transports.memory import MemoryTransport

REFRESH_S = 2.0
MAX_TIME_SHARE = 0.25
"""Largest share of the time that refreshing may take: without the management API, 1,000 queues take seconds."""

IDLE_S = 30.0
"""Time without a request after which the connection is closed."""

FIRST_WAIT_S = 1.5
"""Longest time that a request waits for the first result."""


class Session(NamedTuple):
    """A connection that reads queues, and the reader of the pipelines' state that uses it."""

    access: QueueAccess
    reader: StatusReader


class BrokerView:
    """The latest state of the queues. `connect` may raise BrokerUnavailable; the first request calls it."""

    def __init__(self, connect: Callable[[], Awaitable[Session]]) -> None:
        self._connect = connect
        self._session: Session | None = None
        self._connecting = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self._first = asyncio.Event()
        self._changed = asyncio.Event()
        self.statuses: list[PipelineStatus] = []
        self.error = ""
        """Why the last refresh failed; empty if it succeeded."""

    async def ask(self) -> None:
        """Keep the state fresh for a while. Before the first result, wait for it at most 1.5 seconds."""
        self._note()
        await wait_set(self._first, FIRST_WAIT_S)

    async def access(self) -> QueueAccess:
        """Return the session that reads messages. Raises BrokerUnavailable."""
        self._note()
        return (await self._connected()).access

    def refresh_soon(self) -> None:
        """Refresh at once, because an action changed a queue."""
        self._changed.set()

    async def close(self) -> None:
        """Stop refreshing, and disconnect. Idempotent."""
        await cancel_and_wait(self._refreshing)

    def _note(self) -> None:
        loop = asyncio.get_running_loop()
        self._asked_at = loop.time()
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = loop.create_task(self._refresh(), name="page-refresh")

    async def _refresh(self) -> None:
        """Refresh until no request came for IDLE_S, then disconnect."""
        clock = asyncio.get_running_loop().time
        try:
            while clock() - self._asked_at < IDLE_S:
                pause_s = REFRESH_S
                try:
                    session = await self._connected()
                    began = clock()
                    self.statuses = await session.reader.read()
                    self.error = ""
                    pause_s = max(REFRESH_S, (clock() - began) / MAX_TIME_SHARE)
                except BrokerUnavailable as error:
                    self.error = str(error)
                self._first.set()
                self._changed.clear()
                await wait_set(self._changed, pause_s)
        finally:
            self._first.clear()
            if self._session is not None:
                await self._session.access.close()
                self._session = None

    async def _connected(self) -> Session:
        async with self._connecting:
            if self._session is None:
                self._session = await self._connect()
            return self._session


CONNECT_S = 5.0
"""Time limit of a connection attempt. It is short, so that the page soon shows why the broker is unreachable."""


async def connect(pipelines: Sequence[Pipeline], name: str, transport: Transport | None = None) -> Session:
    """Connect to the broker of the pipelines.

    `name` is shown in RabbitMQ's list of connections. `transport` is the process's own, if it runs the pipelines.

    Raises BrokerUnavailable.
    """
    if isinstance(transport, MemoryTransport):
        memory = MemoryAccess(transport)
        return Session(memory, StatusReader(pipelines, memory, None))
    settings = replace(pipelines[0].broker, connect_timeout_s=CONNECT_S)
    access = make_access(settings, name=f"{name} page")
    try:
        await access.open()
        management, _ = await find_management(settings, settings.management_url, access)
    except BaseException:
        await access.close()
        raise
    return Session(access, StatusReader(pipelines, access, management))
