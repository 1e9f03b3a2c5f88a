"""RabbitMQ as a transport: one connection to publish, one to consume, both supervised. See `transports/base.py`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar, assert_never

import aiormq

from runner.errors import BrokerUnavailable, PublishUnknown
from runner.message import Address, Envelope
from runner.outcome import Ack, DeadLetter, Outcome, Release, Retry
from runner.pipeline.model import BrokerSettings
from runner.pipeline.topology import Topology, leadership_queue, wait_name
from runner.tasks import end
from runner.transports.base import (
    Begun,
    Capabilities,
    Declared,
    Delivery,
    Feed,
    OnDelivery,
    OnEnd,
    OnStateChange,
    Source,
)
from runner.transports.leadership import Member
from runner.transports.rabbitmq.client import short
from runner.transports.rabbitmq.connection import CHANNEL_ERRORS, Link, LinkClosed, pauses, was_cancelled
from runner.transports.rabbitmq.consumer import Consumer
from runner.transports.rabbitmq.declarations import Declarations
from runner.transports.rabbitmq.direct import wire_of
from runner.transports.rabbitmq.elsewhere import Elsewhere
from runner.transports.rabbitmq.leading import RabbitLeadership
from runner.transports.rabbitmq.moving import Mover
from runner.transports.rabbitmq.publisher import MissingExchange, Publisher
from runner.transports.rabbitmq.registration import Registration
from runner.transports.rabbitmq.topology import count_messages
from runner.transports.rabbitmq.watching import WATCH_S, watch

T = TypeVar("T")


class RabbitTransport:
    """A session with RabbitMQ. `name` is shown in the broker's list of connections; `clock` is the wall clock, UTC.

    `watch_s` is how often, in seconds, it makes sure that the broker still knows its consumers.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        name: str = "runner",
        on_state_change: OnStateChange | None = None,
        clock: Callable[[], datetime] | None = None,
        watch_s: float = WATCH_S,
        release: str = "",
    ) -> None:
        self._settings = settings
        self._watch_s = watch_s
        self._watching: asyncio.Task[None] | None = None
        self._say = on_state_change or (lambda _: None)
        self._capabilities = Capabilities("rabbitmq", is_persistent=True)
        self._declarations = Declarations(settings.topology, self._say)
        self._consumers: list[Consumer] = []
        self._leaderships: list[RabbitLeadership] = []
        self._is_closing = asyncio.Event()
        restore, restore_for_publishing = self._declarations.restore, self._declarations.restore_for_publishing
        link = partial(Link, settings, name=name, on_state_change=self._say, release=release)
        self._publishing = link(role="publish", restore=restore_for_publishing)
        self._consuming = link(role="consume", restore=restore)
        self._publisher = Publisher(self._publishing, self._say)
        self._elsewhere = Elsewhere(settings)
        self._mover = Mover(
            self._publisher,
            self._declarations,
            self._consuming,
            self._is_closing,
            on_state_change=self._say,
            now=clock or (lambda: datetime.now(UTC)),
        )

    @property
    def capabilities(self) -> Capabilities:
        """RabbitMQ does everything that the contract asks for."""
        return self._capabilities

    @property
    def trouble(self) -> Sequence[str]:
        """See `Transport.trouble`."""
        links = {"publish": self._publishing, "consume": self._consuming}
        return [f"no connection to the broker to {role}" for role, link in links.items() if not link.is_ready]

    @property
    def can_publish(self) -> bool:
        """See `Transport.can_publish`."""
        return self._publishing.is_ready and not self._publishing.is_blocked

    @property
    def target(self) -> str:
        """The broker's URL with its password masked."""
        return self._consuming.target

    async def connect(self) -> str:
        """Open both connections; see `Transport.connect`."""
        connection = await self._consuming.open()
        await self._publishing.open()
        self._watching = asyncio.create_task(
            watch(self._consuming, self._consumers, self._watch_s), name="rabbitmq-watch"
        )
        self._capabilities = replace(self._capabilities, is_direct=wire_of(connection) is not None)
        transport = connection.transport
        properties = dict(transport.connection.server_properties) if transport else {}
        return f"{_words(properties.get('product'))} {_words(properties.get('version'))}"

    async def declare(self, topology: Topology) -> Declared:
        """See `Transport.declare`; what was declared is restored after each reconnect."""

        async def attempt() -> Declared:
            return await self._declarations.declare(await self._consuming.ready(), topology)

        return await self._while_it_lasts(attempt, "the broker was lost while declaring")

    async def publish(self, address: Address, envelope: Envelope) -> None:
        """See `Transport.publish`. An exchange of ours that somebody has deleted is declared again."""
        try:
            await self._publisher.publish(address, envelope)
        except MissingExchange:
            if not self._declarations.has_exchange(address.exchange):
                raise
            await self._restore_exchanges()
            await self._publisher.publish(address, envelope)

    def begin(self, address: Address, envelope: Envelope, on_end: OnEnd) -> Begun:
        """See `Transport.begin`."""
        return self._publisher.begin(address, envelope, on_end)

    async def feed(self, source: Source, on_delivery: OnDelivery) -> Feed:
        """See `Transport.feed`. Raises BrokerUnavailable where the broker does not let us consume."""
        consumer = Consumer(self._consuming, source, on_delivery, self._say, self._declarations.restore)
        await self._while_it_lasts(consumer.start, f'cannot consume from queue "{source.queue}"')
        self._consumers.append(consumer)
        return consumer

    async def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        """See `Transport.settle`."""
        if isinstance(outcome, Ack):
            return self.ack(delivery)
        delivery.mark_settled()
        registration: Registration = delivery.generation
        match outcome:
            case Release():
                return await self._release(delivery)
            case Retry():
                is_moved = await self._mover.retry(delivery, outcome)
            case DeadLetter():
                queue = delivery.source.dead_letter
                is_moved = queue is None or await self._mover.dead_letter(delivery, outcome, queue)
            case _:
                assert_never(outcome)
        if not is_moved:
            registration.keep(delivery, outcome)
            return False
        return registration.ack(delivery, is_handled=False)

    def ack(self, delivery: Delivery) -> bool:
        """See `Transport.ack`."""
        delivery.mark_settled()
        registration: Registration = delivery.generation
        return registration.ack(delivery, is_handled=True)

    async def backlog(self, sources: Sequence[Source]) -> int:
        """See `Transport.backlog`. What other processes hold unsettled is not visible over AMQP."""
        await asyncio.gather(*(consumer.flush() for consumer in self._consumers))
        names = {source.queue for source in sources}
        for prefix in {source.wait_prefix for source in sources}:
            names.update(wait_name(prefix, wait) for wait in self._declarations.waits(prefix))
        try:
            ready = await count_messages(await self._consuming.ready(), names)
        except (LinkClosed, *CHANNEL_ERRORS):
            return 1  # unknown is not empty
        return self._mover.in_transit() + ready

    async def held_elsewhere(self, sources: Sequence[Source], quiet_s: float) -> int | str:
        """See `Transport.held_elsewhere`. AMQP tells of other consumers, the management API what they hold."""
        ours = Counter(consumer.queue for consumer in self._consumers)
        try:
            return await self._elsewhere.held(await self._consuming.ready(), sources, ours, quiet_s)
        except (LinkClosed, *CHANNEL_ERRORS):
            return 1  # it is asked again when the connection is back

    async def lead(self, name: str, member: Member | None = None) -> RabbitLeadership:
        """See `Transport.lead`; how it is kept, and for how long two may believe to lead, is in `leading`.

        Waits while the broker is away. Raises BrokerUnavailable where the broker does not let us.
        """
        leadership = RabbitLeadership(
            name,
            self._consuming,
            self._publisher,
            self._declarations,
            heartbeat_s=self._settings.heartbeat_s,
            on_state_change=self._say,
            member=member or Member(),
        )
        for pause in pauses():
            try:
                queue = Topology(queues=(leadership_queue(name),))
                await self._declarations.declare(await self._consuming.ready(), queue)
                await leadership.compete()
                break
            except (LinkClosed, aiormq.exceptions.ChannelClosed) as error:
                text = f'cannot compete for the leadership through queue "{name}": {error}'
                raise BrokerUnavailable(text) from error
            except CHANNEL_ERRORS:
                pass  # the connection was lost, and comes back
            except asyncio.CancelledError:
                if was_cancelled():
                    raise
            await asyncio.sleep(pause)
        self._leaderships.append(leadership)
        return leadership

    async def close(self) -> None:
        """See `Transport.close`."""
        self._is_closing.set()
        await end(self._watching)
        await asyncio.gather(*(leadership.resign() for leadership in self._leaderships))
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        await self._publisher.close()
        await asyncio.gather(self._publishing.close(), self._consuming.close())

    async def _while_it_lasts(self, attempt: Callable[[], Awaitable[T]], complaint: str) -> T:
        """Try again where the connection was lost meanwhile, for the connect timeout; raises BrokerUnavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.connect_timeout_s
        for pause in pauses():
            try:
                return await attempt()
            except LinkClosed:
                raise BrokerUnavailable(f"{complaint}: the session was closed") from None
            except CHANNEL_ERRORS as error:
                is_answer = isinstance(error, aiormq.exceptions.ChannelClosed)
                if is_answer or loop.time() + pause >= deadline:
                    raise BrokerUnavailable(f"{complaint}: {short(error)}") from error
            except asyncio.CancelledError:
                if was_cancelled():
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    async def _restore_exchanges(self) -> None:
        """Declare everything again, for a publication that found its exchange missing."""
        try:
            await self._declarations.restore(await self._consuming.ready())
        except (LinkClosed, *CHANNEL_ERRORS) as error:
            raise PublishUnknown("the broker was lost while restoring an exchange") from error

    async def _release(self, delivery: Delivery) -> bool:
        """Give back; False where the channel that the delivery came by is gone."""
        registration: Registration = delivery.generation
        try:
            return await registration.release(delivery.token)
        except CHANNEL_ERRORS:
            return False
        except asyncio.CancelledError:
            if was_cancelled():
                raise
            return False


def _words(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
