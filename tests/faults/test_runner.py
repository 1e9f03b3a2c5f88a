"""The runner itself is killed: under load, between two steps of its own, beside another one; and what that costs."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter

import pytest

from tests.faults.load import PREFETCH, Load, check_quiet
from tests.faults.verdict import RECOVERY_S, Fault, check_empty
from tests.foreign import Foreign
from tests.process import RunnerProcess
from tests.project import Project, lines, started, stop, until


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.fault("F9", "kill -9 of the runner, 20 times under load")
async def test_a_runner_that_is_killed_again_and_again(rabbit_project: Project, foreign: Foreign, fault: Fault) -> None:
    """Each next one handles what the last one held; so many kills do not use up the delivery limit of the innocent."""
    load = Load(rabbit_project, sent=2500, work_s=0.03)
    kills = 20
    await rabbit_project.up_until_idle("--only", "work")  # declares
    load.send(foreign)
    for kill in range(1, kills + 1):
        async with rabbit_project.up("--only", "work") as runner:
            await load.reach(kill * 100)
            runner.signal(signal.SIGKILL)
            assert await runner.wait() == -signal.SIGKILL
    async with rabbit_project.up("--only", "work") as runner:
        before = load.count()
        await fault.recovery(lambda: load.count() > before, "the next one works")
        await load.finish()
        await stop(runner)
    check_quiet(runner)
    fault.judge(load.expected, load.done(), twice=kills * PREFETCH)
    check_empty(foreign, *load.queues)


# The handlers' own module ends the process at the moment in question: after the copy is confirmed, before the ack.
KILLED_BEFORE_THE_ACK = """
    import os, signal
    from runner import Message
    from runner.transports.rabbitmq.consumer_channel import ConsumerChannel

    ack = ConsumerChannel.ack

    def ack_or_die(self, delivery, **how):
        if not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return ack(self, delivery, **how)

    ConsumerChannel.ack = ack_or_die

    async def handle(order: str, message: Message) -> None:
        note(order, message.attempt)
        if not os.path.exists("killed") or order == "hopeless":
            raise ValueError("not now")
"""
ONE_SUBSCRIBER = """
    version: 1
    queues: {{UNIQUE.work: {{}}}}
    subscribers:
      work: {{from: UNIQUE.work, handler: work:handle, {options}}}
