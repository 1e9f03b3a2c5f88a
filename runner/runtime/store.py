"""Where work is noted as claimed and as done: the memory of this process, or a store that several processes share.

A claim in a shared store has a lease, which its process renews while it works: a process that dies frees its keys.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, Protocol

from runner import log
from runner.backoff import backoff_delays
from runner.errors import RunnerError
from runner.pipeline.model import StoreSettings
from runner.redaction import mask_passwords
from runner.tasks import cancel_and_wait

MAX_REMEMBERED = 100_000
"""The most keys that a store in memory remembers, the newest ones: about 25 MB."""

LEASE_S, RENEW_S = 20.0, 5.0  # the broker gives up a process that is silent for two heartbeats of 10 s
MAX_STEPS = 500
"""How many steps go to a database at once."""

MAX_PROBE_DELAY_S = 5.0

Result = bool | bytes
"""Of a claim: True, the key is now the owner's; False, it is another owner's; or the value that it was done with."""


class StoreUnavailable(RunnerError):
    """A store cannot be used now. What was asked of it may have been done all the same, and may be asked again."""


class Step(NamedTuple):
    """What to do with a key. `claim` it, unless it is done; claim it `again`, even so; `finish` it; `release` a claim.

    `finish` notes a value for a number of seconds, and ends the claim. An owner may repeat its claim.
    """

    kind: Literal["claim", "again", "finish", "release"]
    key: str
    owner: str
    value: bytes = b""
    seconds: float = LEASE_S


PROBE = Step("finish", "probe", "", seconds=1.0)
"""Tests whether a database can be written."""


class Store(Protocol):
    """Notes what is claimed and done."""

    async def do(self, step: Step) -> Result:
        """Do a step. Raises StoreUnavailable."""


class Database(Protocol):
    """What a shared store is in."""

    async def apply(self, steps: Sequence[Step]) -> list[Result]:
        """Do steps in order. Whatever it raises means that the database cannot be used now."""

    async def close(self) -> None:
        """Close it."""


class MemoryStore:
    """The memory of this process. All its keys have the same window."""

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        self._has_warned = False
        self._done: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._owners: dict[str, str] = {}

    async def do(self, step: Step) -> Result:
        """See `Store`. The oldest keys are forgotten when there are too many."""
        now, key = asyncio.get_running_loop().time(), step.key
        while self._done and next(iter(self._done.values()))[0] <= now:
            self._done.popitem(last=False)
        if step.kind == "claim" and key in self._done:
            return self._done[key][1]
        if step.kind in ("claim", "again"):
            return self._owners.setdefault(key, step.owner) == step.owner
        if self._owners.get(key) == step.owner:
            del self._owners[key]
        if step.kind == "finish":
            self._done.pop(key, None)
            self._done[key] = (now + step.seconds, step.value)
        if len(self._done) > self._limit:
            _, (until, _) = self._done.popitem(last=False)
            if not self._has_warned:
                self._has_warned = True
                fields = {"window_s": round(step.seconds - (until - now), 3), "asked_s": step.seconds}
                log.get_logger().warning("dedupe.forgets", remembered=self._limit, **fields)
        return True


class SharedStore:
    """A store in a database. What is asked of it in one turn of the loop, or while it is busy, goes to it together."""

    def __init__(self, settings: StoreSettings, database: Database) -> None:
        self._database = database
        self._fields = {"store": settings.name, "url": mask_passwords(settings.url)}
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Step, asyncio.Future[Result]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._held: set[tuple[str, str]] = set()
        """Keys that are claimed here, and their owners; they are renewed."""
        self._renewal: asyncio.TimerHandle | None = None
        self.unready_reason = ""
        """Why it cannot be used now; empty when it can."""

    async def open(self) -> None:
        """Try to use the database; if it cannot be used now, say so, and go on trying."""
        with suppress(StoreUnavailable):
            await self._apply([PROBE])

    async def close(self) -> None:
        """Finish what was asked, and close the database."""
        if self._renewal is not None:
            self._renewal.cancel()
        await cancel_and_wait(self._probe)
        if self._worker is not None:
            await asyncio.wait([self._worker])
        self.unready_reason = "the store is closed"
        await self._database.close()

    async def do(self, step: Step) -> Result:
        if self.unready_reason:
            raise StoreUnavailable(self.unready_reason)
        self._held.discard((step.key, step.owner))  # no renewal may follow the end of a claim
        try:
            result = await self._add(step)
        except asyncio.CancelledError:
            self._add(step._replace(kind="release"))
            raise
        if result is True and step.kind in ("claim", "again"):
            self._held.add((step.key, step.owner))
            self._renewal = self._renewal or self._loop.call_later(RENEW_S, self._renew)
        return result

    def _add(self, step: Step) -> asyncio.Future[Result]:
        future: asyncio.Future[Result] = self._loop.create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # some are not awaited
        self._waiting.append((step, future))
        if self._worker is None or self._worker.done():
            self._worker = self._loop.create_task(self._work())
        return future

    def _renew(self) -> None:
        self._renewal = self._loop.call_later(RENEW_S, self._renew) if self._held else None
        for key, owner in self._held if not self.unready_reason else ():
            self._add(Step("again", key, owner))

    async def _work(self) -> None:
        """Do what waits, until nothing does."""
        while self._waiting:
            chosen, self._waiting = self._waiting[:MAX_STEPS], self._waiting[MAX_STEPS:]
            waiting = [future for _, future in chosen]
            try:
                for future, result in zip(waiting, await self._apply([step for step, _ in chosen]), strict=True):
                    if not future.done():
                        future.set_result(result)
            except StoreUnavailable as error:
                for future in waiting:
                    if not future.done():
                        future.set_exception(error)

    async def _apply(self, steps: Sequence[Step]) -> list[Result]:
        try:
            results = await self._database.apply(steps)
            if len(results) != len(steps):
                raise ValueError(f"{len(results)} results for {len(steps)} steps")
        except Exception as error:  # each library has its own errors, and a wrong server may answer anything
            text = mask_passwords(str(error) or type(error).__name__)
            if not self.unready_reason:
                log.get_logger().warning("store.unavailable", **self._fields, error=text)
                self._probe = self._loop.create_task(self._wait_until_well())
            self.unready_reason = f'the store "{self._fields["store"]}" cannot be used: {text}'
            raise StoreUnavailable(self.unready_reason) from error
        return results

    async def _wait_until_well(self) -> None:
        """Try the database until it can be used."""
        since = self._loop.time()
        for delay_s in backoff_delays(max_s=MAX_PROBE_DELAY_S):
            await asyncio.sleep(delay_s)
            with suppress(StoreUnavailable):
                await self._apply([PROBE])
                break
        self.unready_reason = ""
        log.get_logger().info("store.available", **self._fields, away_s=round(self._loop.time() - since, 1))


def open_store(settings: StoreSettings) -> SharedStore:
    """Return the store of a URL. It connects when it is opened or used."""
    if settings.url.startswith("sqlite:"):
        from runner.runtime.sqlite_store import SqliteDatabase

        return SharedStore(settings, SqliteDatabase(settings.url.removeprefix("sqlite:")))
    from runner.runtime.redis_store import RedisDatabase

    return SharedStore(settings, RedisDatabase(settings.url))
