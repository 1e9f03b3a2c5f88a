"""RabbitMQ as a transport: one connection to publish and one to consume, both supervised. See `transports/base.py`.

A session that only publishes has only the first.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TypeVar, assert_never

import aiormq

from runner.backoff import backoff_delays
from runner.clock import utc_now
from runner.errors import BrokerUnavailable, PublishUnknown
from runner.message import Address, Envelope
from runner.outcome import Ack, DeadLetter, Outcome, Release, Retry
from runner.pipeline.delays import HOLDS_DELAYED
from runner.pipeline.model import BrokerSettings
from runner.pipeline.topology import Topology, leadership_queue
from runner.tasks import cancel_and_wait
from runner.transports.base import (
    Capabilities,
    DeclareResult,
    Delivery,
    OnDelivery,
    OnPublished,
    OnTransportEvent,
    PublishStarted,
    Subscription,
    SubscriptionOptions,
    TransportEvent,
)
from runner.transports.leadership import Candidate
from runner.transports.pauses import OnPauses, Pause, PauseChange, Pauses
from runner.transports.rabbitmq.aiormq_workarounds import (
    CHANNEL_ERRORS,
    broker_version,
    describe_error,
    loss_as_error,
    product_of,
)
from runner.transports.rabbitmq.amqp_fast_path import FAST_PATH_HINT, no_fast_path
from runner.transports.rabbitmq.broker_features import features_of, quorum_priorities_of
from runner.transports.rabbitmq.caller import RabbitCaller
from runner.transports.rabbitmq.channels import access_refused, help_for_reply
from runner.transports.rabbitmq.connection import ConnectionClosedByUs, ReconnectingConnection
from runner.transports.rabbitmq.consumer import WATCHDOG_S, Consumer, watch_consumers
from runner.transports.rabbitmq.leader_election import RabbitLeadership
from runner.transports.rabbitmq.other_consumers import OtherConsumers
from runner.transports.rabbitmq.pause_log import PauseLog
from runner.transports.rabbitmq.publish_channel import PublishChannel
from runner.transports.rabbitmq.publisher import MissingExchange, RabbitPublisher
from runner.transports.rabbitmq.retry_publisher import RetryPublisher
from runner.transports.rabbitmq.topology import DeclaredTopology, count_messages
from runner.transports.rabbitmq.topology_probe import TopologyProbe

T = TypeVar("T")


class RabbitTransport:
    """A session with RabbitMQ. See `Transport` for its methods.

    The broker shows `name` in its list of connections; `clock` is the wall clock, UTC. `watchdog_s` is how often, in
    seconds, it checks that the broker still knows its consumers. A session that `only_publishes` has one connection,
    and cannot subscribe.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        name: str = "runner",
        on_transport_event: OnTransportEvent | None = None,
        clock: Callable[[], datetime] | None = None,
        watchdog_s: float = WATCHDOG_S,
        release: str = "",
        only_publishes: bool = False,
    ) -> None:
        self._settings = settings
        self._watchdog_s = watchdog_s
        self._watchdog: asyncio.Task[None] | None = None
        self._on_event = on_transport_event or (lambda _: None)
        self._capabilities = Capabilities("rabbitmq", is_persistent=True, is_shared=True, delay_rounding=0.005)
        self._topology = DeclaredTopology(settings.topology, self._on_event)
        self._consumers: list[Consumer] = []
        self._leaderships: list[RabbitLeadership] = []
        self._pause_logs: list[PauseLog] = []
        self._is_closing = asyncio.Event()
        restore, restore_for_publishing = self._topology.restore, self._topology.restore_for_publishing
        make_connection = partial(
            ReconnectingConnection, settings, name=name, on_transport_event=self._on_event, release=release
        )
        self._publishing = make_connection(role="publish", restore=restore_for_publishing)
        self._consuming = self._publishing if only_publishes else make_connection(role="consume", restore=restore)
        self._publisher = RabbitPublisher(self._publishing, self._on_event)
        self._answering = RabbitPublisher(self._publishing, self._on_event)
        self._caller = RabbitCaller(self._publishing, self._on_event)
        self._other_consumers = OtherConsumers(settings)
        session = (self._publisher, self._topology, self._consuming, self._is_closing)
        self._retry_publisher = RetryPublisher(*session, self._on_event, clock or utc_now)

    @property
    def capabilities(self) -> Capabilities:
        """See `Transport.capabilities`. The features are known after `connect`."""
        return self._capabilities

    @property
    def unready_reasons(self) -> Sequence[str]:
        connections = {"publish": self._publishing, "consume": self._consuming}
        return [f"no connection to the broker to {role}" for role, each in connections.items() if not each.is_ready]

    @property
    def can_publish(self) -> bool:
        return self._publishing.is_ready and not self._publishing.is_blocked

    @property
    def target(self) -> str:
        """The broker's URL with its password masked."""
        return self._consuming.target

    async def connect(self) -> str:
        """See `Transport.connect`. It opens both connections."""
        connection = await self._consuming.open()
        if self._publishing is not self._consuming:
            await self._publishing.open()
        self._watchdog = asyncio.create_task(
            watch_consumers(self._consuming, self._consumers, self._watchdog_s), name="rabbitmq-watch"
        )
        if reason := no_fast_path(connection):
            fields = {"broker": self.target, "reason": reason, "hint": FAST_PATH_HINT}
            self._on_event(TransportEvent("broker.slow_path", "warning", fields))
        line = broker_version(connection)
        self._capabilities = replace(
            self._capabilities, features=features_of(line), quorum_priorities=quorum_priorities_of(line)
        )
        return product_of(connection)

    async def declare(self, topology: Topology) -> DeclareResult:
        """See `Transport.declare`. What was declared is declared again after each reconnect."""

        async def attempt() -> DeclareResult:
            return await self._topology.declare(await self._consuming.ready(), topology)

        return await self._retry_while_reconnecting(attempt, "the broker was lost while declaring")

    async def publish(self, address: Address, envelope: Envelope, *, is_answer: bool = False) -> None:
        """See `Transport.publish`. Answers have a channel of their own."""
        await self._publish_by(self._answering if is_answer else self._publisher, address, envelope)

    async def ask(self, address: Address, envelope: Envelope) -> asyncio.Future[Envelope]:
        return await self._caller.ask(envelope, partial(self._publish_by, self._caller, address))

    async def _publish_by(self, publisher: RabbitPublisher, address: Address, envelope: Envelope) -> PublishChannel:
        """Publish. An exchange that this session declared, and that was deleted, is declared again."""
        try:
            return await publisher.publish(address, envelope)
        except MissingExchange:
            if not self._topology.has_exchange(address.exchange):
                raise
            await self._restore_exchanges()
            return await publisher.publish(address, envelope)

    def publish_nowait(self, address: Address, envelope: Envelope, on_published: OnPublished) -> PublishStarted:
        return self._publisher.publish_nowait(address, envelope, on_published)

    async def subscribe(self, options: SubscriptionOptions, on_delivery: OnDelivery) -> Subscription:
        """See `Transport.subscribe`. Raises BrokerUnavailable where the broker does not let us consume."""
        consumer = Consumer(self._consuming, options, on_delivery, self._on_event, self._topology)
        await self._retry_while_reconnecting(consumer.start, f'cannot consume from queue "{options.queue}"')
        self._consumers[:] = [*(other for other in self._consumers if not other.is_closed), consumer]
        return consumer

    async def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        if isinstance(outcome, Ack):
            return self.ack(delivery)
        delivery.mark_settled()
        match outcome:
            case Release():
                with suppress(*CHANNEL_ERRORS), loss_as_error:
                    return await delivery.subscription.release(delivery)
                return False  # its channel is gone
            case Retry():
                is_moved = await delivery.moved(self._retry_publisher.retry(delivery, outcome))
            case DeadLetter():
                queue = delivery.options.dead_letter
                copying = self._retry_publisher
                is_moved = queue is None or await delivery.moved(copying.dead_letter(delivery, outcome, queue))
            case _:
                assert_never(outcome)
        if not is_moved:
            delivery.subscription.remember_outcome(delivery, outcome)
            return False
        return delivery.subscription.ack(delivery, is_handled=False)

    def ack(self, delivery: Delivery) -> bool:
        delivery.mark_settled()
        return delivery.subscription.ack(delivery)

    async def count_pending(self, all_options: Sequence[SubscriptionOptions], *, with_delayed: bool = False) -> int:
        """See `Transport.count_pending`. Deliveries that other processes hold are not visible over AMQP."""
        await asyncio.gather(*(consumer.flush() for consumer in self._consumers))
        names = {options.queue for options in all_options}
        for prefix in {options.wait_prefix for options in all_options}:
            names.update(self._topology.topology.waits(prefix))
        if with_delayed:
            names.update(queue.name for queue in self._topology.topology.queues if HOLDS_DELAYED.fullmatch(queue.name))
        try:
            ready = await count_messages(await self._consuming.ready(), names)
        except (ConnectionClosedByUs, *CHANNEL_ERRORS):
            return 1  # not known: it may not be empty
        return self._retry_publisher.in_transit() + ready

    async def count_held_elsewhere(self, all_options: Sequence[SubscriptionOptions], quiet_s: float) -> int | str:
        """See `Transport.count_held_elsewhere`. What others hold is known to the management API only."""
        own = Counter(consumer.queue for consumer in self._consumers)
        try:
            return await self._other_consumers.held(await self._consuming.ready(), all_options, own, quiet_s)
        except (ConnectionClosedByUs, *CHANNEL_ERRORS):
            return 1  # not known: the caller asks again when the connection is back

    async def count_consumers(self, queue: str) -> int:
        """See `Transport.count_consumers`. Waits while there is no connection."""
        try:
            with loss_as_error:
                async with TopologyProbe(await self._consuming.ready()) as probe:
                    counts = await probe.counts(queue)
        except (ConnectionClosedByUs, *CHANNEL_ERRORS) as error:
            raise BrokerUnavailable(f'cannot count the consumers of queue "{queue}": {error}') from error
        return counts.consumers if counts is not None else 0

    async def campaign(self, name: str, member: Candidate | None = None) -> RabbitLeadership:
        """See `Transport.campaign`, and `leader_election` for how long two sessions may believe to lead.

        Waits while there is no connection. Raises BrokerUnavailable where the broker refuses.
        """
        leadership = RabbitLeadership(
            name,
            self._consuming,
            self._publisher,
            self._topology,
            heartbeat_s=self._settings.heartbeat_s,
            on_transport_event=self._on_event,
            member=member or Candidate(),
        )
        for pause in backoff_delays():
            try:
                with loss_as_error:
                    queue = Topology(queues=(leadership_queue(name),))
                    await self._topology.declare(await self._consuming.ready(), queue)
                    await leadership.compete()
                break
            except (ConnectionClosedByUs, aiormq.exceptions.ChannelClosed) as error:
                text = f'cannot compete for the leadership through queue "{name}": {error}'
                raise BrokerUnavailable(text) from error
            except CHANNEL_ERRORS:
                pass  # the connection was lost; another one is being made
            await asyncio.sleep(pause)
        self._leaderships.append(leadership)
        return leadership

    async def follow_pauses(self, pipeline: str, on_pauses: OnPauses) -> Pauses:
        """See `Transport.follow_pauses`. Without the permission for that, nothing is paused, and the log says so."""
        log = self._pause_log(pipeline, on_pauses)
        self._pause_logs.append(log)
        await log.start()
        return log.pauses

    async def set_pause(self, pipeline: str, subscriber: str, pause: Pause | None) -> None:
        await self._pause_log(pipeline, lambda *_: None).write(PauseChange(subscriber, pause))

    def _pause_log(self, pipeline: str, on_pauses: OnPauses) -> PauseLog:
        mode = self._settings.topology
        return PauseLog(pipeline, self._consuming, self._publisher, mode, self._on_event, on_pauses)

    async def close(self) -> None:
        self._is_closing.set()
        await cancel_and_wait(self._watchdog)
        await asyncio.gather(*(log.close() for log in self._pause_logs))
        await asyncio.gather(*(leadership.resign() for leadership in self._leaderships))
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        await asyncio.gather(self._publisher.close(), self._answering.close(), self._caller.close())
        await asyncio.gather(self._publishing.close(), self._consuming.close())

    async def _retry_while_reconnecting(self, attempt: Callable[[], Awaitable[T]], complaint: str) -> T:
        """Try again while connections are lost, up to the connect timeout. Raises BrokerUnavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.connect_timeout_s
        for pause in backoff_delays():
            try:
                with loss_as_error:
                    return await attempt()
            except ConnectionClosedByUs:
                raise BrokerUnavailable(f"{complaint}: the session was closed") from None
            except CHANNEL_ERRORS as error:
                is_answer = isinstance(error, aiormq.exceptions.ChannelClosed)
                if is_answer or loop.time() + pause >= deadline:
                    why = describe_error(error)
                    raise BrokerUnavailable(
                        f"{complaint}: {access_refused(why) or why}", help_for_reply(why)
                    ) from error
            await asyncio.sleep(pause)
        raise AssertionError("delays never end")

    async def _restore_exchanges(self) -> None:
        """Declare everything again, for a publication whose exchange is missing."""
        try:
            await self._topology.restore(await self._consuming.ready())
        except (ConnectionClosedByUs, *CHANNEL_ERRORS) as error:
            raise PublishUnknown("the broker was lost while restoring an exchange") from error
