"""Publishers for programs that run no pipeline: a Django view, a FastAPI route, a script.

    with Publisher("pipelines/shop.yaml") as shop:
        shop.publish("order.placed", {"order": 1}, id="o-1")

The destinations, schemas and declarations are those of the pipeline's file. No handler is imported.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import selectors
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Self, TypeVar
from weakref import WeakSet

from runner import log
from runner.app import log_transport_event, make_trace_export, make_transport
from runner.errors import PipelineInvalid, PublisherClosed, PublishFailed
from runner.message import NO_HEADERS, Publish
from runner.runtime.outbox import Outbox
from runner.runtime.publisher import OutgoingMessage, PipelinePublisher, address_of, make_publisher, unknown_name
from runner.runtime.publishing_session import PublishingSession
from runner.system import System, load_to_publish
from runner.transports.amqp_limits import check_routing_key, normalize_envelope
from runner.units import parse_duration

T = TypeVar("T")

TIMEOUT_S = 10.0
MAX_WAITING = 1000
MAX_PENDING = 100_000

CLOSE_S = 5.0
"""How long `close` and the end of the interpreter wait for confirms."""


class _Publishing:
    """The arguments of `Publisher` and `AsyncPublisher`."""

    _is_closed = False

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        broker: str | None = None,
        timeout: str | float = TIMEOUT_S,
        max_waiting: int = MAX_WAITING,
        outbox: str | os.PathLike[str] | None = None,
        max_pending: int = MAX_PENDING,
    ) -> None:
        try:
            system = load_to_publish(source, os.environ, broker=broker)
        except PipelineInvalid as invalid:
            raise invalid.with_traceback(None) from None  # the mistake is in the file, not in our frames
        self._settings = _Settings(system, _seconds(timeout), max_waiting, outbox, max_pending)
        self._begin()

    def _begin(self) -> None:
        """Prepare to publish. Nothing is connected yet."""


class AsyncPublisher(_Publishing):
    """Publishes to the queues and events of a pipeline, on one event loop. An async context manager.

    `source` is the file of the pipeline, or the URL of a broker; then each queue of the broker is a destination. All
    other arguments are those of `Publisher`, and so are the errors.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _opened: _Opened | None = None

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
        """Publish to the queue or event `name`, and return the message id. See `Publisher.publish`."""
        message = Publish(payload, key=key, headers=headers, id=id, delay=delay, expires=expires, priority=priority)
        return await self._send(name, message, timeout)

    async def call(self, name: str, payload: Any, *, timeout: str | float | None = None, **message: Any) -> Any:
        """Ask the queue or event `name`, and return the answer. See `Publisher.call`."""
        return await self._ask(name, Publish(payload, **message), timeout)

    async def pending(self) -> int:
        """Return how many messages wait in the outbox."""
        return await asyncio.to_thread(self._settings.count_pending)

    async def close(self) -> None:
        """Wait up to 5 seconds for confirms, and disconnect. Idempotent."""
        self._is_closed = True
        if self._opened is not None:
            await self._opened.close()

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, name: str, message: Publish, timeout: str | float | None) -> str:
        opened = self._open()
        outgoing = self._settings.message(opened.publisher, name, message)
        await opened.session.send(outgoing, self._settings.seconds(timeout))
        return outgoing.envelope.message_id or ""

    async def _ask(self, name: str, message: Publish, timeout: str | float | None) -> Any:
        opened = self._open()
        outgoing = self._settings.message(opened.publisher, name, message)
        return (await opened.session.call(outgoing, self._settings.seconds(timeout))).payload

    def _open(self) -> _Opened:
        loop = asyncio.get_running_loop()
        if self._is_closed:
            raise _closed()
        if self._opened is None:
            self._opened, self._loop = _Opened(self._settings), loop
        elif self._loop is not loop:
            raise RuntimeError("this AsyncPublisher belongs to another event loop: make one in each loop")
        return self._opened


