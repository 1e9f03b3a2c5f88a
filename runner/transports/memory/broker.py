"""Engine: the in-process broker. It executes a topology, and keeps messages while sessions connect and disconnect.

Messages are lost when the process dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from runner.clock import utc_now
from runner.errors import BrokerUnavailable, PublishFailed, TopologyMismatch
from runner.message import Address, Envelope
from runner.pipeline.topology import Queue, Topology
from runner.transports.base import DeclareResult, OnDelivery, OnTransportEvent, SubscriptionOptions
from runner.transports.broker_state import LOCKED, LOCKED_HINT
from runner.transports.leadership import Candidate
from runner.transports.memory.dead_letters import DeathReason, dead_letter_envelope, is_cycle, read_deaths
from runner.transports.memory.delivery_scheduler import DeliveryScheduler
from runner.transports.memory.election import Election, MemoryLeadership
from runner.transports.memory.queue import MemoryQueue, OnDeadLetter
from runner.transports.memory.queue_buffer import QueuedMessage
from runner.transports.memory.router import Router
from runner.transports.memory.subscription import MemorySubscription
from runner.transports.memory.topology_check import check_topology, item_differences
from runner.transports.pauses import OnPauses, PauseChange, Pauses

CAPACITY = 100_000
CAPACITY_BYTES = 256 * 1024 * 1024
"""How many messages and bytes a queue without limits of its own holds ready before publishers have to wait.

