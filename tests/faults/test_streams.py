"""What reads a stream is killed, by a message too, cut off and stopped; and the broker is killed."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from runner.pipeline.topology_builder import DEFAULT_DELIVERY_LIMIT
from runner.transports.base import POISON_SUSPECT_AFTER
from tests.faults.load import check_quiet
from tests.faults.test_unlisted import through
from tests.faults.verdict import Fault
from tests.foreign import Foreign
from tests.node import Node
from tests.process import RunnerProcess
from tests.project import Project, lines, started, stop, until
from tests.proxy import Proxy

COUNT, RATE = 4000, 200
PIPELINE = f"""
    version: 1
    broker: {{url: 'amqp://127.0.0.1:1/', heartbeat: 1s, connect_timeout: 30s}}
    logging: {{messages: false}}
    queues: {{UNIQUE.history: {{type: stream}}}}
    subscribers:
      audit: {{from: UNIQUE.history, handler: work:audit, rate: {RATE}/s}}
"""
HANDLERS = """
    import asyncio, os, random

    async def audit(number: int) -> None:
        while not os.path.exists("may_work"):
            await asyncio.sleep(0.05)
        note(number)
        if random.random() < 0.01:
            raise ValueError("once more")
"""
AGAIN = 5 * RATE
"""What is handled in the seconds until a position is saved, also on a busy machine, and what is in hand."""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.fault("F54", "streams: the process that reads is killed, cut off twice, and stopped, under load")
async def test_a_stream_changes_hands_under_load(
    rabbit_project: Project, foreign: Foreign, proxy: Proxy, fault: Fault
) -> None:
    """The next one goes on at the position that was saved last, about a second before."""
    rabbit_project.write(PIPELINE, HANDLERS)
    done = rabbit_project.ledger.counts

    async def reach(count: int) -> None:
        await until(lambda: len(done()) >= count, f"{count} are handled", 60)

    async def go_on() -> None:
        await reach(len(done()) + RATE)

    def reads(runner: RunnerProcess, times: int = 1) -> bool:
        return len(lines(runner, "stream.reading")) == times

    names = [json.dumps(number) for number in range(COUNT)]
    async with rabbit_project.up() as first:
        await started(first)
        foreign.publish_confirmed(
            rabbit_project.name("history"), *(name.encode() for name in names), content_type="application/json"
        )
        await until(lambda: reads(first), "the first one reads")
        through(proxy, rabbit_project)
        async with rabbit_project.up() as second:
            await started(second)
            (rabbit_project.folder / "may_work").touch()
            await go_on()
            first.signal(signal.SIGKILL)
            await first.wait()
            await fault.recovery(lambda: reads(second), "the second one goes on")
            for beginnings in (2, 3):
                await go_on()
                proxy.cut()
                await fault.recovery(lambda n=beginnings: reads(second, n), "it goes on")
            await go_on()
            await stop(second)
            check_quiet(second)
    async with rabbit_project.up() as third:
        await started(third)
        await reach(COUNT)
        await stop(third)
    assert foreign.count(rabbit_project.name("audit.dead")) == 0
    fault.judge(names, done(), twice=4 * AGAIN)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.fault("F55", "streams: kill -9 of the broker, twice, under a subscriber in `--workers 2`")
async def test_the_broker_of_a_stream_is_killed(own_node: Node, own_project: Project, fault: Fault) -> None:
    """One of the workers reads on where the subscriber was, and only one."""
    own_project.write(PIPELINE, HANDLERS)
    (own_project.folder / "may_work").touch()
    done, history = own_project.ledger.counts, own_project.name("history")
    names = [json.dumps(number) for number in range(COUNT // 2)]
    async with own_project.up("--workers", "2") as runner:
        await runner.wait_for(lambda line: line["event"] == "stream.reading")
        await asyncio.to_thread(own_node.wait_until_kept, own_project.name("audit"))  # who leads, and from where
        with Foreign(own_node.url) as foreign:
            foreign.publish_confirmed(history, *(name.encode() for name in names), content_type="application/json")
        for share in (3, 2):
            await until(lambda share=share: len(done()) >= len(names) // share, "some are handled", 60)
            await asyncio.to_thread(own_node.kill)
            await asyncio.to_thread(own_node.start)
            before = len(done())
            await fault.recovery(lambda before=before: len(done()) > before, "it goes on")
        await until(lambda: len(done()) == len(names), "all are handled", 60)
        await stop(runner)
    with Foreign(own_node.url) as foreign:
        assert foreign.count(own_project.name("audit.dead")) == 0
    fault.judge(names, done(), twice=2 * AGAIN)


POISON = 150
KILLS = f"""
    import os, signal

    async def audit(number: int) -> None:
        if number == {POISON}:
            note("poison")
            os.kill(os.getpid(), signal.SIGKILL)
        note(number)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.fault("F56", "streams: a message kills each process that handles it")
async def test_a_message_of_a_stream_kills_its_process(rabbit_project: Project, foreign: Foreign, fault: Fault) -> None:
    """It is given up as one of a queue is. Those before it are handled in less than the second between two saves."""
    rabbit_project.write(PIPELINE.replace(f", rate: {RATE}/s", ""), KILLS)
    history, dead = rabbit_project.name("history"), rabbit_project.name("audit.dead")
    await rabbit_project.do("apply")
    foreign.publish_confirmed(history, *(json.dumps(number).encode() for number in range(2 * POISON)))
    crashes = 0
    while True:
        async with rabbit_project.up() as runner:
            await until(lambda runner=runner: runner.has_ended or foreign.count(dead), "it ends, or gives up", 60)
            if not runner.has_ended:
                await until(lambda: len(rabbit_project.ledger.counts()) == 2 * POISON, "the rest is handled", 60)
                await stop(runner)
                break
            crashes += 1
            assert crashes <= POISON_SUSPECT_AFTER + DEFAULT_DELIVERY_LIMIT + 5
    (letter,) = foreign.take(dead)
    assert (letter.body, letter.headers["x-runner-reason"]) == (str(POISON).encode(), "delivery_limit")
    counts = rabbit_project.ledger.counts()
    assert counts.pop("poison") == crashes > DEFAULT_DELIVERY_LIMIT
    fault.judge([str(number) for number in range(2 * POISON) if number != POISON], counts, twice=4 * POISON)
