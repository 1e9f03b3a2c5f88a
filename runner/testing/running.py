"""`running` and `running_sync`: pipelines under test, for tests that are coroutines and for plain ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

from runner.config.messages import did_you_mean
from runner.errors import RunnerError
from runner.publisher import AsyncPublisher, Publisher
from runner.testing.engine import CALL_TIMEOUT_S, Duration, Engine
from runner.testing.publishers import AsyncPublisherInTest, PublisherInTest
from runner.testing.records import Record
from runner.testing.stand_ins import StandIn

P = ParamSpec("P")
T = TypeVar("T")
Replace = Mapping[str, StandIn | Mapping[str, Any]]


class UnknownInTest(RunnerError):
    """A test asks for a name that the pipelines do not have: it would never find anything."""


class _Results:
    """What has happened so far. A message, a retry and so on is a `Record`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def now(self) -> datetime:
        """The virtual time, UTC."""
        return self.engine.now

    @property
    def records(self) -> list[Record]:
        """Everything that has happened, in order, after everything that can happen at this moment."""
        return self.engine.records

    def published(self, to: str | None = None) -> list[Record]:
        """Return what the pipelines have published to a queue or an event. What the test published is left out."""
        known = [name for pipeline in self.engine.pipelines for name in pipeline.destinations]
        self._check(to, known, "queue or event")
        results = self._of("published")
        return [each for each in results if (each.subscriber or each.producer) and to in (None, each.to)]

    def handled(self, subscriber: str | None = None) -> list[Record]:
        """Return the messages that a subscriber has handled."""
        return self._by(subscriber, "handled")

    def retried(self, subscriber: str | None = None) -> list[Record]:
        """Return the failed attempts of a subscriber that are followed by another one, each with its delay `after`."""
        return self._by(subscriber, "retried")

    def dead(self, queue: str | None = None) -> list[Record]:
        """Return the dead letters of a queue, which is named itself or by its dead-letter queue."""
        pipelines = self.engine.pipelines
        known = [each.name for pipeline in pipelines for each in pipeline.topology.queues]
        known += [name for pipeline in pipelines for name in pipeline.partitionings]
        self._check(queue, known, "queue")
        return [each for each in self._of("dead") if queue in (None, each.queue, each.to)]

    def publisher(self) -> Publisher:
        """Return a publisher whose messages go to these pipelines, for the application under test."""
        return PublisherInTest(self.engine)

    def async_publisher(self) -> AsyncPublisher:
        """Return the same for an application on an event loop."""
        return AsyncPublisherInTest(self.engine)

    def _by(self, subscriber: str | None, kind: str) -> list[Record]:
        pipelines = self.engine.pipelines
        known = [each.name for pipeline in pipelines for each in pipeline.subscribers]
        qualified = [f"{pipeline.name}.{each.name}" for pipeline in pipelines for each in pipeline.subscribers]
        self._check(subscriber, [*known, *qualified], "subscriber")
        return [
            each
            for each in self._of(kind)
            if subscriber is None or subscriber in (each.subscriber, f"{each.pipeline}.{each.subscriber}")
        ]

    def _of(self, kind: str) -> list[Record]:
        return [record for record in self.records if record.kind == kind]

    def _check(self, name: str | None, known: list[str], what: str) -> None:
        if name is not None and name not in known:
            raise UnknownInTest(f'no {what} is called "{name}"', did_you_mean(name, known))


