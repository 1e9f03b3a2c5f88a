"""Turns deliveries into outcomes, step by step: decode, call the handler, publish results, decide, settle, report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from contextvars import Context
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from runner import log
from runner.backoff import backoff_delays
from runner.clock import utc_now
from runner.errors import BatchFailed, PublishFailed
from runner.message import DELAY_TO, Envelope, Message, Publish, is_expired
from runner.metrics import SubscriberCounts
from runner.outcome import (
    ACK,
    RELEASE,
    Ack,
    DeadLetter,
    InvalidMessage,
    Outcome,
    Release,
    ResultFailed,
    Retry,
    decide,
    is_rejection,
)
from runner.pipeline.body_encoding import readable
from runner.pipeline.model import Subscriber
from runner.pipeline.topology_builder import DEFAULT_DELIVERY_LIMIT
from runner.runtime.deduplication import Deduplicator
from runner.runtime.handler_invoker import HandlerInvoker
from runner.runtime.invocation import HandlerFailed, Results
from runner.runtime.message_lines import LineFilter
from runner.runtime.publisher import OutgoingMessage, PipelinePublisher
from runner.runtime.result_publisher import DETACHED, PublishingStopped, ResultPublisher
from runner.runtime.store import Step, StoreUnavailable
from runner.runtime.tracebacks import error_hint, error_location, traceback_text
from runner.trace_context import trace_fields
from runner.transports.base import Delivery, Transport
from runner.transports.failure_copies import foreign_headers, original_address
from runner.units import pluralize

FIRST_WAIT_S, MAX_WAIT_S = 0.05, 1.0
"""How long to wait for another process that handles a message with the same key, or for a store, before each look."""

Detachable = tuple[Delivery, float]
"""A delivery that may end by the confirm of its result, and when it began."""

RunSome = Callable[[Sequence[Delivery]], Awaitable[object]]


class Execution:
    """Handles the deliveries of one subscriber.

    With `retry_locally`, deliveries that are to be retried stay in this process: subscribers with `order_by` need that,
    because a retry over the broker would be overtaken by its successors. Without it they go back to the broker.
    `has_line` decides which messages have a log line if nothing went wrong.
    """

    may_detach = True
    """Whether `run` may return before the result is confirmed."""

    def __init__(
        self,
        subscriber: Subscriber,
        *,
        pipeline: str,
        transport: Transport,
        publisher: PipelinePublisher,
        invoker: HandlerInvoker,
        counts: SubscriberCounts,
        has_line: LineFilter,
        deduplicator: Deduplicator | None = None,
        is_timed: bool = False,
        logs_payloads: bool = False,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._subscriber = subscriber
        self._pipeline = pipeline
        self._transport = transport
        self._invoker = invoker
        self._counts = counts
        self._is_timed = is_timed
        self._observe = counts.handler_seconds.observe if is_timed else _ignore
        self._has_line = has_line
        self._logs_payloads = logs_payloads
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._logger = log.get_logger()
        self._place = {"pipeline": pipeline, "subscriber": subscriber.name, "queue": subscriber.queue}
        """The log fields that all deliveries share."""
        self._message_logger = log.get_message_logger(self._place)
        self._deduplicator = deduplicator
        self._claimed: dict[Delivery, Step] = {}
        """The claims of deliveries whose messages are not done yet."""
        self._results = ResultPublisher(subscriber, publisher.counting(counts.published), pipeline)
        self.retry_locally: Callable[[Delivery, Retry], None] | None = None
        self.on_failure: Callable[[BaseException | None], None] = _ignore
        """Called with the error of each attempt that is retried or dead-lettered."""
        self.on_waiting: Callable[[Sequence[Delivery]], None] = _ignore
        """Called with deliveries that wait for a store or another process; `on_claimed` with those that do not."""
        self.on_claimed: Callable[[Sequence[Delivery]], None] = _ignore
        self.on_ended: Callable[[Delivery], None] = _ignore
        """Called when a delivery has ended for which `run` returned False."""
        self.spawn: Callable[[Coroutine[Any, Any, None]], object] | None = None
        """Starts a task that goes on with such a delivery. Without it, `run` always returns True."""
        self._is_stopped = False
        self.is_past_grace = False
        """Whether the grace period is over. Handlers were cancelled then, and how they end says nothing about their
        work.
        """

    def stop(self) -> None:
        """Stop waiting to publish results that could not be published, and for messages that are claimed elsewhere."""
        self._results.stop()
        self._is_stopped = True

    async def run(self, delivery: Delivery) -> bool:
        """Handle one delivery. Runs in a context of its own; cancelling it gives the message back.

        Return whether it has ended. If only the confirm of its result is missing, no task waits for that, and
        `on_ended` is called later.
        """
        started = time.perf_counter()
        log.context.set(self.log_fields(delivery))
        try:
            if self._deduplicator is None:
                return await self._run(delivery, started)
            await self._run_new([delivery], lambda _: self._run(delivery, started), started)
        except BaseException:
            await self._release_unsettled([delivery])
            raise
        return True

    async def run_batch(self, deliveries: Sequence[Delivery]) -> None:
        """Handle several deliveries with one call.

        Messages that cannot be decoded are dead-lettered on their own before it.
        """
        started = time.perf_counter()
        try:
            if self._deduplicator is None:
                await self._run_batch(deliveries, started)
            else:
                await self._run_new(deliveries, partial(self._run_batch, started=started), started)
        except BaseException:
            await self._release_unsettled(deliveries)
            raise

    async def _run_new(self, deliveries: Sequence[Delivery], run: RunSome, started: float) -> None:
        """Handle deliveries whose messages were not handled before, two with the same key one after the other.

        They wait for what another process or another delivery does with their keys, and for the store. At a stop and a
        pause they are given back. Waiting spends no attempt.
        """
        left, claims = list[Delivery](), dict[Delivery, Step | None]()
        for delivery in deliveries:
            try:
                keyed = None if delivery.unreadable else self._deduplicator
                claims[delivery] = keyed.claim_of(delivery.envelope) if keyed is not None else None
                left.append(delivery)
            except InvalidMessage as failure:
                with log.bound_context(self.log_fields(delivery)):
                    await self._finish(delivery, failure, 0, started)
        for delay_s in backoff_delays(FIRST_WAIT_S, MAX_WAIT_S):
            mine, later = list[Delivery](), list[Delivery]()
            try:
                for delivery in [each for each in left if not each.is_lost]:
                    is_mine = await self._claim(delivery, claims[delivery])
                    if is_mine is not None:
                        (mine if is_mine else later).append(delivery)
                self.on_claimed(mine)
                if mine:
                    await run(mine)
            finally:
                for delivery in mine:
                    await self._free(delivery)
            if later and (self._is_stopped or self._counts.is_paused):
                for delivery in later:
                    await self.release(delivery)
                return
            if not later:
                return
            left = later
            self.on_waiting(left)
            await asyncio.sleep(delay_s)

    async def _claim(self, delivery: Delivery, claim: Step | None) -> bool | None:
        """Return whether a delivery can be handled now; None if its message was handled before: then it is settled."""
        if claim is None or self._deduplicator is None:
            return True
        try:
            is_new = await self._deduplicator.claim(claim, delivery.envelope)
        except StoreUnavailable:
            return False
        if is_new is None:
            with log.bound_context(self.log_fields(delivery)):
                await self._ack_duplicate(delivery)
        elif is_new:
            self._claimed[delivery] = claim
        return is_new

    async def _free(self, delivery: Delivery) -> None:
        """Let others handle a message that is claimed, and not done."""
        claim = self._claimed.pop(delivery, None)
        if claim is not None and self._deduplicator is not None:
            with suppress(StoreUnavailable):  # the claim ends by itself
                await self._deduplicator.release(claim)

    async def _run_batch(self, deliveries: Sequence[Delivery], started: float) -> None:
        fit = {delivery: found for delivery in deliveries if (found := await self._decode_for_batch(delivery, started))}
        if not fit:
            return
        payloads = [payload for (payload,) in fit.values()]
        messages = None
        if self._subscriber.handler.message_parameter is not None:
            messages = [self._message(delivery, payload) for delivery, payload in zip(fit, payloads, strict=True)]
        for delivery in fit if self._is_timed else ():
            if delivery.attempt == 1:
                self._counts.note_sent(delivery.envelope.timestamp, started)
        with log.bound_context({**self._context_fields(), "messages": len(fit)}):
            parents = [delivery.envelope._replace(reply_to=None) for delivery in fit]  # a batch answers no request
            error, published = await self._attempt(self._invoker.invoke_batch(payloads, messages), parents)
        for delivery, failure in zip(fit, split_batch_error(error, len(fit)), strict=True):
            with log.bound_context(self.log_fields(delivery)):
                await self._finish(delivery, failure, published, started)
            published = 0

    async def release(self, delivery: Delivery) -> None:
        """Give a delivery back to the broker as it is, at a stop or a pause."""
        await self._transport.settle(delivery, RELEASE)
        self._counts.released += 1
        if self._has_line(delivery.envelope):
            self._logger.info("message.released", **self.log_fields(delivery))

    async def _run(self, delivery: Delivery, started: float) -> bool:
        if delivery.is_lost or (delivery.is_redelivered and await self._settle_if_decided(delivery, started)):
            return True
        handler = self._subscriber.handler
        try:
            payload = self._decode(delivery)
        except Exception as failure:  # a schema's code may raise anything; decide() knows the outcome
            await self._finish(delivery, failure, 0, started)
            return True
        message = None if handler.message_parameter is None else self._message(delivery, payload)
        if self._is_timed and delivery.attempt == 1:
            self._counts.note_sent(delivery.envelope.timestamp, started)
        may_detach = self.spawn is not None and not delivery.is_redelivered and self._deduplicator is None
        error, published = await self._attempt(
            self._invoker.invoke(payload, message), (delivery.envelope,), (delivery, started) if may_detach else None
        )
        if published == DETACHED:
            return False
        if published == 0 and error is None and self._subscriber.is_responder and delivery.envelope.reply_to:
            error, published = await self._answer_null(delivery.envelope)
        if error is None and self._deduplicator is None and not self.is_past_grace:
            self._ack(delivery, published, started)
        else:
            await self._finish(delivery, error, published, started)
        return True

    def _ack(self, delivery: Delivery, published: int, started: float) -> None:
        """Acknowledge a message that is handled, and report it."""
        self._transport.ack(delivery)
        self._report(ACK, None, delivery, published, started)

    async def _answer_null(self, question: Envelope) -> tuple[BaseException | None, int]:
        """Answer a question whose handler has returned nothing: its caller waits to know that it is done."""
        try:
            return None, await self._results.publish(
                (Publish(None),), (question,), 0, self._loop.time(), is_answer_only=True
            )
        except Exception as error:  # as in _attempt
            return error, 0

    async def _decode_for_batch(self, delivery: Delivery, started: float) -> tuple[Any] | None:
        """Return the payload in a tuple, or None if the delivery has been settled here and is not part of the batch."""
        if delivery.is_lost:
            return None
        with log.bound_context(self.log_fields(delivery)):
            if await self._settle_if_decided(delivery, started):
                return None
            try:
                return (self._decode(delivery),)
            except Exception as failure:  # as in _run
                await self._finish(delivery, failure, 0, started)
                return None

    async def _attempt(
        self, calling: Awaitable[Results], parents: Sequence[Envelope], detachable: Detachable | None = None
    ) -> tuple[BaseException | None, int]:
        """Await the handler and publish its results. Return the error and the number of published messages.

        The number is DETACHED if the confirm of the only result of a `detachable` delivery is missing.
        """
        began = time.perf_counter()
        try:
            results = await calling
            if not isinstance(results, list):
                return await self._publish_stream(results, parents, began)
            if self._is_timed:
                self._observe(time.perf_counter() - began)
            if len(results) == 1 and results[0] is None:
                return None, 0
            called_at = self._loop.time() - (time.perf_counter() - began)
            detached = partial(self._on_published, *detachable) if detachable is not None else None
            return None, await self._results.publish(results, parents, 0, called_at, detached=detached)
        except HandlerFailed as failure:
            self._observe(time.perf_counter() - began)
            return failure.error, 0
        except Exception as error:  # the results could not be published
            return error, 0

    def _on_published(
        self,
        delivery: Delivery,
        began: float,
        context: Context,
        sent: OutgoingMessage,
        called_at: float,
        error: Exception | None,
    ) -> None:
        """End a delivery whose result is confirmed, or publish it again. What reads the broker's answers calls this."""
        if self.is_past_grace:  # the delivery is released
            return
        if error is None:
            self._results.end(sent)
            context.run(self._ack, delivery, 1, began)
            self.on_ended(delivery)
        elif self.spawn is not None:
            context.run(self.spawn, self._publish_again(delivery, began, sent, called_at, error))

    async def _publish_again(
        self, delivery: Delivery, began: float, sent: OutgoingMessage, called_at: float, error: Exception
    ) -> None:
        """Publish the result of a delivery whose first publication has failed, and end the delivery."""
        failure: Exception | None = None
        try:
            try:
                await self._results.publish_one(sent, called_at, error=error)
            except Exception as failed:  # as in _attempt
                failure = failed
            await self._finish(delivery, failure, 1 if failure is None else 0, began)
        except BaseException:
            await self._release_unsettled([delivery])
            raise
        finally:
            self.on_ended(delivery)

    async def _publish_stream(
        self, results: AsyncGenerator[list[Any], None], parents: Sequence[Envelope], began: float
    ) -> tuple[BaseException | None, int]:
        """Publish the results of a generator as they come. Return the error and the number of published messages."""
        published, publishing_s = 0, 0.0
        started = self._loop.time() - (time.perf_counter() - began)
        try:
            async with aclosing(results):
                async for chunk in results:
                    asked = time.perf_counter()
                    try:
                        published += await self._results.publish(chunk, parents, published, started)
                    finally:
                        publishing_s += time.perf_counter() - asked
        except HandlerFailed as failure:
            return failure.error, published
        except Exception as error:  # the results could not be published
            return error, published
        finally:
            self._observe(time.perf_counter() - began - publishing_s)
        return None, published

    async def _finish(self, delivery: Delivery, error: BaseException | None, published: int, started: float) -> None:
        """Decide on the outcome, settle and report."""
        if self.is_past_grace or isinstance(error, PublishingStopped):
            await self.release(delivery)
            return
        outcome = ACK if error is None else decide(error, delivery.attempt, self._subscriber.retry)
        if isinstance(outcome, DeadLetter) and _is_handler_failure(outcome, error):
            outcome = replace(outcome, traceback=traceback_text(_cause(error)))
        if await self._settle(delivery, outcome):
            self._report(outcome, error, delivery, published, started)
        elif isinstance(outcome, Retry | DeadLetter):
            what = "retry" if isinstance(outcome, Retry) else "dead_letter"
            fields = {"outcome": what, "error": outcome.error, "error_type": outcome.error_type}
            self._logger.warning("message.settle_lost", **fields, at=error_location(error))

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Settle and, for an Ack, remember the message. Return whether the outcome stands.

        An Ack always stands, because the work is done. Another outcome that the broker did not learn of does not: the
        message comes again as it was.
        """
        if isinstance(outcome, Ack):
            try:
                if delivery in self._claimed:
                    await self._remember(delivery)
            finally:  # also when the grace period ends while the store is away: the work is done
                self._transport.ack(delivery)
            return True
        if isinstance(outcome, Retry) and self.retry_locally is not None and not delivery.is_lost:
            self.retry_locally(delivery, outcome)
            return True
        if isinstance(outcome, DeadLetter) and self._answers(delivery):
            await self._results.answer_failure(delivery.envelope, outcome)
        return await self._transport.settle(delivery, outcome)

    def _answers(self, delivery: Delivery) -> bool:
        """Return whether a message that is given up is answered. A lost one comes again, with its outcome."""
        return self._subscriber.replies and delivery.envelope.reply_to is not None and not delivery.is_lost

    def _decode(self, delivery: Delivery) -> Any:
        """Decode and validate the payload. Raises InvalidMessage."""
        if delivery.unreadable:
            raise InvalidMessage(f"the message cannot be decoded: {delivery.unreadable}", "unreadable")
        if delivery.envelope.headers and is_expired(delivery.envelope.headers, self._now):
            raise InvalidMessage("the message has expired", "expired")
        if delivery.failed_deliveries > DEFAULT_DELIVERY_LIMIT and self._subscriber.stream is not None:
            raise InvalidMessage(f"it has ended {delivery.failed_deliveries} processes", "delivery_limit")
        handler = self._subscriber.handler
        if handler.check is not None:
            handler.check(delivery.envelope, self._event(delivery))
        return handler.decode(delivery.envelope)

    def _event(self, delivery: Delivery) -> str | None:
        return self._subscriber.event_of(*original_address(delivery), delivery.envelope.type)

    def _message(self, delivery: Delivery, payload: Any) -> Message:
        envelope = delivery.envelope
        return Message(
            payload=payload,
            id=envelope.message_id,
            correlation_id=envelope.correlation_id,
            event=self._event(delivery),
            queue=delivery.options.queue,
            exchange=delivery.exchange,
            routing_key=delivery.routing_key,
            attempt=delivery.attempt,
            is_redelivered=delivery.is_redelivered,
            timestamp=envelope.timestamp if isinstance(envelope.timestamp, datetime) else None,
            app_id=envelope.app_id,
            content_type=envelope.content_type,
            content_encoding=envelope.content_encoding,
            reply_to=envelope.reply_to,
            priority=envelope.priority,
            headers=foreign_headers(envelope.headers) if DELAY_TO in envelope.headers else envelope.headers,
        )

    async def _settle_if_decided(self, delivery: Delivery, started: float) -> bool:
        """Settle the delivery if its outcome is known from an earlier delivery. Return whether it was.

        The broker redelivers a message when the connection is lost between our decision and its confirmation.
        """
        if delivery.was_handled:
            await self._ack_duplicate(delivery)
            return True
        outcome = delivery.earlier_outcome
        if outcome is None:
            return False
        if await self._settle(delivery, outcome):
            self._report(outcome, None, delivery, 0, started)
        return True

    async def _remember(self, delivery: Delivery) -> None:
        """Note that a message was handled, as soon as the store can be used."""
        assert self._deduplicator is not None
        claim = self._claimed.pop(delivery)
        for delay_s in backoff_delays(FIRST_WAIT_S, MAX_WAIT_S):
            try:
                await self._deduplicator.finish(claim, delivery.envelope)
                break
            except StoreUnavailable:
                await asyncio.sleep(delay_s)

    async def _ack_duplicate(self, delivery: Delivery) -> None:
        """Acknowledge a message that was handled before."""
        await self._settle(delivery, ACK)
        self._counts.duplicate += 1
        if self._has_line(delivery.envelope):
            self._message_logger.info("message.handled", duration_ms=0.0, published=0, duplicate=True)

    async def _release_unsettled(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if not delivery.is_settled:
                await self.release(delivery)

    def _context_fields(self) -> dict[str, Any]:
        return dict(self._place)

    def log_fields(self, delivery: Delivery) -> dict[str, Any]:
        """Return the log fields of a delivery."""
        fields = {
            **self._place,
            "message_id": delivery.envelope.message_id,
            "correlation_id": delivery.envelope.correlation_id,
            "attempt": delivery.attempt,
        }
        if delivery.envelope.headers:
            fields |= trace_fields(delivery.envelope.headers)
        if self._logs_payloads:
            fields["payload"] = readable(delivery.envelope).body.decode("utf-8", "backslashreplace")
        return fields

    def _report(
        self, outcome: Outcome, error: BaseException | None, delivery: Delivery, published: int, started: float
    ) -> None:
        """Count the outcome and write its log line."""
        if isinstance(outcome, Ack):
            self._counts.handled += 1
            if not self._has_line(delivery.envelope):
                return
        else:
            self.on_failure(error)
        duration_ms = round((time.perf_counter() - started) * 1000, 1)
        error = _cause(error)
        match outcome:
            case Ack():
                self._message_logger.info("message.handled", duration_ms=duration_ms, published=published)
            case Retry():
                self._counts.retried += 1
                self._counts.note_error(outcome.error_type)
                self._logger.warning(
                    "message.retry",
                    duration_ms=duration_ms,
                    error=outcome.error,
                    error_type=outcome.error_type,
                    at=error_location(error),
                    delay_ms=round(outcome.after_s * 1000),
                    attempts=self._subscriber.retry.attempts,
                    **error_hint(error),
                )
            case DeadLetter():
                self._counts.dead_lettered += 1
                self._counts.note_error(outcome.error_type)
                self._logger.error(
                    "message.dead_lettered",
                    duration_ms=duration_ms,
                    error=outcome.error,
                    error_type=outcome.error_type,
                    reason=outcome.reason,
                    at=error_location(error),
                    dead_letter=delivery.options.dead_letter,
                    **error_hint(error, self._subscriber.retry if outcome.reason == "rejected" else None),
                    **({"exception": outcome.traceback} if outcome.traceback else {}),
                )
            case Release():  # decide() never returns it
                self._counts.released += 1


def split_batch_error(error: BaseException | None, size: int) -> list[BaseException | None]:
    """Return the error of each message of a batch. Unless it is a BatchFailed, all have the same."""
    if not isinstance(error, BatchFailed):
        return [error] * size
    if (last := max(error.errors)) >= size:
        outside = IndexError(f"BatchFailed names position {last}, and the batch has {pluralize(size, 'message')}")
        outside.__cause__ = error
        return [outside] * size
    return [error.errors.get(position) for position in range(size)]


def _ignore(_: object) -> None:
    pass


def _cause(error: BaseException | None) -> BaseException | None:
    """Return the error to report: the cause if a result could not be published."""
    return error.cause if isinstance(error, ResultFailed) else error


def _is_handler_failure(outcome: DeadLetter, error: BaseException | None) -> bool:
    """Return whether the user's code failed, as opposed to the message: then the log line has a traceback."""
    error = _cause(error)
    is_after_the_call = outcome.reason in ("exhausted", "rejected", "invalid-result")
    return is_after_the_call and error is not None and not (isinstance(error, PublishFailed) or is_rejection(error))
