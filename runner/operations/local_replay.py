"""Replays dead letters with the local handlers on an in-process broker, to see how each would end now.

Each message gets one attempt; retries are not waited for. Side effects of handlers, such as database writes, happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from runner.clock import utc_now
from runner.errors import RunnerError
from runner.message import Address, Envelope, Message
from runner.metrics import SubscriberCounts
from runner.operations.dead_letters import DeadLetterMessage, replay_envelope
from runner.outcome import ACK, Ack, DeadLetter, Outcome, Retry
from runner.pipeline.model import Pipeline, Subscriber
from runner.pipeline.topology import made_declarable
from runner.runtime.execution import Execution
from runner.runtime.handler_invoker import HandlerInvoker
from runner.runtime.invocation import HandlerFailed, Results
from runner.runtime.message_lines import line_filter
from runner.runtime.publisher import PipelinePublisher
from runner.runtime.resources import Resources
from runner.runtime.tracebacks import error_location, traceback_text
from runner.transports.base import Delivery, OnPublished, PublishStarted, SubscriptionOptions
from runner.transports.failure_copies import printable_lines
from runner.transports.memory import MemoryTransport
from runner.units import format_duration


class NoSubscriber(RunnerError):
    """The queue that a dead letter comes from has no subscriber in the pipelines."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """How an attempt ended: the outcome, the place in the user's code that raised, and the number of results."""

    outcome: Outcome
    subscriber: str
    at: str | None
    published: int
    traceback: str = ""

    @property
    def name(self) -> str:
        """How the attempt ended, for JSON."""
        return {Ack: "handled", Retry: "retried", DeadLetter: "dead-lettered"}.get(type(self.outcome), "not-tried")

    @property
    def sentence(self) -> str:
        """How the attempt ended, with the error and the place in the user's code that raised it."""
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
    """A HandlerInvoker that remembers where the last error was raised."""

    at: str | None = None
    traceback = ""

    def invoke(self, payload: Any, message: Message | None) -> Awaitable[Results]:
        return self._traced(super().invoke(payload, message))

    def invoke_batch(self, payloads: Sequence[Any], messages: Sequence[Message] | None) -> Awaitable[Results]:
        return self._traced(super().invoke_batch(payloads, messages))

    async def _traced(self, calling: Awaitable[Results]) -> Results:
        self.at, self.traceback = None, ""
        try:
            results = await calling
        except HandlerFailed as failure:
            self._note(failure.error)
            raise
        return results if isinstance(results, list) else self._traced_results(results)

    async def _traced_results(self, results: AsyncGenerator[list[Any], None]) -> AsyncGenerator[list[Any], None]:
        """Pass on the results of a generator, which may still raise."""
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
    """An in-process broker that records how a delivery was settled, and acknowledges it in any case."""

    outcome: Outcome = ACK
    published = 0

    async def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        self.outcome = outcome
        return await super().settle(delivery, ACK)

    async def publish(self, address: Address, envelope: Envelope, *, is_answer: bool = False) -> None:
        await super().publish(address, envelope)
        self.published += 1

    def publish_nowait(self, address: Address, envelope: Envelope, on_published: OnPublished) -> PublishStarted:
        begun = super().publish_nowait(address, envelope, on_published)
        self.published += begun == "confirmed"
        return begun


class LocalReplay:
    """Replays dead letters with the handlers of pipelines. An async context manager; opens resources on first use."""

    def __init__(self, pipelines: Sequence[Pipeline]) -> None:
        self._pipelines = pipelines
        self._resources = Resources()
        self._opened: set[str] = set()
        self._subscribers: dict[str, tuple[Pipeline, Subscriber, _TracingInvoker]] = {}

    async def __aenter__(self) -> LocalReplay:
        return self

    async def __aexit__(self, *_: object) -> None:
        for _pipeline, _subscriber, invoker in self._subscribers.values():
            invoker.close()
        await self._resources.close()

    async def attempt(self, letter: DeadLetterMessage) -> ReplayResult:
        """Handle a dead letter once. Raises NoSubscriber and ResourceFailed."""
        pipeline, subscriber, invoker = await self._subscriber_of(letter)
        transport = _RecordingTransport()
        await transport.connect()
        try:
            await transport.declare(made_declarable(pipeline.topology))
            delivery = await self._delivery(transport, pipeline, subscriber, replay_envelope(letter, utc_now()))
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

    async def _subscriber_of(self, letter: DeadLetterMessage) -> tuple[Pipeline, Subscriber, _TracingInvoker]:
        """Return the subscriber of the queue that the dead letter comes from, if possible the one that failed."""
        matching = [
            (pipeline, subscriber)
            for pipeline in self._pipelines
            for subscriber in pipeline.subscribers
            if subscriber.queue == letter.origin
        ]
        if not matching:
            raise NoSubscriber(f'queue "{letter.origin or letter.claimed}" has no subscriber in the pipeline')
        named = [each for each in matching if f"{each[0].name}.{each[1].name}" == letter.subscriber]
        pipeline, subscriber = (named or matching)[0]
        key = f"{pipeline.name}.{subscriber.name}"
        if key not in self._subscribers:
            if pipeline.name not in self._opened:
                await self._resources.open(pipeline)
                self._opened.add(pipeline.name)
            invoker = _TracingInvoker(subscriber, self._resources.of(pipeline.name))
            self._subscribers[key] = pipeline, subscriber, invoker
        return self._subscribers[key]

    async def _delivery(
        self, transport: _RecordingTransport, pipeline: Pipeline, subscriber: Subscriber, envelope: Envelope
    ) -> Delivery:
        """Publish a message to the queue on the in-process broker, and receive it as the subscriber would."""
        arrived: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        options = SubscriptionOptions(
            queue=subscriber.queues[0],
            prefetch=1,
            dead_letter=subscriber.dead_letter,
            wait_prefix=pipeline.wait_prefix,
            subscriber=f"{pipeline.name}.{subscriber.name}",
        )
        await transport.subscribe(options, lambda delivery: None if arrived.done() else arrived.set_result(delivery))
        await transport.publish(Address("", options.queue), envelope)
        return await arrived

    def _execution(
        self, transport: _RecordingTransport, pipeline: Pipeline, subscriber: Subscriber, invoker: _TracingInvoker
    ) -> Execution:
        publisher = PipelinePublisher(transport, app_id=pipeline.name, destinations=pipeline.destinations)
        return _TracedExecution(
            subscriber,
            pipeline=pipeline.name,
            transport=transport,
            publisher=publisher,
            invoker=invoker,
            counts=SubscriberCounts(subscriber.name, subscriber.queue),
            has_line=line_filter("errors"),
        )
