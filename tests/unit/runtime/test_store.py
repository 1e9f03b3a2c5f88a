"""Stores: the same meaning in memory, in SQLite and in Redis; what is away is waited for, and nothing is lost."""

import asyncio
import io
import json
import os
import resource
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from runner import log
from runner.pipeline.model import StoreSettings
from runner.runtime import store as stores
from runner.runtime.redis_store import RedisDatabase
from runner.runtime.sqlite_store import SqliteDatabase
from runner.runtime.store import Database, MemoryStore, Result, SharedStore, Step, Store, StoreUnavailable, open_store
from tests.redis_server import RedisServer
from tests.unit.transports.virtual_time import virtual_time


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


async def claim(store: Store, key: str, owner: str, *, again: bool = False) -> Result:
    return await store.do(Step("again" if again else "claim", key, owner))


async def finish(store: Store, key: str, owner: str, value: bytes, window_s: float) -> None:
    await store.do(Step("finish", key, owner, value, window_s))


async def release(store: Store, key: str, owner: str) -> None:
    await store.do(Step("release", key, owner))


@asynccontextmanager
async def shared(url: str, database: Database | None = None) -> AsyncIterator[SharedStore]:
    settings = StoreSettings("seen", url)
    store = SharedStore(settings, database) if database else open_store(settings)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty store."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.ask("FLUSHALL")
        return server.url
    return f"sqlite:{tmp_path}/seen.db" if request.param == "sqlite" else ""


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    if not url:
        yield MemoryStore()
    else:
        async with shared(url) as store:
            yield store


async def test_a_key_is_free_claimed_or_done(url: str) -> None:
    async with opened(url) as store:
        assert await claim(store, "a", "one") is True
        assert await claim(store, "a", "one") is True, "an owner may repeat its claim"
        assert await claim(store, "a", "two") is False
        assert await claim(store, "b", "two") is True
        await release(store, "a", "two")
        assert await claim(store, "a", "two") is False, "a claim is ended by its owner alone"
        await release(store, "a", "one")
        assert await claim(store, "a", "two") is True, "what was begun and given up is not done"
        await finish(store, "a", "two", b"value\0\xff", 60)
        assert await claim(store, "a", "one") == b"value\0\xff"
        assert await claim(store, "a", "one", again=True) is True
        assert await claim(store, "a", "one") == b"value\0\xff", "done stays done while it is done again"
        await release(store, "a", "one")
        assert await claim(store, "a", "one") == b"value\0\xff"


async def test_what_is_done_ends_with_its_window(url: str) -> None:
    async with opened(url) as store:
        await claim(store, "a", "one")
        await finish(store, "a", "one", b"", 0.5)
        assert await claim(store, "a", "two") == b""
        deadline = time.monotonic() + 10
        while await claim(store, "a", "two") is not True:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("url", ["sqlite", "redis"], indirect=True)
async def test_two_processes_share_what_is_claimed_and_done(url: str) -> None:
    async with shared(url) as one, shared(url) as two:
        claims = await asyncio.gather(
            *(claim(each, str(n), name) for n in range(100) for name, each in (("1", one), ("2", two)))
        )
        assert all({*claims[n : n + 2]} == {True, False} for n in range(0, 200, 2))
        await asyncio.gather(*(finish(one, str(n), "1", b"x", 60) for n in range(100)))
        assert await asyncio.gather(*(claim(two, str(n), "2") for n in range(100))) == [b"x"] * 100


