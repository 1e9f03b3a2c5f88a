"""What a conformance test holds in its hands: sessions with one broker, names of its own, and inboxes to wait at.

No test sleeps to be in time: it waits until something is there, or sends a marker after what must not come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from runner.message import Address, Envelope
from runner.outcome import ACK
from runner.pipeline.topology import (
    Binding,
    Exchange,
    ExchangeType,
    Queue,
    Topology,
    leadership_queue,
    wait_milliseconds,
    wait_topology,
)
from runner.transports.base import Delivery, Subscription, SubscriptionOptions, Transport, TransportEvent
from runner.transports.leadership import Candidate, Leadership

WAIT_S = 20.0

NEWEST = (4, 3)
"""The line of RabbitMQ that the in-process broker follows where lines differ."""


class Inbox:
    """Keeps what a feed delivers, in order, and hands it to the test one by one."""

    def __init__(self) -> None:
        self.seen: list[Delivery] = []
        self._arrived = asyncio.Condition()
        self._taken = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.subscription: Subscription

    def __call__(self, delivery: Delivery) -> None:
        self.seen.append(delivery)
        task = asyncio.create_task(self._announce())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def next(self) -> Delivery:
        """Return the next delivery, waiting for it."""
        return (await self.take(1))[0]

    async def take(self, count: int) -> list[Delivery]:
        """Return the next `count` deliveries, waiting for them."""
        wanted = self._taken + count
        await self.wait_until_seen(wanted)
        taken, self._taken = self.seen[self._taken : wanted], wanted
        return taken

    async def wait_until_seen(self, count: int) -> None:
        """Wait until so many deliveries have come in all."""
        try:
            async with asyncio.timeout(WAIT_S), self._arrived:
                await self._arrived.wait_for(lambda: len(self.seen) >= count)
        except TimeoutError:
            bodies = [delivery.envelope.body[:40] for delivery in self.seen]
            pytest.fail(f"waited {WAIT_S:.0f} s for {count} deliveries, there are {len(bodies)}: {bodies}")

    async def _announce(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()


@dataclass(frozen=True)
class Kind:
    """A broker and a type of queue that the suite runs on, and what they cannot do, with the reason."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_rabbitmq(self) -> bool:
        return self.name.startswith("rabbitmq")


KINDS = (
    Kind("memory", lacks={"reconnect": "not persistent: there is no connection to lose"}),
    Kind("file", lacks={"reconnect": "one process has the file open: there is no connection to lose"}),
    Kind(
        "rabbitmq-quorum",
        # As pipelines declare them. Without a delivery limit RabbitMQ 3.10 puts what is released at the end.
        {"x-queue-type": "quorum", "x-delivery-limit": 20},
        {"priority": "quorum queues take no x-max-priority"},
    ),
    Kind(
        "rabbitmq-classic",
        lacks={"delivery-limit": "classic queues do not count deliveries"},
    ),
    Kind(
        "rabbitmq-public",  # without the direct way past the client's queues
        lacks={"delivery-limit": "classic queues do not count deliveries"},
        environment={"RUNNER_PLAIN_AMQP": "1"},
    ),
)


