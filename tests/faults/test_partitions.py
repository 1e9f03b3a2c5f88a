"""Processes that share partitions come, go, freeze and are cut off; the order of each key is that of its messages."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from zlib import crc32

import pytest

from tests.faults.load import check_quiet
from tests.faults.test_unlisted import through
from tests.faults.verdict import Fault, check_empty
from tests.foreign import Foreign
from tests.project import Project, lines, started, stop, until
from tests.proxy import Proxy

COUNT, KEYS = 8, 40
PIPELINE = """
    version: 1
    broker: {url: 'amqp://127.0.0.1:1/', heartbeat: 1s, connect_timeout: 30s}
    logging: {messages: false}
    queues: {UNIQUE.orders: {partitions: 8, partition_by: key}}
    subscribers:
      work: {from: UNIQUE.orders, handler: work:handle}
"""
HANDLERS = """
    import asyncio, os

    async def handle(order: dict) -> None:
        while not os.path.exists("may_work"):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.05)
        note(f"{order['key']}:{order['number']}")
"""
HELD = COUNT * 20
"""What a process holds at most: the prefetch of each partition."""


class Orders:
    """Messages of several keys, published as another program does; handlers wait until all are there."""

    def __init__(self, project: Project, count: int) -> None:
        project.write(PIPELINE, HANDLERS)
        self.project = project
        self.queue = project.name("orders")
        self.names = [f"{number % KEYS}:{number // KEYS}" for number in range(count)]

    def send(self, foreign: Foreign) -> None:
        bodies: dict[str, list[bytes]] = defaultdict(list)
        for name in self.names:
            key, number = name.split(":")
            queue = f"{self.queue}.{crc32(key.encode()) % COUNT}"
            bodies[queue].append(json.dumps({"key": key, "number": int(number)}).encode())
        for queue, each in bodies.items():
            foreign.publish_confirmed(queue, *each, content_type="application/json")

    def release(self) -> None:
        """Let handlers work."""
        (self.project.folder / "may_work").touch()

    async def reach(self, count: int) -> None:
        await until(lambda: len(self.project.ledger.counts()) >= count, f"{count} are handled", 60)

    async def finish(self) -> None:
        await self.reach(len(self.names))

    def shares(self) -> dict[int, int]:
        """Return how many messages each process has handled."""
        found: dict[int, int] = defaultdict(int)
        for entry in self.project.ledger.entries():
            found[entry.pid] += 1
        return found

    def keys_since(self, count: int) -> set[str]:
        """Return the keys of all but the first handled messages."""
        return {payload.split(":")[0] for payload in self.project.ledger.payloads()[count:]}

    def check_order(self) -> None:
        """Each message is the next one of its key, or one that was handled before."""
        latest = dict.fromkeys(map(str, range(KEYS)), -1)
        for payload in self.project.ledger.payloads():
            key, number = payload.split(":")
            assert int(number) <= latest[key] + 1, f"{payload} comes after {latest[key]}"
            latest[key] = max(latest[key], int(number))

    @property
    def queues(self) -> list[str]:
        return [f"{self.queue}.{part}" for part in (*range(COUNT), "dead")]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.fault("F72", "partitions: processes come, are killed and stop, under load")
async def test_partitions_change_hands_under_load(rabbit_project: Project, foreign: Foreign, fault: Fault) -> None:
    """Each gets a share within seconds; what a killed one held is handled again, in its order."""
    orders = Orders(rabbit_project, 4000)
    async with rabbit_project.running() as first:
        orders.send(foreign)
        async with rabbit_project.up() as second, rabbit_project.up() as third:
            await started(second, third)
            orders.release()
            await until(lambda: len(orders.shares()) == 3, "all three have a share", 60)
            third.signal(signal.SIGKILL)
            await third.wait()
            done = len(rabbit_project.ledger.counts())
            await fault.recovery(lambda: len(rabbit_project.ledger.counts()) > done + 400, "two go on with all keys")
            async with rabbit_project.running():
                await stop(second)
                await orders.finish()
    check_quiet(first)
    assert lines(first, "partition.handed_over")
    orders.check_order()
    fault.judge(orders.names, rabbit_project.ledger.counts(), twice=HELD)
    check_empty(foreign, *orders.queues)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.fault("F73", "partitions: a process is frozen for longer than the broker waits")
async def test_a_process_that_was_frozen_does_not_break_the_order(
    rabbit_project: Project, foreign: Foreign, fault: Fault
) -> None:
    """The others have gone on meanwhile. When it wakes up, it begins nothing of what it held."""
    orders = Orders(rabbit_project, 3000)
    async with rabbit_project.up() as first, rabbit_project.up() as second:
        await started(first, second)
        orders.send(foreign)
        orders.release()
        await until(lambda: len(orders.shares()) == 2, "both have a share", 60)
        first.signal(signal.SIGSTOP)
        done = len(rabbit_project.ledger.entries())
        try:
            await until(lambda: len(orders.keys_since(done)) == KEYS, "the other one handles all keys", 60)
        finally:
            first.signal(signal.SIGCONT)
        await fault.recovery(lambda: lines(first, "broker.connected")[1:], "the first is back")
        await orders.finish()
        await stop(first)
        await stop(second)
    orders.check_order()
    fault.judge(orders.names, rabbit_project.ledger.counts(), twice=HELD)
    check_empty(foreign, *orders.queues)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.fault("F74", "partitions: the connections of one of two processes are cut, five times")
async def test_a_process_that_is_cut_off_does_not_break_the_order(
    rabbit_project: Project, foreign: Foreign, proxy: Proxy, fault: Fault
) -> None:
    """Its partitions go to the other one, and come back when it is there again."""
    orders = Orders(rabbit_project, 4000)
    async with rabbit_project.running():
        through(proxy, rabbit_project)
        async with rabbit_project.running() as second:
            orders.send(foreign)
            orders.release()
            for cut in range(1, 6):
                await orders.reach(cut * 500)
                proxy.cut()
            await fault.recovery(lambda: lines(second, "broker.lost"), "it knows")
            await orders.finish()
    orders.check_order()
    fault.judge(orders.names, rabbit_project.ledger.counts(), twice=5 * HELD)
    check_empty(foreign, *orders.queues)
