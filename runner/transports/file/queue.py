"""Engine: a queue whose messages are in the file, as its owner sees it and as other processes do."""

from __future__ import annotations

from typing import Any, NamedTuple

from runner.errors import BrokerUnavailable
from runner.message import Address, Envelope
from runner.pipeline.topology import Queue
from runner.transports.base import POISON_SUSPECT_AFTER, Delivery, OnDelivery, SubscriptionOptions
from runner.transports.file.paged_buffer import PagedBuffer
from runner.transports.file.queue_file import is_owned
from runner.transports.file.store import LINE_BITS, FileStore
from runner.transports.memory.delivery_scheduler import DeliveryScheduler
from runner.transports.memory.queue import MemoryQueue
from runner.transports.memory.queue_buffer import PriorityBuffer, QueueBuffer, QueuedMessage
from runner.transports.memory.subscription import MemorySubscription

INBOX = -1
"""The rank of the line that other processes put messages into."""


TEMPORARY = "x-runner-temporary"
"""The argument of a queue that ends with the process that reads it. Every process puts messages into its inbox."""


class Line(NamedTuple):
    """A line of the file: the messages of one queue with one rank."""

    number: int
    messages: int
    bytes: int


class Lines:
    """The lines of a file, by queue and rank."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._next = 2
        self.of: dict[str, dict[int, Line]] = {}
        self.load()

    def load(self) -> None:
        """Read the lines, and how many messages they have."""
        self.of = {}
        for number, queue, rank, *counts in self._store.rows("SELECT line, queue, rank, messages, bytes FROM lines"):
            self.of.setdefault(queue, {})[rank] = Line(number, *counts)
            if number % 2 == 0:
                self._next = max(self._next, number + 2)

    def add(self, queue: str, rank: int) -> int:
        """Make a line, and return its number: the owner's are even."""
        number, self._next = self._next, self._next + 2
        self._store.execute(
            "INSERT INTO lines (line, queue, rank) VALUES (?, ?, ?)", number, queue, rank, is_first=True
        )
        self.of.setdefault(queue, {})[rank] = Line(number, 0, 0)
        return number

    def drop(self, queue: str) -> None:
        """Delete the lines of a queue, with their messages."""
        self.of.pop(queue, None)
        mine = "SELECT line FROM lines WHERE queue = ?"
        self._store.execute(f"DELETE FROM messages WHERE id >> {LINE_BITS} IN ({mine})", queue)
        self._store.execute("DELETE FROM lines WHERE queue = ?", queue)
        self._store.execute("DELETE FROM consumers WHERE queue = ?", queue)


