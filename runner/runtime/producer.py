"""Runs one producer: calls the user's function, publishes each item, and begins again when it fails or is due."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from runner import log
from runner.errors import PublishFailed, PublishUnknown
from runner.metrics import ProducerCounts
from runner.outcome import error_text, error_type
from runner.pipeline.file_source import BadRecord
from runner.pipeline.model import Handler, Producer
from runner.runtime.generators import iterate_generator, iterate_in_thread
from runner.runtime.invocation import HandlerFailed, await_handler, is_iterator, run_in_executor
from runner.runtime.publisher import OutgoingMessage, PipelinePublisher
from runner.runtime.rate_limit import RateLimiter
from runner.runtime.tracebacks import error_location, traceback_text
from runner.schedule import Schedule
from runner.tasks import cancel_and_wait

MAX_UNCONFIRMED = 100
"""How many publications of one producer may wait for their confirm."""

MAX_UNCONFIRMED_BYTES = 16 * 1024 * 1024
"""How large their bodies may be together; a larger one goes alone."""

GENERATOR_PREFETCH = 32
"""How many items a plain generator without a `rate` is asked for at a time."""

CONFIRM_TIMEOUT_S = 2.0
"""How long a producer that is stopped waits for the confirms of what it has given."""

FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
MAX_SLEEP_S = 30.0
"""A wait for a moment is cut into pieces of this length, so that a changed clock is noticed."""


class TickStore(Protocol):
    """What is known of a producer's earlier runs, in whichever process they were."""

    def last_tick(self) -> datetime | None:
        """Return the last moment it was due and has run; None if it never has."""
        ...

    async def save_tick(self, due: datetime) -> None:
        """Note that it has run for this moment."""
        ...


