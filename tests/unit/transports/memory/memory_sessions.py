"""Short ways to say what a test of the in-process broker needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from runner.message import Address, Envelope
from runner.pipeline.topology import Binding, Exchange, Queue, Topology
from runner.transports.base import Delivery, SubscriptionOptions
from runner.transports.memory import MemoryBroker, MemoryTransport


async def connected(broker: MemoryBroker | None = None, **arguments: Any) -> MemoryTransport:
    """Return a connected session, of a new broker where none is given."""
    session = MemoryTransport(broker=broker, **arguments)
    await session.connect()
    return session


@asynccontextmanager
async def opened(
    *things: Exchange | Queue | Binding, broker: MemoryBroker | None = None, **arguments: Any
) -> AsyncIterator[MemoryTransport]:
    """A connected session for a block, with all this declared."""
    session = await connected(broker, **arguments)
    try:
        await declared(session, *things)
        yield session
    finally:
        await session.close()


async def declared(session: MemoryTransport, *things: Exchange | Queue | Binding) -> None:
    """Declare exchanges, queues and bindings."""
    await session.declare(
        Topology(
            tuple(thing for thing in things if isinstance(thing, Exchange)),
            tuple(thing for thing in things if isinstance(thing, Queue)),
            tuple(thing for thing in things if isinstance(thing, Binding)),
        )
    )


def queue(name: str, **arguments: Any) -> Queue:
    """Return a queue; `message_ttl=5` is its argument `x-message-ttl`."""
    return Queue(name, arguments={f"x-{key.replace('_', '-')}": value for key, value in arguments.items()})


def options(name: str, prefetch: int = 10, dead_letter: str | None = None) -> SubscriptionOptions:
    """Return a subscriber's view of a queue."""
    return SubscriptionOptions(
        queue=name, prefetch=prefetch, dead_letter=dead_letter, wait_prefix="retry", subscriber="test"
    )


async def put(session: MemoryTransport, name: str, *bodies: str, **properties: Any) -> None:
    """Publish bodies to a queue, one after the other."""
    for body in bodies:
        await session.publish(Address("", name), Envelope(body.encode(), **properties))


async def turns(count: int = 5) -> None:
    """Let everybody else on the loop run a few times; nothing in the broker takes longer than that."""
    for _ in range(count):
        await asyncio.sleep(0)


async def subscribed(session: MemoryTransport, name: str, **arguments: Any) -> list[Delivery]:
    """Subscribe to a queue; return the list that its deliveries go to, with the first of them."""
    seen: list[Delivery] = []
    await session.subscribe(options(name, **arguments), seen.append)
    await turns()
    return seen


async def drained(
    session: MemoryTransport, name: str, prefetch: int = 100_000, dead_letter: str | None = None
) -> list[Delivery]:
    """Take what is ready in a queue, at most `prefetch` messages."""
    seen: list[Delivery] = []
    subscription = await session.subscribe(options(name, prefetch, dead_letter), seen.append)
    await turns(3 + await session.count_pending([options(name)]) // 256)
    await subscription.stop()
    return seen


def bodies(deliveries: list[Delivery]) -> list[str]:
    """Return the bodies as text."""
    return [delivery.envelope.body.decode() for delivery in deliveries]
