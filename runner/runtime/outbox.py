"""Messages that could not be sent in time: an SQLite file that keeps them until the broker has confirmed them.

Several processes may share the file. One of them sends at a time, the one that holds the lock of the file beside it;
the kernel gives it up when that process ends, however it ends.

No connection to SQLite survives a fork: its locks belong to the process, while its bookkeeping of them is inherited.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple, TypeVar
from weakref import WeakSet

from runner.envelope_json import read_properties, write_properties
from runner.errors import OutboxUnavailable
from runner.message import Address
from runner.pipeline.codec import encode
from runner.pipeline.model import Destination
from runner.runtime.publisher import OutgoingMessage, address_of

T = TypeVar("T")

BUSY_S = 5.0
"""How long a process waits for another one that is writing to the file."""

RETRY_S = 0.01

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    pipeline TEXT NOT NULL,
    name TEXT NOT NULL,
    exchange TEXT NOT NULL,
    key TEXT NOT NULL,
    properties TEXT NOT NULL,
    body BLOB NOT NULL,
    error TEXT
);
CREATE INDEX IF NOT EXISTS waiting ON messages (pipeline) WHERE error IS NULL;
"""

_lock = threading.Lock()
"""Held during each use of SQLite, so that no fork happens in the middle of one."""


class KeptMessage(NamedTuple):
    """A message of the outbox, with its number in the file."""

    number: int
    outgoing: OutgoingMessage


class Outbox:
    """The messages of one pipeline in the file. Not more than `max_pending` wait.

    Opens the file, and makes it where it does not exist. All methods raise OutboxUnavailable where it cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], pipeline: str, max_pending: int) -> None:
        self._path = Path(path).absolute()
        self._pipeline = pipeline
        self._max_pending = max_pending
        self._connection: sqlite3.Connection | None = None
        self._sender_lock: int | None = None
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        _OPEN.add(self)
        os.close(self._create(self._path))  # for its owner only: SQLite would make it readable for all
        self._locked(lambda connection: connection.executescript(_SCHEMA))

    def count(self) -> int:
        """Return how many messages wait."""
        return self._locked(self._count)

    def has_waiting(self) -> bool:
        """Return whether a message waits."""
        question = "SELECT 1 FROM messages WHERE pipeline = ? AND error IS NULL LIMIT 1"
        return self._locked(lambda connection: connection.execute(question, (self._pipeline,)).fetchone()) is not None

    def add(self, outgoing: OutgoingMessage) -> None:
        """Keep a message behind all others. It is on the disk when this returns."""
        name, address, envelope = outgoing.destination.name, address_of(outgoing), outgoing.envelope
        row = (self._pipeline, name, *address, write_properties(envelope), envelope.body)

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            if (waiting := self._count(connection)) >= self._max_pending:
                text = f"the outbox {self._path} holds {waiting} messages, which is its limit"
                raise OutboxUnavailable(text, "let the broker take them, or raise max_pending")
            fields = "pipeline, name, exchange, key, properties, body"
            connection.execute(f"INSERT INTO messages ({fields}) VALUES (?, ?, ?, ?, ?, ?)", row)

        self._locked(insert)

    def first(self, after: int, limit: int) -> list[KeptMessage]:
        """Return the next messages with higher numbers than `after`, in the order in which they were kept."""
        question = (
            "SELECT number, name, exchange, key, properties, body FROM messages "
            "WHERE pipeline = ? AND error IS NULL AND number > ? ORDER BY number LIMIT ?"
        )
        rows = self._locked(lambda connection: connection.execute(question, (self._pipeline, after, limit)).fetchall())
        return [_kept(*row) for row in rows]

    def remove(self, numbers: Iterable[int]) -> None:
        """Forget messages that the broker has confirmed."""
        rows = [(number,) for number in numbers]

        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM messages WHERE number = ?", rows)

        self._locked(delete)

    def give_up(self, number: int, error: str) -> None:
        """Keep a message that no broker can take, with the reason. It does not wait any more."""
        change = "UPDATE messages SET error = ? WHERE number = ?"
        self._locked(lambda connection: connection.execute(change, (error, number)))

    def become_sender(self) -> bool:
        """Return whether this process sends the messages from now on, because no other one does."""
        descriptor = self._create(f"{self._path}.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._sender_lock = descriptor
        return True

    def resign(self) -> None:
        """Let another process send. Idempotent."""
        if self._sender_lock is not None:
            fcntl.flock(self._sender_lock, fcntl.LOCK_UN)
            os.close(self._sender_lock)
            self._sender_lock = None

    async def run(self, work: Callable[[], T]) -> T:
        """Run one of these methods in the thread of the outbox: writing to a disk may take long.

        It is a thread of its own: the executors of asyncio take no work while the interpreter ends.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="runner-outbox", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._jobs.put(lambda: loop.call_soon_threadsafe(_outcome(done, work)))
        return await done

    def close(self) -> None:
        """End the thread, and close the file. Idempotent."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
        self.resign()
        with _lock:
            self.disconnect()

    def disconnect(self) -> None:
        """Close the file until it is used again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def leave_to_parent(self) -> None:
        """Forget the lock, in a child process: it belongs to the process that this one was forked from."""
        if self._sender_lock is not None:
            os.close(self._sender_lock)
            self._sender_lock = None

    def _create(self, path: str | Path) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error

    def _unavailable(self, why: str) -> OutboxUnavailable:
        return OutboxUnavailable(f"the outbox {self._path} cannot be used: {why}")

    def _count(self, connection: sqlite3.Connection) -> int:
        question = "SELECT count(*) FROM messages WHERE pipeline = ? AND error IS NULL"
        return int(connection.execute(question, (self._pipeline,)).fetchone()[0])

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _locked(self, use: Callable[[sqlite3.Connection], T]) -> T:
        """Use the file while no other thread does. A transaction that `use` begins is committed."""
        with _lock:
            try:
                if self._connection is None:
                    self._connection = connect(self._path)
                with self._connection:
                    return use(self._connection)
            except sqlite3.Error as error:
                self.disconnect()
                raise self._unavailable(str(error)) from error


def connect(path: str | Path) -> sqlite3.Connection:
    """Open a file in WAL mode, with commits that are on the disk when they return."""
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:  # another process makes the file: SQLite itself does not wait for that
            if time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_S)


def _outcome(done: asyncio.Future[T], work: Callable[[], T]) -> Callable[[], None]:
    """Do the work, and return what passes its result or its error on, in the loop of the future."""
    try:
        result = work()
    except BaseException as error:
        failure = error
        return lambda: None if done.done() else done.set_exception(failure)
    return lambda: None if done.done() else done.set_result(result)


def _kept(number: int, name: str, exchange: str, key: str, properties: str, body: bytes) -> KeptMessage:
    envelope, _ = read_properties(properties, body)
    destination = Destination(name, Address(exchange, key), is_event=False, encode=encode)
    return KeptMessage(number, OutgoingMessage(destination, envelope))


_OPEN: WeakSet[Outbox] = WeakSet()


def _before_fork() -> None:
    _lock.acquire()
    for outbox in _OPEN:
        outbox.disconnect()


def _after_fork_in_parent() -> None:
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for outbox in _OPEN:
        outbox.leave_to_parent()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
