"""Reads a stream for a subscriber, in one of all processes, and goes on where the subscriber was.

Over AMQP 0-9-1, several consumers of a stream each get all of it, and the broker does not know what a subscriber has
handled. So only the leader of all processes reads, and the leadership keeps the *position*: the offset below which
everything is settled. After a crash, what was settled above the saved position is handled again.
The leadership also counts the leaders in a row that have ended at a position. After three of them the next one handles
one message at a time and saves the position after each. So it finds the message that ends processes, and gives it up.

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
from runner.pipeline.model import StreamStart
from runner.tasks import cancel_and_wait
from runner.transports.base import (
    POISON_SUSPECT_AFTER,
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

CAREFUL_MESSAGES = 1_000
"""How many messages are handled one at a time after crashes: about as many as are handled between two saves."""

MAX_AHEAD = 10_000
"""How far it reads beyond a message that is not settled: as many may be handled again after a crash."""

CLOSE_S = 5.0
"""How long a stop waits until the position is saved."""


class StreamReading(DeliverySubscription):
    """What one leader reads: the `DeliverySubscription` of its deliveries, which knows which of them are settled.

    An acknowledgement makes the broker send another message. Nothing of a stream is ever given back to the broker.
    """

    def __init__(self, begin: StreamOffset, on_delivery: OnDelivery, failed: int = 0) -> None:
        self.is_open = True
        self.failed = failed
        """How many leaders in a row have ended at the first message."""
        self.first: int | None = None
        self.saved: int | None = None
        self.must_save = asyncio.Event()
        """Set when a message waits until the position is saved."""
        self._careful = CAREFUL_MESSAGES if failed >= POISON_SUSPECT_AFTER else 1
        """How many of the next messages wait until those before them are settled, and the position is saved."""
        self._held = deque[Delivery]()
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
        if self.first is None:
            self.first, self.failed = offset, self.failed if offset == self._begin else 0
            delivery.failed_deliveries = self.failed
            delivery.is_poison_suspect = self.failed >= POISON_SUSPECT_AFTER
        self._next = offset + 1
        self._unsettled[delivery] = offset, channel
        delivery.subscription = self
        self._held.append(delivery)
        self.pass_on()

    def pass_on(self) -> None:
        """Pass messages on to the subscriber, one at a time while that is necessary."""
        while self._held and self.is_taking and (not self._careful or len(self._unsettled) == len(self._held)):
            if self._careful and self.saved != self.position:
                self.must_save.set()
                return
            self._careful = max(0, self._careful - 1)
            self._on_delivery(self._held.popleft())

    def ack(self, delivery: Delivery, *, is_handled: bool = True) -> bool:
        _, channel = self._unsettled.pop(delivery)
        self.pass_on()
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
                    await self._save(self._leadership, is_over=True)
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
        state = leadership.state
        begin = self._begin(state, leadership.start)
        failed = state.get("failed", 0) if begin == state.get("offset") else 0
        reading = self._reading = StreamReading(begin, self._on_delivery, failed)
        lost = asyncio.ensure_future(leadership.wait_lost())
        try:
            options = replace(self._options, stream_offset=reading.next_offset)
            self._subscription = await self._transport.subscribe(options, reading.receive)
            log.get_logger().info("stream.reading", **self._place, offset=str(begin))
            while not lost.done():
                must_save = asyncio.ensure_future(reading.must_save.wait())
                await asyncio.wait([lost, must_save], timeout=SAVE_S, return_when=asyncio.FIRST_COMPLETED)
                must_save.cancel()
                reading.must_save.clear()
                await self._save(leadership)
                reading.pass_on()
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

    async def _save(self, leadership: Leadership, *, is_over: bool = False) -> None:
        """Save the position. `is_over` says that this leader ends as it should."""
        reading = self._reading
        position = reading.position if reading is not None else None
        if reading is not None and position is not None and (is_over or position != reading.saved):
            failed = reading.failed + (not is_over) if position == reading.first else 0
            await leadership.save({"offset": position, "start": leadership.start, "failed": failed})
            reading.saved = position

    async def _end_reading(self) -> None:
        if self._reading is not None:
            self._reading.is_taking = False
        if self._subscription is not None:
            await self._subscription.stop()
