"""Messages that wait for their delay while the broker or the runner is killed, or while their queue is away."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest

from tests.faults.load import PREFETCH, both_lost, is_back
from tests.faults.verdict import Fault, check_empty
from tests.foreign import Foreign
from tests.node import Node
from tests.project import Project, started, until

MESSAGES = 1000

TRIES_AGAIN_S = 180.0
"""After this time RabbitMQ moves a message again whose next queue had no leader yet."""

BETWEEN_STEPS = 32
"""How many messages RabbitMQ moves out of one queue at once, by at-least-once dead lettering. Each may come twice."""

STEPS = ["1600", "800", "400", "200", "to.UNIQUE.later"]
"""The queues that a delay of three seconds waits in."""

PIPELINE = """
    version: 1
    logging: {messages: false}
    queues: {UNIQUE.orders: {}, UNIQUE.later: {}}
    subscribers:
      plan: {from: UNIQUE.orders, handler: work:plan, to: {name: UNIQUE.later, delay: 3s}}
      remind: {from: UNIQUE.later, handler: work:remind}
"""
HANDLERS = """
    async def plan(order: str) -> str:
        return order

    async def remind(order: str) -> None:
        note(order)
"""


class Delayed:
    """Messages of another program that a subscriber sends on with a delay of three seconds."""

    def __init__(self, project: Project) -> None:
        self.project = project
        project.write(PIPELINE, HANDLERS)
        self.sent = [f"sent-{number}" for number in range(MESSAGES)]
        self.orders, self.later = project.name("orders"), project.name("later")
        self.steps = [f"{project.unique}.delay.{step.replace('UNIQUE', project.unique)}" for step in STEPS]

    async def send_to(self, url: str) -> None:
        def run() -> None:
            with Foreign(url) as foreign:
                foreign.publish_confirmed(self.orders, *(name.encode() for name in self.sent))

        await asyncio.to_thread(run)

    def done(self) -> Counter[str]:
        return self.project.ledger.counts()

    async def finish(self, timeout: float = 60.0) -> None:
        await until(lambda: self.done().keys() >= {*self.sent}, "everything has arrived", timeout)

    def check_empty(self, url: str) -> None:
        with Foreign(url) as foreign:
            check_empty(foreign, self.orders, self.later, f"{self.orders}.dead", f"{self.later}.dead", *self.steps)


@pytest.mark.slow
@pytest.mark.timeout(360)
@pytest.mark.fault("F90", "kill -9 of the broker while 1,000 messages wait for their delay")
async def test_a_broker_that_is_killed_while_messages_are_delayed(
    own_node: Node, own_project: Project, fault: Fault
) -> None:
    """They arrive, whether their time was over before, during or after the outage.

    Those that the broker begins to move while it starts are late by up to three minutes.
    """
    load = Delayed(own_project)
    async with own_project.running() as runner:
        await asyncio.to_thread(own_node.wait_until_kept, load.orders, load.later, *load.steps)
        await load.send_to(own_node.url)
        await until(lambda: load.done(), "the first of them have arrived")
        await asyncio.to_thread(own_node.kill)
        await both_lost(runner, Counter())
        assert len(load.done()) < MESSAGES
        await asyncio.to_thread(own_node.start)
        await fault.recovery(lambda: is_back(runner), "everything is back")
        await load.finish(TRIES_AGAIN_S + 60)
    fault.judge(load.sent, load.done(), twice=4 * PREFETCH + len(STEPS) * BETWEEN_STEPS)
    load.check_empty(own_node.url)


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.fault("F91", "kill -9 of the runner while it publishes with a delay, three times")
async def test_a_runner_that_is_killed_while_it_delays_messages(
    own_node: Node, own_project: Project, fault: Fault
) -> None:
    """What it had in hand is published again, and arrives twice with the same id."""
    load = Delayed(own_project)
    kills = 3
    for kill in range(kills):
        async with own_project.up() as runner:
            await started(runner)
            if not kill:
                await load.send_to(own_node.url)
            await asyncio.to_thread(_until_below, own_node, load.orders, MESSAGES * (kills - kill) // (kills + 1))
            runner.signal(signal.SIGKILL)
            assert await runner.wait() == -signal.SIGKILL
    async with own_project.running() as runner:
        await load.finish()
    fault.judge(load.sent, load.done(), twice=kills * 2 * PREFETCH)
    load.check_empty(own_node.url)


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.fault(
    "F92", "the queue of delayed messages is deleted before they arrive, and declared again after a restart"
)
async def test_a_queue_that_is_away_when_delayed_messages_arrive(
    own_node: Node, own_project: Project, fault: Fault
) -> None:
    """The broker keeps all of them, more than it has in hand at once, until their queue is there again."""
    load = Delayed(own_project)
    async with own_project.running("--only", "plan") as runner:
        own_node.ctl("delete_queue", load.later)
        await load.send_to(own_node.url)
        await asyncio.to_thread(_until_below, own_node, load.orders, 1)
    await until(lambda: _messages(own_node, load.steps[-1]) == MESSAGES, "all wait for their queue", timeout=60)
    async with own_project.running() as runner:
        await asyncio.to_thread(own_node.restart)  # RabbitMQ tries again at once, not after three minutes
        await fault.recovery(lambda: is_back(runner), "everything is back")
        await load.finish()
    fault.judge(load.sent, load.done(), twice=4 * PREFETCH + len(STEPS) * BETWEEN_STEPS)
    load.check_empty(own_node.url)


def _messages(node: Node, queue: str) -> int:
    counts = dict(line.split("\t") for line in node.ctl("list_queues", "name", "messages").splitlines() if "\t" in line)
    return int(counts.get(queue, -1))


def _until_below(node: Node, queue: str, count: int) -> None:
    with Foreign(node.url) as foreign:
        while foreign.count(queue) >= count:
            pass