class Publisher(_Publishing):
    """Publishes to the queues and events of a pipeline, from any thread and after any fork. A context manager.

    - `source`: the file of the pipeline, or the URL of a broker. Of a URL alone, each queue of the broker is a
      destination, and nothing is declared.
    - `broker`: the URL of the broker, instead of the one in the file. Default: the variable `RUNNER_BROKER`.
    - `timeout`: how long `publish` waits for a confirm, such as `"10s"`, or a number of seconds.
    - `max_waiting`: how many messages of a process may wait for their confirm at the same time.
    - `outbox`: an SQLite file that keeps what could not be sent in time, until it could.
    - `max_pending`: how many messages the outbox keeps.

    It connects when it is first used, in a thread of its own, and declares what is missing. Each process that is forked
    afterwards has its own connection. When the interpreter ends, it is closed.

    Raises PipelineInvalid for a file that `runner validate` would refuse, BrokerUnavailable where the pipeline runs on
    the in-process broker, and OutboxUnavailable.
    """

    _worker: _LoopThread | None = None

    def _begin(self) -> None:
        self._lock = threading.Lock()
        _PUBLISHERS.add(self)
        if self._settings.count_pending():
            self._running()  # what an earlier process has left is sent at once

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
        """Publish to the queue or event `name`, and return the message id when the broker has confirmed the message.

        `id` is the message id; by default, a new one is made. `key` replaces the routing key of an event. `delay`,
        `expires` and `priority` are those of `Publish`. With an outbox, it also returns when the outbox keeps the
        message; a delay begins when the broker has it.

        Raises PublishFailed where the message was certainly not published: its `reason` is `invalid` (an unknown name,
        a payload that does not match the schema), `unroutable`, `refused` or `unavailable`. Raises PublishTimeout where
        it was not confirmed in time, BrokerUnavailable where the broker refuses the login, TopologyMismatch where a
        queue or an exchange on the broker differs from the file, OutboxUnavailable, PublisherClosed, and ValueError
        where `Publish` does.
        """
        message = Publish(payload, key=key, headers=headers, id=id, delay=delay, expires=expires, priority=priority)
        return self._send(name, message, timeout)

    def call(self, name: str, payload: Any, *, timeout: str | float | None = None, **message: Any) -> Any:
        """Ask the queue or event `name`, and return the answer: what the handler of its subscriber returns.

        `message` are the other arguments of `publish`, without `delay`. The question expires with the timeout. The
        outbox keeps no questions. Raises CallFailed where the handler gave up, NoAnswer, and what `publish` raises
        where nothing was published.
        """
        return self._ask(name, Publish(payload, **message), timeout)

    def _send(self, name: str, message: Publish, timeout: str | float | None) -> str:
        seconds = self._settings.seconds(timeout)
        outgoing = self._settings.message(self._running().publisher, name, message)
        self._wait_for(lambda session: session.send(outgoing, seconds))
        return outgoing.envelope.message_id or ""

    def _ask(self, name: str, message: Publish, timeout: str | float | None) -> Any:
        seconds = self._settings.seconds(timeout)
        outgoing = self._settings.message(self._running().publisher, name, message)
        return self._wait_for(lambda session: session.call(outgoing, seconds)).payload

    def _wait_for(self, work: Callable[[PublishingSession], Coroutine[Any, Any, T]]) -> T:
        with self._lock:
            if self._is_closed or self._worker is None:
                raise _closed()
            result = self._worker.start(work(self._worker.session))
        return _wait(result)

    def pending(self) -> int:
        """Return how many messages wait in the outbox."""
        return self._settings.count_pending()

    def close(self) -> None:
        """Wait up to 5 seconds for confirms, disconnect, and end the thread. Idempotent."""
        with self._lock:
            self._is_closed = True
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _running(self) -> _LoopThread:
        with self._lock:
            if self._is_closed:
                raise _closed()
            if self._worker is None:
                self._worker = _LoopThread(self._settings)
            return self._worker

    def _start_over(self) -> None:
        """Forget the connection, in a child process: it belongs to the process that this one was forked from."""
        self._lock = threading.Lock()
        if self._worker is not None:
            self._worker.leave_to_parent()
            self._worker = None


