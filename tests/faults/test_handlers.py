"""Handlers that kill their process, always fail, outlast the broker's patience; and a clock that jumps under them."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from tests.faults.load import check_quiet
from tests.faults.verdict import Fault, check_empty
from tests.foreign import Foreign
from tests.node import Broker, Node
from tests.project import Project, lines, until

ONE_SUBSCRIBER = """
    version: 1
    queues: {{UNIQUE.work: {{{queue}}}}}
    subscribers:
      work: {{from: UNIQUE.work, handler: work:handle, {options}}}
"""


@pytest.mark.slow
@pytest.mark.fault("F20", "one message of ten kills its process each time")
async def test_a_message_that_kills_its_process(rabbit_project: Project, foreign: Foreign, fault: Fault) -> None:
    """It is dead-lettered when its delivery limit is spent; the nine that were held beside it are handled."""
    limit = 8
    rabbit_project.pipeline(
        ONE_SUBSCRIBER.format(queue=f"delivery_limit: {limit}", options="concurrency: 10, prefetch: 10")
    )
    rabbit_project.handlers(
        """
        import asyncio, os, signal

        async def handle(order: str) -> None:
            await asyncio.sleep(0.1 if order == "poison" else 0.3)
            note(order)
            if order == "poison":
                os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    innocent = [f"order-{number}" for number in range(9)]
    work = rabbit_project.name("work")
    await rabbit_project.up_until_idle()  # declares
    foreign.publish_confirmed(work, b"poison", *(name.encode() for name in innocent))
    for _ in range(2 * limit):
        async with rabbit_project.up("--until-idle") as runner:
            if await runner.wait() == 0:
                break
            assert await runner.wait() == -signal.SIGKILL
    dead = [letter.body.decode() for letter in foreign.take(f"{work}.dead")]
    assert dead == ["poison"]
    counts = rabbit_project.ledger.counts()
    assert counts.pop("poison") <= limit + 1
    fault.judge(innocent, counts, twice=9)
    check_empty(foreign, work)


@pytest.mark.fault("F21", "a handler always fails for some messages")
async def test_a_handler_that_always_fails(rabbit_project: Project, foreign: Foreign, fault: Fault) -> None:
    """Tried as often as the policy says, no sooner than it says, then kept with the story; the rest is unaffected."""
    rabbit_project.pipeline(
        ONE_SUBSCRIBER.format(queue="", options="retry: {attempts: 4, delay: 200ms, backoff: exponential}")
    )
    rabbit_project.handlers(
        """
        import time
        from runner import Message

        def handle(order: str, message: Message) -> None:
            note(f"{order}@{time.monotonic()}", message.attempt)
            if order.startswith("bad"):
                raise ValueError(f"no, {order}")
        """
    )
    bad, good = [f"bad-{number}" for number in range(10)], [f"good-{number}" for number in range(200)]
    work = rabbit_project.name("work")
    await rabbit_project.up_until_idle()  # declares
    foreign.publish_confirmed(work, *(name.encode() for name in (*bad, *good)))
    runner = await rabbit_project.up_until_idle()
    times = defaultdict(list)
    for entry in rabbit_project.ledger.entries():
        name, _, moment = entry.payload.partition("@")
        times[name].append((entry.attempt, float(moment)))
    for name in bad:
        assert [attempt for attempt, _ in times[name]] == [1, 2, 3, 4]
        gaps = [after - before for (_, before), (_, after) in pairwise(times[name])]
        for gap, delay_s in zip(gaps, (0.2, 0.4, 0.8), strict=True):
            assert delay_s <= gap < delay_s + 5
    dead = foreign.take(f"{work}.dead")
    stories = {letter.body.decode(): letter.headers for letter in dead}
    assert sorted(stories) == bad
    for name, story in stories.items():
        assert story["x-runner-attempt"] == 4
        assert (story["x-runner-error"], story["x-runner-origin"]) == (f"no, {name}", work)
    assert len(lines(runner, "message.dead_lettered", reason="exhausted")) == 10
    fault.judge(good, Counter({name: len(tried) for name, tried in times.items() if name in good}), twice=0)
    check_empty(foreign, work)


# Every look at the wall clock gives another day, forwards and backwards.
JUMPING = """
    import datetime, itertools, time
    from runner import Message
    import runner.runtime.supervisor, runner.transports.rabbitmq.transport

    days = itertools.cycle((1, -1, 30, -30))
    real_time, monotonic = time.time, time.monotonic

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.now(tz) + datetime.timedelta(days=next(days))

    time.time = lambda: real_time() + 86_400 * next(days)
    runner.runtime.supervisor.datetime = Jumping
    runner.transports.rabbitmq.transport.datetime = Jumping

    async def handle(order: str, message: Message) -> None:
        note(f"{order}@{monotonic()}", message.attempt)
        if message.attempt < 3:
            raise ValueError("not yet")
"""