class ProducerRuntime:
    """A producer at work. `max_failures` in a row end a finite producer for good; None: it is never given up."""

    def __init__(
        self,
        producer: Producer,
        handler: Handler,
        *,
        pipeline: str,
        publisher: PipelinePublisher,
        resources: Mapping[str, Any],
        counts: ProducerCounts,
        max_failures: int | None,
        now: Callable[[], datetime],
        logs_messages: bool = True,
    ) -> None:
        self.producer = producer
        self._handler = handler
        given = {**handler.arguments, **{name: resources[name] for name in handler.resources}}
        positional, named = handler.bind(given)
        self._call = partial(handler.call, *positional, **named)
        self._pipeline = pipeline
        self._publisher = publisher.counting(counts.published)
        self._counts = counts
        self._max_failures = max_failures
        self._now = now
        self._logs_messages = logs_messages
        self._logger = log.get_logger()
        self._message_logger = log.get_message_logger()
        self._limiter = RateLimiter(producer.per_second) if producer.per_second else None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"producer-{producer.name}")
        self.is_finite = producer.schedule is None
        self._last_id: str | None = None
        self.has_failed = False
        """Whether it was given up: too many failures, or a line of its file that will be as bad the next time."""

    async def run_until_complete(self, run: str, may_publish: asyncio.Event) -> None:
        """Produce once; a failure begins it again after a pause. For producers without a schedule.

        `run` is the seed of the messages' ids: what a failed attempt gave has the same ids the next time. Messages are
        sent while `may_publish` is set. Cancelled, this waits a little for what is in flight.
        """
        failures = 0
        while not await self._run_once(run, may_publish):
            failures += 1
            if self._max_failures is not None and failures >= self._max_failures:
                self.has_failed = True
            if self.has_failed:
                return
            pause = min(FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 32), MAX_BACKOFF_S)
            await asyncio.sleep(random.uniform(pause / 2, pause))

    async def run_on_schedule(self, ticks: TickStore) -> None:
        """Produce whenever it is due, by the wall clock; once for all the times that were missed. Until cancelled."""
        schedule = self.producer.schedule
        assert schedule is not None
        last = ticks.last_tick()
        if last is not None and self._counts.last_run_at is None:
            self._counts.last_run_at = last.timestamp()
        due = schedule.first(self._now()) if last is None else schedule.next(last)
        while True:
            due = await self._sleep_until(due, schedule)
            due = schedule.latest(due, self._now())
            await self._run_once(due.isoformat())
            await ticks.save_tick(due)
            due = schedule.next(due)

    def close(self) -> None:
        """Let go of the thread; what runs in it goes on until it returns."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _sleep_until(self, due: datetime, schedule: Schedule) -> datetime:
        """Wait for a moment of the wall clock, which may be changed meanwhile; return the moment that it came to be."""
        while True:
            now = self._now()
            due = schedule.after_clock_change(due, now)
            left = (due - now).total_seconds()
            if left <= 0:
                return due
            await asyncio.sleep(min(left, MAX_SLEEP_S))

    async def _run_once(self, seed: str, may_publish: asyncio.Event | None = None) -> bool:
        """Call the handler once and publish everything it gives; return whether all of it worked."""
        with log.bound_context({"pipeline": self._pipeline, "producer": self.producer.name}):
            window = _PublishWindow(self._publisher, self._note_confirmed)
            place, to = repr((self._pipeline, self.producer.name, seed)), self.producer.to
            try:
                async with aclosing(await self._items()) as items:
                    async for item in items:
                        for outgoing in self._publisher.prepare([item], to, seed=place, before=window.count):
                            if self._limiter is not None:
                                await self._limiter.wait()
                            if may_publish is not None and not may_publish.is_set():
                                await may_publish.wait()
                            await window.start(outgoing)
                await window.finish()
            except asyncio.CancelledError:
                await self._give_up(window)
                raise
            except Exception as failure:  # whatever the handler raised, or the first publication that was refused
                await window.settle()
                cause = failure.error if isinstance(failure, HandlerFailed) else failure
                self.has_failed = isinstance(cause, BadRecord)
                self._log_failure(cause, is_handler_error=isinstance(failure, HandlerFailed) and not self.has_failed)
                return False
            self._log_finished(window.count)
            return True

    def _log_finished(self, published: int) -> None:
        """Say that the handler has ended, by one line: for a tick that published one message, with that one's id."""
        self._counts.last_run_at = self._now().timestamp()
        say = self._logger.debug if published == 0 and not self.is_finite else self._logger.info
        one = {"message_id": self._last_id} if published == 1 and not self.is_finite else {}
        say("producer.finished", published=published, **one)

    async def _give_up(self, window: _PublishWindow) -> None:
        """Wait a little for the confirms of what was given, and say what has none."""
        left = await window.give_up(CONFIRM_TIMEOUT_S)
        if left:
            self._logger.warning("producer.interrupted", unconfirmed=left)

    def _note_confirmed(self, outgoing: OutgoingMessage) -> None:
        envelope = outgoing.envelope
        self._last_id = envelope.message_id
        if self._logs_messages:
            # A producer with a schedule has one line for each tick: see `_log_finished`.
            say = self._message_logger.info if self.is_finite else self._message_logger.debug
            say(
                "message.published",
                to=outgoing.destination.name,
                message_id=envelope.message_id,
                correlation_id=envelope.correlation_id,
            )

    async def _items(self) -> AsyncGenerator[Any, None]:
        """Begin to produce, and return the items: of a generator, of a list, or the one value that it returns."""
        if self._handler.kind == "async generator":
            return iterate_generator(self._call())
        if self._handler.kind == "coroutine":
            result = await await_handler(self._call())
        else:
            result = await run_in_executor(self._executor, self._call)
        if inspect.isawaitable(result):  # a plain function that wraps an `async def`
            result = await await_handler(result)
        if inspect.isasyncgen(result):
            return iterate_generator(result)
        if is_iterator(result):
            return iterate_in_thread(result, self._executor, prefetch=1 if self._limiter else GENERATOR_PREFETCH)
        return _iterate(result)

    def _log_failure(self, error: BaseException, *, is_handler_error: bool) -> None:
        self._counts.failures += 1
        self._logger.error(
            "producer.failed",
            error=error_text(error),
            error_type=error_type(error),
            at=error_location(error),
            **({"exception": traceback_text(error)} if is_handler_error else {}),
        )


