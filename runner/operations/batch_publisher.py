"""Publishes many bodies to one queue or event of a pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runner.errors import PublishFailed
from runner.message import NO_HEADERS, Publish
from runner.pipeline.codec import guess_payload, with_values
from runner.pipeline.model import Destination, Pipeline
from runner.runtime.answers import Answer
from runner.runtime.publisher import OutgoingMessage, make_publisher
from runner.runtime.rate_limit import RateLimiter
from runner.transports.base import Transport

if TYPE_CHECKING:
    from runner.runtime.tracing import Tracer

MAX_UNCONFIRMED = 1000
"""Maximum number of messages that wait for their confirm."""


class BatchPublisher:
    """A batch of messages. All are checked before the first is sent.

    `lines` are the line numbers of the bodies, for errors; empty if they are not lines. `options` are more arguments of
    `Publish`. Raises PublishFailed, and ValueError where `Publish` does.
    """

    def __init__(
        self,
        transport: Transport,
        pipeline: Pipeline,
        target: Destination,
        bodies: Sequence[bytes],
        headers: Mapping[str, str],
        lines: Sequence[int] = (),
        tracer: Tracer | None = None,
        options: Mapping[str, Any] = NO_HEADERS,
    ) -> None:
        self._lines = lines
        self._publisher = make_publisher(tracer, transport, app_id=pipeline.name, destinations=pipeline.destinations)
        self._outgoing: list[OutgoingMessage] = []
        for number, body in enumerate(bodies):
            with self._line_named(number, "nothing was published", body):
                message = Publish(guess_payload(body), headers=headers, **options)
                self._outgoing += self._publisher.prepare([message], (target,))

    @property
    def ids(self) -> list[str]:
        """The ids of the messages, in order."""
        return [item.envelope.message_id or "" for item in self._outgoing]

    async def send(self, per_second: float | None, on_confirmed: Callable[[], None]) -> None:
        """Publish all and wait for the confirms. `on_confirmed` is called once for each message."""
        limiter = RateLimiter(per_second) if per_second is not None else None

        async def send(number: int) -> None:
            if limiter is not None:
                await limiter.wait()
            with (
                self._line_named(number, "other lines may have been published"),
                self._publisher.publication(self._outgoing[number]) as sent,
            ):
                await self._publisher.publish(sent)
            on_confirmed()

        count = len(self._outgoing)
        for start in range(0, count, MAX_UNCONFIRMED):
            await asyncio.gather(*map(send, range(start, min(start + MAX_UNCONFIRMED, count))))

    async def call(self, timeout_s: float) -> Answer:
        """Publish the only message as a question, and return the answer. See `PipelinePublisher.call`."""
        (question,) = self._outgoing
        return await self._publisher.call(question, timeout_s)

    @contextmanager
    def _line_named(self, number: int, effect: str, body: bytes = b"") -> Iterator[None]:
        """Add the values that do not fit and the line number to a PublishFailed, and what happened to the other lines.

        The caller has written these values, so they may be shown.
        """
        try:
            yield
        except PublishFailed as failure:
            text = with_values(failure, body)
            if self._lines:
                text = f"line {self._lines[number]}: {text}; {effect}"
            raise PublishFailed(text, reason=failure.reason, hint=failure.hint) from failure
