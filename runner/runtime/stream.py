"""Reads a stream for a subscriber, in one of all processes, and goes on where the subscriber was.

Over AMQP 0-9-1, several consumers of a stream each get all of it, and the broker does not know what a subscriber has
handled. So only the leader of all processes reads, and the leadership keeps the *position*: the offset below which
everything is settled. After a crash, what was settled above the saved position is handled again.

Source: https://www.rabbitmq.com/docs/streams#consuming
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from runner import log
from runner.backoff import backoff_delays
from runner.clock import utc_now
from runner.errors import BrokerUnavailable
from runner.outcome import Outcome
from runner.pipeline.model import StreamStart
from runner.tasks import cancel_and_wait
from runner.transports.base import (
    Delivery,
    DeliverySubscription,
    OnDelivery,
    StreamOffset,
    Subscription,
    SubscriptionOptions,
    Transport,
)
from runner.transports.leadership import Candidate, Leadership, NotLeader

OFFSET = "x-stream-offset"
"""The header with which the broker tells a message's offset."""

SAVE_S = 1.0
"""How often the position is saved."""

MAX_AHEAD = 10_000
"""How far it reads beyond a message that is not settled: as many may be handled again after a crash."""

CLOSE_S = 5.0
"""How long a stop waits until the position is saved."""


class StreamReading:
    """What one leader reads: the `DeliverySubscription` of its deliveries, which knows which of them are settled.

    An acknowledgement makes the broker send another message. Nothing of a stream is ever given back to the broker.
    """

    def __init__(self, begin: StreamOffset, on_delivery: OnDelivery) -> None:
        self.is_open = True
        self.is_taking = True
        """Whether the subscriber gets more. What is released meanwhile, it gets again."""
        self._begin = begin
        self._on_delivery = on_delivery
        self._next: int | None = None
        """The offset behind the last message that has arrived. They arrive in the order of their offsets."""
        self._unsettled: dict[Delivery, tuple[int, DeliverySubscription]] = {}
        self._acks: deque[tuple[DeliverySubscription, Delivery]] = deque()
        """Acknowledgements that wait, because too much has been read already."""

    def next_offset(self) -> StreamOffset:
        """Return where a consumer has to begin, also after a lost channel."""
        return self._begin if self._next is None else self._next

    @property
    def position(self) -> int | None:
        """The offset below which everything is settled; None before the first message."""
        return next((offset for offset, _ in self._unsettled.values()), self._next)

    def receive(self, delivery: Delivery) -> None:
        """Take a delivery of the broker."""
        offset, channel = delivery.envelope.headers.get(OFFSET), delivery.subscription
        if not isinstance(offset, int):
            raise BrokerUnavailable(f'queue "{delivery.options.queue}" of the broker is not a stream')
        if not self.is_taking:
            return
        if self._next is not None and offset < self._next:
            channel.ack(delivery, is_handled=False)
            return
        self._next = offset + 1
        self._unsettled[delivery] = offset, channel
        delivery.subscription = self
        self._on_delivery(delivery)

    def ack(self, delivery: Delivery, *, is_handled: bool = True) -> bool:
        _, channel = self._unsettled.pop(delivery)
        self._acks.append((channel, delivery))
        while self._acks and (self._next or 0) - (self.position or 0) < MAX_AHEAD:
            channel, settled = self._acks.popleft()
            channel.ack(settled, is_handled=False)
        return True

    async def release(self, delivery: Delivery) -> bool:
        """See `DeliverySubscription.release`. The subscriber gets it again, now or from the saved position."""
        if self.is_taking:
            again = copy.copy(delivery)
            again.is_settled = False
            self._unsettled = {again if each is delivery else each: at for each, at in self._unsettled.items()}
            self._on_delivery(again)
        return self.is_open

    def was_handled(self, delivery: Delivery) -> bool:
        """See `DeliverySubscription.was_handled`. A stream has no redeliveries."""
        return False

    def earlier_outcome_of(self, delivery: Delivery) -> Outcome | None:
        return None

    def remember_outcome(self, delivery: Delivery, outcome: Outcome) -> None:
        """See `DeliverySubscription.remember_outcome`."""


