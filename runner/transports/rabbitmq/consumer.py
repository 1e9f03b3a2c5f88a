"""Consumes a queue of RabbitMQ, and keeps doing so when the channel, the queue or the connection is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import aiormq
from aio_pika.abc import AbstractConnection

from runner.backoff import backoff_delays
from runner.errors import BrokerUnavailable
from runner.tasks import cancel_and_wait
from runner.transports.base import Delivery, OnDelivery, OnTransportEvent, SubscriptionOptions, TransportEvent
from runner.transports.rabbitmq.aiormq_workarounds import (
    CHANNEL_ERRORS,
    ConnectionLost,
    broker_version,
    loss_as_error,
)
from runner.transports.rabbitmq.amqp_fast_path import fast_path_of
from runner.transports.rabbitmq.broker_features import CONSUMER_TIMEOUT
from runner.transports.rabbitmq.channels import QueueCounts, open_channel
from runner.transports.rabbitmq.connection import ConnectionClosedByUs, ReconnectingConnection
from runner.transports.rabbitmq.consumer_channel import CANCELLED_BY_BROKER, ConsumerChannel
from runner.transports.rabbitmq.possibly_lost_acks import PossiblyLostAcks
from runner.transports.rabbitmq.topology import DeclaredTopology
from runner.transports.rabbitmq.topology_probe import TopologyProbe

RESTORE_PREFETCH_AFTER = 20
"""After this many messages in a row that are no poison suspects, the consumer takes a full prefetch again."""

MAX_STALLED_CHECKS = 2
"""How many checks in a row may find that nothing arrives, although messages wait and there is room for them."""

WATCHDOG_S = 10.0


class Consumer:
    """The `Subscription` to one queue: consumes on one channel after the other, until it is stopped.

    `topology` declares again what is missing, for a queue that was deleted.

    Poison suspects: when a message arrives whose earlier deliveries may have ended processes, everything else goes back
    to the queue, and messages are taken one at a time. If the suspect ends this process too, that counts against it
    alone: it reaches its delivery limit before its neighbours do.
    """

    def __init__(
        self,
        connection: ReconnectingConnection,
        options: SubscriptionOptions,
        on_delivery: OnDelivery,
        on_transport_event: OnTransportEvent,
        topology: DeclaredTopology,
    ) -> None:
        self._connection = connection
        self._options = options
        self._on_delivery = on_delivery
        self._on_event = on_transport_event
        self._topology = topology
        self._possibly_lost = PossiblyLostAcks()
        self._is_stopped = False
        self.is_closed = False
        """Whether it is over, with nothing left to settle."""
        self._one_at_a_time = False
        self._since_suspect = 0
        self._stalled_checks = 0
        self._received_at_check = 0
        self._task: asyncio.Task[None] | None = None
        self._draining: dict[asyncio.Task[None], ConsumerChannel] = {}
        """Earlier channels on which nothing more arrives, and whose handlers are still at work."""
        self.consumer_channel: ConsumerChannel | None = None
        """The channel that deliveries arrive on; None before `start`."""

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._options.queue

    @property
    def is_live(self) -> bool:
        channel = self.consumer_channel
        return channel is not None and not channel.ended.done() and not self._is_stopped

    async def start(self) -> None:
        """Consume; raises what the broker answers to the first attempt. Later losses are mended in the background."""
        channel = await self._consume(await self._connection.ready())
        self._task = asyncio.create_task(self._keep_consuming(channel), name=f"consumer-{self.queue}")

    async def stop(self) -> None:
        """See `Subscription.stop`.

        A single active consumer is not cancelled: the broker would activate the next one at once, and both would handle
        messages at the same time. What still arrives goes back with the channel.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        self._drain_single_active()
        await cancel_and_wait(self._task)
        channel = self.consumer_channel  # perhaps a new one since
        if channel is None or not channel.is_open:
            return
        if not self._drain_single_active():
            await channel.cancel()
            channel.end("stopped")

    def step_back(self) -> None:
        if self.is_live and self._drain_single_active() and self.consumer_channel is not None:
            self.consumer_channel.end("stepping back")

    async def close(self) -> None:
        """See `Subscription.close`. The broker has then read every settlement."""
        await self.stop()
        channels = self._channels()
        await asyncio.gather(*(cancel_and_wait(task) for task in list(self._draining)))
        for channel in channels:
            await channel.close()
        self.is_closed = True

    async def flush(self) -> None:
        """Write the acknowledgements that wait for others."""
        for channel in self._channels():
            await channel.flush()

    def check_progress(self, channel: ConsumerChannel, counts: QueueCounts) -> None:
        """Compare what the broker says of the queue with what arrives, and consume again where that is not plausible.

        That is where the broker has no consumer of the queue, or where nothing arrives although messages wait.
        """
        if channel is not self.consumer_channel or not self.is_live or self._options.stream_offset is not None:
            return  # a stream has messages, and tells no consumers
        has_room = channel.unsettled < channel.prefetch and not self._options.is_single_active
        is_stalled = counts.messages > 0 and has_room and channel.received == self._received_at_check
        self._stalled_checks = self._stalled_checks + 1 if is_stalled else 0
        self._received_at_check = channel.received
        if not counts.consumers:
            channel.end("the broker has no consumer of the queue")
        elif self._stalled_checks >= MAX_STALLED_CHECKS:
            self._stalled_checks = 0
            channel.end(f"nothing arrives, although {counts.messages} messages wait")

    def _channels(self) -> list[ConsumerChannel]:
        current = [self.consumer_channel] if self.consumer_channel is not None else []
        return [*self._draining.values(), *current]

    def _drain_single_active(self) -> bool:
        """Take nothing more on the current channel where the order of messages counts; return whether it counts."""
        if self.consumer_channel is not None and self._options.is_single_active:
            self.consumer_channel.is_draining = True
        return self._options.is_single_active

    async def _consume(self, connection: AbstractConnection) -> ConsumerChannel:
        """Consume on a new channel."""
        channel = ConsumerChannel(
            await open_channel(connection),
            self._options,
            prefetch=1 if self._one_at_a_time else self._options.prefetch,
            may_take=self._may_take,
            on_delivery=self._on_delivery,
            possibly_lost=self._possibly_lost,
            fast_path=fast_path_of(connection),
        )
        consuming = asyncio.ensure_future(channel.consume(self._arguments(connection)))
        try:
            # aiormq closes the channel over a cancelled call, and the broker ignores the acks that follow.
            await asyncio.shield(consuming)
        except asyncio.CancelledError:
            channel.is_draining = True
            self._start_draining(channel, consuming)
            raise
        self.consumer_channel = channel
        return channel

    def _arguments(self, connection: AbstractConnection) -> dict[str, Any]:
        """Return the consumer's arguments: where it begins in a stream, or how long handlers need.

        The latter only where the broker takes it.
        """
        if self._options.stream_offset is not None:
            return {"x-stream-offset": self._options.stream_offset()}
        if self._options.held_s is None or not CONSUMER_TIMEOUT.is_in(broker_version(connection)):
            return {}
        return {"x-consumer-timeout": round(self._options.held_s * 1000)}

    def _may_take(self, delivery: Delivery, channel: ConsumerChannel) -> bool:
        """Return whether the runtime gets a delivery; decide when to take one at a time, and when to stop doing so."""
        is_suspect = delivery.is_poison_suspect
        self._since_suspect = 0 if is_suspect else self._since_suspect + 1
        if is_suspect and channel.prefetch > 1:
            self._one_at_a_time = True
            message_id, crashes = delivery.envelope.message_id, delivery.failed_deliveries
            self._report("consumer.careful", "warning", message_id=message_id, crashes=crashes)
        elif self._one_at_a_time and self._since_suspect > RESTORE_PREFETCH_AFTER and not delivery.is_redelivered:
            # Nothing is left of what came back. This delivery goes back as well, and is the first one again.
            self._one_at_a_time = False
        else:
            return True
        channel.is_draining = True
        channel.end("consuming with another prefetch")
        return False

    async def _keep_consuming(self, channel: ConsumerChannel) -> None:
        """Consume on a new channel whenever nothing more arrives on the current one, until cancelled."""
        while True:
            reason = await asyncio.shield(channel.ended)
            is_cancelled = reason == CANCELLED_BY_BROKER and not channel.is_draining
            if not channel.is_draining and self._connection.is_ready:
                why = await self._why_cancelled(channel) if is_cancelled else reason
                self._report("consumer.lost", "warning", error=why)
            if is_cancelled:
                # The channel is open, but some of its deliveries may be the broker's again. Closing it returns all.
                await channel.close()
            draining = self._start_draining(channel)
            must_wait = channel.is_draining or self._options.is_single_active
            if must_wait or not channel.unsettled:
                await asyncio.shield(draining)
            channel = await self._consume_again()
            self._report("consumer.resumed", "info", prefetch=channel.prefetch)

    def _start_draining(self, channel: ConsumerChannel, call: asyncio.Future[None] | None = None) -> asyncio.Task[None]:
        draining = asyncio.create_task(self._drain(channel, call), name=f"drain-{self.queue}")
        self._draining[draining] = channel
        draining.add_done_callback(self._draining.pop)
        return draining

    async def _drain(self, channel: ConsumerChannel, call: asyncio.Future[None] | None) -> None:
        """Leave new messages to other consumers, wait until handlers have settled what they have, and close."""
        channel.is_draining = True
        if call is not None:
            await asyncio.wait([call])
        if channel.is_open and not self._options.is_single_active:
            await channel.cancel()
            await channel.requeue_skipped()
        await channel.wait_settled()
        await channel.close()

    async def _why_cancelled(self, channel: ConsumerChannel) -> str:
        """Return why the broker has cancelled the consumer, as far as it can be found out: the broker does not say.

        RabbitMQ up to 4.2 closes the channel when a message is unsettled for too long, and says so. From 4.3 on it
        cancels the consumer of a quorum queue, as it also does when the queue is deleted.
        """
        try:
            async with TopologyProbe(await self._connection.ready()) as probe:
                exists = await probe.counts(self.queue) is not None
        except (ConnectionClosedByUs, BrokerUnavailable, *CHANNEL_ERRORS):
            return CANCELLED_BY_BROKER
        if not exists:
            return f"{CANCELLED_BY_BROKER}: its queue does not exist any more"
        if not channel.unsettled:
            return CANCELLED_BY_BROKER
        held = f"{channel.unsettled} messages were unsettled"
        reason = "perhaps one of them for longer than its consumer_timeout"
        return f"{CANCELLED_BY_BROKER}, whose queue exists: {held}, {reason}"

    async def _consume_again(self) -> ConsumerChannel:
        """Consume as soon as the broker allows it; report once why it does not."""
        is_reported = False
        for delay_s in backoff_delays():
            try:
                with loss_as_error:
                    return await self._consume(await self._connection.ready())
            except ConnectionClosedByUs:
                await asyncio.Event().wait()  # until `stop` cancels this
            except CHANNEL_ERRORS as error:
                # The connection reports its own loss. It may not have noticed it yet when aiormq cancels the call.
                if self._connection.is_ready and not is_reported and not isinstance(error, ConnectionLost):
                    self._report("consumer.lost", "error", error=str(error))
                    is_reported = True
                if isinstance(error, aiormq.exceptions.ChannelNotFoundEntity):
                    await self._topology.try_restore(self._connection)
            await asyncio.sleep(delay_s)
        raise AssertionError("delays never end")

    def _report(self, event: str, level: str, **fields: Any) -> None:
        fields = {"subscriber": self._options.subscriber, "queue": self.queue, **fields}
        self._on_event(TransportEvent(event, level, fields))


async def watch_consumers(connection: ReconnectingConnection, consumers: Sequence[Consumer], every_s: float) -> None:
    """Check again and again that the broker still knows our consumers, until cancelled.

    A consumer that the broker has dropped looks like a queue without messages. A passive declaration returns how many
    messages and consumers a queue has, and needs no permission.
    Source: https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout (one of the ways to lose a consumer).
    """
    while True:
        await asyncio.sleep(every_s)
        try:
            with loss_as_error:
                await _check_consumers(connection, consumers)
        except ConnectionClosedByUs:
            return
        except (BrokerUnavailable, *CHANNEL_ERRORS):
            pass  # the connection's own supervision notices


async def _check_consumers(connection: ReconnectingConnection, consumers: Sequence[Consumer]) -> None:
    async with TopologyProbe(await connection.ready()) as probe:
        for consumer in consumers:
            channel = consumer.consumer_channel
            if channel is not None and consumer.is_live:
                consumer.check_progress(channel, await probe.counts(consumer.queue) or QueueCounts(0, 0))
