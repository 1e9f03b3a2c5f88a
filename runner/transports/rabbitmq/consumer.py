"""Turns a queue of RabbitMQ into deliveries, and keeps doing so when its channel, queue or connection is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiormq
from aio_pika.abc import AbstractConnection

from runner.errors import BrokerUnavailable
from runner.tasks import end
from runner.transports.base import Delivery, OnDelivery, OnStateChange, Source, StateChange
from runner.transports.rabbitmq.channels import line_of
from runner.transports.rabbitmq.connection import CHANNEL_ERRORS, Link, LinkClosed, bounded, pauses, was_cancelled
from runner.transports.rabbitmq.direct import wire_of
from runner.transports.rabbitmq.inquiring import Inquirer
from runner.transports.rabbitmq.registration import SETTLE_S, Doubts, Registration
from runner.transports.rabbitmq.topology import RPC_S, depth_or_none, open_channel

CANCELLED = "cancelled by the broker"

OWN_TIMEOUTS = (4, 3)
"""The first line of RabbitMQ that takes the `consumer_timeout` of a quorum queue's consumer from the consumer."""

CALM = 20
"""After so many messages in a row that are no suspects, the consumer takes as many at once as before."""

STANDSTILLS = 2
"""How often in a row nothing may have come, though something waits and there is room, before we register anew."""


