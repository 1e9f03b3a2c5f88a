"""Engine: what is written to the file of a broker: in groups, in one thread, in the order in which it was asked for.

The event loop never waits for the disk. While a group is written, the next one is collected. A message that is handled
before its group is written needs no place in the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from runner.envelope_json import read_properties, write_properties
from runner.errors import BrokerUnavailable, PublishUnknown
from runner.message import Address
from runner.transports.file.queue_file import connect, disconnect
from runner.transports.memory.queue_buffer import QueuedMessage

GROUP_S = 0.002
"""How long the first change waits for others, to be committed together with them."""

RETRY_S = 0.5
"""How long the writer waits before it tries again where the disk is full."""

CLOSE_S = 5.0
"""How long `close` waits for a disk that takes nothing."""

VACUUM_PAGES, VACUUM_LEAST = 256, 2048
"""How many free pages are given back at a time, and from how many on: a queue that breathes needs them again."""

TEMPORARY_MESSAGES, TEMPORARY_BYTES = 1000, 32 * 1024 * 1024
"""How much a temporary queue keeps for its reader: the newest."""

TAKEN, TAKEN_BYTES = 256, 8 * 1024 * 1024
"""How much is read from an inbox at a time, while the event loop waits."""

LINE_BITS = 40
_READ = "SELECT id, properties, body, expires, failed FROM messages WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
NEW_INBOX = """INSERT INTO lines (line, queue, rank)
    VALUES ((SELECT coalesce(max(line), -1) + 2 FROM lines WHERE line % 2 = 1), ?, -1)"""
"""Lines of inboxes have odd numbers: several processes make them."""

_CHUNKS = (64, 16, 4, 1)

Written = Callable[[Exception | None], None]


class OnWritten(Protocol):
    """A part of a queue that wants to know when its messages are in the file."""

    def note_written(self, number: int) -> None:
        """Note that everything up to the group of this number is in the file."""


class Group:
    """The changes that are committed together."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.inserts: dict[int, QueuedMessage] = {}
        self.inbox: dict[tuple[str, bool], list[QueuedMessage]] = {}
        self.deletes: list[int] = []
        self.first: list[tuple[str, tuple[Any, ...]]] = []
        self.statements: list[tuple[str, tuple[Any, ...]]] = []
        self.callbacks: list[Written] = []
        self.lines: set[OnWritten] = set()

    @property
    def has_changes(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.inserts or self.deletes or self.first or self.statements or self.inbox)


