"""Contract: what a transport does for the runtime. Each numbered promise is a test in `tests/conformance`.

 1. What is published arrives with equal bytes and properties.
 2. An envelope reaches every queue whose binding matches and no other; `*` is one word, `#` any number, none included.
 3. Feeds of one queue share its messages: each goes to one of them.
 4. `Ack` removes a message for good.
 5. `Retry` brings it back to that queue alone, after the delay, with the attempt counted up; others do not wait for it.
 6. `DeadLetter` moves it to the feed's dead-letter queue with its reason; without such a queue it is dropped.
 7. `Release` gives it back with the same attempt; so does a feed that ends with unsettled deliveries.
 8. Settling twice raises AlreadySettled and does nothing.
 9. At most `prefetch` deliveries of a feed are unsettled.
10. With one delivery at a time, messages come in the order in which they were published.
11. `publish` returns only when the broker has taken the message over.
12. What no queue takes is PublishFailed("unroutable"), what a full queue refuses is PublishFailed("refused"), and what
    goes to an exchange that is not there is PublishFailed("unavailable").
13. Declaring the same topology again changes nothing; other arguments are a TopologyMismatch that names them.
14. `stop` ends delivery, settling still works after it; `stop` and `close` may be called again. Where a single consumer
    is active, the next gets nothing before the stopped feed is closed.
15. Messages outlive a lost connection, and feeds resume by themselves.
16. Cancelling publish or settle loses no message that was taken over.
17. TTL, length limits, priorities and single active consumers are those of RabbitMQ.
18. A delivery that ends in a crash too often (`x-delivery-limit`) goes to the dead-letter queue.
19. Of all sessions that ask for the leadership of one name, at most one has it, and its state survives the leader. A
    session that joins others is in their start; a session that takes part alone begins a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from runner.errors import AlreadySettled
from runner.message import Address, Envelope, attempt_of
from runner.outcome import Outcome
from runner.pipeline.topology import Topology
from runner.transports.leadership import Candidate, Leadership

POISON_SUSPECT_AFTER = 3
"""A message whose deliveries have ended so often without being settled may be what ended them."""

POISON_SUSPECT_AFTER_IN_ORDER = 10
"""The same where messages are to keep their order. Of those that came back together, one that is taken alone and comes
back again is behind the others: quorum queues do not keep its place (measured with RabbitMQ 3.10 and 4.3)."""


class DeliverySubscription(Protocol):
    """What a delivery came by: a channel of RabbitMQ, a feed of the in-process broker."""

    def can_settle(self, delivery_tag: Any) -> bool:
        """Whether this delivery can still be settled; else it is the broker's again."""
        ...

    def was_handled(self, delivery: Delivery) -> bool:
        """Whether its work is known to be done, though the broker may not have read so. Says it once."""
        ...

    def earlier_outcome_of(self, delivery: Delivery) -> Outcome | None:
        """How this attempt is known to have failed, though the broker could not be told. Says it once."""
        ...


