"""Tries dead letters on the handlers as they are here, on an in-process broker: how would each end now?

One attempt each, and no retry is waited for. What a handler does elsewhere, to a database or a mailbox, it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from runner.errors import RunnerError
from runner.message import Address, Envelope, Message
from runner.metrics import SubscriberCounts
from runner.operations.dead_letters import DeadLetterMessage, replay_envelope
from runner.outcome import ACK, Ack, DeadLetter, Outcome, Retry
from runner.pipeline.model import Pipeline, Subscriber
from runner.runtime.execution import Execution
from runner.runtime.handler_invoker import HandlerInvoker
from runner.runtime.invocation import HandlerFailed, Results
from runner.runtime.publisher import PipelinePublisher
from runner.runtime.resources import Resources
from runner.runtime.tracebacks import error_location, traceback_text
from runner.transports.base import Delivery, SubscriptionOptions
from runner.transports.failure_copies import printable_lines
from runner.transports.memory import MemoryTransport
from runner.units import format_duration


class NoSubscriber(RunnerError):
    """No subscriber of the pipeline reads the queue that a dead letter comes from."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """How a handler ended: the outcome, where in the user's code the error came from, and how many results it had."""

    outcome: Outcome
    subscriber: str
    at: str | None
    published: int
    traceback: str = ""

    @property
    def name(self) -> str:
        """How it ended, as a name in JSON."""
        match self.outcome:
            case Ack():
                return "handled"
            case Retry():
                return "retried"
            case DeadLetter():
                return "dead-lettered"
        return "not-tried"

    @property
    def words(self) -> str:
        """How it ended, with the error and where in the user's code it came from."""
        outcome = self.outcome
        match outcome:
            case Ack():
                results = f", {self.published} published" if self.published else ""
                return f"handled by {self.subscriber}{results}"
            case Retry():
                said = f"would be retried after {format_duration(outcome.after_s)}"
            case DeadLetter():
                said = f"would be dead-lettered ({outcome.reason})"
            case _:
                return "would be given back"
        error = ": ".join(part for part in (outcome.error_type, outcome.error) if part)
        place = f", at {self.at}" if self.at else ""
        return f"{said}: {error}{place}"


class _TracingInvoker(HandlerInvoker):
    """Calls a handler, and remembers where its last error came from."""

    at: str | None = None
    traceback = ""

    def invoke(self, payload: Any, message: Message | None) -> Awaitable[Results]:
        return self._heard(super().invoke(payload, message))

    def invoke_batch(self, payloads: Sequence[Any], messages: Sequence[Message] | None) -> Awaitable[Results]:
        return self._heard(super().invoke_batch(payloads, messages))

    async def _heard(self, calling: Awaitable[Results]) -> Results:
        self.at, self.traceback = None, ""
        try:
            results = await calling
        except HandlerFailed as failure:
            self._note(failure.error)
            raise
        return results if isinstance(results, list) else self._listen(results)

    async def _listen(self, results: AsyncGenerator[list[Any], None]) -> AsyncGenerator[list[Any], None]:
        """Pass on the results of a generator, which may still fail."""
        try:
            async with aclosing(results):
                async for chunk in results:
                    yield chunk
        except HandlerFailed as failure:
            self._note(failure.error)
            raise

    def _note(self, error: BaseException) -> None:
        self.at, self.traceback = error_location(error), printable_lines(traceback_text(error))


class _TracedExecution(Execution):
    """Marks its log lines: what is tried here has not failed in the pipeline."""

    def log_fields(self, delivery: Delivery) -> dict[str, Any]:
        return {**super().log_fields(delivery), "local_replay": True}


class _RecordingTransport(MemoryTransport):
    """A session with an in-process broker that remembers how a delivery ended, and lets none come back."""

    outcome: Outcome = ACK
    published = 0

    async def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        self.outcome = outcome
        return await super().settle(delivery, ACK)

    async def publish(self, address: Address, envelope: Envelope) -> None:
        await super().publish(address, envelope)
        self.published += 1


