"""A store in an SQLite file, which several processes of one machine share."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from runner.runtime.outbox import connect
from runner.runtime.store import Result, Step

PURGE_S, MAX_PURGED = 1.0, 2_000
"""How often entries that have ended are deleted, and how many at once: more than can come in that time."""

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, value BLOB, done_until REAL DEFAULT 0, owner TEXT, claimed_until REAL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ending ON entries (max(done_until, claimed_until));
COMMIT;
"""
_CLAIM = """
INSERT INTO entries (key, owner, claimed_until) VALUES (?1, ?2, ?3)
ON CONFLICT (key) DO UPDATE SET owner = ?2, claimed_until = ?3
"""
_FINISH = """
INSERT INTO entries (key, value, done_until) VALUES (?1, ?2, ?3)
ON CONFLICT (key) DO UPDATE SET value = ?2, done_until = ?3, owner = NULL, claimed_until = 0
"""
_RELEASE = "UPDATE entries SET owner = NULL, claimed_until = 0 WHERE key = ? AND owner = ?"
_PURGE = """
DELETE FROM entries WHERE key IN (SELECT key FROM entries WHERE max(done_until, claimed_until) <= ? LIMIT ?)
"""


class SqliteDatabase:
    """A `Database` in a file, used in a thread of its own. A new file is readable for its owner only.

    What is done is on the disk when `apply` returns; a claim may be lost with the power, as its process is.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="runner-store")
        self._connection: sqlite3.Connection | None = None
        self._purged_at = 0.0

    async def apply(self, steps: Sequence[Step]) -> list[Result]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._apply, steps)

    async def close(self) -> None:
        self._thread.submit(self._disconnect)
        await asyncio.to_thread(self._thread.shutdown)

    def _apply(self, steps: Sequence[Step]) -> list[Result]:
        try:
            connection = self._connection = self._connection or _open(self._path)
            is_durable = any(step.kind == "finish" for step in steps)
            connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            now = time.time()
            results = [_applied(connection, step, now) for step in steps]
            if abs(now - self._purged_at) >= PURGE_S:
                self._purged_at = now
                connection.execute(_PURGE, (now, MAX_PURGED))
            connection.execute("COMMIT")
            return results
        except BaseException:
            self._disconnect()  # which ends the transaction
            raise

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _open(path: str) -> sqlite3.Connection:
    """Open a file, and make it where it is missing. Raises OSError and sqlite3.Error that say what to do."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would make it readable for all
        connection = connect(path)
    except IsADirectoryError:
        raise OSError(f"{path} is a folder: name a file in it, as in sqlite:{path.rstrip('/')}/seen.db") from None
    except OSError as error:
        raise OSError(f"{path} cannot be opened: {(error.strerror or '').lower()}") from error
    except sqlite3.OperationalError as error:
        hint = ": the user needs the right to write to its folder" if "unable to open" in str(error) else ""
        raise sqlite3.OperationalError(f"{path}: {error}{hint}") from error
    except sqlite3.DatabaseError as error:
        raise sqlite3.DatabaseError(f"{path} is not a file of SQLite: name another one, which is made") from error
    try:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'ending'").fetchone() is None:
            connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _applied(connection: sqlite3.Connection, step: Step, now: float) -> Result:
    until = now + step.seconds
    if step.kind == "finish":
        connection.execute(_FINISH, (step.key, step.value, until))
    elif step.kind == "release":
        connection.execute(_RELEASE, (step.key, step.owner))
    else:
        found = connection.execute("SELECT * FROM entries WHERE key = ?", (step.key,)).fetchone()
        _, value, done_until, owner, claimed_until = found or ("", b"", 0, None, 0)
        if step.kind == "claim" and done_until > now:
            return bytes(value)
        if owner not in (None, step.owner) and claimed_until > now:
            return False
        connection.execute(_CLAIM, (step.key, step.owner, until))
    return True
