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


class Audit:
    """A pipeline that reads a stream of `count` numbers, and what its handler has noted of them."""

    def __init__(self, project: Project, count: int, pipeline: str = PIPELINE, handlers: str = HANDLERS) -> None:
        project.write(pipeline, handlers)
        self._project = project
        self.names = [json.dumps(number) for number in range(count)]
        self.history, self.dead = project.name("history"), project.name("audit.dead")
        self.done = project.ledger.counts

    def publish(self, foreign: Foreign) -> None:
        """Publish all numbers, confirmed."""
        bodies = (name.encode() for name in self.names)
        foreign.publish_confirmed(self.history, *bodies, content_type="application/json")

    def may_work(self) -> None:
        """Let the handler go on."""
        (self._project.folder / "may_work").touch()

    async def reach(self, count: int) -> None:
        """Wait until that number of messages has been handled."""
        await until(lambda: len(self.done()) >= count, f"{count} are handled", 60)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.fault("F54", "streams: the process that reads is killed, cut off twice, and stopped, under load")
async def test_a_stream_changes_hands_under_load(
    rabbit_project: Project, foreign: Foreign, proxy: Proxy, fault: Fault
) -> None:
    """The next one goes on at the position that was saved last, about a second before."""
    audit = Audit(rabbit_project, COUNT)

    async def go_on() -> None:
        await audit.reach(len(audit.done()) + RATE)

    def reads(runner: RunnerProcess, times: int = 1) -> bool:
        return len(lines(runner, "stream.reading")) == times

    async with rabbit_project.up() as first:
        await started(first)
        audit.publish(foreign)
        await until(lambda: reads(first), "the first one reads")
        through(proxy, rabbit_project)
        async with rabbit_project.up() as second:
            await started(second)
            audit.may_work()
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
    async with rabbit_project.running():
        await audit.reach(COUNT)
    assert foreign.count(audit.dead) == 0
    fault.judge(audit.names, audit.done(), twice=4 * AGAIN)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.fault("F55", "streams: kill -9 of the broker, twice, under a subscriber in `--workers 2`")
async def test_the_broker_of_a_stream_is_killed(own_node: Node, own_project: Project, fault: Fault) -> None:
    """One of the workers reads on where the subscriber was, and only one."""
    audit = Audit(own_project, COUNT // 2)
    audit.may_work()
    async with own_project.up("--workers", "2") as runner:
        await runner.wait_for(lambda line: line["event"] == "stream.reading")
        await asyncio.to_thread(own_node.wait_until_kept, own_project.name("audit"))  # who leads, and from where
        with Foreign(own_node.url) as foreign:
            audit.publish(foreign)
        for share in (3, 2):
            await audit.reach(len(audit.names) // share)
            await asyncio.to_thread(own_node.kill)
            await asyncio.to_thread(own_node.start)
            before = len(audit.done())
            await fault.recovery(lambda before=before: len(audit.done()) > before, "it goes on")
        await audit.reach(len(audit.names))
        await stop(runner)
    with Foreign(own_node.url) as foreign:
        assert foreign.count(audit.dead) == 0
    fault.judge(audit.names, audit.done(), twice=2 * AGAIN)


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
    audit = Audit(rabbit_project, 2 * POISON, PIPELINE.replace(f", rate: {RATE}/s", ""), KILLS)
    await rabbit_project.do("apply")
    audit.publish(foreign)
    crashes = 0
    while True:
        async with rabbit_project.up() as runner:
            await until(lambda runner=runner: runner.has_ended or foreign.count(audit.dead), "it ends, or gives up", 60)
            if not runner.has_ended:
                await audit.reach(2 * POISON)
                await stop(runner)
                break
            crashes += 1
            assert crashes <= POISON_SUSPECT_AFTER + DEFAULT_DELIVERY_LIMIT + 5
    (letter,) = foreign.take(audit.dead)
    assert (letter.body, letter.headers["x-runner-reason"]) == (str(POISON).encode(), "delivery_limit")
    counts = audit.done()
    assert counts.pop("poison") == crashes > DEFAULT_DELIVERY_LIMIT
    fault.judge([name for name in audit.names if name != str(POISON)], counts, twice=4 * POISON)