class Harness:
    """One broker as several processes see it, with names that no other test has."""

    def __init__(
        self,
        kind: Kind,
        unique: str,
        new_transport: Callable[[Callable[[TransportEvent], None]], Transport],
        lose_connections: Callable[[], None],
        line: tuple[int, int] = NEWEST,
    ) -> None:
        self.kind = kind
        self.line = line
        self.unique = unique
        self.changes: list[TransportEvent] = []
        self.declared: list[Topology] = []
        self.wait_prefix = f"{unique}.retry"
        self.lose_connections = lose_connections
        self._new_transport = new_transport
        self._sessions: list[Transport] = []

    def needs(self, ability: str) -> None:
        """Skip the test where this broker or type of queue lacks an ability, and say why."""
        if ability in self.kind.lacks:
            pytest.skip(self.kind.lacks[ability])

    async def session(self) -> Transport:
        """Connect one more process to the broker."""
        transport = self._new_transport(self.changes.append)
        self._sessions.append(transport)
        await transport.connect()
        return transport

    def queue(self, word: str, **arguments: Any) -> Queue:
        """Return a queue of the type under test: `message_ttl=5` is its argument `x-message-ttl`."""
        named = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
        return Queue(f"{self.unique}.{word}", arguments={**self.kind.arguments, **named})

    def exchange(self, word: str, kind: ExchangeType = "topic") -> Exchange:
        """Return an exchange with a name of this test's own."""
        return Exchange(f"{self.unique}.{word}", kind)

    async def declare(self, session: Transport, *things: Exchange | Queue | Binding) -> None:
        """Declare all this, and remember it, to be deleted after the test."""
        topology = Topology(
            tuple(thing for thing in things if isinstance(thing, Exchange)),
            tuple(thing for thing in things if isinstance(thing, Queue)),
            tuple(thing for thing in things if isinstance(thing, Binding)),
        )
        self.declared.append(topology)
        await session.declare(topology)

    async def campaign(
        self, session: Transport, word: str = "producers", member: Candidate | None = None
    ) -> Leadership:
        """Let a session compete for a leadership, and remember its queue, to be deleted after the test."""
        name = f"{self.unique}.{word}"
        self.declared.append(Topology(queues=(leadership_queue(name),)))
        return await session.campaign(name, member)

    def options(self, queue: Queue, prefetch: int = 10, dead_letter: Queue | None = None) -> SubscriptionOptions:
        """Return a subscriber's view of a queue."""
        return SubscriptionOptions(
            queue=queue.name,
            prefetch=prefetch,
            dead_letter=dead_letter.name if dead_letter else None,
            wait_prefix=self.wait_prefix,
            subscriber="watcher",
            is_single_active=bool(queue.arguments.get("x-single-active-consumer")),
        )

    def delay(self, seconds: float) -> float:
        """Return a retry's delay, and remember its wait queue, to be deleted after the test."""
        self.declared.append(wait_topology(self.wait_prefix, wait_milliseconds(seconds)))
        return seconds

    async def collect(
        self, session: Transport, queue: Queue, *, prefetch: int = 10, dead_letter: Queue | None = None
    ) -> Inbox:
        """Start a feed of a queue and return the inbox that it fills."""
        inbox = Inbox()
        inbox.subscription = await session.subscribe(self.options(queue, prefetch, dead_letter), inbox)
        return inbox

    async def one_queue(self, word: str, **arguments: Any) -> tuple[Transport, Queue]:
        """Connect one more process, and declare a queue as `queue` returns it."""
        session, queue = await self.session(), self.queue(word, **arguments)
        await self.declare(session, queue)
        return session, queue

    async def one_inbox(self, word: str, *, prefetch: int = 10, **arguments: Any) -> tuple[Transport, Queue, Inbox]:
        """Do the same, and start a feed of the queue."""
        session, queue = await self.one_queue(word, **arguments)
        return session, queue, await self.collect(session, queue, prefetch=prefetch)

    async def settle_all(self, session: Transport, deliveries: list[Delivery]) -> None:
        """Acknowledge all of them, in order."""
        for delivery in deliveries:
            await session.settle(delivery, ACK)

    async def until_pending(self, session: Transport, options: SubscriptionOptions, expected: int) -> None:
        """Wait until so many messages are ready or wait for a retry: a broker may count a moment after it takes."""
        await until(lambda: session.count_pending([options]), expected)

    async def close(self) -> None:
        """Disconnect every session."""
        for session in self._sessions:
            await session.close()


async def until(ask: Callable[[], Awaitable[object]], expected: object) -> None:
    """Ask again and again until the answer is the expected one."""
    answer: object = None
    try:
        async with asyncio.timeout(WAIT_S):
            while (answer := await ask()) != expected:
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"waited {WAIT_S:.0f} s for {expected!r}, the answer is still {answer!r}")


def to_queue(queue: Queue) -> Address:
    """Return the address of a queue: the default exchange, and its name for a key."""
    return Address("", queue.name)


def text(body: str, **properties: Any) -> Envelope:
    """Return an envelope with this text for a body."""
    return Envelope(body.encode(), **properties)


def bodies(deliveries: list[Delivery]) -> list[str]:
    """Return the bodies as text."""
    return [delivery.envelope.body.decode() for delivery in deliveries]