class Consumer:
    """The feed of one queue: registers with the broker, and again after each loss, until it is stopped.

    `restore` declares again what is missing, for a queue that somebody has deleted. When a message comes that may have
    ended processes, everything else goes back, and messages are taken one at a time: if it ends this one too, that
    counts against it alone, and it reaches its delivery limit before its neighbours do.
    """

    def __init__(
        self,
        link: Link,
        source: Source,
        on_delivery: OnDelivery,
        on_state_change: OnStateChange,
        restore: Callable[[AbstractConnection], Awaitable[None]],
    ) -> None:
        self._link = link
        self._source = source
        self._on_delivery = on_delivery
        self._say = on_state_change
        self._restore = restore
        self._registration: Registration | None = None
        self._doubts = Doubts()
        self._is_stopped = False
        self._is_careful = False
        self._calm = 0
        self._standstills = 0
        self._looked_at = 0
        self._task: asyncio.Task[None] | None = None
        self._finishing: dict[asyncio.Task[None], Registration] = {}
        """Registrations to which nothing comes any more, and whose handlers are still at work."""

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._source.queue

    @property
    def registration(self) -> Registration | None:
        """The current registration; None before `start`."""
        return self._registration

    @property
    def is_live(self) -> bool:
        """Whether the broker sends us messages of the queue now."""
        registration = self._registration
        return registration is not None and not registration.ended.done() and not self._is_stopped

    async def start(self) -> None:
        """Register for the first time; raises what the broker answers, then look after it in the background."""
        registration = await self._register(await self._link.ready())
        self._task = asyncio.create_task(self._look_after(registration), name=f"consumer-{self._source.queue}")

    async def stop(self) -> None:
        """Cancel the registration; its channel stays open, so that what was delivered can be settled. Idempotent.

        A single active consumer is not cancelled: the broker would activate the next at once, and their messages would
        be handled at the same time. What still comes is left to go back with the channel.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        registration = self._registration
        if registration is not None and self._source.is_single_active:
            registration.is_winding_up = True
        await end(self._task)
        registration = self._registration
        if registration is None or not registration.is_open:
            return
        if self._source.is_single_active:
            registration.is_winding_up = True
        else:
            await bounded(registration.channel.basic_cancel(registration.tag, timeout=RPC_S), SETTLE_S)
            registration.end("stopped")

    async def close(self) -> None:
        """Stop, and close the channel: every settlement has then been read, and the rest is given back. Idempotent."""
        await self.stop()
        registrations = [each for each in (*self._finishing.values(), self._registration) if each is not None]
        await asyncio.gather(*(end(task) for task in list(self._finishing)))
        for registration in registrations:
            await registration.close()

    async def flush(self) -> None:
        """Write all acknowledgements that wait for others."""
        for registration in (*self._finishing.values(), self._registration):
            if registration is not None:
                await registration.flush()

    async def _register(self, connection: AbstractConnection) -> Registration:
        channel = await open_channel(connection)
        prefetch = 1 if self._is_careful else self._source.prefetch
        registration = Registration(channel, prefetch, self._doubts, wire_of(connection))
        channel.closing.add_done_callback(lambda future: registration.end(_reason(future)))
        channel.on_consumer_cancel_callbacks.add(lambda _: registration.end(CANCELLED))
        await channel.basic_qos(prefetch_count=registration.prefetch, timeout=RPC_S)

        def on_delivery(delivery: Delivery) -> None:
            registration.note_arrival(delivery.token)
            if not registration.is_winding_up and self._may_take(delivery, registration):
                registration.note_delivery()
                self._on_delivery(delivery)
            else:
                registration.passed_over.append(delivery.token)

        await registration.consume(self._source, on_delivery, self._arguments(connection))
        self._registration = registration
        return registration

    def _arguments(self, connection: AbstractConnection) -> dict[str, Any]:
        """Return what to ask of the broker beside the messages: patience, where handlers need it and it can be had."""
        if self._source.held_s is None or line_of(connection) < OWN_TIMEOUTS:
            return {}
        return {"x-consumer-timeout": round(self._source.held_s * 1000)}

    async def _look_after(self, registration: Registration) -> None:
        """Register again whenever the registration ends, until cancelled."""
        while True:
            reason = await asyncio.shield(registration.ended)
            is_cancelled = reason == CANCELLED and not registration.is_winding_up
            if not registration.is_winding_up and self._link.is_ready:
                why = await self._why_cancelled(registration) if is_cancelled else reason
                self._tell("consumer.lost", "warning", error=why)
            if is_cancelled:  # what it held may be the broker's again, though the channel is open: so all of it is
                await registration.close()
            finishing = asyncio.create_task(self._finish(registration), name=f"finish-{self._source.queue}")
            self._finishing[finishing] = registration
            finishing.add_done_callback(self._finishing.pop)
            must_wait = registration.is_winding_up or self._source.is_single_active
            if must_wait or registration.settled.is_set():
                await asyncio.shield(finishing)
            registration = await self._register_again()
            self._tell("consumer.resumed", "info", prefetch=registration.prefetch)

    async def _why_cancelled(self, registration: Registration) -> str:
        """Return why the broker has cancelled the consumer, as far as can be found out: it does not say.

        RabbitMQ up to 4.2 closes the channel over a message that is unsettled for too long, and says so; from 4.3 on it
        cancels the consumer of a quorum queue, as it does when the queue is deleted.
        """
        try:
            async with Inquirer(await self._link.ready()) as inquirer:
                exists = await depth_or_none(inquirer, self._source.queue) is not None
        except (LinkClosed, BrokerUnavailable, *CHANNEL_ERRORS):
            return CANCELLED
        if not exists:
            return f"{CANCELLED}: its queue does not exist any more"
        if not registration.unsettled:
            return CANCELLED
        held = f"{registration.unsettled} messages were unsettled"
        return f"{CANCELLED}, whose queue exists: {held}, one of them for longer than its consumer_timeout perhaps"

    def _may_take(self, delivery: Delivery, registration: Registration) -> bool:
        """Return whether a delivery may be handed on; decides when to begin taking one at a time, and when to end."""
        self._calm = 0 if delivery.is_suspect else self._calm + 1
        if delivery.is_suspect and registration.prefetch > 1:
            self._is_careful = True
            self._tell("consumer.careful", "warning", message_id=delivery.envelope.message_id, crashes=delivery.crashes)
        elif self._is_careful and self._calm > CALM and not delivery.is_redelivered:
            self._is_careful = (
                False  # nothing is left of what came back: so this one, which goes back, is the first again
            )
        else:
            return True
        registration.is_winding_up = True
        registration.end("registering with another prefetch")
        return False

    async def _finish(self, registration: Registration) -> None:
        """Let the broker give others what is new, and what was delivered end, however long that takes; then close."""
        registration.is_winding_up = True
        if registration.is_open and not self._source.is_single_active:
            await bounded(registration.channel.basic_cancel(registration.tag, timeout=RPC_S), SETTLE_S)
            await bounded(registration.return_passed_over(), SETTLE_S)
        await registration.finished()
        await registration.close()

    def look_at(self, registration: Registration, ready: int, consumers: int) -> None:
        """Judge what the broker says of our queue: how many messages wait in it, how many consumers it has.

        A consumer that the broker does not know, or to which nothing comes though something waits and there is room,
        is given up and registered anew.
        """
        if registration is not self._registration or not self.is_live:
            return
        has_room = registration.unsettled < registration.prefetch and not self._source.is_single_active
        is_still = ready > 0 and has_room and registration.delivered == self._looked_at
        self._standstills = self._standstills + 1 if is_still else 0
        self._looked_at = registration.delivered
        if not consumers:
            registration.end("the broker does not know it any more")
        elif self._standstills >= STANDSTILLS:
            self._standstills = 0
            registration.end(f"nothing comes, though {ready} messages wait")

    async def _register_again(self) -> Registration:
        is_said = False
        for pause in pauses():
            try:
                return await self._register(await self._link.ready())
            except LinkClosed:
                await asyncio.Event().wait()
            except CHANNEL_ERRORS as error:
                if self._link.is_ready and not is_said:
                    self._tell("consumer.lost", "error", error=str(error))
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
        except (LinkClosed, BrokerUnavailable, *CHANNEL_ERRORS):
            pass  # the next attempt to register finds out

    def _tell(self, event: str, level: str, **fields: Any) -> None:
        fields = {"subscriber": self._source.subscriber, "queue": self._source.queue, **fields}
        self._say(StateChange(event, level, fields))


def _reason(future: asyncio.Future[Any]) -> str:
    if future.cancelled():
        return "channel closed"
    error = future.exception()
    if isinstance(error, aiormq.exceptions.AMQPError) and error.args:
        return str(error.args[-1])
    return "channel closed"