Requeued messages, and retries that have waited for their delay, exceed it: they exist already. A new retry waits for
room in its wait queue; of dead letters that have no consumer, the oldest are dropped.
"""

DEAD_LETTER_RETRY_S = 1.0
"""How often a dead letter that no queue takes is routed again, where its queue dead-letters at least once."""


@dataclass(slots=True)
class _UndeliverableDeadLetter:
    """A dead letter that some queue has not taken, and the names of those that have. `message` is still in `queue`."""

    envelope: Envelope
    address: Address
    queue: MemoryQueue
    message: QueuedMessage
    taken: set[str] = field(default_factory=set)


class MemoryBroker:
    """Exchanges, queues and messages in memory. Several sessions may share it, on one event loop.

    It runs while a session is connected. `clock` is the wall clock, UTC, for the time in `x-death`; all delays are loop
    time. `capacity` applies to each queue without limits of its own. `on_dead_letter` is called with each message that
    a queue gives up, before it goes to the dead-letter exchange.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] | None = None,
        capacity: int = CAPACITY,
        capacity_bytes: int = CAPACITY_BYTES,
        on_dead_letter: OnDeadLetter = lambda *_: None,
    ) -> None:
        self.now = clock or utc_now
        self._router = Router()
        self.route = self._router.route
        self._scheduler = DeliveryScheduler()
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._on_dead_letter = on_dead_letter
        self._sessions: set[object] = set()
        self._owners: dict[str, object] = {}
        self._elections: dict[str, Election] = {}
        self.pauses: dict[str, Pauses] = {}
        self._pause_followers: list[tuple[object, str, OnPauses]] = []
        self._undeliverable: list[_UndeliverableDeadLetter] = []
        self._retry_timer: asyncio.TimerHandle | None = None

    def join(self, session: object) -> None:
        """Connect a session. The first one starts the broker on its loop."""
        if not self._sessions:
            self._scheduler.start()
            for queue in self._router.queues.values():
                queue.resume()
            self._schedule_retry()
        self._sessions.add(session)

    def leave(self, session: object) -> None:
        """Disconnect a session, and delete its exclusive queues. With the last one all timers stop."""
        self._sessions.discard(session)
        self._pause_followers = [each for each in self._pause_followers if each[0] is not session]
        for name in [name for name, owner in self._owners.items() if owner is session]:
            self._delete(self._router.queues[name])
        if not self._sessions:
            self._scheduler.stop()
            for queue in self._router.queues.values():
                queue.pause()
            if self._retry_timer is not None:
                self._retry_timer.cancel()
                self._retry_timer = None

    def declare(self, topology: Topology, session: object) -> DeclareResult:
        """Declare what is missing. Raises TopologyMismatch, and changes nothing, where an item differs."""
        queues = self._router.queues
        for queue in topology.queues:
            if self._owners.get(queue.name, session) is not session:
                raise TopologyMismatch(f'queue "{queue.name}" {LOCKED}', LOCKED_HINT)
        check_topology(topology, self._router.exchanges, {name: queue.definition for name, queue in queues.items()})
        new_exchanges = [exchange for exchange in topology.exchanges if exchange.name not in self._router.exchanges]
        new_queues = [self._make(queue) for queue in topology.queues if queue.name not in queues]
        self._router.add(new_exchanges, new_queues, topology.bindings)
        self._owners |= {queue.name: session for queue in new_queues if queue.definition.exclusive}
        return DeclareResult.of(topology, new=len(new_exchanges) + len(new_queues))

    def replace(self, old: Topology, new: Topology) -> None:
        """Make room for a new version of a topology, while no session uses the old one. `declare` follows.

        Bindings that the new version does not have are removed, and so are exchanges with other options. A queue with
        other options is made again, with its messages. Queues that the new version does not have stay.
        """
        self._router.unbind(binding for binding in old.bindings if binding not in new.bindings)
        exchanges, queues = self._router.exchanges, self._router.queues
        for exchange in new.exchanges:
            if any(item_differences(exchange, exchanges.get(exchange.name))):
                exchanges.pop(exchange.name, None)
        for definition in new.queues:
            existing = queues.get(definition.name)
            if existing is not None and any(item_differences(definition, existing.definition)):
                made = self._make(definition)
                made.take_over(existing)
                self._router.add([], [made], [])

    def queue(self, name: str) -> MemoryQueue | None:
        """Return the queue of this name, or None if it does not exist."""
        return self._router.queues.get(name)

    def put(self, envelope: Envelope, address: Address, queues: Sequence[MemoryQueue]) -> None:
        """Put a message into the queues that it is routed to, whatever their capacity.

        Raises PublishFailed: `unroutable` without a queue, `refused` where a queue refuses. As on RabbitMQ, the other
        queues have the message then.
        """
        if not queues:
            raise PublishFailed(f'no queue takes a message for "{address}"', reason="unroutable")
        refusing = None
        for queue in queues:
            if not queue.put(envelope, address):
                refusing = queue
        if refusing is not None:
            raise PublishFailed(f'queue "{refusing.name}" is full and refuses the message', reason="refused")

    def subscribe(self, options: SubscriptionOptions, on_delivery: OnDelivery, session: object) -> MemorySubscription:
        """Subscribe to a queue. Raises BrokerUnavailable if it does not exist, or is exclusive to another session."""
        queue = self._router.queues.get(options.queue)
        if queue is None:
            raise BrokerUnavailable(f'cannot consume from queue "{options.queue}": it does not exist')
        if self._owners.get(options.queue, session) is not session:
            raise BrokerUnavailable(f'cannot consume from queue "{options.queue}": it is exclusive to another session')
        return queue.subscribe(options, on_delivery)

    def campaign(self, name: str, member: Candidate, on_transport_event: OnTransportEvent) -> MemoryLeadership:
        """Let a session campaign for the leadership of a name."""
        return MemoryLeadership(self._elections.setdefault(name, Election(name)), member, on_transport_event)

    def follow_pauses(self, pipeline: str, on_pauses: OnPauses, session: object) -> Pauses:
        """Return the pauses of a pipeline, and call `on_pauses` after each change while the session is connected."""
        self._pause_followers.append((session, pipeline, on_pauses))
        return self.pauses.get(pipeline, {})

    def change_pauses(self, pipeline: str, change: PauseChange) -> None:
        """Change the pauses of a pipeline, and tell those that follow them."""
        pauses = self.pauses[pipeline] = change.applied_to(self.pauses.get(pipeline, {}))
        for _, followed, on_pauses in self._pause_followers:
            if followed == pipeline:
                on_pauses(pauses, change.subscriber)

    def count_pending(self, all_options: Sequence[SubscriptionOptions], *, with_delayed: bool = False) -> int:
        """Return how many messages are ready in these queues, wait for a retry into them, or are undeliverable yet.

        `with_delayed` also counts those that will come into them after another delay.
        """
        names = {options.queue for options in all_options}
        prefixes = tuple({f"{options.wait_prefix}." for options in all_options})
        count = sum(letter.address.key in names for letter in self._undeliverable)
        for queue in self._router.queues.values():
            if queue.name in names:
                count += len(queue.buffer)
            elif queue.name.startswith(prefixes) and not with_delayed:
                count += sum(message.address.key in names for message in queue.buffer)
        return count + (self.count_expiring(names) if with_delayed else 0)

    def count_expiring(self, names: Collection[str]) -> int:
        """Return how many messages of other queues will expire, and come into one of these queues by that."""
        return sum(
            message.expires_at is not None and self.leads_to(queue, message, names)
            for queue in self._router.queues.values()
            if queue.rules.dead_letter_exchange is not None and queue.name not in names
            for message in queue.buffer
        )

    def leads_to(self, queue: MemoryQueue, message: QueuedMessage, names: Collection[str]) -> bool:
        """Return whether a message comes into one of these queues when `queue`, and others after it, give it up."""
        seen: set[str] = set()
        waiting = [queue]
        while waiting:
            queue = waiting.pop()
            address = _dead_letter_address(queue, message)
            try:
                targets = self.route(address, message.envelope.headers) if address is not None else ()
            except PublishFailed:
                continue
            if any(target.name in names for target in targets):
                return True
            seen.add(queue.name)
            waiting += [each for each in targets if each.rules.ttl_s is not None and each.name not in seen]
        return False

    def subscriptions(self, names: Collection[str]) -> list[MemorySubscription]:
        """Return the subscriptions of these queues, of all sessions."""
        return [
            subscription
            for queue in self._router.queues.values()
            if queue.name in names
            for subscription in queue.subscriptions
        ]

    def _make(self, definition: Queue) -> MemoryQueue:
        return MemoryQueue(
            definition,
            self._scheduler,
            on_dead_letter=self._dead_letter,
            on_unused=self._delete_unused,
            capacity=self._capacity,
            capacity_bytes=self._capacity_bytes,
        )

    def _delete_unused(self, queue: MemoryQueue) -> None:
        if queue.definition.auto_delete:
            self._delete(queue)

    def _delete(self, queue: MemoryQueue) -> None:
        self._router.remove(queue)
        self._owners.pop(queue.name, None)
        queue.delete()

    def _dead_letter(self, queue: MemoryQueue, message: QueuedMessage, reason: DeathReason) -> None:
        """Send a message that a queue has given up to its dead-letter exchange. Without one it is dropped."""
        self._on_dead_letter(queue, message, reason)
        address = _dead_letter_address(queue, message)
        if address is None:
            queue.forget(message)
            return
        envelope = dead_letter_envelope(message, queue.name, reason, self.now())
        letter = _UndeliverableDeadLetter(envelope, address, queue, message)
        if not self._has_forwarded(letter) and queue.rules.is_at_least_once:
            self._undeliverable.append(letter)
            self._schedule_retry()
        else:
            queue.forget(message)

    def _has_forwarded(self, letter: _UndeliverableDeadLetter) -> bool:
        """Route a dead letter; return whether at least one queue was found and all have taken it."""
        try:
            queues = self.route(letter.address, letter.envelope.headers)
        except PublishFailed:
            return False
        deaths = read_deaths(letter.envelope.headers)
        targets = [queue for queue in queues if not is_cycle(queue.name, deaths)]
        for queue in targets:
            if queue.name not in letter.taken and queue.put(letter.envelope, letter.address):
                letter.taken.add(queue.name)
        return bool(targets) and letter.taken.issuperset(queue.name for queue in targets)

    def _schedule_retry(self) -> None:
        if self._undeliverable and self._retry_timer is None:
            self._retry_timer = self._scheduler.call_at(
                self._scheduler.now() + DEAD_LETTER_RETRY_S, self._retry_undeliverable
            )

    def _retry_undeliverable(self) -> None:
        self._retry_timer = None
        waiting, self._undeliverable = self._undeliverable, []
        for letter in waiting:
            if self._has_forwarded(letter):
                letter.queue.forget(letter.message)
            else:
                self._undeliverable.append(letter)
        self._schedule_retry()


def _dead_letter_address(queue: MemoryQueue, message: QueuedMessage) -> Address | None:
    """Return where a message goes that a queue gives up; None where it is dropped."""
    exchange, key = queue.rules.dead_letter_exchange, queue.rules.dead_letter_key
    return None if exchange is None else Address(exchange, message.address.key if key is None else key)
