"""RabbitMQ as a transport: one connection to publish, one to consume, both supervised. See `transports/base.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import assert_never

from aio_pika.abc import AbstractConnection

from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown, TopologyMismatch
from runner.message import Address, Envelope
from runner.outcome import Ack, DeadLetter, Outcome, Release, Retry
from runner.pipeline.model import BrokerSettings
from runner.pipeline.topology import Topology, merge, wait_milliseconds, wait_topology
from runner.transports.base import (
    Capabilities,
    Declared,
    Delivery,
    Feed,
    OnDelivery,
    OnStateChange,
    Source,
    StateChange,
)
from runner.transports.copies import Copy, dead_letter_copy, retry_copy
from runner.transports.rabbitmq.connection import CHANNEL_ERRORS, Link, pauses, was_cancelled
from runner.transports.rabbitmq.consumer import Consumer, Registration
from runner.transports.rabbitmq.publisher import MissingExchange, Publisher
from runner.transports.rabbitmq.topology import count_messages, declare

IN_TRANSIT_S = 1.0
"""How long after its delay a retry may be in neither queue: the broker is moving it."""


class RabbitTransport:
    """A session with RabbitMQ. `name` is shown in the broker's list of connections; `clock` is the wall clock, UTC."""

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        name: str = "runner",
        on_state_change: OnStateChange | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._settings = settings
        self._say = on_state_change or (lambda _: None)
        self._now = clock or (lambda: datetime.now(UTC))
        self._topology = Topology()
        self._wait_due: dict[str, float] = {}
        self._consumers: list[Consumer] = []
        self._is_closing = asyncio.Event()
        self._publishing = Link(
            settings, role="publish", name=name, on_state_change=self._say, restore=self._restore_for_publishing
        )
        self._consuming = Link(settings, role="consume", name=name, on_state_change=self._say, restore=self._restore)
        self._publisher = Publisher(self._publishing, self._say)

    @property
    def capabilities(self) -> Capabilities:
        """RabbitMQ does everything that the contract asks for."""
        return Capabilities("rabbitmq", is_persistent=True)

    @property
    def target(self) -> str:
        """The broker's URL with its password masked."""
        return self._consuming.target

    async def connect(self) -> str:
        """Open both connections; see `Transport.connect`."""
        connection = await self._consuming.open()
        await self._publishing.open()
        transport = connection.transport
        properties = dict(transport.connection.server_properties) if transport else {}
        return f"{_words(properties.get('product'))} {_words(properties.get('version'))}"

    async def declare(self, topology: Topology) -> Declared:
        """See `Transport.declare`; what was declared is restored after each reconnect."""
        try:
            declared = await declare(await self._consuming.ready(), topology, self._settings.topology)
        except CHANNEL_ERRORS as error:
            raise BrokerUnavailable(f"the broker was lost while declaring: {error}") from error
        self._topology = merge([self._topology, topology])
        return declared

    async def publish(self, address: Address, envelope: Envelope) -> None:
        """See `Transport.publish`. An exchange of ours that somebody has deleted is declared again."""
        try:
            await self._publisher.publish(address, envelope)
        except MissingExchange:
            if not any(exchange.name == address.exchange for exchange in self._topology.exchanges):
                raise
            await self._restore(await self._consuming.ready())
            await self._publisher.publish(address, envelope)

    async def feed(self, source: Source, on_delivery: OnDelivery) -> Feed:
        """See `Transport.feed`. Raises BrokerUnavailable where the broker does not let us consume."""
        consumer = Consumer(self._consuming, source, on_delivery, self._say)
        try:
            await consumer.start()
        except CHANNEL_ERRORS as error:
            raise BrokerUnavailable(f'cannot consume from queue "{source.queue}": {error}') from error
        self._consumers.append(consumer)
        return consumer

    async def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        """See `Transport.settle`."""
        delivery.mark_settled()
        match outcome:
            case Ack():
                return await self._tell(delivery, is_done=True)
            case Release():
                return await self._tell(delivery, is_done=False)
            case Retry():
                return await self._move(delivery, retry_copy(delivery, outcome, self._now()), outcome)
            case DeadLetter():
                dead_letter = delivery.source.dead_letter
                if dead_letter is None:
                    return await self._tell(delivery, is_done=True)
                return await self._move(
                    delivery, dead_letter_copy(delivery, outcome, dead_letter, self._now()), outcome
                )
        assert_never(outcome)

    async def backlog(self, sources: Sequence[Source]) -> int:
        """See `Transport.backlog`. What other processes hold unsettled is not visible over AMQP."""
        now = asyncio.get_running_loop().time()
        in_transit = sum(0 <= now - due <= IN_TRANSIT_S for due in self._wait_due.values())
        names = {source.queue for source in sources}
        prefixes = tuple({f"{source.wait_prefix}." for source in sources})
        names.update(queue.name for queue in self._topology.queues if queue.name.startswith(prefixes))
        try:
            ready = await count_messages(await self._consuming.ready(), names)
        except CHANNEL_ERRORS:
            return 1  # unknown is not empty
        return in_transit + ready

    async def close(self) -> None:
        """See `Transport.close`."""
        self._is_closing.set()
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        await self._publisher.close()
        await asyncio.gather(self._publishing.close(), self._consuming.close())

    async def _tell(self, delivery: Delivery, *, is_done: bool) -> bool:
        """Acknowledge, or give back; False where the channel that the delivery came by is gone."""
        registration: Registration = delivery.generation
        try:
            if is_done:
                await registration.channel.basic_ack(delivery.token, wait=False)
            else:
                await registration.channel.basic_nack(delivery.token, requeue=True, wait=False)
        except CHANNEL_ERRORS:
            return False
        except asyncio.CancelledError:
            if was_cancelled():
                raise
            return False
        return True

    async def _move(self, delivery: Delivery, copy: Copy, outcome: Retry | DeadLetter) -> bool:
        """Publish the copy until it is confirmed, then acknowledge the original; never the other way round."""
        registration: Registration = delivery.generation
        for pause in pauses():
            if not registration.is_open or self._is_closing.is_set():
                return False
            try:
                await self._ensure_wait_queue(delivery, outcome)
                await self._publisher.publish(copy.address, copy.envelope)
                break
            except PublishFailed as failure:
                copy = await self._mend(copy, failure)
            except (PublishUnknown, BrokerUnavailable, *CHANNEL_ERRORS):
                pass  # the same copy again, with the same id
            await self._pause(pause)
        return await self._tell(delivery, is_done=True)

    async def _mend(self, copy: Copy, failure: PublishFailed) -> Copy:
        """Remove the reason why a copy was not taken: restore the topology, or leave foreign headers behind."""
        match failure.reason:
            case "unroutable":
                await self._restore(await self._consuming.ready())
            case "invalid" if isinstance(failure, MissingExchange):
                await self._restore(await self._consuming.ready())
            case "invalid":
                ours = {name: value for name, value in copy.envelope.headers.items() if name.startswith("x-runner-")}
                copy = copy._replace(envelope=copy.envelope._replace(headers=ours))
            case "refused":
                pass
        return copy

    async def _ensure_wait_queue(self, delivery: Delivery, outcome: Retry | DeadLetter) -> None:
        """Declare the wait queue of a delay that no policy names, the first time it is asked for."""
        if not isinstance(outcome, Retry):
            return
        milliseconds = wait_milliseconds(outcome.after_s)
        topology = wait_topology(delivery.source.wait_prefix, milliseconds)
        name = topology.queues[0].name
        if not any(queue.name == name for queue in self._topology.queues):
            await self.declare(topology)
        self._wait_due[name] = asyncio.get_running_loop().time() + milliseconds / 1000

    async def _restore(self, connection: AbstractConnection) -> None:
        """Declare everything again: queues that are not durable are gone when the broker has restarted."""
        try:
            await declare(connection, self._topology, self._settings.topology)
        except TopologyMismatch as error:
            self._say(StateChange("topology.mismatch", "error", {"error": str(error)}))

    async def _restore_for_publishing(self, connection: AbstractConnection) -> None:
        """Exclusive queues belong to the connection that consumes; all else must be there before we publish."""
        shared = tuple(queue for queue in self._topology.queues if not queue.exclusive)
        names = {queue.name for queue in shared}
        bindings = tuple(binding for binding in self._topology.bindings if binding.queue in names)
        topology = replace(self._topology, queues=shared, bindings=bindings)
        try:
            await declare(connection, topology, self._settings.topology)
        except TopologyMismatch as error:
            self._say(StateChange("topology.mismatch", "error", {"error": str(error)}))

    async def _pause(self, seconds: float) -> None:
        """Wait, but not when we are closing."""
        try:
            async with asyncio.timeout(seconds):
                await self._is_closing.wait()
        except TimeoutError:
            pass


def _words(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
