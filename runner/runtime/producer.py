"""Runs one producer: calls its handler, publishes the items, and repeats by schedule or after a failure."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from contextvars import copy_context
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from runner import log
from runner.backoff import backoff_delays
from runner.errors import BadRecord, PublishFailed, PublishUnknown
from runner.metrics import ProducerCounts
from runner.pipeline.model import Handler, Producer
from runner.runtime.generators import iterate_generator, iterate_in_thread
from runner.runtime.invocation import HandlerFailed, await_handler, is_iterator, run_in_executor
from runner.runtime.message_lines import LineFilter
from runner.runtime.publisher import OutgoingMessage, PipelinePublisher
from runner.runtime.rate_limit import RateLimiter
from runner.runtime.tracebacks import error_fields, traceback_text
from runner.schedule import Schedule
from runner.tasks import cancel_and_wait
from runner.trace_context import trace_fields

MAX_UNCONFIRMED = 100
"""The most publications of a producer that may wait for their confirms."""

MAX_UNCONFIRMED_BYTES = 16 * 1024 * 1024
"""The most bytes that their bodies may have together. A larger body is published on its own."""

GENERATOR_PREFETCH = 32
"""How many items of a plain generator are fetched per round trip to its thread, unless there is a `rate`."""

CONFIRM_TIMEOUT_S = 2.0
"""How long a stopped producer waits for the confirms of what it has published."""

FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
MAX_SLEEP_S = 30.0
"""Longer waits for a due time are split into pieces of this length, so that a change of the wall clock is noticed."""


class TickStore(Protocol):
    """Stores when a producer with a schedule last ran, in whichever process that was."""

    def last_tick(self) -> datetime | None:
        """Return the due time of the last run; None if it never ran."""

    async def save_tick(self, due: datetime) -> None:
        """Save the due time of a run."""


class ProducerRuntime:
    """A running producer.

    A finite producer is given up after `max_failures` failures in a row; with None it never is.
    """

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
        has_line: LineFilter,
        max_sleep_s: float = MAX_SLEEP_S,
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
        self._max_sleep_s = max_sleep_s
        self._has_line = has_line
        self._logger = log.get_logger()
        self._place = {"pipeline": pipeline, "producer": producer.name}
        self._message_logger = log.get_message_logger(self._place)
        self._limiter = RateLimiter(producer.per_second) if producer.per_second else None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"producer-{producer.name}")
        self.is_finite = producer.schedule is None
        self._last_id: str | None = None
        self.has_failed = False
        """Whether it was given up: too many failures, or a bad line in its file, which would fail again."""
        self.is_running = False
        """Whether a run that its schedule has started is not finished."""

    @property
    def failures(self) -> int:
        """How often it has failed."""
        return self._counts.failures

    async def run_until_complete(self, run: str, may_publish: asyncio.Event) -> None:
        """Run a producer without a schedule once. After a failure it starts over, with backoff.

        `run` is the seed of the message ids, so that a second attempt publishes the same ids. Nothing is published
        while `may_publish` is cleared. When cancelled, it waits a moment for outstanding confirms.
        """
        for failures, delay_s in enumerate(backoff_delays(FIRST_BACKOFF_S, MAX_BACKOFF_S), start=1):
            if await self._run_once(run, may_publish):
                return
            if self._max_failures is not None and failures >= self._max_failures:
                self.has_failed = True
            if self.has_failed:
                return
            await asyncio.sleep(delay_s)

    async def run_on_schedule(self, ticks: TickStore) -> None:
        """Run whenever it is due by the wall clock, until cancelled. Missed ticks are coalesced into one."""
        schedule = self.producer.schedule
        assert schedule is not None
        last = ticks.last_tick()
        if last is not None and self._counts.last_run_at is None:
            self._counts.last_run_at = last.timestamp()
        due = schedule.first(self._now()) if last is None else schedule.next(last)
        while True:
            due = await self._sleep_until(due, schedule)
            due = schedule.latest(due, self._now())
            self.is_running = True
            await self._run_once(due.isoformat())
            self.is_running = False
            await ticks.save_tick(due)
            due = schedule.next(due)

    def close(self) -> None:
        """Release the thread. Code that runs in it continues until it returns."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _sleep_until(self, due: datetime, schedule: Schedule) -> datetime:
        """Wait until `due` and return it. If the wall clock is set back meanwhile, return the adjusted time."""
        while True:
            now = self._now()
            due = schedule.after_clock_change(due, now)
            left = (due - now).total_seconds()
            if left <= 0:
                return due
            await asyncio.sleep(min(left, self._max_sleep_s))

    async def _run_once(self, seed: str, may_publish: asyncio.Event | None = None) -> bool:
        """Call the handler once and publish everything that it yields. Return whether all of it worked."""
        with log.bound_context(self._place):
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
                            if (waiting := window.start(outgoing)) is not None:
                                await waiting
                await window.finish()
            except asyncio.CancelledError:
                await self._give_up(window)
                raise
            except Exception as failure:  # an error of the handler, or of the first publication that failed
                await window.settle()
                cause = failure.error if isinstance(failure, HandlerFailed) else failure
                self.has_failed = isinstance(cause, BadRecord)
                self._log_failure(cause, is_handler_error=isinstance(failure, HandlerFailed) and not self.has_failed)
                return False
            self._log_finished(window.count)
            return True

    def _log_finished(self, published: int) -> None:
        """Log the end of a run in one line. A tick that published a single message is logged with its id."""
        self._counts.last_run_at = self._now().timestamp()
        say = self._logger.debug if published == 0 and not self.is_finite else self._logger.info
        one = {"message_id": self._last_id} if published == 1 and not self.is_finite else {}
        say("producer.finished", published=published, **one)

    async def _give_up(self, window: _PublishWindow) -> None:
        """Wait a moment for outstanding confirms, and log how many are missing."""
        left = await window.give_up(CONFIRM_TIMEOUT_S)
        if left:
            self._logger.warning("producer.interrupted", unconfirmed=left)

    def _note_confirmed(self, outgoing: OutgoingMessage) -> None:
        envelope = outgoing.envelope
        self._last_id = envelope.message_id
        if self._has_line(envelope):
            # A producer with a schedule logs one line per tick instead: see `_log_finished`.
            say = self._message_logger.info if self.is_finite else self._message_logger.debug
            say(
                "message.published",
                message_id=envelope.message_id,
                correlation_id=envelope.correlation_id,
                **trace_fields(envelope.headers),
                to=outgoing.destination.name,
            )

    async def _items(self) -> AsyncGenerator[Any, None]:
        """Call the handler and return its items: those of a generator or a list, or its one return value."""
        if self._handler.kind == "async generator":
            return iterate_generator(self._call())
        if self._handler.kind == "coroutine":
            result = await await_handler(self._call())
        else:
            result = await run_in_executor(self._executor, self._call)
        if inspect.isawaitable(result):  # a plain function that returns an awaitable
            result = await await_handler(result)
        if inspect.isasyncgen(result):
            return iterate_generator(result)
        if is_iterator(result):
            return iterate_in_thread(result, self._executor, prefetch=1 if self._limiter else GENERATOR_PREFETCH)
        return _iterate(result)

    def _log_failure(self, error: BaseException, *, is_handler_error: bool) -> None:
        self._counts.failures += 1
        more = {"exception": traceback_text(error)} if is_handler_error else {}
        self._logger.error("producer.failed", **error_fields(error), **more)


