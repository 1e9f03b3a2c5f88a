"""Engine: one session with the in-process broker, as a `Transport`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import assert_never
from uuid import uuid4

from runner.backoff import backoff_delays
from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown, TopologyMismatch
from runner.message import Address, Envelope
from runner.outcome import Ack, DeadLetter, Outcome, Release, Retry
from runner.pipeline.topology import Queue, Topology, wait_milliseconds, wait_topology
from runner.transports.amqp_limits import normalize_envelope
from runner.transports.answers import PendingAnswers
from runner.transports.base import (
    Capabilities,
    DeclareResult,
    Delivery,
    OnDelivery,
    OnPublished,
    OnTransportEvent,
    PublishStarted,
    SubscriptionOptions,
    TransportEvent,
)
from runner.transports.failure_copies import MessageCopy, dead_letter_copy, retry_copy
from runner.transports.leadership import Candidate
from runner.transports.memory.broker import MemoryBroker
from runner.transports.memory.election import MemoryLeadership
from runner.transports.memory.queue import MemoryQueue
from runner.transports.memory.subscription import MemorySubscription
from runner.transports.pauses import OnPauses, Pause, PauseChange, Pauses

MAX_PUBLISHES_PER_TICK = 64
"""How many messages a session publishes before other tasks on the loop run."""

DEEP_QUEUE_WEIGHT = 8
"""How many of those a message counts as that goes into a deep queue, whose subscribers are behind."""

FULL_QUEUE_TIMEOUT_S = 30.0
"""How long a publisher waits at a full queue that no message leaves.

