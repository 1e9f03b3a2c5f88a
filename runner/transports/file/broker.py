"""Engine: the in-process broker over a file. One process owns the file and delivers; others publish, look and remove.

What other processes write is seen within `POLL_S`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from runner.errors import BrokerUnavailable
from runner.pipeline.topology import Binding, Exchange, Queue, Topology
from runner.transports.base import POISON_SUSPECT_AFTER, DeclareResult, OnTransportEvent, TransportEvent
from runner.transports.file.queue import INBOX, TEMPORARY, FileQueue, ForeignQueue, Lines, TemporaryQueue
from runner.transports.file.queue_file import OwnerLock, disconnect, identity, unusable
from runner.transports.file.store import LINE_BITS, NEW_INBOX, FileStore
from runner.transports.leadership import Candidate
from runner.transports.memory.broker import MemoryBroker
from runner.transports.memory.election import Election, MemoryLeadership
from runner.transports.memory.queue import MemoryQueue
from runner.transports.memory.router import PREDEFINED, Router
from runner.transports.pauses import PauseChange, read_change, write_change

POLL_S = 0.05
"""How often the owner looks for what other processes have written."""

CARE_S = 300.0
"""For how long after a crash messages are delivered only when they are in the file: until then, what ends the process
could come from a message that is not there yet, whose deliveries are not counted.
"""

NOTES_S, CLOCK_S = 1.0, 10.0
"""How often the owner writes down what is unsettled, and how late it is, if that has changed."""

SILENT_LOOKS = 10
"""How often, once in `NOTES_S`, a reader of a temporary queue is found silent before its queue is deleted."""

_KINDS: dict[str, Callable[..., Any]] = {"exchange": Exchange, "queue": Queue, "binding": Binding}


class FileBroker(MemoryBroker):
    """Exchanges, queues and messages in a file. Several sessions of one process may share it, on one event loop.

    With `is_owner`, it delivers messages, and no other process may own the file; otherwise it only publishes to it and
    reads it. `who` tells other processes which one this is.
    """

    def __init__(
        self,
        path: Path,
        *,
        is_owner: bool = True,
        creates: bool = True,
        who: str = "",
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        super().__init__(clock=clock, capacity=sys.maxsize, capacity_bytes=sys.maxsize)
        self.path = path
        self.is_owner = is_owner
        self._creates = creates
        self._listeners: dict[object, OnTransportEvent] = {}
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._lock = OwnerLock(
            path, f"{who or 'a process'} with pid {os.getpid()} on {socket.gethostname()} since {since}"
        )
        self._poll_timer: asyncio.TimerHandle | None = None
        self._next_note = self._next_clock = 0.0
        self.store: FileStore
        self._forget()

    def _forget(self) -> None:
        self.failure: BrokerUnavailable | None = None
        self._router = Router()
        self.route = self._router.route
        self._elections, self.pauses, self._undeliverable, self._owners = {}, {}, [], {}
        self._files: dict[str, tuple[str, tuple[int, int]]] = {}
        self._defined: set[tuple[str, str]] = set()
        self._read: set[tuple[str, str]] = set()
        self._removed: Collection[int] = ()
        self._unsettled: dict[str, int] = {}
        self._temporary: dict[str, TemporaryQueue] = {}
        self._beats: dict[str, tuple[int, int]] = {}
        self._data_version = self._changes = -1

    # Opening and closing

    def enter(self, session: object, on_transport_event: OnTransportEvent) -> None:
        """Connect a session. The first one opens the file. Raises BrokerUnavailable."""
        if not self._sessions:
            self._open()
        self._listeners[session] = on_transport_event
        self.join(session)

    async def exit(self, session: object) -> None:
        """Disconnect a session. The last one closes the file."""
        self.leave(session)
        del self._listeners[session]
        if self._sessions:
            return
        if self._poll_timer is not None:
            self._poll_timer.cancel()
        if self.is_owner and self.store.failure is None:
            self._note("clock", self._now_ms())
            self._note("clean", 1)
        try:
            await self.store.close()
        finally:
            self._lock.release()

    def _open(self) -> None:
        if self.is_owner:
            self._lock.acquire()
        try:
            self._forget()
            store = self.store = FileStore(
                self.path, creates=self._creates, on_blocked=self._report_blocked, on_failed=self._report_failed
            )
            try:
                self._load(store)
            except BaseException as error:
                disconnect(store.reader)
                disconnect(store.writer)
                if isinstance(error, sqlite3.Error | ValueError | TypeError):
                    raise unusable(self.path, error) from error
                raise
        except BaseException:
            self._lock.release()
            raise
        store.start()
        self._poll_timer = asyncio.get_running_loop().call_later(POLL_S, self._poll)

    def _load(self, store: FileStore) -> None:
        parts = {"it": "", "its -wal": "-wal"} | ({"its .lock": ".lock"} if self.is_owner else {})
        paths = {name: f"{self.path.resolve()}{suffix}" for name, suffix in parts.items()}
        self._files = {name: (path, identity(path)) for name, path in paths.items()}
        loop_s, now_s = asyncio.get_running_loop().time(), self.now().timestamp()
        meta = dict(store.rows("SELECT key, value FROM meta"))
        # A wall clock that was put back does not make messages wait longer: the time of the file goes on.
        store.clock_offset = max(now_s, meta.get("clock", 0) / 1000) - loop_s
        if self.is_owner:
            if meta.get("clean", 1) == 0:
                self._count_crash(store)
                store.is_careful = True
                asyncio.get_running_loop().call_later(CARE_S, store.end_care)
            store.writer.execute("INSERT OR REPLACE INTO meta VALUES ('clean', 0)")
            store.writer.execute("DELETE FROM consumers WHERE consumers >= 0")
            store.writer.execute("DELETE FROM removed")  # their numbers may be given again
        self._lines = Lines(store)
        self._changes = int(meta.get("changes", 0))
        self._read_definitions()
        self._read_pauses()
        for name, state in store.rows("SELECT name, state FROM elections"):
            self._elections[name] = _StoredElection(name, store)
            self._elections[name].state = state

    def _count_crash(self, store: FileStore) -> None:
        """Count a failed delivery for the first messages of each queue: as many as its consumers could have in hand."""
        execute = store.writer.execute
        execute("BEGIN IMMEDIATE")
        for queue, left in execute("SELECT queue, prefetch FROM consumers WHERE prefetch > 0").fetchall():
            ranks = "SELECT line FROM lines WHERE queue = ? AND rank >= 0 AND messages > 0 ORDER BY rank DESC"
            for (line,) in execute(ranks, (queue,)).fetchall():
                first, last = line << LINE_BITS, (line + 1 << LINE_BITS) - 1
                found = "FROM messages WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
                ((head,),) = execute(f"SELECT failed {found}", (first, last, 1)).fetchall()
                left = min(left, 1) if head >= POISON_SUSPECT_AFTER else left  # it was delivered alone
                if left > 0:
                    change = f"UPDATE messages SET failed = failed + 1 WHERE id IN (SELECT id {found})"
                    left -= execute(change, (first, last, left)).rowcount
        execute("COMMIT")

    # The engine

    def declare(self, topology: Topology, session: object) -> DeclareResult:
        """See `MemoryBroker.declare`. What is durable is written to the file."""
        result = super().declare(topology, session)
        durable = {queue.name for queue in topology.queues if _is_kept(queue)}
        durable |= {name for kind, name in self._defined if kind == "queue"}
        for exchange in topology.exchanges:
            if exchange.durable and exchange.declare:
                self._define(exchange)
        for queue in topology.queues:
            if queue.name in durable and queue.declare:
                self._define(queue)
        for binding in topology.bindings:
            if binding.queue in durable:
                self._define(binding)
        return result

    def queue(self, name: str) -> MemoryQueue | None:
        """See `MemoryBroker.queue`. What belongs to another process is read again."""
        if not self.is_owner:
            self._refresh()
        return super().queue(name)

    def read_topology(self) -> Topology:
        """Return what is in the file, and take in what other processes have written."""
        self._refresh()
        exchanges = tuple(each for each in self._router.exchanges.values() if each not in PREDEFINED)
        found = [each.definition for each in self._router.queues.values()]
        queues = {each.name: each for each in found if _is_kept(each) and TEMPORARY not in each.arguments}
        bindings = tuple(each for each in self._router.bindings if each.queue in queues)
        return Topology(exchanges, tuple(queues.values()), bindings)

    async def redefine(self, queue: Queue) -> None:
        """Give a queue other options, as the owner, while it has no consumers. Its messages stay as they are."""
        await self.store.written()
        self._lines.load()
        self._router.queues[queue.name].pause()
        self._router.add([], [self._make(queue)], [])
        self.undefine(queue)
        self._define(queue)

    def undefine(self, item: Queue | Binding) -> None:
        """Remove a definition from the file, and a binding from memory too."""
        if isinstance(item, Binding):
            self._router.unbind([item])
        self._defined.discard(_key(item))
        self.store.execute("DELETE FROM definitions WHERE kind = ? AND name = ?", *_key(item))
        self._note_change()

    async def open_temporary(self, name: str, bindings: Sequence[Binding], session: object) -> TemporaryQueue:
        """Make a queue for this process to read, which ends with the session. Raises TopologyMismatch.

        Other processes put messages into it when they have seen it, after `POLL_S`.
        """
        queue = Queue(name, arguments={TEMPORARY: True})
        self.declare(Topology((), (queue,), tuple(replace(each, queue=name) for each in bindings)), session)
        self._owners[name] = session
        self.store.execute(NEW_INBOX, name)
        self.store.execute("INSERT INTO consumers VALUES (?, -1, 0, 0)", name)
        await self.store.written()
        ((line,),) = self.store.rows("SELECT line FROM lines WHERE queue = ?", name)
        self._temporary[name] = TemporaryQueue(self.store, name, line)
        return self._temporary[name]

    def campaign(self, name: str, member: Candidate, on_transport_event: OnTransportEvent) -> MemoryLeadership:
        self._elections.setdefault(name, _StoredElection(name, self.store))
        return super().campaign(name, member, on_transport_event)

    def change_pauses(self, pipeline: str, change: PauseChange) -> None:
        super().change_pauses(pipeline, change)
        self.store.execute("DELETE FROM pauses WHERE pipeline = ? AND subscriber = ?", pipeline, change.subscriber)
        if change.pause is not None:
            row = (pipeline, change.subscriber, write_change(change))
            self.store.execute("INSERT INTO pauses VALUES (?, ?, ?)", *row)
        self._note_change()

    def _make(self, definition: Queue) -> MemoryQueue:
        if not _is_kept(definition):
            return super()._make(definition)
        make = FileQueue if self.is_owner and TEMPORARY not in definition.arguments else ForeignQueue
        options: dict[str, Any] = {"on_dead_letter": self._dead_letter, "on_unused": self._delete_unused}
        limits = {"capacity": self._capacity, "capacity_bytes": self._capacity_bytes}
        return make(self.store, self._lines, definition, self._scheduler, **options, **limits)

    def _delete(self, queue: MemoryQueue) -> None:
        super()._delete(queue)
        if _is_kept(queue.definition):
            self.undefine(queue.definition)
            gone = "DELETE FROM definitions WHERE kind = 'binding' AND json_extract(content, '$.queue') = ?"
            self.store.execute(gone, queue.name)
            self._lines.drop(queue.name)
            self._temporary.pop(queue.name, None)

    # What is in the file

    def _define(self, item: Exchange | Queue | Binding) -> None:
        if (key := _key(item)) not in self._defined:
            self._defined.add(key)
            row = (*key, json.dumps(asdict(item)))
            self.store.execute("INSERT OR IGNORE INTO definitions VALUES (?, ?, ?)", *row)
            self._note_change()

    def _note(self, key: str, value: object) -> None:
        self.store.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)

    def _note_change(self) -> None:
        one_more = "(SELECT coalesce(max(value), 0) + 1 FROM meta WHERE key = 'changes')"
        self.store.execute(f"INSERT OR REPLACE INTO meta VALUES ('changes', {one_more})")

    def _now_ms(self) -> int:
        return round((asyncio.get_running_loop().time() + self.store.clock_offset) * 1000)

    def _read_definitions(self) -> None:
        """Add what other processes have declared, and remove the queues that they have deleted."""
        found: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
        defined = set()
        for kind, name, content in self.store.rows("SELECT kind, name, content FROM definitions"):
            defined.add((kind, name))
            found[kind].append(_KINDS[kind](**json.loads(content)))
        for kind, name in self._read - defined:
            self._defined.discard((kind, name))
            if kind == "queue" and (queue := self._router.queues.get(name)) is not None:
                super()._delete(queue)
            elif kind == "binding":
                self._router.unbind([Binding(**json.loads(name))])
        new = [self._make(queue) for queue in found["queue"] if queue.name not in self._router.queues]
        self._router.add(found["exchange"], new, found["binding"])
        self._read = defined
        self._defined |= defined

    def _read_pauses(self) -> None:
        before, self.pauses = self.pauses, {}
        for pipeline, change in self.store.rows("SELECT pipeline, change FROM pauses"):
            self.pauses[pipeline] = read_change(change).applied_to(self.pauses.get(pipeline, {}))
        for _, pipeline, on_pauses in self._pause_followers:
            old, new = before.get(pipeline, {}), self.pauses.get(pipeline, {})
            for subscriber in old.keys() | new.keys():
                if old.get(subscriber) != new.get(subscriber):
                    on_pauses(new, subscriber)

    # What other processes have written

    def _poll(self) -> None:
        if self.store.failure is not None:
            return
        self._poll_timer = asyncio.get_running_loop().call_later(POLL_S, self._poll)
        try:
            self._check_files()
            self._refresh()
            self._take_notes()
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                self.store.fail(error)

    def _check_files(self) -> None:
        """Raise OSError where a file is another one: what is written to it is lost, or a second process owns it."""
        for name, (path, known) in self._files.items():
            try:
                found = identity(path)
            except FileNotFoundError:
                raise OSError(f"{name} was deleted while it was in use") from None
            if found != known:
                raise OSError(f"{name} was replaced by another file while it was in use")

    def look_again(self) -> None:
        """Read the queues of another process again when one is asked for, even if the file has not changed."""
        self._data_version = -1

    def _refresh(self) -> None:
        store = self.store
        version = store.rows("PRAGMA data_version")[0][0]
        if version == self._data_version:
            return
        self._data_version = version
        changes = store.rows("SELECT value FROM meta WHERE key = 'changes'")
        if self.is_owner:
            self._read_changes(changes)
            self._take_in()
            removed = dict(store.rows("SELECT id, size FROM removed"))
            for number in removed.keys() - self._removed:  # a slow disk has those of the last look still
                for queue in self._router.queues.values():
                    if isinstance(queue, FileQueue):
                        queue.discard(number, removed[number])
                store.execute("DELETE FROM removed WHERE id = ?", number)
            self._removed = removed.keys()
        else:
            self._lines.load()
            self._read_changes(changes)
            for name, queue in [*self._router.queues.items()]:
                if isinstance(queue, ForeignQueue):
                    self._router.queues[name] = self._make(queue.definition)
            self._router.add([], [], [])  # empties the cache of routes, which holds the queues of before

    def _read_changes(self, found: Sequence[tuple[Any, ...]]) -> None:
        changes = int(found[0][0]) if found else 0
        if changes != self._changes:
            self._changes = changes
            self._read_definitions()
            self._read_pauses()

    def _take_in(self) -> None:
        """Put what other processes have published into its queues."""
        inboxes = self.store.rows("SELECT line, queue FROM lines WHERE rank = ? AND messages > 0", INBOX)
        for line, name in inboxes:
            queue, first = self._router.queues.get(name), line << LINE_BITS
            if not isinstance(queue, FileQueue):
                continue
            seen = max(queue.taken_in, first)
            for message in self.store.read(seen + 1, first + (1 << LINE_BITS) - 1):
                queue.taken_in = message.position
                queue.take_in(message)
                self.store.delete(message.position)
                self._data_version = -1  # there may be more

    def _take_notes(self) -> None:
        """Write down what is unsettled, and the time, if something has changed; look after temporary queues."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_note:
            self._next_note = now + NOTES_S
            self._look_after_temporary()
            for queue in self._router.queues.values() if self.is_owner else ():
                if isinstance(queue, FileQueue) and queue.subscriptions:
                    queue.note_unsettled(self._unsettled)
        if self.is_owner and now >= self._next_clock and self.store.has_changes:
            self._next_clock = now + CLOCK_S
            self._note("clock", self._now_ms())

    def _look_after_temporary(self) -> None:
        """Say which queues this process reads, and delete those of processes that have ended."""
        for name, temporary in self._temporary.items():
            if name in self._router.queues:
                temporary.beat()
        before, self._beats = self._beats, {}
        for name, beat in self.store.rows("SELECT queue, unsettled FROM consumers WHERE consumers = -1"):
            known, looks = before.get(name, (0, 0))
            self._beats[name] = (beat, looks + 1 if beat == known else 0)
            if self._beats[name][1] >= SILENT_LOOKS and not self.store.is_blocked:
                queue = self._router.queues.get(name)
                self._lines.drop(name) if queue is None else self._delete(queue)

    # What is wrong with the file

    def _report(self, event: str, level: str, **fields: Any) -> None:
        for listener in [*self._listeners.values()]:
            listener(TransportEvent(event, level, {"broker": f"file:{self.path}", **fields}))

    def _report_blocked(self, reason: str | None) -> None:
        if reason is None:
            self._report("broker.unblocked", "info")
        else:
            hint = f"publishers wait, and go on when there is room: free some of the disk of {self.path.parent}"
            more = {"hint": hint} if "full" in reason else {}
            self._report("broker.blocked", "warning", reason=reason, **more)

    def _report_failed(self, error: Exception) -> BrokerUnavailable:
        lost = self.failure = unusable(self.path, error)
        self._report("broker.file_lost", "error", error=str(lost), hint=lost.hint)
        return lost


class _StoredElection(Election):
    """A leadership whose state is in the file."""

    def __init__(self, name: str, store: FileStore) -> None:
        super().__init__(name)
        self._store = store

    async def save(self, state: str) -> None:
        self.state = state
        self._store.execute("INSERT OR REPLACE INTO elections VALUES (?, ?)", self.name, state)
        await self._store.written()


def _key(item: Exchange | Queue | Binding) -> tuple[str, str]:
    """Return the kind and the name of an item in the file."""
    if isinstance(item, Binding):
        return "binding", json.dumps(asdict(item), sort_keys=True)
    return type(item).__name__.lower(), item.name


def _is_kept(queue: Queue) -> bool:
    """Return whether a queue is in the file: exclusive and transient ones end with the process."""
    return queue.durable and not queue.exclusive