class Delivery:
    """One attempt to hand a message to one subscriber. Made by transports, settled exactly once.

    `failed_deliveries` is how often an earlier delivery of it ended without being settled, as far as the broker tells.
    `unreadable` says why the transport cannot decode the message, if it cannot: the envelope then has its body, and the
    rest as bytes in the header `x-runner-unreadable`. `delivery_tag` belongs to the transport.
    """

    __slots__ = (
        "attempt",
        "delivery_tag",
        "envelope",
        "exchange",
        "failed_deliveries",
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
        *,
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
        self.subscription: Any = subscription
        self.unreadable = unreadable
        self.attempt = attempt_of(envelope.headers) if envelope.headers else 1
        self.is_settled = False

    @property
    def is_poison_suspect(self) -> bool:
        """Whether it may be this message that ends processes; it is run alone then."""
        return self.failed_deliveries >= (
            POISON_SUSPECT_AFTER_IN_ORDER if self.options.is_single_active else POISON_SUSPECT_AFTER
        )

    @property
    def is_lost(self) -> bool:
        """Whether it is the broker's again: nothing of it may be begun here, another process may have it."""
        return not self.subscription.can_settle(self.delivery_tag)

    @property
    def was_handled(self) -> bool:
        """Whether its work was done before, and the broker may not have read so. To be asked once, when it begins."""
        return self.is_redelivered and bool(self.subscription.was_handled(self))

    @property
    def earlier_outcome(self) -> Outcome | None:
        """How this attempt has failed before, and the broker could not be told. To be asked once, when it begins."""
        outcome: Outcome | None = self.subscription.earlier_outcome_of(self) if self.is_redelivered else None
        return outcome

    def mark_settled(self) -> None:
        """Take the right to settle; raises AlreadySettled for the second caller."""
        if self.is_settled:
            raise AlreadySettled(f'the message from "{self.options.queue}" is settled already')
        self.is_settled = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionOptions:
    """What a subscriber takes messages from.

    `dead_letter` is the queue for what is given up on (None: it is dropped), `wait_prefix` the beginning of the names
    of the wait queues, `subscriber` a name for the broker's list of consumers and for the headers of dead letters.
    `is_single_active` says that the queue hands its messages to one feed at a time, for the sake of their order.
    `held_s` is how long a message of a quorum queue may stay unsettled with us, if that is longer than brokers let it.
    """

    queue: str
    prefetch: int
    dead_letter: str | None
    wait_prefix: str
    subscriber: str = ""
    is_single_active: bool = False
    held_s: float | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a transport honestly cannot do, so that tests skip with that reason and `validate` can say so.

    Of RabbitMQ it is known only after `connect`.
    """

    name: str
    is_persistent: bool
    """Messages outlive the process (and a lost connection exists at all)."""
    uses_fast_path: bool = True
    """Frames are read and written past the client library's queues; else it is the slower, public way."""
    features: tuple[str, ...] = ()
    """What the broker does for us that older lines of it do not, in words."""


@dataclass(frozen=True, slots=True)
class DeclareResult:
    """What `declare` did: how many things the topology has, and how many exchanges and queues were not there before."""

    exchanges: int
    queues: int
    bindings: int
    new: int = 0


@dataclass(frozen=True, slots=True)
class TransportEvent:
    """Something an operator wants to know: `event` is a log event's name such as `broker.lost`."""

    event: str
    level: str = "info"
    fields: Mapping[str, Any] = field(default_factory=dict)


OnDelivery = Callable[[Delivery], None]
OnPublished = Callable[[Exception | None], None]
"""Is told how a publication has ended: None when the broker has taken it over."""

PublishStarted = Literal["confirmed", "started", "busy"]
"""What became of a publication that nobody waits for: the broker has it; it is on its way; or nothing was done."""

OnTransportEvent = Callable[[TransportEvent], None]


class Subscription(Protocol):
    """The flow of deliveries from one queue to one subscriber, until it is stopped."""

    @property
    def is_live(self) -> bool:
        """Whether the broker is known to send us messages now: false while reconnecting, and after `stop`."""
        ...

    async def stop(self) -> None:
        """End delivery. Deliveries already made may still be settled. Idempotent, bounded in time."""
        ...

    async def close(self) -> None:
        """Stop, and give back what is unsettled. Idempotent, bounded in time."""
        ...


class Transport(Protocol):
    """A broker as the runtime sees it. Not bound to a thread: everything happens on the loop that called `connect`."""

    @property
    def capabilities(self) -> Capabilities:
        """What this transport cannot do."""
        ...

    @property
    def unready_reasons(self) -> Sequence[str]:
        """What keeps it from publishing or consuming now, as words for people; nothing when all is well.

        A broker that is out of memory or disk is no trouble here: it still hands out messages.
        """
        ...

    @property
    def can_publish(self) -> bool:
        """Whether there is a connection that takes publications now: what is published else waits for one."""
        ...

    async def connect(self) -> str:
        """Connect and return the broker's name and version, as in `RabbitMQ 4.1.2`.

        Tries again with growing pauses, until the transport's connect timeout; then raises BrokerUnavailable.
        """
        ...

    async def declare(self, topology: Topology) -> DeclareResult:
        """Make what is missing exist. Raises TopologyMismatch where something exists that differs."""
        ...

    async def publish(self, address: Address, envelope: Envelope) -> None:
        """Publish one envelope, once, and return when the broker has taken it over.

        Raises PublishFailed (not taken, for certain) or PublishUnknown (it may have arrived). Many may run at once;
        those of one caller that awaits each in turn keep their order.
        """
        ...

    def publish_nowait(self, address: Address, envelope: Envelope, on_published: OnPublished) -> PublishStarted:
        """Publish one envelope as `publish` does, where that needs no waiting beforehand, for who has many of them.

        `confirmed`: done, and `on_published` is not called. `started`: `on_published` is called once, with what
        `publish` would have raised or None, perhaps before this returns. `busy`: nothing was done; await `publish`.
        Those that are begun one after the other keep their order; who has got `busy` for one must not begin another
        before `publish` of it has run up to where it waits.
        """
        ...

    async def subscribe(self, options: SubscriptionOptions, on_delivery: OnDelivery) -> Subscription:
        """Start handing deliveries of a queue to `on_delivery`, which must not block and must not raise."""
        ...

    async def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Tell the broker how a delivery ended. Raises AlreadySettled the second time.

        A retry or a dead letter is copied to its queue, confirmed, and only then is the original acknowledged. While
        the copy cannot be published, this waits. Returns False where the broker could not be told because the
        delivery's connection is gone: it will deliver the message again.
        """
        ...

    def ack(self, delivery: Delivery) -> bool:
        """Settle with `Ack`, which never has to wait."""
        ...

    async def count_pending(self, all_options: Sequence[SubscriptionOptions]) -> int:
        """Return how many messages wait in these queues or for a retry into them; unsettled deliveries not counted."""
        ...

    async def count_held_elsewhere(self, all_options: Sequence[SubscriptionOptions], quiet_s: float) -> int | str:
        """Return how many messages of these queues other sessions hold unsettled, or why that is not known, in words.

        Nothing was ready for `quiet_s`: what is known may be older than that, and then counts as one message.
        """
        ...

    async def campaign(self, name: str, member: Candidate | None = None) -> Leadership:
        """Compete with all sessions of this broker for the leadership of a name, as in `orders.producers`.

        Says `pipeline.name_shared` once for each other fingerprint that takes part under the same name.
        Raises BrokerUnavailable or TopologyMismatch where the broker does not let us. `close` resigns.
        """
        ...

    async def close(self) -> None:
        """Resign, stop feeds, give back what is unsettled, disconnect. Idempotent, bounded in time."""
        ...