class Running(_Results):
    """Pipelines under test. Nothing happens and no time passes except while one of these methods runs."""

    async def publish(
        self,
        to: str,
        payload: Any,
        *,
        id: str | None = None,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        is_foreign: bool = False,
    ) -> str:
        """Publish a message to a queue or an event, and return its id when it is confirmed.

        `key` replaces the routing key of an event. With `is_foreign` the payload is not checked against the schema of
        its destination, as if another program published it. Raises PublishFailed and UnknownTarget.
        """
        command = self.engine.publishing(to, payload, id=id, headers=headers, key=key, is_foreign=is_foreign)
        return await asyncio.wrap_future(self.engine.submit(command))

    async def call(self, to: str, payload: Any, *, timeout: Duration = CALL_TIMEOUT_S, **message: Any) -> Any:
        """Ask a queue or an event, and return the answer of its subscriber, after all retries.

        Virtual time passes until then. `message` are the other arguments of `publish`. Raises CallFailed where the
        handler gave up, NoAnswer after `timeout`, and what `publish` raises.
        """
        command = self.engine.calling(to, payload, timeout=timeout, **message)
        return await asyncio.wrap_future(self.engine.submit(command))

    async def until_idle(self) -> None:
        """Run until nothing is left to do but to wait for schedules. Raises NeverIdle."""
        await asyncio.wrap_future(self.engine.submit(self.engine.idling()))

    async def advance(self, duration: Duration) -> None:
        """Let this much virtual time pass, to exactly that moment: `5m`, a timedelta, or seconds."""
        await asyncio.wrap_future(self.engine.submit(self.engine.advancing(duration)))

    run_for = advance


class RunningSync(_Results):
    """The same with plain calls, which may come from any thread."""

    def publish(
        self,
        to: str,
        payload: Any,
        *,
        id: str | None = None,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        is_foreign: bool = False,
    ) -> str:
        command = self.engine.publishing(to, payload, id=id, headers=headers, key=key, is_foreign=is_foreign)
        return self.engine.wait(command)

    def call(self, to: str, payload: Any, *, timeout: Duration = CALL_TIMEOUT_S, **message: Any) -> Any:
        return self.engine.wait(self.engine.calling(to, payload, timeout=timeout, **message))

    def until_idle(self) -> None:
        self.engine.wait(self.engine.idling())

    def advance(self, duration: Duration) -> None:
        self.engine.wait(self.engine.advancing(duration))

    run_for = advance


class _AsyncOnly(Generic[T]):
    """A context manager for `async with` that says what to write for `with`."""

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager

    async def __aenter__(self) -> T:
        return await self._manager.__aenter__()

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._manager.__aexit__(*error)

    def __enter__(self) -> NoReturn:
        raise TypeError(
            "`running` is for coroutines: write `with running_sync(…)` here, or `async with` in an `async def`"
        )

    def __exit__(self, *error: object) -> None: ...


def _async_only(make: Callable[P, AbstractAsyncContextManager[T]]) -> Callable[P, _AsyncOnly[T]]:
    @wraps(make)
    def made(*arguments: P.args, **options: P.kwargs) -> _AsyncOnly[T]:
        return _AsyncOnly(make(*arguments, **options))

    return made


@_async_only
@asynccontextmanager
async def running(
    *paths: str | Path,
    env: Mapping[str, str] | None = None,
    replace: Replace | None = None,
    now: datetime | None = None,
    only: Sequence[str] = (),
    overlays: Sequence[str | Path] = (),
) -> AsyncIterator[Running]:
    """Run pipelines on the in-process broker with virtual time, for a test on asyncio.

    `env` has the variables for `${…}`, `replace` stand-ins for handlers and resources (see `Replacement`), `now` is
    where virtual time starts, and with `only` no other producers and subscribers run. `overlays` are files that change
    the pipelines. Raises PipelineInvalid, whose text is what `validate` prints, and ResourceFailed.
    """
    engine = Engine(paths, env=env, replace=replace, now=now, only=only, overlays=tuple(map(Path, overlays)))
    try:
        await asyncio.wrap_future(engine.begin())
        yield Running(engine)
    finally:
        try:
            await asyncio.shield(asyncio.wrap_future(engine.end()))
        finally:
            engine.clean_up()


@contextmanager
def running_sync(
    *paths: str | Path,
    env: Mapping[str, str] | None = None,
    replace: Replace | None = None,
    now: datetime | None = None,
    only: Sequence[str] = (),
    overlays: Sequence[str | Path] = (),
) -> Iterator[RunningSync]:
    """Run pipelines like `running`, for a plain test."""
    engine = Engine(paths, env=env, replace=replace, now=now, only=only, overlays=tuple(map(Path, overlays)))
    try:
        engine.start()
        yield RunningSync(engine)
    finally:
        engine.close()