class FileQueue(MemoryQueue):
    """A queue of the process that owns the file."""

    def __init__(
        self, store: FileStore, lines: Lines, definition: Queue, scheduler: DeliveryScheduler, **options: Any
    ) -> None:
        self._store = store
        self._lines = lines
        self.fifos: dict[int, PagedBuffer] = {}
        self.alone: QueuedMessage | None = None
        """The message that was delivered alone, and is not settled."""
        self.taken_in = 0
        """The last message of the inbox that was taken in."""
        super().__init__(definition, scheduler, **options)
        stored = {rank: line for rank, line in lines.of.get(self.name, {}).items() if rank != INBOX}
        if self._may_prioritize and not stored.keys() <= {self._default_rank}:
            self._prioritize()
        self.ready_bytes = sum(line.bytes for line in stored.values())
        if len(self.buffer):
            self._may_expire = True  # perhaps: the file tells when they are read
        for line in stored.values():
            base = line.number << LINE_BITS
            question = "SELECT max(id) FROM messages WHERE id BETWEEN ? AND ?"
            ((last,),) = store.rows(question, base, base + (1 << LINE_BITS) - 1)
            self._arrived = max(self._arrived, (last or base) - base)

    def subscribe(self, options: SubscriptionOptions, on_delivery: OnDelivery) -> MemorySubscription:
        subscription = FileSubscription(options, self, on_delivery)
        self.add(subscription)
        self.note_consumers()  # another one may have come while this one was noted
        return subscription

    def run_once(self) -> bool:
        """See `MemoryQueue.run_once`. A message that may be what ends processes is delivered alone.

        What was settled before it is in the file by then: so only its own failed delivery is counted.
        """
        if self.alone is not None or self._store.failure is not None:
            return False
        if not self._may_expire or not self.idle or not self._is_head_suspect():
            return super().run_once()
        is_free = not any(each.unsettled for each in self.subscriptions)
        if is_free and not self._store.call_when_written(lambda _: self.resume()):
            subscription = self.idle[0]
            self.alone = self.take_head()
            assert self.alone is not None
            subscription.unsettled.add(self.alone)
            if not subscription.has_room:
                self.idle.popleft()
                subscription.is_idle = False
            subscription.deliver(self.alone)
        return False

    def note_settled(self, message: QueuedMessage) -> None:
        """Go on after a message that was delivered alone, or that one waits for."""
        if message is self.alone or self._may_expire:
            self.alone = None if message is self.alone else self.alone
            self.resume()

    def retire(self, subscription: MemorySubscription) -> None:
        before = len(self.subscriptions)
        super().retire(subscription)
        if len(self.subscriptions) != before:
            self.note_consumers()

    def restore_lost(self, message: QueuedMessage) -> None:
        count = "UPDATE messages SET failed = ? WHERE id = ?"
        self._store.execute(count, message.failed_deliveries + 1, message.position)
        super().restore_lost(message)

    def take_in(self, message: QueuedMessage) -> None:
        """Accept a message that another process has published: it is confirmed, and no limit refuses it any more."""
        self._arrived += 1
        own = QueuedMessage(message.envelope, message.address, self._arrived)
        own.expires_at = message.expires_at
        self._may_expire = self._may_expire or own.expires_at is not None
        is_limited, self._is_limited = self._is_limited, self._is_limited and self.rules.overflow == "drop-head"
        self._append(own)
        self._is_limited = is_limited

    def forget(self, message: QueuedMessage) -> None:
        """Remove a message from the file. One that was never in a line is not there."""
        if message.position >> LINE_BITS:
            self._store.delete(message.position)

    def discard(self, number: int, size: int) -> None:
        """Forget a message that another process has removed from the file."""
        fifo = self.fifos.get(number >> LINE_BITS)
        if fifo is not None and fifo.discard(number):
            self.ready_bytes -= size

    def note_unsettled(self, known: dict[str, int]) -> None:
        """Write down how many messages are unsettled, if that has changed, for other processes to see."""
        count = sum(len(each.unsettled) for each in self.subscriptions)
        if known.get(self.name, 0) != count:
            known[self.name] = count
            self._store.execute("UPDATE consumers SET unsettled = ? WHERE queue = ?", count, self.name)

    def _is_head_suspect(self) -> bool:
        self._expire_head()
        head = self._head()
        return head is not None and head.failed_deliveries >= POISON_SUSPECT_AFTER

    def _new_fifo(self, rank: int) -> QueueBuffer:
        line = self._lines.of.get(self.name, {}).get(rank)

        def new_line() -> int:
            number = self._lines.add(self.name, rank)
            self.fifos[number] = fifo
            return number

        fifo = PagedBuffer(
            self._store, line.number if line else None, line.messages if line else 0, new_line, self.resume
        )
        if line is not None:
            self.fifos[line.number] = fifo
        return fifo

    def note_consumers(self, *more: int) -> None:
        """Write down how many messages may be in hand: if this process is killed, their deliveries have failed.

        `more` has the prefetch of a subscription that is about to be added.
        """
        prefetches = [*(each.prefetch for each in self.subscriptions), *more]
        note = "INSERT OR REPLACE INTO consumers (queue, consumers, prefetch) VALUES (?, ?, ?)"
        self._store.execute(note, self.name, len(prefetches), sum(prefetches))

    def _expire_head(self) -> None:
        """See `MemoryQueue._expire_head`. A message that has ended too many processes is given up too."""
        super()._expire_head()
        limit = self.rules.delivery_limit
        while limit is not None and (head := self._head()) is not None and head.failed_deliveries > limit:
            self._give_up(head, "delivery_limit")
            super()._expire_head()


class FileSubscription(MemorySubscription):
    """A subscription whose acknowledgements are written to the file, a moment later."""

    def __init__(self, options: SubscriptionOptions, queue: FileQueue, on_delivery: OnDelivery) -> None:
        super().__init__(options, queue, on_delivery)
        self._file_queue = queue

    def ack(self, delivery: Delivery, *, is_handled: bool = True) -> bool:
        if not self.discard(delivery.delivery_tag):
            return False
        self._file_queue.forget(delivery.delivery_tag)
        self._file_queue.note_settled(delivery.delivery_tag)
        return True

    async def release(self, delivery: Delivery) -> bool:
        is_released = await super().release(delivery)
        self._file_queue.note_settled(delivery.delivery_tag)
        return is_released

    def requeue_unsettled(self) -> None:
        if self._file_queue.alone in self.unsettled:
            self._file_queue.alone = None
        super().requeue_unsettled()


