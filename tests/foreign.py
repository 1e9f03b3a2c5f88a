"""Another program on the other side of the broker. It speaks pika, so that aio-pika is not judged by itself."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import pika

NOT_FOUND = 404
SILENCE_S = 20.0


class Got(NamedTuple):
    """A message as another program sees it."""

    body: bytes
    properties: Any
    exchange: str
    routing_key: str

    @property
    def headers(self) -> dict[str, Any]:
        return self.properties.headers or {}


class Foreign:
    """A client of its own, with one connection that is opened when needed. A context manager."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: pika.BlockingConnection | None = None

    @property
    def channel(self) -> Any:
        """A new channel: a refusal takes only that one down."""
        if self._connection is None or self._connection.is_closed:
            self._connection = pika.BlockingConnection(pika.URLParameters(self._url))
        return self._connection.channel()

    def publish(self, queue: str, *bodies: bytes, exchange: str = "", **properties: Any) -> None:
        """Publish, and return when the broker has taken everything over; a durable queue has it on the disk."""
        channel = self.channel
        for body in bodies:
            channel.basic_publish(exchange, queue, body, pika.BasicProperties(**{"delivery_mode": 2, **properties}))
        channel.close()  # answered after everything before it

    def publish_confirmed(self, queue: str, *bodies: bytes, **properties: Any) -> None:
        """Publish one after the other, each confirmed and routed."""
        channel = self.channel
        channel.confirm_delivery()
        for body in bodies:
            made = pika.BasicProperties(**{"delivery_mode": 2, **properties})
            channel.basic_publish("", queue, body, made, mandatory=True)
        channel.close()

    def take(self, queue: str) -> list[Got]:
        """Return everything that is in a queue now, and remove it."""
        channel = self.channel
        found: list[Got] = []
        count = channel.queue_declare(queue, passive=True).method.message_count
        if count:
            channel.basic_qos(prefetch_count=count)  # what comes later stays there
            for frame, properties, body in channel.consume(queue, inactivity_timeout=SILENCE_S):
                assert frame is not None, f"{len(found)} of {count} messages came from {queue}"
                found.append(Got(body, properties, frame.exchange, frame.routing_key))
                if len(found) == count:
                    channel.basic_ack(frame.delivery_tag, multiple=True)
                    break
            channel.cancel()
        channel.close()
        return found

    def count(self, queue: str) -> int:
        """Return how many messages of a queue are ready."""
        channel = self.channel
        count: int = channel.queue_declare(queue, passive=True).method.message_count
        channel.close()
        return count

    def consumers(self, queue: str) -> int:
        """Return how many consumers a queue has."""
        channel = self.channel
        count: int = channel.queue_declare(queue, passive=True).method.consumer_count
        channel.close()
        return count

    def has_queue(self, queue: str) -> bool:
        """Whether a queue exists."""
        return self._has(lambda channel: channel.queue_declare(queue, passive=True))

    def has_exchange(self, exchange: str) -> bool:
        """Whether an exchange exists."""
        return self._has(lambda channel: channel.exchange_declare(exchange, passive=True))

    def _has(self, ask: Callable[[Any], object]) -> bool:
        channel = self.channel
        try:
            ask(channel)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code != NOT_FOUND:
                raise
            return False
        channel.close()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.close()