class _PublishWindow:
    """The publications of one run. Many may wait for their confirms; they start in the order of the items."""

    def __init__(self, publisher: PipelinePublisher, on_confirmed: Callable[[OutgoingMessage], None]) -> None:
        self._publisher = publisher
        self._on_confirmed = on_confirmed
        self._in_flight = 0
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_changed = asyncio.Event()
        self._failure: BaseException | None = None
        self._context = copy_context()
        self.count = 0

    def start(self, outgoing: OutgoingMessage) -> Awaitable[None] | None:
        """Start a publication. Return what to await before the next one. Raises the error of an earlier publication."""
        size = len(outgoing.envelope.body)
        if self._in_flight and (self._in_flight >= MAX_UNCONFIRMED or self._bytes + size > MAX_UNCONFIRMED_BYTES):
            return self._start_later(outgoing)
        if self._failure is not None:
            raise self._failure
        outgoing = self._publisher.start(outgoing)
        self.count += 1
        started = self._publisher.publish_nowait(outgoing, partial(self._note_end, outgoing))
        if started == "confirmed":
            self._publisher.end(outgoing)
            self._on_confirmed(outgoing)
            return None
        self._in_flight += 1  # if it has ended already, that has taken it off before
        self._bytes += size
        if started == "busy":
            self._send(outgoing)
            return asyncio.sleep(0)  # let the task queue up, so that later items cannot overtake it
        return None

    async def _start_later(self, outgoing: OutgoingMessage) -> None:
        """Start a publication when an earlier one has ended."""
        await self._wait_for_change()
        if (waiting := self.start(outgoing)) is not None:
            await waiting

    async def finish(self) -> None:
        """Wait for all confirms. Raises the first error."""
        await self.settle()
        if self._failure is not None:
            raise self._failure

    async def settle(self) -> None:
        """Wait until nothing is outstanding. Items that were yielded before a failure are published all the same."""
        while self._in_flight:
            await self._wait_for_change()

    async def give_up(self, after_s: float) -> int:
        """Wait at most `after_s` for confirms, and return how many publications have an unknown result."""
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
        """Publish in a task, with retries."""
        task = asyncio.create_task(self._publisher.publish(outgoing))
        self._tasks.add(task)
        task.add_done_callback(partial(self._note_sent, outgoing))

    def _note_sent(self, outgoing: OutgoingMessage, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._end(outgoing, task.exception())

    def _note_end(self, outgoing: OutgoingMessage, error: Exception | None) -> None:
        """Note the end of a publication that did not wait. If a retry may help, publish again with retries.

        Whatever reads the broker's answers calls this. Log lines have the context of the producer all the same.
        """
        if isinstance(error, PublishUnknown) or (isinstance(error, PublishFailed) and error.reason == "refused"):
            self._context.run(self._send, outgoing)
        else:
            self._context.run(self._end, outgoing, error)

    def _end(self, outgoing: OutgoingMessage, error: BaseException | None) -> None:
        self._in_flight -= 1
        self._bytes -= len(outgoing.envelope.body)
        self._has_changed.set()
        self._publisher.end(outgoing, error)
        if error is None:
            self._on_confirmed(outgoing)
        else:
            self._failure = self._failure or error  # raised by whoever waits next


async def _iterate(result: Any) -> AsyncGenerator[Any, None]:
    for item in result if isinstance(result, list | tuple) else (result,):
        yield item
