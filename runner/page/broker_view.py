"""What the broker says of the queues: looked at again and again while somebody looks at the page, and not otherwise."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from runner.errors import BrokerUnavailable
from runner.operations.queue_access import QueueAccess
from runner.operations.status import PipelineStatus, StatusReader

EVERY_S = 2.0
SHARE = 0.25
"""Looking takes this share of the time at most: at a thousand queues, without the management API, it takes seconds."""

UNUSED_S = 30.0
"""When nobody has asked for this long, the connection is closed."""

FIRST_S = 1.5
"""How long the first one who asks waits for the first look."""


class Session(NamedTuple):
    """A connection to the broker that looks into queues, and what asks by it for the state of pipelines."""

    access: QueueAccess
    reader: StatusReader


class BrokerView:
    """The last look at the queues. `connect` may raise BrokerUnavailable; it is called when somebody asks."""

    def __init__(self, connect: Callable[[], Awaitable[Session]]) -> None:
        self._connect = connect
        self._session: Session | None = None
        self._connecting = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self._first = asyncio.Event()
        self._changed = asyncio.Event()
        self.statuses: list[PipelineStatus] = []
        self.error = ""
        """Why the last look failed; nothing where it did not."""

    async def ask(self) -> None:
        """Note that somebody looks. The first one waits for the first look, but not for long."""
        self._note()
        if not self._first.is_set():
            await asyncio.wait([waiting := asyncio.ensure_future(self._first.wait())], timeout=FIRST_S)
            waiting.cancel()

    async def access(self) -> QueueAccess:
        """Return what reads messages. Raises BrokerUnavailable."""
        self._note()
        return (await self._connected()).access

    def look_soon(self) -> None:
        """Look again at once: something was changed there."""
        self._changed.set()

    async def close(self) -> None:
        """Look no more, and disconnect. Idempotent."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    def _note(self) -> None:
        loop = asyncio.get_running_loop()
        self._asked_at = loop.time()
        if self._looking is None or self._looking.done():
            self._looking = loop.create_task(self._look_on(), name="page-looks")

    async def _look_on(self) -> None:
        """Look while somebody asks."""
        clock = asyncio.get_running_loop().time
        try:
            while clock() - self._asked_at < UNUSED_S:
                pause_s = EVERY_S
                try:
                    session = await self._connected()
                    began = clock()
                    self.statuses = await session.reader.read()
                    self.error = ""
                    pause_s = max(EVERY_S, (clock() - began) / SHARE)
                except BrokerUnavailable as error:
                    self.error = str(error)
                self._first.set()
                await self._pause(pause_s)
        finally:
            self._first.clear()
            if self._session is not None:
                await self._session.access.close()
                self._session = None

    async def _pause(self, seconds: float) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _connected(self) -> Session:
        async with self._connecting:
            if self._session is None:
                self._session = await self._connect()
            return self._session
