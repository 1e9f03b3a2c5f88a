"""Publishes the results of handlers. Results that cannot be published are retried without calling the handler again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from runner import log
from runner.errors import PublishFailed
from runner.message import ERROR, ERROR_TYPE, REASON, Address, Envelope, Publish
from runner.outcome import DeadLetter, ResultFailed
from runner.pipeline.codec import encode
from runner.pipeline.model import Destination, Subscriber
from runner.runtime.publisher import (
    OutgoingMessage,
    PipelinePublisher,
    reply_destinations,
    result_origin,
    split_results,
)
from runner.transports.failure_copies import printable

FULL_QUEUE_TIMEOUT_S = 30.0
"""How long a result is offered to a full queue before that counts as a failed attempt."""

MAX_RESULT_AGE_S = 25 * 60.0
"""How long a message may stay unsettled for its results, counted from the start of its handler. RabbitMQ takes back
what is unsettled for 30 minutes, and the handler would be called again.
"""

DETACHED = -1
"""The number of published messages of a call while the confirm of its only one is missing."""

OnDetached = Callable[[Context, OutgoingMessage, float, Exception | None], None]
"""Called with the context of the call, the message, the loop time of the call, and the error of the publication."""


class PublishingStopped(Exception):
    """The runner stops while a result waits to be published. The message is given back."""


class ResultPublisher:
    """Publishes the results of one subscriber."""

    def __init__(self, subscriber: Subscriber, publisher: PipelinePublisher, pipeline: str) -> None:
        self._subscriber = subscriber
        self._publisher = publisher
        self.end = publisher.end
        self._seed = repr((pipeline, subscriber.name))
        self._loop = asyncio.get_running_loop()
        self._is_stopping = asyncio.Event()
        self._logger = log.get_logger()
        self._has_warned = False

    def stop(self) -> None:
        """Let waiting results try once more at once, and then give up."""
        self._is_stopping.set()

    async def publish(
        self,
        results: Sequence[Any],
        parents: Sequence[Envelope],
        before: int,
        started: float,
        *,
        is_answer_only: bool = False,
        detached: OnDetached | None = None,
    ) -> int:
        """Publish results and return how many messages they became.

        All results are validated before the first one is published. `before` counts the messages of the same call that
        are already published, `started` is the loop time when the handler was called. With `is_answer_only`, they go to
        the sender of the message alone. Raises ResultFailed and PublishingStopped.

        With `detached`, it does not wait for the confirm of a single message: it returns DETACHED, and `detached` is
        called with the end of the publication. The caller goes on with `end` or `publish_one`.
        """
        try:
            origin = result_origin(parents)
            asker = origin.reply_to
            to = reply_destinations(asker or "") if is_answer_only else self._destinations(asker)
            if not to and not self._subscriber.is_responder:
                self._check_dropped(results)
            outgoing = self._publisher.prepare(results, to, seed=self._seed, before=before, origin=origin)
        except Exception as error:  # schemas and serializers are the user's code and may raise anything
            raise ResultFailed(error, "invalid-result") from error
        if detached is not None and len(outgoing) == 1:
            sent = self._publisher.start(outgoing[0])
            begun = self._publisher.publish_nowait(sent, partial(detached, copy_context(), sent, started))
            if begun == "started":
                return DETACHED
            if begun == "busy":
                await self.publish_one(sent, started)
            else:
                self.end(sent)
            return 1
        attempt = 1
        for item in outgoing:
            attempt = await self.publish_one(self._publisher.start(item), started, attempt)
        return len(outgoing)

    async def publish_one(
        self, sent: OutgoingMessage, started: float, attempt: int = 1, error: Exception | None = None
    ) -> int:
        """Publish a message until it is confirmed, and return the number of the last attempt. Raises as `publish`.

        `error` is that of an attempt that has just failed.
        """
        try:  # not `with publication(item)`, which costs a microsecond for each result
            while (failure := await self._try_publish(sent, error)) is not None:
                error = None
                await self._wait_before_retry(failure, attempt, started)
                attempt += 1
        except BaseException as failed:
            self.end(sent, failed)
            raise
        self.end(sent)
        return attempt

    async def answer_failure(self, question: Envelope, outcome: DeadLetter) -> None:
        """Tell the sender of a message, if it waits for an answer, that the message is given up, and why.

        An answer that its queue refuses is dropped: the message is kept as a dead letter.
        """
        origin = result_origin((question,))
        to = reply_destinations(origin.reply_to or "")
        failure = {REASON: outcome.reason, ERROR_TYPE: printable(outcome.error_type), ERROR: printable(outcome.error)}
        body = {name.removeprefix("x-runner-").replace("-", "_"): value for name, value in failure.items()}
        for item in self._publisher.prepare([body], to, seed=f"{self._seed}:failure", origin=origin):
            answer = item._replace(envelope=item.envelope._replace(headers=failure))
            try:
                with self._publisher.publication(answer) as sent:
                    await self._publisher.publish(sent, full_queue_timeout_s=0.0)
            except PublishFailed as error:
                self._logger.info("reply.given_up", to=answer.destination.name, error=str(error))

    def _check_dropped(self, results: Sequence[Any]) -> None:
        """Warn once that results go nowhere. Raises PublishFailed for a Publish: it is meant to be published."""
        hint = "write `to:` in the subscriber, or `reply: true` if callers get it"
        for result in (item for found in results for item in split_results(found)):
            if isinstance(result, Publish) and result.to is None:
                text = "a Publish has no destination: neither it nor the subscriber has a `to`"
                raise PublishFailed(text, reason="invalid", hint='write Publish(…, to="…"), or `to:` in the subscriber')
            if isinstance(result, FunctionType | MethodType):
                encode(result)  # raises what it would with a destination
            if result is not None and not isinstance(result, Publish) and not self._has_warned:
                self._has_warned = True
                self._logger.warning("result.dropped", hint=hint)

    def _destinations(self, asker: str | None) -> tuple[Destination, ...]:
        """Return the default destinations: the subscriber's `to`, and the sender if it waits for a reply."""
        to = self._subscriber.to
        if not asker or not self._subscriber.replies:
            return to
        answer = Address("", asker)
        return to if any(each.address == answer for each in to) else (*to, *reply_destinations(asker))

    async def _try_publish(self, item: OutgoingMessage, error: Exception | None) -> PublishFailed | None:
        """Publish a message. Return why it cannot be published now; raises ResultFailed if it never can."""
        try:
            await self._publisher.publish(item, full_queue_timeout_s=FULL_QUEUE_TIMEOUT_S, error=error)
        except PublishFailed as failure:
            if failure.reason == "invalid":
                raise ResultFailed(failure, "invalid-result") from failure
            return failure
        return None

    async def _wait_before_retry(self, failure: PublishFailed, attempt: int, started: float) -> None:
        """Wait before the next attempt. Raises ResultFailed after the last one, and PublishingStopped."""
        policy = self._subscriber.retry
        delay_s = policy.delay_after(attempt)
        if attempt >= policy.attempts or self._loop.time() + delay_s > started + MAX_RESULT_AGE_S:
            raise ResultFailed(failure, "exhausted") from failure
        if self._is_stopping.is_set():
            raise PublishingStopped
        self._logger.warning(
            "result.retry",
            error=str(failure),
            error_type=type(failure).__qualname__,
            delay_ms=round(delay_s * 1000),
            publish_attempt=attempt,
            attempts=policy.attempts,
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._is_stopping.wait()
