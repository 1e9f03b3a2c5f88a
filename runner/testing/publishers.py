"""Publishers of an application under test: what they publish goes to the pipelines of the test."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any, Self

from runner.errors import PublisherClosed
from runner.message import Publish
from runner.publisher import TIMEOUT_S, AsyncPublisher, Publisher
from runner.runtime.publisher import unknown_name
from runner.testing.engine import Engine


class _Target:
    """The pipelines under test, and whether the publisher was closed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.is_closed = False

    def send(self, name: str, message: Publish) -> Future[str]:
        self._check(name)
        return self._engine.submit(self._engine.publishing(name, message))

    def ask(self, name: str, message: Publish, timeout: str | float | None) -> Future[Any]:
        """Ask. The timeout is one of virtual time."""
        self._check(name)
        return self._engine.submit(
            self._engine.calling(name, message, timeout=TIMEOUT_S if timeout is None else timeout)
        )

    def _check(self, name: str) -> None:
        if self.is_closed:
            raise PublisherClosed("the publisher is closed")
        known = dict.fromkeys(each for pipeline in self._engine.pipelines for each in pipeline.destinations)
        if name not in known:
            raise unknown_name(name, known)


class PublisherInTest(Publisher):
    """A `Publisher` without a broker. Its messages are confirmed at once, in virtual time."""

    def __init__(self, engine: Engine) -> None:
        self._target = _Target(engine)

    def pending(self) -> int:
        """Return 0: nothing has to wait."""
        return 0

    def close(self) -> None:
        self._target.is_closed = True

    def _send(self, name: str, message: Publish, timeout: str | float | None) -> str:
        return self._target.send(name, message).result()

    def _ask(self, name: str, message: Publish, timeout: str | float | None) -> Any:
        return self._target.ask(name, message, timeout).result()


class AsyncPublisherInTest(AsyncPublisher):
    """An `AsyncPublisher` without a broker, for any event loop."""

    def __init__(self, engine: Engine) -> None:
        self._target = _Target(engine)

    async def pending(self) -> int:
        """Return 0: nothing has to wait."""
        return 0

    async def close(self) -> None:
        self._target.is_closed = True

    async def __aenter__(self) -> Self:
        return self

    async def _send(self, name: str, message: Publish, timeout: str | float | None) -> str:
        return await asyncio.wrap_future(self._target.send(name, message))

    async def _ask(self, name: str, message: Publish, timeout: str | float | None) -> Any:
        return await asyncio.wrap_future(self._target.ask(name, message, timeout))
