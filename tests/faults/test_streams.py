"""Processes that take turns in reading a stream are killed, cut off and stopped."""

from __future__ import annotations

import json
import signal

import pytest

from tests.faults.load import check_quiet
from tests.faults.test_unlisted import through
from tests.faults.verdict import Fault
from tests.foreign import Foreign
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
    rabbit_project.pipeline(PIPELINE)
    rabbit_project.handlers(HANDLERS)
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
