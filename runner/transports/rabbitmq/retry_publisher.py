"""Publishes the copies of failed messages: to a wait queue for a retry, or to a dead-letter queue.

The copy is confirmed first, and only then is the original acknowledged. A crash in between makes a duplicate, no loss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from runner.backoff import backoff_delays
from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown, TopologyMismatch
from runner.message import Address
from runner.outcome import DeadLetter, Retry
from runner.pipeline.topology import wait_milliseconds, wait_name
from runner.tasks import wait_set
from runner.transports.base import Delivery, OnTransportEvent, TransportEvent
from runner.transports.failure_copies import MessageCopy, dead_letter_copy, retry_copy
from runner.transports.rabbitmq.aiormq_workarounds import CHANNEL_ERRORS, ConnectionLost, loss_as_error
from runner.transports.rabbitmq.connection import ConnectionClosedByUs, ReconnectingConnection
from runner.transports.rabbitmq.publisher import MissingExchange, RabbitPublisher
from runner.transports.rabbitmq.topology import DeclaredTopology

IN_TRANSIT_S = 1.0
"""How long after its delay a retry may be in neither queue, while the broker moves it."""


@dataclass
class RetryPublisher:
    """Publishes copies of failed messages until the broker confirms them. `now` is the wall clock, UTC."""

    publisher: RabbitPublisher
    topology: DeclaredTopology
    connection: ReconnectingConnection
    is_closing: asyncio.Event
    on_event: OnTransportEvent
    now: Callable[[], datetime]
    _due: dict[str, float] = field(default_factory=dict, init=False)

    def in_transit(self) -> int:
        """Return how many wait queues may be returning a message now. Meanwhile no queue counts it."""
        now = asyncio.get_running_loop().time()
        return sum(0 <= now - due <= IN_TRANSIT_S for due in self._due.values())

    async def retry(self, delivery: Delivery, outcome: Retry) -> bool:
        """Publish a copy to a wait queue; return whether it is confirmed."""

        async def attempt() -> None:
            copy = retry_copy(delivery, outcome, self.now())
            prefix, wanted = delivery.options.wait_prefix, wait_milliseconds(outcome.after_s)
            wait = await self.topology.ensure_wait(await self.connection.ready(), prefix, wanted)
            name = wait_name(prefix, wait)
            await self._send(MessageCopy(Address(name, copy.address.key), copy.envelope))
            self._due[name] = asyncio.get_running_loop().time() + wait / 1000

        return await self._retry_until_published(delivery, attempt)

    async def dead_letter(self, delivery: Delivery, outcome: DeadLetter, queue: str) -> bool:
        """Publish a copy to the dead-letter queue; return whether it is confirmed."""

        async def attempt() -> None:
            await self._send(dead_letter_copy(delivery, outcome, queue, self.now()))

        return await self._retry_until_published(delivery, attempt)

    async def _send(self, copy: MessageCopy) -> None:
        """Publish a copy. A missing queue or exchange is declared again for the next attempt."""
        try:
            await self.publisher.publish(copy.address, copy.envelope, is_copy=True)
        except PublishFailed as failure:
            if failure.reason == "unroutable" or isinstance(failure, MissingExchange):
                await self.topology.restore(await self.connection.ready())
            elif failure.reason == "invalid":
                headers = copy.envelope.headers.items()  # those of other programs may be what is wrong
                own = {name: value for name, value in headers if name.startswith("x-runner-")}
                await self.publisher.publish(copy.address, copy.envelope._replace(headers=own), is_copy=True)
                return
            raise

    async def _retry_until_published(self, delivery: Delivery, attempt: Callable[[], Awaitable[None]]) -> bool:
        """Try until it works, or until the broker takes the original back. Until then the original stays unsettled."""
        is_said = False
        for pause in backoff_delays():
            if delivery.is_lost or self.is_closing.is_set():
                return False
            try:
                with loss_as_error:
                    await attempt()
                return True
            except ConnectionClosedByUs:
                return False
            except ConnectionLost:
                pass  # reported by the connection
            except (PublishFailed, PublishUnknown, BrokerUnavailable, TopologyMismatch, *CHANNEL_ERRORS) as error:
                if not is_said:
                    fields = {"queue": delivery.options.queue, "subscriber": delivery.options.subscriber}
                    self.on_event(TransportEvent("settle.waiting", "warning", {**fields, "error": str(error)}))
                    is_said = True
            await wait_set(self.is_closing, pause)
        raise AssertionError("pauses never end")