@pytest.mark.parametrize("url", ["sqlite", "redis"], indirect=True)
async def test_a_claim_that_is_not_renewed_ends_and_one_that_is_renewed_does_not(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first owner is a process that has died: its store is closed without a word."""
    monkeypatch.setattr(stores, "RENEW_S", 0.1)
    async with shared(url) as two:
        dead = open_store(StoreSettings("seen", url))._database
        assert await dead.apply([Step("claim", "a", "one", seconds=0.5)]) == [True]
        await dead.close()
        async with shared(url) as one:
            await two._database.apply([Step("claim", "b", "two", seconds=0.5)])
            assert await claim(two, "b", "two") is True
            deadline = time.monotonic() + 10
            while await claim(one, "a", "three") is not True:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert await claim(one, "b", "three") is False


@pytest.mark.parametrize("url", ["sqlite", "redis"], indirect=True)
async def test_what_is_done_outlives_the_process(url: str) -> None:
    async with shared(url) as store:
        await finish(store, "a", "one", b"x", 60)
    async with shared(url) as store:
        assert await claim(store, "a", "two") == b"x"


async def test_sqlite_forgets_what_has_ended(tmp_path: Path) -> None:
    """What is done ends with its window, what was claimed with its lease. The file is its owner's alone."""
    path = tmp_path / "seen.db"
    database = SqliteDatabase(str(path))
    await database.apply([Step("finish", str(n), "one", seconds=0.01) for n in range(1000)])
    await database.apply([Step("finish", "kept", "one", seconds=60), Step("claim", "claimed", "one", seconds=60)])
    with sqlite3.connect(path) as other:
        deadline = time.monotonic() + 10
        while other.execute("SELECT count(*) FROM entries").fetchone() != (2,):
            assert time.monotonic() < deadline
            await database.apply([])
            await asyncio.sleep(0.05)
    other.close()
    await database.close()
    assert path.stat().st_mode & 0o077 == 0


async def test_redis_forgets_what_has_ended(redis_server: RedisServer) -> None:
    redis_server.ask("FLUSHALL")
    async with shared(redis_server.url) as store:
        await claim(store, "a", "one")
        await claim(store, "b", "one")
        await finish(store, "b", "one", b"", 60)
        for key in ("runner:a:claim", "runner:b"):
            assert int(redis_server.ask("PTTL", key)[1:]) > 0, "every key ends by itself"
        assert redis_server.ask("DBSIZE") == b":2\r\n"


class Away(Exception):
    """What a database raises."""


class Flaky:
    """A database in memory that can be away, answer nonsense, or take its time."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.answer: list[Result] | None = None
        self.batches: list[list[str]] = []

    async def apply(self, steps: Sequence[Step]) -> list[Result]:
        self.batches.append([step.key for step in steps])
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error
        return [True] * len(steps) if self.answer is None else self.answer

    async def close(self) -> None:
        pass


@virtual_time
async def test_what_is_asked_while_the_database_is_busy_goes_to_it_together() -> None:
    database = Flaky()
    async with shared("sqlite:x", database) as store:
        await asyncio.gather(*(claim(store, str(n), "one") for n in range(5)))
        await asyncio.gather(*(claim(store, str(n), "one") for n in range(1200)))
    assert [len(batch) for batch in database.batches] == [5, 500, 500, 200]


@pytest.mark.parametrize("error", [Away("no route"), None], ids=["away", "lying"])
@virtual_time
async def test_a_store_that_is_away_or_lies_is_said_once_and_found_again(error: Exception | None) -> None:
    """Meanwhile nothing waits for its time-outs: it is asked now and then, by one task."""
    database = Flaky()
    out = io.StringIO()
    log.configure(format="json", stream=out)
    database.error, database.answer = error, None if error else []
    async with shared("redis://:secret@host/0", database) as store:
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await claim(store, "a", "one")
        assert 'the store "seen" cannot be used' in store.unready_reason
        await asyncio.sleep(60)
        database.error = database.answer = None
        await asyncio.sleep(10)
        assert store.unready_reason == ""
        assert await claim(store, "a", "one") is True
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["store.unavailable", "store.available"]
    assert lines[0]["url"] == "redis://:***@host/0"
    assert len(database.batches) < 30


@virtual_time
async def test_a_claim_that_its_message_no_longer_waits_for_is_given_back() -> None:
    database = Flaky()
    kinds: list[str] = []
    async with shared("sqlite:x", database) as store:
        claiming = asyncio.create_task(claim(store, "a", "one"))
        await asyncio.sleep(0.005)
        claiming.cancel()
        await asyncio.wait([claiming])
        kinds.extend(step.kind for step, _ in store._waiting)
    assert kinds == ["release"]
    assert database.batches == [["a"], ["a"]]


@contextmanager
def small_files(bytes_: int) -> Iterator[None]:
    """Let no file grow beyond a size: for SQLite, that is a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    async with shared(f"sqlite:{tmp_path}/seen.db") as store:
        await finish(store, "before", "one", b"x", 60)
        with small_files(4096), pytest.raises(StoreUnavailable):
            await finish(store, "while", "one", b"x" * 100_000, 60)
        while store.unready_reason:
            await asyncio.sleep(0.01)
        assert await claim(store, "before", "two") == b"x"
        assert await claim(store, "while", "two") is True


async def test_a_file_that_another_program_locks_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.runtime.outbox.BUSY_S", 0.05)
    path = tmp_path / "seen.db"
    async with shared(f"sqlite:{path}") as store:
        await store.open()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await claim(store, "a", "one")
        other.execute("COMMIT")
        other.close()
        while store.unready_reason:
            await asyncio.sleep(0.01)
        assert await claim(store, "a", "one") is True


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/nonexistent/seen.db", "/nonexistent/seen.db cannot be opened: no such file or directory"),
        ("TMP/text.db", "TMP/text.db is not a file of SQLite: name another one, which is made"),
        ("TMP", "TMP is a folder: name a file in it, as in sqlite:TMP/seen.db"),
    ],
)
async def test_a_file_that_cannot_be_used_is_said_with_what_to_do(path: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database" * 1000)
    async with shared(f"sqlite:{path.replace('TMP', str(tmp_path))}") as store:
        await store.open()
        assert store.unready_reason.endswith(said.replace("TMP", str(tmp_path)))


async def test_a_file_that_may_only_be_read_is_waited_for() -> None:
    user = os.geteuid()
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        if user == 0:
            os.seteuid(65_534)  # root may write everything
        try:
            path = Path(folder) / "seen.db"
            async with shared(f"sqlite:{path}") as store:
                await finish(store, "a", "one", b"x", 60)
            path.chmod(0o400)
            async with shared(f"sqlite:{path}") as store:
                await store.open()
                assert "permission denied" in store.unready_reason
                path.chmod(0o600)
                while store.unready_reason:
                    await asyncio.sleep(0.01)
                assert await claim(store, "a", "two") == b"x"
        finally:
            os.seteuid(user)


async def test_redis_that_is_killed_and_started_again_is_waited_for(redis_server: RedisServer) -> None:
    """Its script has to be loaded again. What it had said is done is on its disk."""
    async with shared(redis_server.url) as store:
        await finish(store, "a", "one", b"x", 60)
        redis_server.kill()
        try:
            with pytest.raises(StoreUnavailable):
                await claim(store, "a", "two")
        finally:
            redis_server.start()
        while store.unready_reason:
            await asyncio.sleep(0.01)
        assert await claim(store, "a", "two") == b"x"


async def test_redis_that_is_full_is_waited_for(redis_server: RedisServer) -> None:
    async with shared(redis_server.url) as store:
        await store.open()
        redis_server.ask("CONFIG", "SET", "maxmemory", "1")
        try:
            with pytest.raises(StoreUnavailable, match="maxmemory"):
                await claim(store, "full", "one")
            await asyncio.sleep(0.5)
            assert store.unready_reason, "a test without writing would say that all is well"
        finally:
            redis_server.ask("CONFIG", "SET", "maxmemory", "0")
        while store.unready_reason:
            await asyncio.sleep(0.01)
        assert await claim(store, "full", "one") is True


async def test_a_wrong_password_is_said_without_the_right_one(redis_server: RedisServer) -> None:
    async with shared(redis_server.url.replace("secret", "guessed")) as store:
        await store.open()
        assert "WRONGPASS" in store.unready_reason or "invalid" in store.unready_reason
        assert "guessed" not in store.unready_reason


async def test_another_server_at_the_address_is_no_store(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with shared(f"redis://127.0.0.1:{port}/0") as store:
            with pytest.raises(StoreUnavailable):
                await claim(store, "a", "one")


@virtual_time
async def test_memory_is_bounded() -> None:
    """The oldest goes first, which is said once, with the window that there really is."""
    out = io.StringIO()
    log.configure(format="json", stream=out)
    store = MemoryStore(limit=2)
    for number, pause_s in enumerate((6, 6, 6, 4, 4, 1, 1)):
        assert ("dedupe.forgets" in out.getvalue()) == (number > 5)
        await finish(store, str(number), "one", b"", 10)
        await asyncio.sleep(pause_s)
    assert [await claim(store, str(number), "one") for number in (4, 5, 6)] == [True, b"", b""]
    (line,) = [json.loads(line) for line in out.getvalue().splitlines()]
    assert (line["event"], line["level"], line["remembered"]) == ("dedupe.forgets", "warning", 2)
    assert line["asked_s"] == 10
    assert line["window_s"] < 10


async def test_the_database_follows_from_the_url() -> None:
    for url, kind in (("sqlite:x.db", SqliteDatabase), ("redis://h", RedisDatabase), ("rediss://h", RedisDatabase)):
        store = open_store(StoreSettings("seen", url))
        assert isinstance(store._database, kind)
        await store.close()