@pytest.mark.fault("F25", "the wall clock jumps by days, each time that it is looked at")
async def test_a_clock_that_jumps(rabbit_project: Project, foreign: Foreign, fault: Fault) -> None:
    """Retries come after their delay of real time, timeouts and dedupe do not notice: no storm, no standstill."""
    options = "timeout: 5s, dedupe: {window: 1h}, retry: {attempts: 3, delay: 300ms, backoff: fixed}"
    rabbit_project.write(ONE_SUBSCRIBER.format(queue="", options=options), JUMPING)
    names = [f"order-{number}" for number in range(50)]
    work = rabbit_project.name("work")
    async with rabbit_project.running() as runner:
        for name in names:
            foreign.publish_confirmed(work, name.encode(), name.encode(), message_id=name)
        await until(lambda: len(lines(runner, "message.handled")) == 2 * len(names), "each copy has come to its end")
    times = defaultdict(list)
    done: Counter[str] = Counter()
    for entry in rabbit_project.ledger.entries():
        name, _, moment = entry.payload.partition("@")
        times[name, entry.attempt].append(float(moment))
        done[name] += entry.attempt == 3
    for name in names:
        for attempt in (1, 2):
            gap = min(times[name, attempt + 1]) - min(times[name, attempt])
            assert 0.3 <= gap < 10
    check_quiet(runner)
    fault.judge(names, done, twice=0)
    check_empty(foreign, work, f"{work}.dead")


CONSUMER_TIMEOUT_MS = 4000


@pytest.fixture
def since_4_3(rabbitmq: Broker) -> None:
    """Skip on older lines, before a node is started for the test."""
    if rabbitmq.line < (4, 3):
        pytest.skip("RabbitMQ up to 4.2 takes the consumer_timeout from its configuration alone")


@pytest.fixture
def attentive_node(own_node: Node) -> Node:
    """A node that soon looks whether a consumer holds a message for longer than its consumer_timeout."""
    own_node.eval("application:set_env(rabbit, channel_tick_interval, 500).")
    return own_node


@pytest.mark.slow
@pytest.mark.node(config=f"consumer_timeout = {CONSUMER_TIMEOUT_MS}")
@pytest.mark.timeout(120)
@pytest.mark.fault("F26", "a handler takes longer than the broker's consumer_timeout")
async def test_a_handler_that_outlasts_the_brokers_patience(
    attentive_node: Node, own_project: Project, fault: Fault
) -> None:
    """The broker takes the channel away: the log says why and whose; the finished work is not done for ever anew."""
    own_project.pipeline(ONE_SUBSCRIBER.format(queue="", options="concurrency: 4"))
    own_project.handlers(
        """
        import asyncio

        async def handle(order: str) -> None:
            await asyncio.sleep(7 if order == "slow" else 0.01)
            note(order)
        """
    )
    work = own_project.name("work")
    quick = [f"quick-{number}" for number in range(50)]
    with Foreign(attentive_node.url) as foreign:
        async with own_project.running() as runner:
            foreign.publish_confirmed(work, b"slow", message_id="slow")
            lost = await runner.wait_for(lambda line: line["event"] == "consumer.lost", timeout=30)
            assert "timed out" in lost["error"] or "longer than its consumer_timeout" in lost["error"]  # since 4.3
            assert (lost["subscriber"], lost["queue"]) == (f"{own_project.unique}.work", work)
            await runner.wait_for(lambda line: line["event"] == "consumer.resumed")
            foreign.publish_confirmed(work, *(name.encode() for name in quick))
            await fault.recovery(lambda: own_project.ledger.counts().keys() >= {"slow", *quick}, "all are handled")
            await until(lambda: lines(runner, "message.handled", duplicate=True), "the last copy is known", timeout=40)
            await until_nothing_is_unsettled(attentive_node, work)
        check_quiet(runner)
        fault.judge({"slow", *quick}, own_project.ledger.counts(), twice=1 + len(quick))
        check_empty(foreign, work, f"{work}.dead")


@pytest.mark.node(config=f"consumer_timeout = {CONSUMER_TIMEOUT_MS}")
async def test_a_handler_whose_timeout_is_long_gets_the_brokers_patience(
    since_4_3: None, attentive_node: Node, own_project: Project
) -> None:
    """From 4.3 on a consumer of a quorum queue may say how long it takes: `timeout` does."""
    own_project.pipeline(ONE_SUBSCRIBER.format(queue="", options="concurrency: 4, timeout: 15m"))
    own_project.handlers(
        """
        import asyncio

        async def handle(order: str) -> None:
            await asyncio.sleep(9)
            note(order)
        """
    )
    with Foreign(attentive_node.url) as foreign:
        async with own_project.running() as runner:
            foreign.publish_confirmed(own_project.name("work"), b"slow")
            await runner.wait_for(lambda line: line["event"] == "message.handled", timeout=40)
        assert not lines(runner, "consumer.lost")
        assert own_project.ledger.counts() == {"slow": 1}
        check_empty(foreign, own_project.name("work"), own_project.name("work.dead"))


async def until_nothing_is_unsettled(node: Node, queue: str) -> None:
    """Wait until the broker counts nothing in the queue, neither ready nor in anybody's hands."""
    async with asyncio.timeout(60):
        while True:
            said = await asyncio.to_thread(node.ctl, "list_queues", "name", "messages")
            if dict(line.split() for line in said.splitlines())[queue] == "0":
                return