class _PublishWindow:
    """The publications of one round: many may wait for their confirm; each is begun in the order of the items.

    `on_confirmed` is told of each that the broker has.
    """

    def __init__(self, publisher: PipelinePublisher, on_confirmed: Callable[[OutgoingMessage], None]) -> None:
        self._publisher = publisher
        self._on_confirmed = on_confirmed
        self._in_flight = 0
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_changed = asyncio.Event()
        self._failure: BaseException | None = None
        self.count = 0

    async def start(self, outgoing: OutgoingMessage) -> None:
        """Begin to publish, when there is room; raises what an earlier publication has raised."""
        size = len(outgoing.envelope.body)
        while self._in_flight and (self._in_flight >= MAX_UNCONFIRMED or self._bytes + size > MAX_UNCONFIRMED_BYTES):
            await self._wait_for_change()
        if self._failure is not None:
            raise self._failure
        self.count += 1
        self._in_flight += 1
        self._bytes += size
        started = self._publisher.publish_nowait(outgoing, partial(self._note_end, outgoing))
        if started == "confirmed":
            self._in_flight -= 1
            self._bytes -= size
            self._on_confirmed(outgoing)
        elif started == "busy":
            self._send(outgoing)
            await asyncio.sleep(0)  # until it waits for its turn: nothing may overtake it

    async def finish(self) -> None:
        """Wait for all confirms; raises the first failure."""
        await self.settle()
        self._raise_failure()

    async def settle(self) -> None:
        """Wait until nothing is in flight: what the handler gave before it failed is published all the same."""
        while self._in_flight:
            await self._wait_for_change()

    async def give_up(self, after_s: float) -> int:
        """Wait for what is in flight, not for long; return how many publications may or may not have arrived."""
        # Not by asyncio.timeout: before Python 3.11.4 it raises no TimeoutError in a task that was cancelled, as here.
        settling = asyncio.create_task(self.settle(), name="confirms")
        await asyncio.wait((settling,), timeout=after_s)
        await cancel_and_wait(settling)
        for task in tuple(self._tasks):
            task.cancel()
        return self._in_flight

    async def _wait_for_change(self) -> None:
        """Wait until a publication has ended."""
        self._has_changed.clear()
        await self._has_changed.wait()

    def _send(self, outgoing: OutgoingMessage) -> None:
        """Publish in a task, as often as it takes."""
        task = asyncio.create_task(self._publisher.publish(outgoing))
        self._tasks.add(task)
        task.add_done_callback(partial(self._note_sent, outgoing))

    def _note_sent(self, outgoing: OutgoingMessage, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._end(outgoing, task.exception())

    def _note_end(self, outgoing: OutgoingMessage, error: Exception | None) -> None:
        """Take note of a publication that nobody has waited for; what may help it, is tried again."""
        if isinstance(error, PublishUnknown) or (isinstance(error, PublishFailed) and error.reason == "refused"):
            self._send(outgoing)
        else:
            self._end(outgoing, error)

    def _end(self, outgoing: OutgoingMessage, error: BaseException | None) -> None:
        self._in_flight -= 1
        self._bytes -= len(outgoing.envelope.body)
        self._has_changed.set()
        if error is None:
            self._on_confirmed(outgoing)
        else:
            self._failure = self._failure or error  # told once, by whoever waits

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


async def _iterate(result: Any) -> AsyncGenerator[Any, None]:
    for item in result if isinstance(result, list | tuple) else (result,):
        yield item