@dataclass(frozen=True)
class _Settings:
    """What a publisher was made with. A child process opens its own session with it."""

    system: System
    timeout_s: float
    max_waiting: int
    outbox_path: str | os.PathLike[str] | None
    max_pending: int

    def seconds(self, timeout: str | float | None) -> float:
        return self.timeout_s if timeout is None else _seconds(timeout)

    def outbox(self) -> Outbox | None:
        if self.outbox_path is None:
            return None
        owner = self.system.name if self.system.pipelines[0].path else self.system.broker.shown()
        return Outbox(self.outbox_path, owner, self.max_pending)

    def count_pending(self) -> int:
        outbox = self.outbox()
        if outbox is None:
            return 0
        try:
            return outbox.count()
        finally:
            outbox.close()

    def message(self, publisher: PipelinePublisher, name: str, message: Publish) -> OutgoingMessage:
        """Return a checked and encoded message. Raises PublishFailed("invalid").

        It runs in the thread of the caller: a payload may belong to that thread.
        """
        destinations = self.system.pipelines[0].destinations
        try:
            destination = destinations[name]
        except KeyError:
            raise unknown_name(name, destinations) from None
        if message.options is not None and message.options.delay_s and not self.system.pipelines[0].path:
            text = "a delay needs the file of a pipeline, not only the URL of a broker"
            raise PublishFailed(text, reason="invalid", hint="what holds delayed messages belongs to the pipeline")
        (outgoing,) = publisher.prepare([message], (destination,), trace=_current_trace())
        check_routing_key(address_of(outgoing).key)
        return outgoing._replace(envelope=normalize_envelope(outgoing.envelope))


class _Opened:
    """A session with the broker, and the export of its spans. Made on the event loop that it runs on."""

    def __init__(self, settings: _Settings) -> None:
        log.silence_client()
        system = settings.system
        self._traces = make_trace_export(system, log_transport_event)
        self.session = PublishingSession(
            partial(make_transport, system, only_publishes=True),
            partial(
                make_publisher,
                self._traces.tracer if self._traces else None,
                app_id=system.name,
                destinations=system.pipelines[0].destinations,
            ),
            system.topology.without_exclusive_queues(),
            outbox=settings.outbox(),
            max_waiting=settings.max_waiting,
        )
        self.publisher = self.session.publisher

    async def close(self) -> None:
        await self.session.close(CLOSE_S)
        if self._traces is not None:
            await self._traces.close()


def _seconds(timeout: str | float) -> float:
    try:
        return parse_duration(timeout)
    except ValueError as error:
        raise ValueError(f"timeout: {error}") from None


class _LoopThread:
    """A session on an event loop in a daemon thread."""

    def __init__(self, settings: _Settings) -> None:
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._executor = ThreadPoolExecutor(1, "runner-publisher-dns")  # asyncio looks up host names in it
        self._loop.set_default_executor(self._executor)
        self._thread = threading.Thread(target=self._loop.run_forever, name="runner-publisher", daemon=True)
        self._thread.start()
        try:
            self._opened = _wait(self.start(self._make(settings)))
        except BaseException:
            self._stop()
            raise
        self.session, self.publisher = self._opened.session, self._opened.publisher

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the loop, with the context variables of the caller."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Close the session, and end the thread."""
        try:
            _wait(self.start(self._opened.close()))
        finally:
            self._stop()

    def leave_to_parent(self) -> None:
        """Let go of the sockets of the parent process, without a word to the broker or to the parent's loop."""
        null = os.open(os.devnull, os.O_RDWR)
        for key in tuple(self._selector.get_map().values()):
            os.dup2(null, key.fd, inheritable=False)
        os.close(null)
        self._selector.close()
        _OF_PARENTS.append(self)

    async def _make(self, settings: _Settings) -> _Opened:
        return _Opened(settings)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._executor.shutdown()


def _wait(result: Future[T]) -> T:
    try:
        return result.result()
    except BaseException:  # KeyboardInterrupt, too: then it does not go on behind the caller's back
        result.cancel()
        raise


def _closed() -> PublisherClosed:
    return PublisherClosed(
        "the publisher is closed", "make another one: it publishes until `close`, or the end of `with`"
    )


def _current_trace() -> Mapping[str, str]:
    """Return the headers of OpenTelemetry's current span, if the program uses OpenTelemetry."""
    if "opentelemetry.trace" not in sys.modules:
        return NO_HEADERS
    from runner.runtime.tracing import carrier

    return carrier()


_PUBLISHERS: WeakSet[Publisher] = WeakSet()

_OF_PARENTS: list[_LoopThread] = []
"""Loops of parent processes. They are kept, because their destruction would touch what the parent still uses."""


def _after_fork_in_child() -> None:
    for publisher in tuple(_PUBLISHERS):
        publisher._start_over()


def _close_all() -> None:
    for publisher in tuple(_PUBLISHERS):
        publisher.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_close_all)