class FileStore:
    """A file, a thread that writes to it, and a connection that reads, in the event loop.

    `now_s` is the time of messages, in seconds since 1970: see `clock_offset`. `on_blocked` is called with the reason
    when the disk takes nothing, and with None when it takes messages again; `on_failed` when the file is lost.
    """

    def __init__(
        self,
        path: Path,
        *,
        creates: bool,
        on_blocked: Callable[[str | None], None],
        on_failed: Callable[[Exception], BrokerUnavailable],
    ) -> None:
        self.path = path
        self.writer = connect(path, creates=creates)
        try:
            self.reader = connect(path, creates=False)
        except BaseException:
            disconnect(self.writer)
            raise
        self.is_blocked = False
        self.is_careful = False
        """Whether messages are delivered only when they are in the file."""
        self.failure: BrokerUnavailable | None = None
        self.clock_offset = 0.0
        """What the wall clock is ahead of the loop's clock, from the start on: it may jump later."""
        self._loop = asyncio.get_running_loop()
        self._on_blocked = on_blocked
        self._on_failed = on_failed
        self._pending = Group(1)
        self._is_writing = False
        self._timer: asyncio.Handle | None = None
        self._jobs: SimpleQueue[Group | None] = SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="runner-queue-file", daemon=True)
        self._ended: asyncio.Future[None]

    def start(self) -> None:
        """Start to write in a thread. Until then the connection `writer` may be used."""
        self._ended = self._loop.create_future()
        self._thread.start()

    # Changes

    def insert(self, message: QueuedMessage, line: OnWritten) -> int:
        """Add a message; its position is its id. Return the number of its group."""
        self._pending.inserts[message.position] = message
        self._pending.lines.add(line)
        self._schedule()
        return self._pending.number

    def add_to_inbox(self, queue: str, message: QueuedMessage, *, is_temporary: bool) -> None:
        """Add a message for the owner of the file, or for the reader of a temporary queue if that is still there."""
        self._pending.inbox.setdefault((queue, is_temporary), []).append(message)
        self._schedule()

    def delete(self, number: int) -> None:
        """Remove a message. When nothing is left to be written, publishers do not wait any longer."""
        pending = self._pending
        if pending.inserts.pop(number, None) is None:
            pending.deletes.append(number)
            self._schedule()
        elif not pending.inserts and pending.callbacks and self._timer is not None and not pending.has_changes:
            self._timer.cancel()
            self._timer = self._loop.call_soon(self._hand_over)

    def execute(self, statement: str, *parameters: Any, is_first: bool = False) -> None:
        """Change something else, after the messages of the same group or before them."""
        (self._pending.first if is_first else self._pending.statements).append((statement, parameters))
        self._schedule()

    def end_care(self) -> None:
        """Deliver messages at once from now on."""
        self.is_careful = False

    @property
    def has_changes(self) -> bool:
        """Whether something is about to be written."""
        return self._pending.has_changes

    def call_when_written(self, callback: Written) -> bool:
        """Call back when all changes so far are committed, with an error or None. False where nothing is to be done."""
        if self.failure is not None:
            raise PublishUnknown(str(self.failure), self.failure.hint)
        if not self._timer and not self._is_writing:
            return False
        self._pending.callbacks.append(callback)
        self._schedule()
        return True

    async def written(self) -> None:
        """Wait until all changes so far are committed. Raises PublishUnknown where the file is lost."""
        done: asyncio.Future[Exception | None] = self._loop.create_future()
        is_waiting = self.call_when_written(lambda error: None if done.done() else done.set_result(error))
        if is_waiting and (error := await done):
            raise error

    # Reading

    def read(self, first: int, last: int, limit: int = TAKEN, limit_bytes: int = TAKEN_BYTES) -> list[QueuedMessage]:
        """Return committed messages with ids from `first` to `last`, about as many as fit."""
        found, size = [], 0
        for message in self.stream(first, last, limit):
            found.append(message)
            size += len(message.envelope.body)
            if size >= limit_bytes:
                break
        return found

    def stream(self, first: int, last: int, limit: int = -1) -> Iterator[QueuedMessage]:
        """Yield committed messages in the order of their ids. What is wrong with the file is said by `on_failed`."""
        try:
            with contextlib.closing(self.reader.execute(_READ, (first, last, limit))) as rows:
                for number, properties, body, expires, failed in rows:
                    envelope, address = read_properties(properties, body, 2)
                    message = QueuedMessage(envelope, Address(*address), number)
                    message.expires_at = None if expires is None else expires / 1000 - self.clock_offset
                    message.failed_deliveries, message.is_redelivered = failed, failed > 0
                    yield message
        except (sqlite3.DatabaseError, ValueError) as error:
            self.fail(error)

    def rows(self, question: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return all rows that a question finds."""
        return self.reader.execute(question, parameters).fetchall()

    # The end

    def fail(self, error: Exception) -> None:
        """Give the file up: it is damaged, or gone."""
        if self.failure is None:
            self.failure = BrokerUnavailable(str(error))
            self._closing.set()
            self.failure = self._on_failed(error)
            group, self._pending = self._pending, Group(self._pending.number + 1)
            self._end_group(group)

    async def close(self) -> None:
        """Write what is left, not longer than some seconds where the disk takes nothing, and close the file."""
        if self.failure is None:
            with contextlib.suppress(TimeoutError, PublishUnknown):
                async with asyncio.timeout(CLOSE_S):
                    await self.written()
        if self._timer is not None:
            self._timer.cancel()
        self._closing.set()
        self._jobs.put(None)
        try:
            await self._ended  # not `to_thread`: at the end of the interpreter there are no executors any more
        finally:
            disconnect(self.reader)

    # Groups, in the loop

    def _schedule(self) -> None:
        if self._timer is None and not self._is_writing and self.failure is None:
            self._timer = self._loop.call_later(GROUP_S, self._hand_over)

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.failure is not None or self._is_writing:
            return
        group, self._pending = self._pending, Group(self._pending.number + 1)
        if group.has_changes:
            self._is_writing = True
            self._jobs.put(group)
        else:
            self._end_group(group)

    def _note_written(self, group: Group, error: Exception | None) -> None:
        self._is_writing = False
        if error is not None:
            self.fail(error)
        self._end_group(group)
        if self.failure is None and (self._pending.has_changes or self._pending.callbacks):
            self._hand_over()

    def _end_group(self, group: Group) -> None:
        error = None if self.failure is None else PublishUnknown(str(self.failure), self.failure.hint)
        for line in group.lines:
            line.note_written(group.number)
        for callback in group.callbacks:
            callback(error)

    def _note_ended(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _set_blocked(self, reason: str | None) -> None:
        self.is_blocked = reason is not None
        self._on_blocked(reason)

    # Groups, in the thread

    def _work(self) -> None:
        while (group := self._jobs.get()) is not None:
            error = self._write_until_done(group)
            self._in_loop(self._note_written, group, error)
            if error is None:
                self._give_back_space()
        disconnect(self.writer)
        self._in_loop(self._note_ended)

    def _write_until_done(self, group: Group) -> Exception | None:
        """Commit a group; return the error after which it makes no sense to try again."""
        said = ""
        while True:
            try:
                self._write(group)
                if said:
                    self._in_loop(self._set_blocked, None)
                return None
            except Exception as error:
                with contextlib.suppress(sqlite3.Error):
                    self.writer.execute("ROLLBACK")
                is_readonly = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY
                if is_readonly or not isinstance(error, sqlite3.OperationalError | OSError):
                    return error  # the last is damage, or a fault of the runner: no waiting helps
                if said != str(error):
                    said = str(error)
                    self._in_loop(self._set_blocked, said)
                if self._closing.wait(RETRY_S):
                    return error

    def _write(self, group: Group) -> None:
        """Commit a group. Few statements with many values: each one gives the interpreter to the other threads."""
        execute = self.writer.execute
        execute("BEGIN IMMEDIATE")
        for statement, parameters in group.first:
            execute(statement, parameters)
        rows = [self._row(number, message) for number, message in group.inserts.items()]
        for (queue, is_temporary), messages in group.inbox.items():
            if first := self._number_inbox(queue, len(messages), is_temporary):
                rows += [self._row(number, message) for number, message in enumerate(messages, first)]
        start = 0
        for size in _CHUNKS:
            while len(rows) - start >= size:
                values = [value for row in rows[start : start + size] for value in row]
                execute(f"INSERT INTO messages VALUES {','.join(['(?,?,?,?,?)'] * size)}", values)
                start += size
        for queue, is_temporary in group.inbox:
            if is_temporary:
                self._drop_oldest(queue)
        if group.deletes:
            execute("DELETE FROM messages WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(group.deletes),))
        for statement, parameters in group.statements:
            execute(statement, parameters)
        execute("COMMIT")

    def _row(self, number: int, message: QueuedMessage) -> tuple[Any, ...]:
        expires = None if message.expires_at is None else round((message.expires_at + self.clock_offset) * 1000)
        envelope = message.envelope
        return (
            number,
            write_properties(envelope, *message.address),
            envelope.body,
            expires,
            message.failed_deliveries,
        )

    def _number_inbox(self, queue: str, count: int, is_temporary: bool) -> int:
        """Return the first id for `count` messages of a queue's inbox; 0 where a temporary queue has gone."""
        take = "UPDATE lines SET last = last + ? WHERE queue = ? AND rank = -1 RETURNING line, last"
        rows = self.writer.execute(take, (count, queue)).fetchall()
        if not rows and is_temporary:
            return 0
        if not rows:
            self.writer.execute(NEW_INBOX, (queue,))
            rows = self.writer.execute(take, (count, queue)).fetchall()
        line, last = rows[0]
        return int(line << LINE_BITS) + int(last) - count + 1

    def _drop_oldest(self, queue: str) -> None:
        """Keep as many messages of a temporary queue as it may have."""
        execute, found = self.writer.execute, "SELECT line, last FROM lines WHERE queue = ? AND rank = -1"
        for line, last in execute(found, (queue,)).fetchall():
            first = line << LINE_BITS
            execute("DELETE FROM messages WHERE id BETWEEN ? AND ?", (first, first + last - TEMPORARY_MESSAGES))
            oldest = "SELECT min(id) FROM messages WHERE id BETWEEN ? AND ?"
            while execute("SELECT bytes FROM lines WHERE line = ?", (line,)).fetchone()[0] > TEMPORARY_BYTES:
                execute(f"DELETE FROM messages WHERE id = ({oldest})", (first, first + last))

    def _give_back_space(self) -> None:
        """Give some free pages back to the disk, when nothing else is to be done."""
        with contextlib.suppress(sqlite3.Error):
            while self._jobs.empty() and not self._closing.is_set():
                if self.writer.execute("PRAGMA freelist_count").fetchone()[0] < VACUUM_LEAST:
                    return
                self.writer.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()

    def _in_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call, *arguments)
