"""Engine: opens the file of a broker: makes it, checks what it is, and locks it for the process that owns it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from pathlib import Path

from runner.config.diagnostics import display_path
from runner.errors import BrokerUnavailable

APPLICATION_ID = 0x72756E71
VERSION = 1
BUSY_S = 10.0
"""How long a process waits for another one that is writing to the file."""

ATTEMPTS = 5
"""How often the lock is asked for: `is_owned` of other processes holds it for a moment."""

MOUNTS = Path("/proc/self/mountinfo")
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "vboxsf"}
    | {f"fuse.{name}" for name in ("sshfs", "ceph", "glusterfs", "s3fs", "rclone", "grpcfuse", "vmhgfs-fuse")}
)
"""On these, locks and shared memory are not certain to work between machines: SQLite forbids WAL there."""

_SCHEMA = f"""
CREATE TABLE lines (line INTEGER PRIMARY KEY, queue TEXT NOT NULL, rank INTEGER NOT NULL, messages INTEGER NOT NULL
    DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, last INTEGER NOT NULL DEFAULT 0);
CREATE TABLE messages (id INTEGER PRIMARY KEY, properties TEXT NOT NULL, body BLOB NOT NULL, expires INTEGER,
    failed INTEGER NOT NULL DEFAULT 0);
CREATE TRIGGER arrived AFTER INSERT ON messages BEGIN
    UPDATE lines SET messages = messages + 1, bytes = bytes + length(NEW.body) WHERE line = NEW.id >> 40; END;
CREATE TRIGGER gone AFTER DELETE ON messages BEGIN
    UPDATE lines SET messages = messages - 1, bytes = bytes - length(OLD.body) WHERE line = OLD.id >> 40; END;
CREATE TABLE removed (id INTEGER PRIMARY KEY, size INTEGER NOT NULL);
CREATE TABLE definitions (kind TEXT, name TEXT, content TEXT NOT NULL, PRIMARY KEY (kind, name));
CREATE TABLE consumers (queue TEXT PRIMARY KEY, consumers INTEGER, prefetch INTEGER, unsettled INTEGER DEFAULT 0);
CREATE TABLE elections (name TEXT PRIMARY KEY, state TEXT NOT NULL);
CREATE TABLE pauses (pipeline TEXT, subscriber TEXT, change BLOB NOT NULL, PRIMARY KEY (pipeline, subscriber));
CREATE TABLE meta (key TEXT PRIMARY KEY, value);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""
"""A message's id is the number of its line times 2^40, plus its position in it. A line has the messages of a queue that
have the same rank, which is their priority; other processes put messages into a line of rank -1, and the owner takes
them from there. The reader of a temporary queue has -1 `consumers`, and counts `unsettled` up while it lives.
"""

_owned: dict[str, str] = {}
"""The files that this process owns, with what it says about itself: a process's own lock is no obstacle to it."""


_connections: dict[sqlite3.Connection, tuple[int, int]] = {}
"""The open connections of this process, with the identities of their files."""

_inherited: set[tuple[int, int]] = set()
"""The files that were open when this process was forked: SQLite believes that it has the locks of its parent."""

os.register_at_fork(after_in_child=lambda: _inherited.update(_connections.values()))


