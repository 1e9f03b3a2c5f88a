"""Contract: what a transport does for the runtime. Each numbered promise is a test in `tests/conformance`.

 1. What is published arrives with equal bytes and properties.
 2. An envelope reaches every queue whose binding matches and no other; `*` is one word, `#` zero or more words.
 3. Subscriptions of one queue share its messages: each message goes to one of them.
 4. `Ack` removes a message for good.
 5. `Retry` brings it back to that queue alone, after the delay, with the attempt counted up; others do not wait for it.
 6. `DeadLetter` moves it to the dead-letter queue with its reason; without such a queue it is dropped.
 7. `Release` gives it back with the same attempt; so does a subscription that ends with unsettled deliveries.
 8. Settling twice raises AlreadySettled and does nothing.
 9. At most `prefetch` deliveries of a subscription are unsettled.
10. With one delivery at a time, messages come in the order in which they were published.
11. `publish` returns only when the broker has confirmed the message.
12. A message that no queue takes is PublishFailed("unroutable"), one that a full queue refuses is
    PublishFailed("refused"), and one for an exchange that does not exist is PublishFailed("unavailable").
13. Declaring the same topology again changes nothing; other arguments are a TopologyMismatch that names them.
14. `stop` ends delivery, and settling still works; `stop` and `close` may be called again. With a single active
    consumer, the next one gets nothing before the stopped subscription is closed.
15. Messages outlive a lost connection, and subscriptions resume by themselves.
16. Cancelling `publish` or `settle` loses no message that the broker has confirmed, and a message whose settlement was
    cancelled can be settled again.
17. TTL, length limits, priorities and single active consumers are those of RabbitMQ.
18. A message whose deliveries end in a crash too often (`x-delivery-limit`) goes to the dead-letter queue.
19. Of all sessions that campaign for the leadership of one name, at most one has it, and its state survives the
    leader. A session that joins others is in their start; a session that campaigns alone begins a new one.
20. A pause that one session sets is known to every session that follows the pauses of its pipeline, also to those that
    come later, until a session ends it.
21. What is published to the `reply_to` of a question reaches the session that asked, and the future with its
    correlation id. If that session is closed or loses its connection, the future ends.
22. A single active subscription that steps back settles everything it holds before the next one gets a message, and
    messages keep their order. It gets messages again when those before it have ended or stepped back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from runner.errors import AlreadySettled
from runner.message import Address, Envelope, attempt_of
from runner.outcome import Outcome
from runner.pipeline.topology import Topology
from runner.transports.leadership import Candidate, Leadership
from runner.transports.pauses import OnPauses, Pause, Pauses

POISON_SUSPECT_AFTER = 3
"""After this many deliveries that ended unsettled, the message itself may be what ends processes."""

POISON_SUSPECT_AFTER_IN_ORDER = 10
"""The same for a subscription that keeps the order of messages.

It is larger because taking messages one at a time costs the order: of messages that came back together, one that is
taken alone and comes back again stands behind the others (measured with quorum queues of RabbitMQ 3.10 and 4.3).
"""


StreamOffset = int | str | datetime
"""Where reading of a stream begins: an offset, `first`, `last`, `next`, or a time."""


class DeliverySubscription(Protocol):
    """What a delivery came by, and is settled with: an AMQP channel, or a subscription of the in-process broker."""

    __slots__ = ()

    is_open: bool
    """Whether its deliveries can still be settled. When it is not open, they are the broker's again."""

    def ack(self, delivery: Delivery, *, is_handled: bool = True) -> bool:
        """Acknowledge a delivery that was handled, or that a copy replaces. False where the broker takes it back."""

    async def release(self, delivery: Delivery) -> bool:
        """Give a delivery back untouched. False where the broker has taken it back already."""

    def was_handled(self, delivery: Delivery) -> bool:
        """Return whether a redelivery was handled before, and its acknowledgement possibly lost. True only once."""
        return False

    def earlier_outcome_of(self, delivery: Delivery) -> Outcome | None:
        """Return how this attempt ended before, where its outcome could not be settled. Returned only once."""
        return None

    def remember_outcome(self, delivery: Delivery, outcome: Outcome) -> None:
        """Remember an outcome that could not be settled, because the broker has taken the message back."""
        return


