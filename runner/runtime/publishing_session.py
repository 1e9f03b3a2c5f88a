"""Publishes for a program that runs no pipeline: connects when it is needed, and limits how long a message takes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial

from runner import log
from runner.backoff import backoff_delays
from runner.errors import (
    BrokerUnavailable,
    NoAnswer,
    PublisherClosed,
    PublishFailed,
    PublishTimeout,
    PublishUnknown,
    RunnerError,
    TopologyMismatch,
)
from runner.message import Address
from runner.pipeline.topology import Topology
from runner.runtime.answers import Answer
from runner.runtime.outbox import KeptMessage, Outbox
from runner.runtime.publisher import OutgoingMessage, PipelinePublisher, address_of
from runner.tasks import InProgress, cancel_and_wait
from runner.transports.base import OnTransportEvent, Transport, TransportEvent
from runner.units import format_duration

FULL_QUEUE_SHARE = 0.8
"""The share of a message's time for which it is offered to a full queue. The rest is for the answer of the broker."""

REOPEN_S = 1.0
"""The shortest time between two attempts, where the broker refuses the login or the declarations."""

OUTBOX_POLL_S = 1.0
"""How often the outbox is looked at for messages of other processes."""

OUTBOX_BATCH = 100
"""How many messages are confirmed before the outbox forgets them. So many are sent twice after a crash, at most."""

CLOSE_POLL_S = 0.05
"""How often `close` looks whether the outbox is empty."""

_TROUBLES: dict[str, Callable[[str, str], str]] = {
    "broker.unreachable": lambda broker, error: f"the broker {broker} cannot be reached: {error}",
    "broker.lost": lambda broker, error: f"the connection to the broker {broker} was lost: {error}",
    "broker.blocked": lambda broker, _: (
        f"the broker {broker} takes no messages, because it is low on memory or disk space"
    ),
    "broker.connected": lambda *_: "",
    "broker.unblocked": lambda *_: "",
}
"""What each event of the transport says about messages that are not confirmed."""