Without a limit, a handler that publishes into the queue that only it consumes would wait for itself. Its `publish` ends
as PublishFailed("refused"), its message is retried, and that makes room: a copy needs none.
"""

REPORT_INTERVAL_S = 60.0
"""How often dropped dead letters are reported."""

FIRST_DELAY_S = 0.05
MAX_DELAY_S = 5.0


class MemoryTransport:
    """A session with an in-process broker, by default with one of its own. See `Transport` for its methods.

    Sessions of one `MemoryBroker` are like processes on one RabbitMQ: closing one gives back only what it holds.
    `clock` is the wall clock, UTC. All delays are loop time, so that it runs on a loop with virtual time.
    """

    def __init__(
        self,
        *,
        broker: MemoryBroker | None = None,
        clock: Callable[[], datetime] | None = None,
        on_transport_event: OnTransportEvent | None = None,
    ) -> None:
        self._broker = broker or MemoryBroker(clock=clock)
        self._now = clock or self._broker.now
        self._on_event = on_transport_event or (lambda _: None)
        self._subscriptions: list[MemorySubscription] = []
        self._leaderships: list[MemoryLeadership] = []
        self._answers = PendingAnswers()
        self._answer_queue: str | None = None
        self._closed: asyncio.Future[None] | None = None
        self._is_open = False
        self._published_this_tick = 0
        self._forgotten = 0
        self._next_report = 0.0

    @property
    def capabilities(self) -> Capabilities:
        """See `Transport.capabilities`. Messages are lost when the process dies."""
        return Capabilities("memory", is_persistent=False)

    @property
    def unready_reasons(self) -> Sequence[str]:
        return () if self._is_open else ("the in-process broker is not running",)

    @property
    def can_publish(self) -> bool:
        return self._is_open

    async def connect(self) -> str:
        """See `Transport.connect`. The first session starts the broker."""
        if not self._is_open:
            self._broker.join(self)
            self._open()
        return "in-process broker"

    async def declare(self, topology: Topology) -> DeclareResult:
        """See `Transport.declare`. Either everything is declared, or nothing."""
        self._must_be_open()
        return self._broker.declare(topology, self)

    async def publish(self, address: Address, envelope: Envelope, *, is_answer: bool = False) -> None:
        """See `Transport.publish`. Waits while a queue without limits of its own is full.

        From time to time it lets other tasks run, so that a loop of publishing does not starve them. It does so after
        the message is in its queues, so that no later publication overtakes it.
        """
        if not self._is_open:
            raise PublishUnknown("the session with the in-process broker is closed")
        sent = normalize_envelope(envelope)
        queues = self._broker.route(address, sent.headers)
        weight = _weight(queues)
        if not weight:
            await self._wait_for_room(queues)
            queues = self._broker.route(address, sent.headers)
        self._broker.put(sent, address, queues)
        self._published_this_tick += weight or DEEP_QUEUE_WEIGHT
        if self._published_this_tick >= MAX_PUBLISHES_PER_TICK:
            self._published_this_tick = 0
            await asyncio.sleep(0)

    async def ask(self, address: Address, envelope: Envelope) -> asyncio.Future[Envelope]:
        """See `Transport.ask`. The answers of a session come to an exclusive queue, which is made for the first one."""
        if self._answer_queue is None:
            self._must_be_open()
            name = f"amq.gen-{uuid4().hex}"
            await self._open_answer_queue(name)
            self._answer_queue = name
        asked = envelope._replace(reply_to=self._answer_queue)
        return (await self._answers.ask(envelope, self.publish(address, asked)))[0]

    async def _open_answer_queue(self, name: str) -> None:
        self._broker.declare(Topology(queues=(Queue(name, durable=False, exclusive=True),)), self)
        options = SubscriptionOptions(queue=name, prefetch=100, dead_letter=None, wait_prefix=name)
        await self.subscribe(options, self._take_answer)

    def _take_answer(self, delivery: Delivery) -> None:
        self.ack(delivery)
        self._answers.take(delivery.envelope)

    def publish_nowait(self, address: Address, envelope: Envelope, on_published: OnPublished) -> PublishStarted:
        """See `Transport.publish_nowait`. Busy from time to time, so that other tasks on the loop run."""
        if not self._is_open or self._published_this_tick >= MAX_PUBLISHES_PER_TICK:
            return "busy"
        try:
            sent = normalize_envelope(envelope)
            queues = self._broker.route(address, sent.headers)
            weight = _weight(queues)
            if not weight:
                return "busy"
            self._published_this_tick += weight
            self._broker.put(sent, address, queues)
        except PublishFailed as failure:
            on_published(failure)
            return "started"
        return "confirmed"

    async def subscribe(self, options: SubscriptionOptions, on_delivery: OnDelivery) -> MemorySubscription:
        """See `Transport.subscribe`. Raises BrokerUnavailable where the queue does not exist."""
        self._must_be_open()
        subscription = self._broker.subscribe(options, on_delivery, self)
        self._subscriptions = [subscription, *(old for old in self._subscriptions if old.is_live or old.unsettled)]
        return subscription

    async def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        """See `Transport.settle`. Waits only for room for a copy."""
        if isinstance(outcome, Ack):
            return self.ack(delivery)
        delivery.mark_settled()
        match outcome:
            case Release():
                return await delivery.subscription.release(delivery)
            case Retry():
                copy = retry_copy(delivery, outcome, self._now())
                milliseconds = wait_milliseconds(outcome.after_s)
                wait = wait_topology(delivery.options.wait_prefix, milliseconds)
                return await delivery.moved(self._move(delivery, copy, wait))
            case DeadLetter():
                if delivery.options.dead_letter is None:
                    return delivery.subscription.ack(delivery, is_handled=False)
                copy = dead_letter_copy(delivery, outcome, delivery.options.dead_letter, self._now())
                return await delivery.moved(self._move(delivery, copy, Topology()))
        assert_never(outcome)

    def ack(self, delivery: Delivery) -> bool:
        delivery.mark_settled()
        return delivery.subscription.ack(delivery)

    def queue(self, name: str) -> MemoryQueue | None:
        """Return the broker's queue of this name, or None if it does not exist."""
        return self._broker.queue(name)

    async def count_pending(self, all_options: Sequence[SubscriptionOptions], *, with_delayed: bool = False) -> int:
        return self._broker.count_pending(all_options, with_delayed=with_delayed)

    async def count_held_elsewhere(self, all_options: Sequence[SubscriptionOptions], quiet_s: float) -> int:
        subscriptions = self._broker.subscriptions({options.queue for options in all_options})
        return sum(
            len(subscription.unsettled) for subscription in subscriptions if subscription not in self._subscriptions
        )

    async def count_consumers(self, queue: str) -> int:
        return len(self._broker.subscriptions({queue}))

    async def campaign(self, name: str, member: Candidate | None = None) -> MemoryLeadership:
        self._must_be_open()
        leadership = self._broker.campaign(name, member or Candidate(), self._on_event)
        self._leaderships.append(leadership)
        return leadership

    async def follow_pauses(self, pipeline: str, on_pauses: OnPauses) -> Pauses:
        self._must_be_open()
        return self._broker.follow_pauses(pipeline, on_pauses, self)

    def pauses(self, pipeline: str) -> Pauses:
        """Return the pauses of a pipeline's subscribers."""
        return self._broker.pauses.get(pipeline, {})

    async def set_pause(self, pipeline: str, subscriber: str, pause: Pause | None) -> None:
        """See `Transport.set_pause`. The pause lives as long as the broker."""
        self._must_be_open()
        self._broker.change_pauses(pipeline, PauseChange(subscriber, pause))

    async def close(self) -> None:
        """See `Transport.close`. Unsettled deliveries count as lost, as after a crash."""
        if not self._is_open or self._closed is None:
            return
        self._is_open = False
        self._closed.set_result(None)
        self._answers.lose_all()
        for leadership in self._leaderships:
            leadership.end()
        for subscription in self._subscriptions:
            subscription.end()
        for subscription in self._subscriptions:
            subscription.requeue_unsettled()
        self._subscriptions.clear()
        await self._leave()

    def _open(self) -> None:
        self._closed = asyncio.get_running_loop().create_future()
        self._is_open = True

    async def _leave(self) -> None:
        self._broker.leave(self)

    async def _move(self, delivery: Delivery, copy: MessageCopy, wait: Topology) -> bool:
        """Publish the copy, trying again as often as needed, and only then remove the original.

        A retry waits for room in its wait queue, which is declared where it is missing: there is no disk to put retries
        on, so a handler that always fails must slow down its publishers. Of dead letters that have no consumer, the
        oldest are dropped.
        """
        sent, delays = normalize_envelope(copy.envelope, is_copy=True), backoff_delays(FIRST_DELAY_S, MAX_DELAY_S)
        is_retry = bool(wait.queues)
        while not delivery.is_lost:
            try:
                queues = self._broker.route(copy.address, sent.headers)
                if not is_retry or not any(queue.is_full for queue in queues):
                    self._broker.put(sent, copy.address, queues)
                    if not is_retry:
                        self._forget_oldest(queues)
                    return delivery.subscription.ack(delivery, is_handled=False)
            except PublishFailed as failure:
                if failure.reason != "refused" and self._has_made(wait):
                    continue
            await self._pause(next(delays))
        return False

    def _forget_oldest(self, queues: Sequence[MemoryQueue]) -> None:
        for queue in queues:
            self._forgotten += (count := queue.forget_oldest())
            now = asyncio.get_running_loop().time()
            if count and now >= self._next_report:
                self._next_report = now + REPORT_INTERVAL_S
                fields = {"queue": queue.name, "forgotten": self._forgotten, "kept": len(queue.buffer)}
                self._on_event(TransportEvent("dead_letters.forgotten", "warning", fields))

    def _has_made(self, needed: Topology) -> bool:
        """Declare what is missing. False where nothing is missing, or where an item that differs is in the way."""
        try:
            return self._broker.declare(needed, self).new > 0
        except TopologyMismatch:
            return False

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than the session is open."""
        if self._closed is not None:
            await asyncio.wait((self._closed,), timeout=seconds)

    async def _wait_for_room(self, queues: Sequence[MemoryQueue]) -> None:
        """Wait until no queue is full.

        Raises PublishFailed("refused") where no message leaves the queue, PublishUnknown when the session is closed.
        """
        assert self._closed is not None
        for queue in queues:
            if (
                queue.is_full
                and not await queue.wait_for_room(FULL_QUEUE_TIMEOUT_S, self._closed)
                and not self._closed.done()
            ):
                raise PublishFailed(
                    f'queue "{queue.name}" is full, and nothing has left it for {FULL_QUEUE_TIMEOUT_S:.0f} seconds',
                    reason="refused",
                    hint="a subscriber that publishes into the queue it reads can fill it; give it fewer results",
                )
        if not self._is_open:
            raise PublishUnknown("the session with the in-process broker was closed while publishing")

    def _must_be_open(self) -> None:
        if not self._is_open:
            raise BrokerUnavailable("the session with the in-process broker is not connected")


def _weight(queues: Sequence[MemoryQueue]) -> int:
    """Return how many publications a message for these queues counts as; 0 where it has to wait for room."""
    weight = 1
    for queue in queues:
        if queue.is_deep:
            if queue.is_full:
                return 0
            if queue.subscriptions:
                weight = DEEP_QUEUE_WEIGHT
    return weight