class Delivery:
    """One attempt to deliver a message to one subscriber. Transports make it; it is settled exactly once.

    `failed_deliveries` is how many earlier deliveries of the message ended unsettled, as far as the broker counts them.
    `unreadable` says why the transport cannot decode the message: the envelope then has the body, and the properties as
    bytes in the header `x-runner-unreadable`. `delivery_tag` belongs to the transport.
    """

    __slots__ = (
        "attempt",
        "delivery_tag",
        "envelope",
        "exchange",
        "failed_deliveries",
        "is_poison_suspect",
        "is_redelivered",
        "is_settled",
        "options",
        "routing_key",
        "subscription",
        "unreadable",
    )

    def __init__(
        self,
        envelope: Envelope,
        options: SubscriptionOptions,
        exchange: str,
        routing_key: str,
        is_redelivered: bool,
        failed_deliveries: int,
        delivery_tag: Any,
        subscription: DeliverySubscription,
        unreadable: str = "",
    ) -> None:
        self.envelope = envelope
        self.options = options
        self.exchange = exchange
        self.routing_key = routing_key
        self.is_redelivered = is_redelivered
        self.failed_deliveries = failed_deliveries
        self.delivery_tag = delivery_tag
        self.subscription = subscription
        self.unreadable = unreadable
        self.attempt = attempt_of(envelope.headers) if envelope.headers else 1
        self.is_settled = False
        self.is_poison_suspect = failed_deliveries > 0 and failed_deliveries >= (
            POISON_SUSPECT_AFTER_IN_ORDER if options.is_single_active else POISON_SUSPECT_AFTER
        )
        """Whether this message may be what ends processes. It is handled alone then."""

    @property
    def is_lost(self) -> bool:
        """Whether it cannot be settled any more. The broker delivers the message again, perhaps to another process."""
        return not self.subscription.is_open

    @property
    def was_handled(self) -> bool:
        """Whether it was handled before, and its ack possibly lost. Ask once, before the handler is called."""
        return self.is_redelivered and self.subscription.was_handled(self)

    @property
    def earlier_outcome(self) -> Outcome | None:
        """How this attempt ended before, when it could not be settled. Ask once, before the handler is called."""
        return self.subscription.earlier_outcome_of(self) if self.is_redelivered else None

    def mark_settled(self) -> None:
        """Claim the right to settle. Raises AlreadySettled the second time."""
        if self.is_settled:
            raise AlreadySettled(f'the message from "{self.options.queue}" is settled already')
        self.is_settled = True

    async def moved(self, moving: Awaitable[bool]) -> bool:
        """Await that a copy takes the place of the message. If that is cancelled, the message is unsettled again.

        Something that a handler has left behind may cancel the task, and the session goes on: without this, the message
        could not be given back.
        """
        try:
            return await moving
        except BaseException:
            self.is_settled = False
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionOptions:
    """How a subscriber consumes a queue.

    - `dead_letter`: the queue for messages that are given up on; None drops them.
    - `wait_prefix`: the beginning of the names of the wait queues.
    - `subscriber`: the subscriber's name, for log lines and for the headers of dead letters.
    - `is_single_active`: whether the queue has a single active consumer, so that messages keep their order.
    - `release`: the release of the user's code, for the headers of dead letters.
    - `held_s`: how many seconds a message of a quorum queue may stay unsettled, if that is longer than a broker's
      default `consumer_timeout`.
    - `stream_offset`: returns where each consumer of a stream begins; None for a queue.
    """

    queue: str
    prefetch: int
    dead_letter: str | None
    wait_prefix: str
    subscriber: str = ""
    release: str = ""
    is_single_active: bool = False
    held_s: float | None = None
    stream_offset: Callable[[], StreamOffset] | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a transport can do."""

    name: str
    is_persistent: bool
    """Whether messages outlive the process. Without it there is no connection that could be lost."""
    is_shared: bool = False
    """Whether several processes can have sessions with the broker at the same time."""
    features: tuple[str, ...] = ()
    """What this version of the broker has that the runner uses and older versions lack."""
    quorum_priorities: int = 32
    """How many priorities quorum queues have; 0 without priorities."""
    delay_rounding: float = 0.0
    """How much longer than asked a delay may be, as a share of it, where each step of it costs the broker work."""


@dataclass(frozen=True, slots=True)
class DeclareResult:
    """How many items a declared topology has, and how many of its exchanges and queues are new."""

    exchanges: int
    queues: int
    bindings: int
    new: int = 0

    @classmethod
    def of(cls, topology: Topology, new: int = 0) -> DeclareResult:
        """Return the result for a topology."""
        return cls(len(topology.exchanges), len(topology.queues), len(topology.bindings), new)


@dataclass(frozen=True, slots=True)
class TransportEvent:
    """A change that operators see in the log. `event` is the log event's name, such as `broker.lost`."""

    event: str
    level: str = "info"
    fields: Mapping[str, Any] = field(default_factory=dict)


OnDelivery = Callable[[Delivery], None]
OnPublished = Callable[[Exception | None], None]
"""Called once: with the error, or None when the broker confirmed the message."""

PublishStarted = Literal["confirmed", "started", "busy"]
"""What `publish_nowait` did: the message is confirmed already; it was sent; or nothing was done."""

OnTransportEvent = Callable[[TransportEvent], None]