class PublishingSession:
    """The publications of one process. All methods run on one event loop.

    `max_waiting` is how many messages may wait for their confirm at the same time.
    """

    def __init__(
        self,
        make_transport: Callable[[OnTransportEvent], Transport],
        make_publisher: Callable[[Transport], PipelinePublisher],
        topology: Topology,
        *,
        outbox: Outbox | None,
        max_waiting: int,
    ) -> None:
        self._transport = make_transport(self._note)
        self.publisher = make_publisher(self._transport)
        self._topology = topology
        self._outbox = outbox
        self._max_waiting = max_waiting
        self._opening: asyncio.Task[None] | None = None
        self._may_open_at = 0.0
        self._is_connected = self._is_closed = False
        self._trouble = ""
        self._sending = InProgress()
        self._timeouts: set[asyncio.Timeout] = set()
        self._kept = asyncio.Event()
        self._is_held_back = False
        self._emptying = asyncio.create_task(self._empty_outbox(outbox)) if outbox is not None else None

    async def send(self, outgoing: OutgoingMessage, timeout_s: float) -> None:
        """Publish a message until the broker has confirmed it, or the outbox keeps it.

        Raises PublishTimeout, PublishFailed, PublisherClosed, BrokerUnavailable, TopologyMismatch, OutboxUnavailable.
        """
        with self._awaited():
            await self._send_or_keep(outgoing, timeout_s)

    async def call(self, outgoing: OutgoingMessage, timeout_s: float) -> Answer:
        """Publish a question, and return the answer. The outbox keeps no questions.

        Raises NoAnswer, CallFailed, and what `send` raises where nothing was published.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        with self._awaited():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._connected()
            except TimeoutError:
                within = f"within {format_duration(timeout_s)}{self._because()}"
                text = f'"{outgoing.destination.name}" was not asked {within}'
                raise NoAnswer(text, reason="timeout", hint="nothing was published") from None
            return await self.publisher.call(outgoing, timeout_s, waited_s=loop.time() - started)

    def _awaited(self) -> InProgress:
        """Let `close` wait for a block. Raises PublisherClosed."""
        if self._is_closed:
            raise PublisherClosed("the publisher is closed")
        return self._sending

    async def close(self, grace_s: float) -> None:
        """Wait for the confirms, not longer than `grace_s`, and disconnect. Idempotent."""
        self._is_closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._wait_until_sent()
        for timeout in self._timeouts:
            if not timeout.expired():
                timeout.reschedule(0.0)
        await self._sending.none.wait()
        await cancel_and_wait(self._emptying, self._opening)
        if self._outbox is not None:
            self._outbox.close()
        await self._transport.close()

    async def _wait_until_sent(self) -> None:
        """Wait for everything that is being sent, and for the outbox while the broker takes its messages."""
        await self._sending.none.wait()
        outbox = self._outbox
        while outbox is not None and self._transport.can_publish and not self._is_held_back:
            if not await outbox.run(outbox.has_waiting):
                return
            await asyncio.sleep(CLOSE_POLL_S)

    async def _send_or_keep(self, outgoing: OutgoingMessage, timeout_s: float) -> None:
        outbox = self._outbox
        if outbox is None:
            await self._send(outgoing, timeout_s)
        elif await outbox.run(outbox.has_waiting):  # it must not overtake the others
            await self._keep(outbox, outgoing)
        else:
            try:
                await self._send(outgoing, timeout_s)
            except (PublishUnknown, PublishFailed, BrokerUnavailable, TopologyMismatch) as error:
                if isinstance(error, PublishFailed) and error.reason != "refused":
                    raise
                await self._keep(outbox, outgoing)

    async def _send(self, outgoing: OutgoingMessage, timeout_s: float) -> None:
        """Publish a message. Raises PublishTimeout, and PublishFailed where the broker certainly does not take it."""
        if len(self._timeouts) >= self._max_waiting:
            text = f"{self._max_waiting} messages wait for their confirm already{self._because()}"
            raise PublishFailed(text, reason="refused", hint="publish more slowly, or raise max_waiting")
        try:
            async with asyncio.timeout(timeout_s) as timeout:
                self._timeouts.add(timeout)
                try:
                    with self.publisher.publication(outgoing) as sent:
                        await self._connected()
                        await self.publisher.publish(sent, full_queue_timeout_s=timeout_s * FULL_QUEUE_SHARE)
                finally:
                    self._timeouts.discard(timeout)
        except TimeoutError:
            when = "before the publisher was closed" if self._is_closed else f"within {format_duration(timeout_s)}"
            text = f'the message for "{outgoing.destination.name}" was not confirmed {when}{self._because()}'
            hint = "it may arrive all the same: if you publish it again, give it the same id"
            raise PublishTimeout(text, hint) from None

    def _because(self) -> str:
        return f": {self._trouble}" if self._trouble else ""

    async def _connected(self) -> None:
        """Return when there was a connection, and what was missing is declared. Raises what prevents it."""
        now, opening = asyncio.get_running_loop().time(), self._opening
        if opening is None or (opening.done() and opening.exception() is not None and now >= self._may_open_at):
            opening = self._opening = asyncio.create_task(self._open(), name="publisher-open")
            opening.add_done_callback(lambda task: task.cancelled() or task.exception())  # all callers may be gone
        await asyncio.shield(opening)

    async def _open(self) -> None:
        try:
            if not self._is_connected:
                await self._transport.connect()
                self._is_connected = True
            await self._transport.declare(self._topology)
        except RunnerError:
            self._may_open_at = asyncio.get_running_loop().time() + REOPEN_S
            raise
        self._trouble = ""

    def _note(self, change: TransportEvent) -> None:
        """Log an event, and remember what it says about messages that are not confirmed."""
        log.get_logger().log(logging.getLevelNamesMapping()[change.level.upper()], change.event, **change.fields)
        if change.event in _TROUBLES:
            fields = change.fields
            self._trouble = _TROUBLES[change.event](fields.get("broker", ""), fields.get("error", ""))

    # The outbox

    async def _keep(self, outbox: Outbox, outgoing: OutgoingMessage) -> None:
        """Put a message into the outbox, with its trace."""
        with self.publisher.publication(outgoing) as sent:
            await outbox.run(lambda: outbox.add(sent))
        self._kept.set()

    async def _empty_outbox(self, outbox: Outbox) -> None:
        """Send what the outbox keeps, also for processes that have ended, until cancelled."""
        delays, said = backoff_delays(), ""
        while True:
            self._kept.clear()
            delay_s = OUTBOX_POLL_S
            try:
                await self._send_kept(outbox)
                if self._is_held_back:
                    delay_s = next(delays)
                else:
                    delays, said = backoff_delays(), ""
            except RunnerError as error:
                delay_s = next(delays)
                if (why := str(error)) != said:
                    log.get_logger().warning("outbox.waiting", error=why)
                    said = why
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._kept.wait()

    async def _send_kept(self, outbox: Outbox) -> None:
        """Send the messages that wait, if no other process does, one after the other and in their order.

        A destination that takes no messages holds back only those for itself.
        """
        if not await outbox.run(outbox.has_waiting):
            return
        await self._connected()
        if not outbox.become_sender():
            return
        try:
            last, closed = 0, set[Address]()
            while messages := await outbox.run(partial(outbox.first, last, OUTBOX_BATCH)):
                last = messages[-1].number
                await self._send_batch(outbox, messages, closed)
            self._is_held_back = bool(closed)
        finally:
            outbox.resign()

    async def _send_batch(self, outbox: Outbox, messages: Sequence[KeptMessage], closed: set[Address]) -> None:
        """Send some messages of the outbox. `closed` are the addresses that take none; others are added."""
        done: list[int] = []
        try:
            for number, kept in messages:
                outgoing = self.publisher.resume(kept)
                address = address_of(outgoing)
                if address in closed:
                    continue
                fields = {"to": outgoing.destination.name, "message_id": outgoing.envelope.message_id}
                try:
                    with self.publisher.publication(outgoing) as sent:
                        await self.publisher.publish(sent, full_queue_timeout_s=0.0)
                    done.append(number)
                except PublishFailed as failure:
                    if failure.reason == "invalid":
                        await outbox.run(partial(outbox.give_up, number, str(failure)))
                        log.get_logger().error("outbox.given_up", error=str(failure), **fields)
                    else:
                        closed.add(address)
                        if not self._is_held_back:
                            log.get_logger().warning("outbox.held_back", error=str(failure), **fields)
        finally:
            await outbox.run(partial(outbox.remove, done))