"""


@pytest.mark.fault("F10", "kill -9 after a retry's copy is confirmed, before the ack")
@pytest.mark.parametrize("dedupe", [False, True], ids=["plain", "dedupe"])
async def test_a_runner_that_is_killed_between_the_copy_and_the_ack(
    rabbit_project: Project, foreign: Foreign, fault: Fault, dedupe: bool
) -> None:
    """There is one copy too many, which `dedupe` takes out; and never one too few."""
    options = "retry: {attempts: 3, delay: 300ms}" + (", dedupe: {window: 1h}" if dedupe else "")
    rabbit_project.write(ONE_SUBSCRIBER.format(options=options), KILLED_BEFORE_THE_ACK)
    work = rabbit_project.name("work")
    async with rabbit_project.up() as runner:
        await started(runner)
        foreign.publish_confirmed(work, b"order", message_id="one")
        assert await runner.wait() == -signal.SIGKILL
    (failed,) = rabbit_project.ledger.entries()
    await rabbit_project.up_until_idle()
    again = [entry for entry in rabbit_project.ledger.entries() if entry.pid != failed.pid]
    assert sorted(entry.attempt for entry in again) == ([1, 2] if not dedupe else [again[0].attempt])
    fault.judge(["order"], Counter(entry.payload for entry in again), twice=0 if dedupe else 1)
    check_empty(foreign, work, f"{work}.dead", f"{rabbit_project.unique}.retry.300")


@pytest.mark.fault("F10", "kill -9 after a dead letter's copy is confirmed, before the ack")
async def test_a_runner_that_is_killed_between_the_dead_letter_and_the_ack(
    rabbit_project: Project, foreign: Foreign, fault: Fault
) -> None:
    """The dead letter is there twice, with one message id."""
    rabbit_project.write(ONE_SUBSCRIBER.format(options="retry: none"), KILLED_BEFORE_THE_ACK)
    work = rabbit_project.name("work")
    async with rabbit_project.up() as runner:
        await started(runner)
        foreign.publish_confirmed(work, b"hopeless", message_id="one")
        assert await runner.wait() == -signal.SIGKILL
    await rabbit_project.up_until_idle()
    dead = foreign.take(f"{work}.dead")
    assert {letter.properties.message_id for letter in dead} == {"one"}
    fault.judge(["hopeless"], Counter(letter.body.decode() for letter in dead), twice=1)
    check_empty(foreign, work)


@pytest.mark.fault("F11", "SIGTERM under load, three times")
async def test_a_runner_that_is_stopped_under_load(rabbit_project: Project, foreign: Foreign, fault: Fault) -> None:
    """What was begun is finished and settled, the rest given back: nothing is lost, and nothing done twice."""
    load = Load(rabbit_project, sent=900)
    await rabbit_project.up_until_idle("--only", "work")  # declares
    load.send(foreign)
    for share in (200, 400, 600):
        async with rabbit_project.up("--only", "work") as runner:
            await load.reach(share)
            await stop(runner)
            handled = load.count()
            assert foreign.count(load.work) == len(load.sent) - handled, "it has given back what it had not begun"
        check_quiet(runner)
    async with rabbit_project.up("--only", "work") as runner:
        before = load.count()
        await fault.recovery(lambda: load.count() > before, "the next one works")
        await load.finish()
        await stop(runner)
    fault.judge(load.expected, load.done(), twice=0)
    check_empty(foreign, *load.queues)


@pytest.mark.fault("F24", "one of two runners is killed or frozen")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["SIGKILL", "SIGSTOP"])
async def test_of_two_runners_the_other_takes_over(
    rabbit_project: Project, foreign: Foreign, fault: Fault, number: signal.Signals
) -> None:
    """They share the work; what one of them held comes to the other, at the latest after two heartbeats."""
    load = Load(rabbit_project, sent=600, heartbeat="2s")
    async with rabbit_project.up("--only", "work") as one, rabbit_project.up("--only", "work") as other:
        await started(one, other)
        load.send(foreign)
        await until(
            lambda: {one.pid, other.pid} == {entry.pid for entry in rabbit_project.ledger.entries()}, "both work"
        )
        await load.reach(200)
        one.signal(number)
        await fault.recovery(lambda: load.done().keys() >= load.expected, "the other one has done it all")
        if number == signal.SIGSTOP:
            await until(
                lambda: foreign.consumers(load.queues[0]) == 1, "the broker has ended the connection of the frozen one"
            )
            one.signal(signal.SIGCONT)
            await one.wait_for(lambda line: line["event"] == "consumer.resumed", timeout=RECOVERY_S)
            await stop(one)
            check_quiet(one)
        await stop(other)
    check_quiet(other)
    fault.judge(load.expected, load.done(), twice=PREFETCH)
    check_empty(foreign, *load.queues)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.fault("F30", "kill -9 of workers of `up --workers 3`, 6 times under load, the leader among them")
async def test_workers_that_are_killed_again_and_again(rabbit_project: Project, foreign: Foreign, fault: Fault) -> None:
    """Their master starts them again; what they held comes to the others, and another one goes on producing."""
    load = Load(rabbit_project, sent=900, made=300, pace_s=0.02)
    draw = random.Random(30)
    kills = 6
    await rabbit_project.up_until_idle("--only", "work")  # declares
    load.send(foreign)
    async with rabbit_project.up("--workers", "3") as runner:
        pids: dict[int, int] = {}
        for kill in range(kills):
            await until(lambda: len(running(runner)) == 3, "all three run", RECOVERY_S)
            await load.reach(min(60 * (kill + 1), len(load.expected)))
            pids = running(runner)
            os.kill(pids[1 if kill == 0 else draw.randint(1, 3)], signal.SIGKILL)
            await until(lambda before=pids: running(runner) != before, "it is noticed")
        await fault.recovery(lambda: len(running(runner)) == 3, "all three run again")
        await load.finish()
        await stop(runner)
    check_quiet(runner)
    assert len(lines(runner, "worker.exited", signal="SIGKILL")) == kills
    assert f"{kills} workers ended without a report" in runner.stderr
    takeovers = len(lines(runner, "leadership.won")) - 1  # who takes over begins the producer's run anew, same ids
    fault.judge(load.expected, load.done(), twice=kills * 2 * PREFETCH + takeovers * len(load.made))
    check_empty(foreign, *load.queues)


def running(runner: RunnerProcess) -> dict[int, int]:
    """Return the process ids of the workers, by their number."""
    pids: dict[int, int] = {}
    for line in runner.logs:
        if line["event"] == "worker.started":
            pids[line["worker"]] = line["pid"]
        elif line["event"] == "worker.exited":
            pids.pop(line["worker"], None)
    return pids


IN_PROCESS = """
    version: 1
    queues: {UNIQUE.work: {}}
    producers:
      send: {handler: work:send, to: UNIQUE.work}
    subscribers:
      work: {from: UNIQUE.work, handler: work:handle, concurrency: 4}
"""
IN_PROCESS_HANDLERS = """
    import asyncio

    def send(): return [f"order-{number}" for number in range(100)]

    async def handle(order: str) -> None:
        note(f"begun {order}")
        await asyncio.sleep(0.02)
        note(f"ended {order}")
"""


@pytest.mark.fault("F27", "the in-process broker's process ends, and forgets as documented")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_the_in_process_broker_ends_with_its_process(
    memory_project: Project, fault: Fault, number: signal.Signals
) -> None:
    """As documented: a drain finishes what has begun, kill -9 does not, and neither keeps anything. It says so."""
    memory_project.write(IN_PROCESS, IN_PROCESS_HANDLERS)
    async with memory_project.up() as runner:
        await memory_project.ledger.wait_for(50)
        runner.signal(number)
        assert await runner.wait() == (1 if number == signal.SIGTERM else -number)
    counts = memory_project.ledger.counts()
    begun = Counter({name[6:]: count for name, count in counts.items() if name.startswith("begun")})
    ended = Counter({name[6:]: count for name, count in counts.items() if name.startswith("ended")})
    assert "messages are lost if the process dies" in runner.stderr
    assert len(begun) < 100
    assert len(begun) - len(ended) <= 4
    if number == signal.SIGTERM:
        assert begun == ended
        assert f"{100 - len(ended)} unhandled messages lost with the in-process broker" in runner.stderr
        (stopped,) = lines(runner, "pipeline.stopped")
        assert (stopped["published"], stopped["handled"]) == (100, len(ended))
    assert set(ended.values()) == {1}
    fault.row |= {"messages": 100, "lost": 100 - len(ended), "twice": 0, "bound": 0}
    memory_project.ledger.path.unlink()
    async with memory_project.up("--only", "work") as runner:
        await started(runner)
        await stop(runner)
    assert memory_project.ledger.entries() == []
