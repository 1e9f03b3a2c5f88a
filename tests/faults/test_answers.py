"""Callers wait for answers while those who answer, or the broker, are killed."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest

from runner import AsyncPublisher, NoAnswer
from tests.faults.load import check_quiet
from tests.faults.verdict import Fault, check_empty
from tests.foreign import Foreign
from tests.node import Node
from tests.project import Project, started, stop

PIPELINE = """
    version: 1
    broker: {url: "amqp://127.0.0.1:1/", connect_timeout: 30s}
    queues: {UNIQUE.work: {}}
    subscribers:
      work: {from: UNIQUE.work, handler: work:answer, reply: true, concurrency: 10}
"""
HANDLERS = """
    import asyncio

    async def answer(number: int) -> dict:
        note(number)
        await asyncio.sleep(0.02)
        return {"answer": number}
"""
PREFETCH = 20


def shop_of(project: Project, timeout: str) -> AsyncPublisher:
    """Write the pipeline that answers, and return the publisher of an application that asks."""
    project.write(PIPELINE, HANDLERS)
    return AsyncPublisher(project.folder / project.file, broker=project.place.url, timeout=timeout)


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.fault("F70", "kill -9 of the process that answers, twice, while 200 callers wait")
async def test_those_who_answer_are_killed(rabbit_project: Project, foreign: Foreign, fault: Fault) -> None:
    """Each caller gets its own answer, from whichever process has handled its question last."""
    work = rabbit_project.name("work")
    async with shop_of(rabbit_project, "100s") as shop:
        async with rabbit_project.up() as runner:
            await started(runner)
            calls = [asyncio.create_task(shop.call(work, number)) for number in range(200)]
            await rabbit_project.ledger.wait_for(50)
            runner.signal(signal.SIGKILL)
        async with rabbit_project.up() as runner:
            await rabbit_project.ledger.wait_for(120)
            runner.signal(signal.SIGKILL)
        async with rabbit_project.up() as runner:
            assert await asyncio.gather(*calls) == [{"answer": number} for number in range(200)]
            await stop(runner)
    check_quiet(runner)
    fault.judge(map(str, range(200)), rabbit_project.ledger.counts(), twice=2 * PREFETCH)
    check_empty(foreign, work, f"{work}.dead")


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.fault("F71", "kill -9 of the broker, twice, while 20 callers ask 400 questions")
async def test_the_broker_is_killed_while_callers_wait(own_node: Node, own_project: Project, fault: Fault) -> None:
    """No caller waits for an answer that cannot come. It asks again with the same id, which may do the work twice."""
    work, lost = own_project.name("work"), Counter[str]()
    questions, answered = iter(range(400)), set[int]()

    async def ask_on(shop: AsyncPublisher) -> None:
        for number in questions:
            while number not in answered:
                try:
                    assert await shop.call(work, number, id=f"q-{number}") == {"answer": number}
                    answered.add(number)
                except NoAnswer as missing:
                    lost[missing.reason] += 1
                    await asyncio.sleep(0.05)

    async with shop_of(own_project, "60s") as shop, own_project.up() as runner:
        await started(runner)
        own_node.wait_until_kept(work)
        asking = [asyncio.create_task(ask_on(shop)) for _ in range(20)]
        for count in (100, 250):
            while len(answered) < count:
                await asyncio.sleep(0.02)
            await asyncio.to_thread(own_node.kill)
            await asyncio.to_thread(own_node.start)
            before = len(answered)
            await fault.recovery(lambda before=before: len(answered) > before, "questions are answered again")
        await asyncio.gather(*asking)
        await stop(runner)
    check_quiet(runner)
    assert (lost["lost"] > 0, lost["timeout"]) == (True, 0)
    fault.judge(map(str, range(400)), own_project.ledger.counts(), twice=2 * (PREFETCH + 20))
    with Foreign(own_node.url) as foreign:
        check_empty(foreign, f"{work}.dead")