def identity(path: str | Path) -> tuple[int, int]:
    """Return what tells a file from another one of the same name. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def connect(path: Path, *, creates: bool) -> sqlite3.Connection:
    """Return a connection that commits each statement by itself, for `disconnect`. Raises BrokerUnavailable."""
    if not path.exists():
        if not creates:
            near = [*path.parent.glob(f"*/{path.name}"), *path.parent.parent.glob(path.name)]
            meant = f"did you mean file:{display_path(near[0])}? Else " if near else ""
            raise BrokerUnavailable(f"there is no file {path} yet", f"{meant}`runner up` and `runner publish` make it")
        _make(path)
    _refuse_network(path)
    if (file := identity(path)) in _inherited:
        text = f"the file {path} was open when this process was forked, and what it writes could be lost"
        raise BrokerUnavailable(text, "use the file after the fork only, or close it before")
    try:
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise unusable(path, error) from error
    _connections[connection] = file
    return connection


def disconnect(connection: sqlite3.Connection) -> None:
    """Close a connection."""
    _connections.pop(connection, None)
    connection.close()


_MAKE = "name a file in a folder that the user may write to"


def unusable(path: Path, error: Exception) -> BrokerUnavailable:
    """Return the error for a file that SQLite cannot use."""
    text, code = str(error), getattr(error, "sqlite_errorcode", 0) & 0xFF
    hint = ""
    if path.is_dir():
        text, hint = "it is a folder", f"name a file in it, as in file:{path}/shop.queue"
    elif code == sqlite3.SQLITE_NOTADB:
        text = "it is not a file of a broker"
        hint = "name another file, which is made; if it was one, put a backup in its place, and keep this one"
    elif code == sqlite3.SQLITE_CORRUPT:
        hint = "put a backup in its place, or name another file; keep this one, with its -wal, to save what can be read"
    elif code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        hint = "make room on its disk if that is full, and start again"
    elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        hint = "the user needs the right to write to it and to its folder"
    return BrokerUnavailable(f"the file {path} cannot be used: {text}", hint)


def _make(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # bodies may be secrets
    except OSError as error:
        raise BrokerUnavailable(f"the file {path} cannot be made: {(error.strerror or '').lower()}", _MAKE) from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == APPLICATION_ID and version > VERSION:
        text = f"the file {path} was made by a newer version of the runner (format {version}, this one has {VERSION})"
        raise BrokerUnavailable(text, "update the runner")
    if found != APPLICATION_ID:
        _make_schema(connection, path)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA journal_size_limit = 67108864")


def _make_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables in an empty file, once, whichever processes open it at the same time."""
    deadline = time.monotonic() + BUSY_S
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:  # another process makes the file: SQLite itself does not wait for that
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
    is_empty = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if not is_empty and connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise BrokerUnavailable(f"the file {path} is the database of another program", "name another file")
    script = _SCHEMA.replace("TABLE ", "TABLE IF NOT EXISTS ").replace("TRIGGER ", "TRIGGER IF NOT EXISTS ")
    connection.executescript(f"BEGIN IMMEDIATE; {script} COMMIT")


def _refuse_network(path: Path) -> None:
    """Raise BrokerUnavailable for a file on a network file system."""
    best, kind, real = "", "", path.resolve()
    with contextlib.suppress(OSError):
        for line in MOUNTS.read_text(errors="replace").splitlines():
            left, _, right = line.partition(" - ")
            folder = left.split()[4].encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")
            if len(folder) >= len(best) and real.is_relative_to(folder):
                best, kind = folder, right.split()[0]
    if kind in NETWORK_FILE_SYSTEMS:
        text = f"the file {path} is on a network file system ({kind}), where its locks cannot be trusted"
        raise BrokerUnavailable(text, "put it on a disk of this machine, or use RabbitMQ")


def is_owned(path: Path) -> bool:
    """Return whether a process owns the file now."""
    key = str(path.resolve())
    if key in _owned:
        return True
    try:
        descriptor = os.open(f"{key}.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


class OwnerLock:
    """The lock of the process that owns a file. The kernel gives it up when that process ends, however it ends.

    It belongs to the process, not to the descriptor: children that are forked do not have it.
    """

    def __init__(self, path: Path, who: str) -> None:
        self._path = path.resolve()
        self._descriptor: int | None = None
        self._who = who

    def acquire(self) -> None:
        """Take the lock. Raises BrokerUnavailable, which names the process that has it."""
        key = str(self._path)
        if key in _owned:
            raise self._taken(_owned[key])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise BrokerUnavailable(
                f"the file {key}.lock cannot be made: {(error.strerror or '').lower()}", _MAKE
            ) from error
        if not _has_locked(descriptor):
            owner = os.pread(descriptor, 500, 0).decode("utf-8", "replace")
            os.close(descriptor)
            raise self._taken(owner)
        with contextlib.suppress(OSError):  # on a full disk it has no name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, self._who.encode(), 0)
        self._descriptor, _owned[key] = descriptor, self._who

    def release(self) -> None:
        """Give the lock up. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            del _owned[str(self._path)]
            self._descriptor = None

    def _taken(self, owner: str) -> BrokerUnavailable:
        hint = (
            "one `runner up` runs on one file, and takes several pipelines, as in `runner up shop.yaml billing.yaml`: "
            "stop that one first, or use RabbitMQ for several processes"
        )
        return BrokerUnavailable(f"the file {self._path} belongs to {owner or 'another process'}", hint)


def _has_locked(descriptor: int) -> bool:
    for _ in range(ATTEMPTS):
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(0.02)
    return False
