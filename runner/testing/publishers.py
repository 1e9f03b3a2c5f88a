"""Publishers of an application under test: what they publish goes to the pipelines of the test."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import timedelta
from typing import Any

from runner.errors import PublisherClosed
from runner.message import NO_HEADERS, Publish
from runner.publisher import TIMEOUT_S, AsyncPublisher, Publisher
from runner.runtime.publisher import unknown_name
from runner.testing.engine import Engine


class _Target:
    """The pipelines under test, and whether the publisher was closed."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_closed = False

    def publishing(self, name: str, message: Publish) -> Coroutine[Any, Any, str]:
        self._check(name)
        return self.engine.publishing(name, message)

    def calling(self, name: str, message: Publish, timeout: str | float | None) -> Coroutine[Any, Any, Any]:
        self._check(name)
        return self.engine.calling(name, message, timeout=TIMEOUT_S if timeout is None else timeout)

    def _check(self, name: str) -> None:
        if self.is_closed:
            raise PublisherClosed("the publisher is closed")
        known = dict.fromkeys(each for pipeline in self.engine.pipelines for each in pipeline.destinations)
        if name not in known:
            raise unknown_name(name, known)


class PublisherInTest(Publisher):
    """A `Publisher` without a broker. Its messages are confirmed at once, in virtual time."""

    def __init__(self, engine: Engine) -> None:
        self._target = _Target(engine)

    def publish(
        self,
        name: str,
        payload: Any,
        *,
        id: str | None = None,
        key: str | None = None,
        headers: Mapping[str, Any] = NO_HEADERS,
        delay: str | timedelta | None = None,
        expires: str | timedelta | None = None,
        priority: int | None = None,
        timeout: str | float | None = None,
    ) -> str:
        """See `Publisher.publish`."""
        message = Publish(payload, key=key, headers=headers, id=id, delay=delay, expires=expires, priority=priority)
        return self._target.engine.submit(self._target.publishing(name, message)).result()

    def call(self, name: str, payload: Any, *, timeout: str | float | None = None, **message: Any) -> Any:
        """See `Publisher.call`. The timeout is one of virtual time."""
        return self._target.engine.submit(self._target.calling(name, Publish(payload, **message), timeout)).result()

    def pending(self) -> int:
        """Return 0: nothing has to wait."""
        return 0

    def close(self) -> None:
        """See `Publisher.close`."""
        self._target.is_closed = True


class AsyncPublisherInTest(AsyncPublisher):
    """An `AsyncPublisher` without a broker, for any event loop."""

    def __init__(self, engine: Engine) -> None:
        self._target = _Target(engine)

    async def publish(
        self,
        name: str,
        payload: Any,
        *,
        id: str | None = None,
        key: str | None = None,
        headers: Mapping[str, Any] = NO_HEADERS,
        delay: str | timedelta | None = None,
        expires: str | timedelta | None = None,
        priority: int | None = None,
        timeout: str | float | None = None,
    ) -> str:
        """See `Publisher.publish`."""
        message = Publish(payload, key=key, headers=headers, id=id, delay=delay, expires=expires, priority=priority)
        return await asyncio.wrap_future(self._target.engine.submit(self._target.publishing(name, message)))

    async def call(self, name: str, payload: Any, *, timeout: str | float | None = None, **message: Any) -> Any:
        """See `Publisher.call`. The timeout is one of virtual time."""
        command = self._target.calling(name, Publish(payload, **message), timeout)
        return await asyncio.wrap_future(self._target.engine.submit(command))

    async def pending(self) -> int:
        """Return 0: nothing has to wait."""
        return 0

    async def close(self) -> None:
        """See `AsyncPublisher.close`."""
        self._target.is_closed = True

    async def __aenter__(self) -> AsyncPublisherInTest:
        return self