class StreamSubscription:
    """What a `Subscription` is to a queue, for a stream: it delivers while this process is the leader.

    `let_go` returns when all deliveries of a queue are settled or released.
    """

    def __init__(
        self,
        transport: Transport,
        options: SubscriptionOptions,
        start: StreamStart,
        member: Candidate,
        on_delivery: OnDelivery,
        let_go: Callable[[str], Awaitable[None]],
    ) -> None:
        self._transport = transport
        self._options = options
        self._place = {"subscriber": options.subscriber, "queue": options.queue}
        self._start = start
        self._member = member
        self._on_delivery = on_delivery
        self._let_go = let_go
        self._leadership: Leadership | None = None
        self._reading: StreamReading | None = None
        self._subscription: Subscription | None = None
        self._saved: int | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_live(self) -> bool:
        """Whether messages come, or would come if this process were the leader."""
        if self._leadership is None or not self._leadership.is_leader:
            return self._leadership is not None
        return self._subscription is not None and self._subscription.is_live

    async def start(self) -> None:
        """Campaign, and read as the leader. Raises BrokerUnavailable."""
        self._leadership = await self._transport.campaign(self._options.subscriber, self._member)
        self._task = asyncio.create_task(self._run(self._leadership), name=f"stream-{self._options.subscriber}")

    async def stop(self) -> None:
        """See `Subscription.stop`. It stays the leader: others begin when everything is settled and saved."""
        await cancel_and_wait(self._task)
        await self._end_reading()

    async def close(self) -> None:
        """See `Subscription.close`. Saves the position, so that the next leader goes on there."""
        await self.stop()
        if self._leadership is not None:
            with suppress(NotLeader, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._save(self._leadership)
        if self._reading is not None:
            self._reading.is_open = False
        if self._subscription is not None:
            await self._subscription.close()
        if self._leadership is not None:
            await self._leadership.resign()

    async def _run(self, leadership: Leadership) -> None:
        delays = backoff_delays()
        while True:
            await leadership.wait_won()
            try:
                await self._read(leadership)
                delays = backoff_delays()
            except NotLeader:
                pass
            except BrokerUnavailable as error:
                log.get_logger().error("consumer.lost", **self._place, error=str(error))
                await asyncio.sleep(next(delays))
            if self._reading is not None:
                self._reading.is_open = False
            await self._end_reading()
            await self._let_go(self._options.queue)
            if self._subscription is not None:
                await self._subscription.close()
                self._subscription = None

    async def _read(self, leadership: Leadership) -> None:
        """Read, and save the position, until the leadership is lost. Raises NotLeader and BrokerUnavailable."""
        begin = self._begin(leadership.state, leadership.start)
        reading = self._reading = StreamReading(begin, self._on_delivery)
        self._saved = None
        lost = asyncio.ensure_future(leadership.wait_lost())
        try:
            options = replace(self._options, stream_offset=reading.next_offset)
            self._subscription = await self._transport.subscribe(options, reading.receive)
            log.get_logger().info("stream.reading", **self._place, offset=str(begin))
            while not lost.done():
                await asyncio.wait([lost], timeout=SAVE_S)
                await self._save(leadership)
        finally:
            lost.cancel()

    def _begin(self, state: Mapping[str, Any], start: str) -> StreamOffset:
        """Return where to begin: where the last leader was, if that counts, else where the pipeline says.

        With another offset than `stored`, the position counts for those that take over in the same start.
        """
        saved = state.get("offset") if self._start == "stored" or state.get("start") == start else None
        own = self._reading.position if self._reading is not None else None
        known = [each for each in (saved, own) if isinstance(each, int)]
        if known:
            return max(known)
        if isinstance(self._start, str):
            return "first" if self._start == "stored" else self._start
        return utc_now() - timedelta(seconds=self._start)

    async def _save(self, leadership: Leadership) -> None:
        position = self._reading.position if self._reading is not None else None
        if position is not None and position != self._saved:
            await leadership.save({"offset": position, "start": leadership.start})
            self._saved = position

    async def _end_reading(self) -> None:
        if self._reading is not None:
            self._reading.is_taking = False
        if self._subscription is not None:
            await self._subscription.stop()