class ForeignQueue(MemoryQueue):
    """A queue of a file that another process owns, or none now. Messages go into its inbox; the owner does the rest."""

    def __init__(
        self, store: FileStore, lines: Lines, definition: Queue, scheduler: DeliveryScheduler, **options: Any
    ) -> None:
        super().__init__(definition, scheduler, **options)
        self._store = store
        stored = lines.of.get(self.name, {})
        found = [line for _, line in sorted(stored.items())]

        def new_fifo(index: int) -> QueueBuffer:
            return PagedBuffer(store, found[index].number, found[index].messages, lambda: 0, lambda: None)

        self.buffer = PriorityBuffer(len(found) - 1, 0, new_fifo)  # the inbox is the last one
        self.ready_bytes = sum(line.bytes for line in stored.values())
        rows = store.rows("SELECT consumers, unsettled FROM consumers WHERE queue = ?", self.name)
        self._consumers, self._unsettled = rows[0] if rows and is_owned(store.path) else (0, 0)

    @property
    def depth(self) -> tuple[int, int]:
        """See `MemoryQueue.depth`. What the owner has in hand is known a second later."""
        return max(0, len(self.buffer) - self._unsettled), self._consumers

    def put(self, envelope: Envelope, address: Address) -> bool:
        """See `MemoryQueue.put`. Limits are those of the last look at the file."""
        if self._is_limited and not self._accepts(envelope, address):
            return False
        message = QueuedMessage(envelope, address, 0)
        self.ready_bytes += len(envelope.body)
        if self._may_expire or envelope.expiration_ms is not None:
            self._set_expiry(message)
        self._store.add_to_inbox(self.name, message, is_temporary=TEMPORARY in self.definition.arguments)
        return True

    def subscribe(self, options: SubscriptionOptions, on_delivery: OnDelivery) -> MemorySubscription:
        """Refuse: only the owner of the file delivers."""
        raise BrokerUnavailable(f'cannot consume from queue "{self.name}": only `runner up` on this file does')

    def restore(self, message: QueuedMessage) -> None:
        """Do nothing: a message that was read is still in the file."""

    def forget(self, message: QueuedMessage) -> None:
        """Remove a message from the file, and tell the owner, if it is still there."""
        note = "INSERT OR IGNORE INTO removed SELECT id, length(body) FROM messages WHERE id = ?"
        self._store.execute(note, message.position)
        self._store.execute("DELETE FROM messages WHERE id = ?", message.position)

    def resume(self) -> None:
        """Do nothing: the owner delivers and expires."""

    def run_once(self) -> bool:
        """Do nothing: the owner delivers and expires."""
        return False


class TemporaryQueue:
    """A queue that this process reads, whether it owns the file or not: a tap, or answers. `line` is its inbox."""

    def __init__(self, store: FileStore, name: str, line: int) -> None:
        self.name = name
        self._store = store
        self._first = self._last = line << LINE_BITS
        self._beats = 0
        self._dropped = 0

    def count_missed(self) -> int:
        """Return how many messages were dropped, the oldest first, because they were not taken in time."""
        end = self._first | (1 << LINE_BITS) - 1
        found = "SELECT min(id) FROM messages WHERE id BETWEEN ? AND ?"
        ((oldest,),) = self._store.rows(found, self._last + 1, end)
        return self._dropped + (0 if oldest is None else oldest - self._last - 1)

    def take(self) -> list[QueuedMessage]:
        """Return the messages that have come, and remove them from the file."""
        found = self._store.read(self._last + 1, self._first | (1 << LINE_BITS) - 1)
        if found:
            before, self._last = self._last, found[-1].position
            self._dropped += self._last - before - len(found)
            self._store.execute("DELETE FROM messages WHERE id BETWEEN ? AND ?", self._first, self._last)
        return found

    def beat(self) -> None:
        """Say that the reader lives."""
        self._beats += 1
        self._store.execute("INSERT OR REPLACE INTO consumers VALUES (?, -1, 0, ?)", self.name, self._beats)
