"""Turns one delivery into an outcome: decode, call, publish results, decide, settle, report. No step looks back."""

from __future__ import annotations

import time
from collections import OrderedDict
from concurrent.futures import Executor
from hashlib import blake2b
from typing import Any

from runner import log
from runner.message import Envelope, Message
from runner.metrics import Totals
from runner.outcome import ACK, RELEASE, Ack, DeadLetter, Outcome, Release, Retry, decide
from runner.pipeline.model import Subscriber
from runner.runtime.blame import raised_at, traceback_text
from runner.runtime.invoking import HandlerFailed, call
from runner.runtime.publishing import Publisher
from runner.transports.base import Delivery, Transport

REMEMBERED = 1000
"""How many messages are remembered whose work is done but whose acknowledgement was lost."""


FULL_QUEUE_PATIENCE_S = 30.0
"""How long a result is offered to a full queue before its handler's attempt has failed and waits for its retry."""


class Execution:
    """Runs the deliveries of one subscriber. Everything that can be found out beforehand was."""

    def __init__(
        self,
        subscriber: Subscriber,
        *,
        pipeline: str,
        transport: Transport,
        publisher: Publisher,
        executor: Executor,
        totals: Totals,
        logs_messages: bool = True,
        logs_payloads: bool = False,
    ) -> None:
        self._subscriber = subscriber
        self._pipeline = pipeline
        self._transport = transport
        self._publisher = publisher
        self._executor = executor
        self._totals = totals
        self._logs_messages = logs_messages
        self._logs_payloads = logs_payloads
        self._logger = log.get_logger()
        self._done: OrderedDict[bytes, None] = OrderedDict()

    async def run(self, delivery: Delivery) -> None:
        """Handle one delivery to its end. Cancelling gives the message back."""
        started = time.perf_counter()
        fields = self._fields(delivery)
        token = log.context.set(fields)
        try:
            if delivery.is_redelivered and _identity(delivery) in self._done:
                await self._settle(delivery, ACK)
                return
            error, published = await self._attempt(delivery)
            outcome = decide(error, delivery.attempt, self._subscriber.retry)
            await self._settle(delivery, outcome)
            self._report(outcome, error, delivery, published, started)
        except BaseException:
            if not delivery.is_settled:
                await self.release(delivery)
            raise
        finally:
            log.context.reset(token)

    async def release(self, delivery: Delivery) -> None:
        """Give a delivery back untouched, because we are stopping."""
        await self._transport.settle(delivery, RELEASE)
        self._totals.released += 1
        self._logger.info("message.released", **self._fields(delivery))

    async def _attempt(self, delivery: Delivery) -> tuple[BaseException | None, int]:
        """Decode, call the handler and publish its results; return what went wrong, and how many were published."""
        published = 0
        try:
            payload = self._subscriber.handler.decode(delivery.envelope)
            message = self._message(delivery, payload)
            handler, timeout_s = self._subscriber.handler, self._subscriber.timeout_s
            async for results in call(handler, payload, message, self._executor, timeout_s):
                for result in results:
                    published += await self._publish(result, delivery.envelope, published)
        except HandlerFailed as failure:
            return failure.error, published
        except Exception as error:  # a body that cannot be decoded, a result that cannot be published
            return error, published
        return None, published

    async def _publish(self, result: Any, parent: Envelope, index: int) -> int:
        outgoing = self._publisher.address(
            result, self._subscriber.to, parent=parent, seed=f"{self._subscriber.name}:{index}"
        )
        for item in outgoing:
            await self._publisher.send(item, patience_s=FULL_QUEUE_PATIENCE_S)
        return len(outgoing)

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Settle, and remember finished work that the broker could not be told of: it will deliver it again."""
        is_told = await self._transport.settle(delivery, outcome)
        if is_told or not isinstance(outcome, Ack):
            return
        self._done[_identity(delivery)] = None
        if len(self._done) > REMEMBERED:
            self._done.popitem(last=False)

    def _message(self, delivery: Delivery, payload: Any) -> Message | None:
        """Return the envelope as handlers see it, if the handler asks for it."""
        if self._subscriber.handler.message_parameter is None:
            return None
        envelope = delivery.envelope
        return Message(
            payload=payload,
            id=envelope.message_id,
            correlation_id=envelope.correlation_id,
            event=envelope.type,
            queue=delivery.source.queue,
            exchange=delivery.exchange,
            routing_key=delivery.routing_key,
            attempt=delivery.attempt,
            is_redelivered=delivery.is_redelivered,
            timestamp=envelope.timestamp,
            app_id=envelope.app_id,
            content_type=envelope.content_type,
            reply_to=envelope.reply_to,
            priority=envelope.priority,
            headers=envelope.headers,
        )

    def _fields(self, delivery: Delivery) -> dict[str, Any]:
        fields = {
            "pipeline": self._pipeline,
            "subscriber": self._subscriber.name,
            "queue": self._subscriber.queue,
            "message_id": delivery.envelope.message_id,
            "correlation_id": delivery.envelope.correlation_id,
            "attempt": delivery.attempt,
        }
        if self._logs_payloads:
            fields["payload"] = delivery.envelope.body.decode("utf-8", "backslashreplace")
        return fields

    def _report(
        self, outcome: Outcome, error: BaseException | None, delivery: Delivery, published: int, started: float
    ) -> None:
        """Count the end of a delivery and write its one line."""
        duration_ms = round((time.perf_counter() - started) * 1000, 1)
        match outcome:
            case Ack():
                self._totals.handled += 1
                if self._logs_messages:
                    self._logger.info("message.handled", duration_ms=duration_ms, published=published)
            case Retry():
                self._totals.retried += 1
                self._logger.warning(
                    "message.retry",
                    duration_ms=duration_ms,
                    error=outcome.error,
                    error_type=outcome.error_type,
                    at=raised_at(error),
                    delay_ms=round(outcome.after_s * 1000),
                    attempts=self._subscriber.retry.attempts,
                )
            case DeadLetter():
                self._totals.dead_lettered += 1
                self._logger.error(
                    "message.dead_lettered",
                    duration_ms=duration_ms,
                    error=outcome.error,
                    error_type=outcome.error_type,
                    reason=outcome.reason,
                    at=raised_at(error),
                    dead_letter=delivery.source.dead_letter,
                    **({"exception": traceback_text(error)} if outcome.reason == "exhausted" else {}),
                )
            case Release():  # decide() never says so
                self._totals.released += 1


def _identity(delivery: Delivery) -> bytes:
    """Return what tells one message from another, even where two carry the same id."""
    digest = blake2b(delivery.envelope.body, digest_size=16)
    digest.update(f"{delivery.envelope.message_id}:{delivery.attempt}".encode())
    return digest.digest()
