"""Turns a queue of RabbitMQ into deliveries, and keeps doing so when its channel, queue or connection is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiormq
from aio_pika.abc import AbstractConnection

from runner.errors import BrokerUnavailable
from runner.tasks import cancel_and_wait
from runner.transports.base import Delivery, OnDelivery, OnTransportEvent, SubscriptionOptions, TransportEvent
from runner.transports.rabbitmq.amqp_fast_path import frame_router_of
from runner.transports.rabbitmq.broker_features import CONSUMER_TIMEOUT
from runner.transports.rabbitmq.channels import broker_version
from runner.transports.rabbitmq.connection import (
    CHANNEL_ERRORS,
    ConnectionClosedByUs,
    ReconnectingConnection,
    backoff_delays,
    close_within,
    was_cancelled,
)
from runner.transports.rabbitmq.consumer_channel import SETTLE_S, ConsumerChannel, PossiblyLostAcks
from runner.transports.rabbitmq.topology import RPC_S, open_channel, queue_counts_or_none
from runner.transports.rabbitmq.topology_probe import TopologyProbe

CANCELLED_BY_BROKER = "cancelled by the broker"

RESTORE_PREFETCH_AFTER = 20
"""After so many messages in a row that are no suspects, the consumer takes as many at once as before."""

MAX_STALLED_CHECKS = 2
"""How often in a row nothing may have come, though something waits and there is room, before we register anew."""


class Consumer:
    """The feed of one queue: registers with the broker, and again after each loss, until it is stopped.

    `restore` declares again what is missing, for a queue that somebody has deleted. When a message comes that may have
    ended processes, everything else goes back, and messages are taken one at a time: if it ends this one too, that
    counts against it alone, and it reaches its delivery limit before its neighbours do.
    """

    def __init__(
        self,
        link: ReconnectingConnection,
        options: SubscriptionOptions,
        on_delivery: OnDelivery,
        on_transport_event: OnTransportEvent,
        restore: Callable[[AbstractConnection], Awaitable[None]],
    ) -> None:
        self._link = link
        self._options = options
        self._on_delivery = on_delivery
        self._say = on_transport_event
        self._restore = restore
        self._consumer_channel: ConsumerChannel | None = None
        self._possibly_lost = PossiblyLostAcks()
        self._is_stopped = False
        self._one_at_a_time = False
        self._since_suspect = 0
        self._stalled_checks = 0
        self._delivered_at_check = 0
        self._task: asyncio.Task[None] | None = None
        self._finishing: dict[asyncio.Task[None], ConsumerChannel] = {}
        """Registrations to which nothing comes any more, and whose handlers are still at work."""

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._options.queue

    @property
    def consumer_channel(self) -> ConsumerChannel | None:
        """The current registration; None before `start`."""
        return self._consumer_channel

    @property
    def is_live(self) -> bool:
        """Whether the broker sends us messages of the queue now."""
        consumer_channel = self._consumer_channel
        return consumer_channel is not None and not consumer_channel.ended.done() and not self._is_stopped

    async def start(self) -> None:
        """Register for the first time; raises what the broker answers, then look after it in the background."""
        consumer_channel = await self._register(await self._link.ready())
        self._task = asyncio.create_task(self._look_after(consumer_channel), name=f"consumer-{self._options.queue}")

    async def stop(self) -> None:
        """Cancel the registration; its channel stays open, so that what was delivered can be settled. Idempotent.

        A single active consumer is not cancelled: the broker would activate the next at once, and their messages would
        be handled at the same time. What still comes is left to go back with the channel.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        consumer_channel = self._consumer_channel
        if consumer_channel is not None and self._options.is_single_active:
            consumer_channel.is_draining = True
        await cancel_and_wait(self._task)
        consumer_channel = self._consumer_channel
        if consumer_channel is None or not consumer_channel.is_open:
            return
        if self._options.is_single_active:
            consumer_channel.is_draining = True
        else:
            await close_within(consumer_channel.channel.basic_cancel(consumer_channel.tag, timeout=RPC_S), SETTLE_S)
            consumer_channel.end("stopped")

    async def close(self) -> None:
        """Stop, and close the channel: every settlement has then been read, and the rest is given back. Idempotent."""
        await self.stop()
        registrations = [each for each in (*self._finishing.values(), self._consumer_channel) if each is not None]
        await asyncio.gather(*(cancel_and_wait(task) for task in list(self._finishing)))
        for consumer_channel in registrations:
            await consumer_channel.close()

    async def flush(self) -> None:
        """Write all acknowledgements that wait for others."""
        for consumer_channel in (*self._finishing.values(), self._consumer_channel):
            if consumer_channel is not None:
                await consumer_channel.flush()

    async def _register(self, connection: AbstractConnection) -> ConsumerChannel:
        channel = await open_channel(connection)
        prefetch = 1 if self._one_at_a_time else self._options.prefetch
        consumer_channel = ConsumerChannel(channel, prefetch, self._possibly_lost, frame_router_of(connection))
        channel.closing.add_done_callback(lambda future: consumer_channel.end(_reason(future)))
        channel.on_consumer_cancel_callbacks.add(lambda _: consumer_channel.end(CANCELLED_BY_BROKER))
        await channel.basic_qos(prefetch_count=consumer_channel.prefetch, timeout=RPC_S)

        def on_delivery(delivery: Delivery) -> None:
            consumer_channel.count_received(delivery.delivery_tag)
            if not consumer_channel.is_draining and self._may_take(delivery, consumer_channel):
                consumer_channel.count_delivered()
                self._on_delivery(delivery)
            else:
                consumer_channel.skipped.append(delivery.delivery_tag)

        await consumer_channel.consume(self._options, on_delivery, self._arguments(connection))
        self._consumer_channel = consumer_channel
        return consumer_channel

    def _arguments(self, connection: AbstractConnection) -> dict[str, Any]:
        """Return what to ask of the broker beside the messages: patience, where handlers need it and it can be had."""
        if self._options.held_s is None or not CONSUMER_TIMEOUT.is_in(broker_version(connection)):
            return {}
        return {"x-consumer-timeout": round(self._options.held_s * 1000)}

    async def _look_after(self, consumer_channel: ConsumerChannel) -> None:
        """Register again whenever the registration ends, until cancelled."""
        while True:
            reason = await asyncio.shield(consumer_channel.ended)
            is_cancelled = reason == CANCELLED_BY_BROKER and not consumer_channel.is_draining
            if not consumer_channel.is_draining and self._link.is_ready:
                why = await self._why_cancelled(consumer_channel) if is_cancelled else reason
                self._report("consumer.lost", "warning", error=why)
            if is_cancelled:  # what it held may be the broker's again, though the channel is open: so all of it is
                await consumer_channel.close()
            finishing = asyncio.create_task(self._finish(consumer_channel), name=f"finish-{self._options.queue}")
            self._finishing[finishing] = consumer_channel
            finishing.add_done_callback(self._finishing.pop)
            must_wait = consumer_channel.is_draining or self._options.is_single_active
            if must_wait or consumer_channel.settled.is_set():
                await asyncio.shield(finishing)
            consumer_channel = await self._register_again()
            self._report("consumer.resumed", "info", prefetch=consumer_channel.prefetch)

    async def _why_cancelled(self, consumer_channel: ConsumerChannel) -> str:
        """Return why the broker has cancelled the consumer, as far as can be found out: it does not say.

        RabbitMQ up to 4.2 closes the channel over a message that is unsettled for too long, and says so; from 4.3 on it
        cancels the consumer of a quorum queue, as it does when the queue is deleted.
        """
        try:
            async with TopologyProbe(await self._link.ready()) as probe:
                exists = await queue_counts_or_none(probe, self._options.queue) is not None
        except (ConnectionClosedByUs, BrokerUnavailable, *CHANNEL_ERRORS):
            return CANCELLED_BY_BROKER
        if not exists:
            return f"{CANCELLED_BY_BROKER}: its queue does not exist any more"
        if not consumer_channel.unsettled:
            return CANCELLED_BY_BROKER
        held = f"{consumer_channel.unsettled} messages were unsettled"
        reason = "one of them for longer than its consumer_timeout perhaps"
        return f"{CANCELLED_BY_BROKER}, whose queue exists: {held}, {reason}"

    def _may_take(self, delivery: Delivery, consumer_channel: ConsumerChannel) -> bool:
        """Return whether a delivery may be handed on; decides when to begin taking one at a time, and when to end."""
        self._since_suspect = 0 if delivery.is_poison_suspect else self._since_suspect + 1
        if delivery.is_poison_suspect and consumer_channel.prefetch > 1:
            self._one_at_a_time = True
            self._report(
                "consumer.careful",
                "warning",
                message_id=delivery.envelope.message_id,
                crashes=delivery.failed_deliveries,
            )
        elif self._one_at_a_time and self._since_suspect > RESTORE_PREFETCH_AFTER and not delivery.is_redelivered:
            self._one_at_a_time = (
                False  # nothing is left of what came back: so this one, which goes back, is the first again
            )
        else:
            return True
        consumer_channel.is_draining = True
        consumer_channel.end("registering with another prefetch")
        return False

    async def _finish(self, consumer_channel: ConsumerChannel) -> None:
        """Let the broker give others what is new, and what was delivered end, however long that takes; then close."""
        consumer_channel.is_draining = True
        if consumer_channel.is_open and not self._options.is_single_active:
            await close_within(consumer_channel.channel.basic_cancel(consumer_channel.tag, timeout=RPC_S), SETTLE_S)
            await close_within(consumer_channel.requeue_skipped(), SETTLE_S)
        await consumer_channel.wait_settled()
        await consumer_channel.close()

    def check_progress(self, consumer_channel: ConsumerChannel, ready: int, consumers: int) -> None:
        """Judge what the broker says of our queue: how many messages wait in it, how many consumers it has.

        A consumer that the broker does not know, or to which nothing comes though something waits and there is room,
        is given up and registered anew.
        """
        if consumer_channel is not self._consumer_channel or not self.is_live:
            return
        has_room = consumer_channel.unsettled < consumer_channel.prefetch and not self._options.is_single_active
        is_still = ready > 0 and has_room and consumer_channel.delivered == self._delivered_at_check
        self._stalled_checks = self._stalled_checks + 1 if is_still else 0
        self._delivered_at_check = consumer_channel.delivered
        if not consumers:
            consumer_channel.end("the broker does not know it any more")
        elif self._stalled_checks >= MAX_STALLED_CHECKS:
            self._stalled_checks = 0
            consumer_channel.end(f"nothing comes, though {ready} messages wait")

    async def _register_again(self) -> ConsumerChannel:
        is_said = False
        for pause in backoff_delays():
            try:
                return await self._register(await self._link.ready())
            except ConnectionClosedByUs:
                await asyncio.Event().wait()
            except CHANNEL_ERRORS as error:
                if self._link.is_ready and not is_said:
                    self._report("consumer.lost", "error", error=str(error))
                    is_said = True
                if isinstance(error, aiormq.exceptions.ChannelNotFoundEntity):
                    await self._declare_again()
            except asyncio.CancelledError:
                if was_cancelled():
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    async def _declare_again(self) -> None:
        try:
            await self._restore(await self._link.ready())
        except (ConnectionClosedByUs, BrokerUnavailable, *CHANNEL_ERRORS):
            pass  # the next attempt to register finds out

    def _report(self, event: str, level: str, **fields: Any) -> None:
        fields = {"subscriber": self._options.subscriber, "queue": self._options.queue, **fields}
        self._say(TransportEvent(event, level, fields))


def _reason(future: asyncio.Future[Any]) -> str:
    if future.cancelled():
        return "channel closed"
    error = future.exception()
    if isinstance(error, aiormq.exceptions.AMQPError) and error.args:
        return str(error.args[-1])
    return "channel closed"
