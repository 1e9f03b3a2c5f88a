"""The store of `dedupe` goes wrong, or a process dies between its work and the note of it."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from tests.faults.verdict import Fault, check_empty
from tests.foreign import Foreign
from tests.node import Broker
from tests.process import RunnerProcess
from tests.project import Place, Project, lines, started, stop, until
from tests.proxy import Proxy
from tests.redis_server import RedisServer

PIPELINE = """
    version: 1
    stores: {seen: "STORE"}
    queues: {UNIQUE.work: {}}
    subscribers:
      charge:
        from: UNIQUE.work
        handler: work:charge
        concurrency: 10
        prefetch: 20
        dedupe: {window: 1h, key: order, store: seen}
        retry: {attempts: 3, delay: 100ms}
"""
CHARGE = """
    import asyncio, random
    async def charge(payment: dict) -> None:
        await asyncio.sleep(random.uniform(0, WORK))
        note(payment["order"])
        await asyncio.sleep(random.uniform(0, WORK))
"""
PREFETCH = 20


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return "sqlite:seen.db"
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


class Orders:
    """Orders that come twice each, in messages of their own, and how often each was charged."""

    def __init__(self, project: Project, foreign: Foreign, store: str, *, count: int, work_s: float) -> None:
        self._project = project
        self._foreign = foreign
        self.queue = project.name("work")
        self.expected = [str(number) for number in range(count)]
        project.write(PIPELINE.replace("STORE", store), CHARGE.replace("WORK", str(work_s)))

    def send(self) -> None:
        for click in (1, 2):
            self._foreign.publish(
                self.queue, *(json.dumps({"order": n, "click": click}).encode() for n in self.expected)
            )

    def done(self) -> Counter[str]:
        return self._project.ledger.counts()

    def has(self, calls: int) -> bool:
        """Whether there were at least this many calls."""
        self._foreign.count(self.queue)  # keeps its connection alive
        return self.done().total() >= calls

    async def finish(self, *runners: RunnerProcess) -> None:
        """Wait until all orders are charged, stop the runners, and let another one take what is left."""
        await until(lambda: self.has(0) and set(self.expected) <= self.done().keys(), "all are charged", 90)
        await asyncio.gather(*(stop(runner) for runner in runners))
        await self._project.up_until_idle()


def _missed(runner: RunnerProcess, times: int) -> bool:
    return len(lines(runner, "store.unavailable")) >= times


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.fault("F60", "kill -9 of a process with dedupe in a store, 8 times under load, each order comes twice")
async def test_a_process_that_is_killed_in_the_middle(
    rabbit_project: Project, foreign: Foreign, fault: Fault, store: str
) -> None:
    """Only what was charged, and not noted yet, is charged again: at most one call for each slot and kill."""
    orders = Orders(rabbit_project, foreign, store, count=600, work_s=0.05)
    await rabbit_project.up_until_idle()  # declares
    orders.send()
    kills = 8
    for kill in range(1, kills + 1):
        async with rabbit_project.up() as runner:
            await until(partial(orders.has, kill * 50), "it works", 90)
            runner.signal(signal.SIGKILL)
            assert await runner.wait() == -signal.SIGKILL
    async with rabbit_project.up() as runner:
        await orders.finish(runner)
    assert lines(runner, "message.retry") == lines(runner, "store.unavailable") == []
    fault.judge(orders.expected, orders.done(), twice=kills * 10)
    check_empty(foreign, orders.queue)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.fault("F61", "two processes whose connections are cut again and again, each order comes twice")
async def test_two_processes_with_redeliveries(
    rabbit_project: Project, foreign: Foreign, fault: Fault, store: str, rabbitmq: Broker
) -> None:
    """What one process has in hand comes to the other, which waits until it is done: nothing is charged twice."""
    orders = Orders(rabbit_project, foreign, store, count=400, work_s=0.2)
    async with Proxy(rabbitmq.port) as proxy:
        rabbit_project.place = Place.at(proxy.url)
        async with rabbit_project.up() as one, rabbit_project.up() as two:
            await started(one, two)
            orders.send()
            for cut in range(1, 6):
                await until(partial(orders.has, cut * 60), "they work", 60)
                proxy.cut()
            await orders.finish(one, two)
    fault.judge(orders.expected, orders.done(), twice=0)
    check_empty(foreign, orders.queue)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.fault("F62", "Redis is killed and started again, 4 times under load, each order comes twice")
async def test_a_redis_that_is_killed_and_started_again(
    rabbit_project: Project, foreign: Foreign, fault: Fault, redis_server: RedisServer
) -> None:
    """No attempt is spent, no handler is called twice, and it goes on by itself."""
    orders = Orders(rabbit_project, foreign, redis_server.url, count=600, work_s=0.05)
    async with rabbit_project.up() as one, rabbit_project.up() as two:
        await started(one, two)
        orders.send()
        for kill in range(1, 5):
            await until(partial(orders.has, kill * 100), "they work", 60)
            redis_server.kill()
            await until(partial(_missed, one, kill), "it is missed")
            redis_server.start()
            await fault.recovery(partial(orders.has, orders.done().total() + 1), "they go on")
        await orders.finish(one, two)
    for runner in (one, two):
        assert lines(runner, "message.retry") == lines(runner, "handler.slow") == []
        assert len(lines(runner, "store.unavailable")) == len(lines(runner, "store.available"))
    fault.judge(orders.expected, orders.done(), twice=0)
    check_empty(foreign, orders.queue)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.fault("F28", "the SQLite file of dedupe is locked by another program, then its disk is full")
async def test_a_file_that_is_locked_and_a_disk_that_is_full(
    rabbit_project: Project, foreign: Foreign, fault: Fault
) -> None:
    """Messages wait, and go on by themselves; what was charged before is not charged again."""
    orders = Orders(rabbit_project, foreign, "sqlite:seen.db", count=600, work_s=0.05)
    async with rabbit_project.up() as runner:
        await started(runner)
        orders.send()
        await until(partial(orders.has, 100), "it works")
        other = sqlite3.connect(rabbit_project.folder / "seen.db", isolation_level=None, timeout=30)
        other.execute("BEGIN IMMEDIATE")
        await until(lambda: lines(runner, "store.unavailable"), "it is missed")
        other.execute("ROLLBACK")
        other.close()
        await fault.recovery(partial(orders.has, orders.done().total() + 50), "it goes on")
        limits = resource.prlimit(runner.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(runner.pid, resource.RLIMIT_FSIZE, (32_768, limits[1]))
        await until(lambda: len(lines(runner, "store.unavailable")) == 2, "the disk is full")
        assert "disk" in lines(runner, "store.unavailable")[-1]["error"]
        resource.prlimit(runner.pid, resource.RLIMIT_FSIZE, limits)
        await fault.recovery(partial(orders.has, orders.done().total() + 1), "it goes on")
        await orders.finish(runner)
    assert lines(runner, "message.retry") == []
    fault.judge(orders.expected, orders.done(), twice=0)
    check_empty(foreign, orders.queue)