class LocalReplay:
    """Handlers of pipelines, ready to be tried: an async context manager. Opens their resources when first needed."""

    def __init__(self, pipelines: Sequence[Pipeline]) -> None:
        self._pipelines = pipelines
        self._resources = Resources()
        self._opened: set[str] = set()
        self._readers: dict[str, tuple[Pipeline, Subscriber, _TracingInvoker]] = {}

    async def __aenter__(self) -> LocalReplay:
        return self

    async def __aexit__(self, *_: object) -> None:
        for _pipeline, _subscriber, invoker in self._readers.values():
            invoker.close()
        await self._resources.close()

    async def attempt(self, letter: DeadLetterMessage) -> ReplayResult:
        """Handle a dead letter once. Raises NobodyReads and ResourceFailed."""
        pipeline, subscriber, invoker = await self._reader(letter)
        transport = _RecordingTransport()
        await transport.connect()
        try:
            await transport.declare(pipeline.topology)
            delivery = await self._delivery(transport, pipeline, subscriber, replay_envelope(letter, datetime.now(UTC)))
            execution = self._execution(transport, pipeline, subscriber, invoker)
            transport.published = 0
            if subscriber.batch is not None:
                await execution.run_batch([delivery])
            else:
                await execution.run(delivery)
            traceback = "" if isinstance(transport.outcome, Ack) else invoker.traceback
            return ReplayResult(transport.outcome, subscriber.name, invoker.at, transport.published, traceback)
        finally:
            await transport.close()

    async def _reader(self, letter: DeadLetterMessage) -> tuple[Pipeline, Subscriber, _TracingInvoker]:
        """Return who reads the queue that the dead letter comes from: the subscriber that failed, if it still does."""
        readers = [
            (pipeline, subscriber)
            for pipeline in self._pipelines
            for subscriber in pipeline.subscribers
            if subscriber.queue == letter.origin
        ]
        if not readers:
            raise NoSubscriber(f'no subscriber of the pipeline reads queue "{letter.origin or letter.claimed}"')
        named = [reader for reader in readers if f"{reader[0].name}.{reader[1].name}" == letter.subscriber]
        pipeline, subscriber = (named or readers)[0]
        key = f"{pipeline.name}.{subscriber.name}"
        if key not in self._readers:
            if pipeline.name not in self._opened:
                await self._resources.open(pipeline)
                self._opened.add(pipeline.name)
            invoker = _TracingInvoker(subscriber, self._resources.of(pipeline.name))
            self._readers[key] = pipeline, subscriber, invoker
        return self._readers[key]

    async def _delivery(
        self, transport: _RecordingTransport, pipeline: Pipeline, subscriber: Subscriber, envelope: Envelope
    ) -> Delivery:
        """Put a message into the queue on the in-process broker, and take it out as the subscriber would."""
        arrived: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        options = SubscriptionOptions(
            queue=subscriber.queue,
            prefetch=1,
            dead_letter=subscriber.dead_letter,
            wait_prefix=pipeline.wait_prefix,
            subscriber=f"{pipeline.name}.{subscriber.name}",
        )
        await transport.subscribe(options, lambda delivery: None if arrived.done() else arrived.set_result(delivery))
        await transport.publish(Address("", subscriber.queue), envelope)
        return await arrived

    def _execution(
        self, transport: _RecordingTransport, pipeline: Pipeline, subscriber: Subscriber, invoker: _TracingInvoker
    ) -> Execution:
        destinations: Mapping[str, Any] = MappingProxyType(dict(pipeline.destinations))
        publisher = PipelinePublisher(
            transport,
            app_id=pipeline.name,
            destinations=destinations,
            new_id=lambda: uuid4().hex,
            now=lambda: datetime.now(UTC),
        )
        return _TracedExecution(
            subscriber,
            pipeline=pipeline.name,
            transport=transport,
            publisher=publisher,
            invoker=invoker,
            counts=SubscriberCounts(subscriber.name, subscriber.queue),
            logs_messages=False,
        )