class Subscription(Protocol):
    """The deliveries of one queue to one subscriber, until it is stopped."""

    @property
    def is_live(self) -> bool:
        """Whether the broker sends messages now. False while reconnecting, and after `stop`."""

    async def stop(self) -> None:
        """Stop delivering. Earlier deliveries can still be settled. Idempotent, bounded in time."""

    def step_back(self) -> None:
        """Deliver nothing more until all is settled, then subscribe again, behind all others. Needs `is_single_active`.

        What is released meanwhile goes back, in order, before another subscription gets a message.
        """

    async def close(self) -> None:
        """Stop, and give unsettled deliveries back. Idempotent, bounded in time."""


class Transport(Protocol):
    """A session with a broker. Everything runs on the event loop that called `connect`."""

    @property
    def capabilities(self) -> Capabilities:
        """What this transport can do."""

    @property
    def unready_reasons(self) -> Sequence[str]:
        """Why it cannot publish or consume now, in sentences for people; empty when it can.

        A broker that is out of memory or disk is no reason: it still delivers messages.
        """

    @property
    def can_publish(self) -> bool:
        """Whether a connection accepts publications now. Otherwise publications wait for one."""

    async def connect(self) -> str:
        """Connect, and return the broker's name and version, such as `RabbitMQ 4.1.2`.

        Tries again with growing delays. Raises BrokerUnavailable after the transport's connect timeout.
        """

    async def declare(self, topology: Topology) -> DeclareResult:
        """Declare what is missing. Raises TopologyMismatch for items that exist and differ."""

    async def publish(self, address: Address, envelope: Envelope, *, is_answer: bool = False) -> None:
        """Publish one envelope, once, and return when the broker has confirmed it.

        Raises PublishFailed (it was certainly not accepted) or PublishUnknown (it may have arrived). Many calls may run
        at once; the messages of a caller that awaits each call keep their order. An answer goes to an address that
        another program has named: if the broker does not permit it, no other publication suffers.
        """

    async def ask(self, address: Address, envelope: Envelope) -> asyncio.Future[Envelope]:
        """Publish a question as `publish` does, and return the future of its first answer; cancel it to stop waiting.

        The answer has the correlation id of the question, which no other question has. The future ends as NoAnswer when
        the connection that the answer would come by is lost.
        """

    def publish_nowait(self, address: Address, envelope: Envelope, on_published: OnPublished) -> PublishStarted:
        """Publish without waiting if a slot is free. For callers that publish many messages.

        - `confirmed`: done; `on_published` is not called.
        - `started`: `on_published` is called once, perhaps before this returns, with None or what `publish` raises.
        - `busy`: nothing was done; await `publish` instead.

        Messages keep the order of the calls. After `busy`, start no other publication before that `publish` has begun
        to wait.
        """

    async def subscribe(self, options: SubscriptionOptions, on_delivery: OnDelivery) -> Subscription:
        """Start to pass deliveries of a queue to `on_delivery`, which must not block and must not raise."""

    async def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Settle a delivery with its outcome. Raises AlreadySettled the second time.

        For a retry or a dead letter, a copy is published to its queue and confirmed; only then is the original
        acknowledged. While the copy cannot be published, this waits; if that is cancelled, the delivery can be settled
        again. Returns False where the delivery's connection is gone: the broker delivers the message again.
        """

    def ack(self, delivery: Delivery) -> bool:
        """Settle with `Ack`. It never waits."""

    async def count_pending(self, all_options: Sequence[SubscriptionOptions], *, with_delayed: bool = False) -> int:
        """Return how many messages wait in these queues, or for a retry into them. Unsettled ones do not count.

        `with_delayed` also counts delayed messages that have not arrived.
        """

    async def count_held_elsewhere(self, all_options: Sequence[SubscriptionOptions], quiet_s: float) -> int | str:
        """Return how many messages of these queues other sessions hold unsettled, or a sentence why it is unknown.

        `quiet_s` is for how long nothing was ready. Counts that may be older than that are not trusted: they count as
        one message.
        """

    async def count_consumers(self, queue: str) -> int:
        """Return how many subscriptions a queue has, of all sessions. Raises BrokerUnavailable.

        A queue with a single active consumer may have more than are counted.
        """

    async def campaign(self, name: str, member: Candidate | None = None) -> Leadership:
        """Campaign with all sessions of this broker for the leadership of a name, such as `orders.producers`.

        Reports `pipeline.name_shared` once for each other fingerprint that campaigns under the same name.
        Raises BrokerUnavailable or TopologyMismatch where the broker refuses. `close` resigns.
        """

    async def follow_pauses(self, pipeline: str, on_pauses: OnPauses) -> Pauses:
        """Return the pauses of a pipeline's subscribers, and call `on_pauses` after each change."""

    async def set_pause(self, pipeline: str, subscriber: str, pause: Pause | None) -> None:
        """Begin or end the pause of a subscriber, for all sessions. Raises BrokerUnavailable."""

    async def close(self) -> None:
        """Resign, stop subscriptions, give unsettled deliveries back, disconnect. Idempotent, bounded in time."""
