"""The broker's node is killed, stopped, killed again while we come back, and frozen, under load."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial

import pytest

from tests.e2e.test_probes import ask
from tests.faults.load import PREFETCH, UNCONFIRMED, Load, both_lost, check_quiet, is_back, losses
from tests.faults.verdict import Fault, check_empty
from tests.foreign import Foreign
from tests.node import Node, free_port
from tests.project import Place, Project, lines, until
from tests.proxy import Proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LOST_AT_ONCE = 2 * PREFETCH + UNCONFIRMED


def consumers_of(node: Node) -> list[str]:
    """Return the queue of each consumer that the broker knows."""
    return node.ctl("list_consumers", "queue_name").split()


@pytest.mark.fault("F1", "kill -9 of the broker at 1/3 and at 1/2, 10,000 messages")
async def test_a_broker_that_is_killed_twice(own_node: Node, own_project: Project, fault: Fault) -> None:
    """Whatever was confirmed is there after each restart; what was not is published again, with the same id."""
    load = Load(own_project, sent=5000, made=5000, work_s=0.001, pace_s=0.001)
    async with own_project.running() as runner:
        sending = asyncio.create_task(load.send_to(own_node.url))
        await until(load.given, "the producer produces")
        await sending
        await asyncio.to_thread(own_node.wait_until_kept, *load.kept)
        for share in (1 / 3, 1 / 2):
            await load.reach(int(share * len(load.expected)), timeout=60)
            before = losses(runner)
            await asyncio.to_thread(own_node.kill)
            await both_lost(runner, before)
            await asyncio.to_thread(own_node.start)
            await fault.recovery(lambda: is_back(runner), "everything is back")
        await load.finish(90)
    assert sorted(load.given()) == sorted(load.made)
    check_quiet(runner)
    fault.judge(load.expected, load.done(), twice=2 * LOST_AT_ONCE)
    with Foreign(own_node.url) as foreign:
        check_empty(foreign, *load.queues)


@pytest.mark.fault("F2", "rabbitmqctl stop_app, start_app")
async def test_a_broker_that_is_stopped_in_good_order(own_node: Node, own_project: Project, fault: Fault) -> None:
    """The broker says why it closes; that is one line for each connection."""
    load = Load(own_project, sent=1500, made=800)
    async with own_project.running() as runner:
        await load.send_to(own_node.url)
        await load.reach(200)
        await asyncio.to_thread(own_node.ctl, "stop_app")
        await both_lost(runner, Counter())
        await asyncio.to_thread(own_node.ctl, "start_app")
        await fault.recovery(lambda: is_back(runner), "everything is back")
        await load.finish()
    lost = lines(runner, "broker.lost")
    assert sorted(line["role"] for line in lost) == ["consume", "publish"]
    assert any("CONNECTION_FORCED" in line["error"] for line in lost)
    check_quiet(runner)
    fault.judge(load.expected, load.done(), twice=LOST_AT_ONCE)
    with Foreign(own_node.url) as foreign:
        check_empty(foreign, *load.queues)


@pytest.mark.fault("F3", "kill -9 of the broker again while we declare")
async def test_a_broker_that_is_killed_again_while_we_come_back(
    own_node: Node, own_project: Project, fault: Fault
) -> None:
    """In the end there is one connection of each role, and one consumer for each subscriber: nothing has piled up."""
    load = Load(own_project, sent=600, made=300)
    async with Proxy(own_node.port) as proxy:
        own_project.place = Place.at(proxy.url)
        async with own_project.running() as runner:
            await load.send_to(own_node.url)
            await load.reach(100)
            await asyncio.to_thread(own_node.wait_until_kept, *load.kept)
            await asyncio.to_thread(own_node.kill)
            await both_lost(runner, Counter())
            for _ in range(2):
                proxy.latency(0.2)  # a dozen calls take seconds: it is in the middle of them when the channel is there
                greeted = own_node.log().count("granted access to vhost")
                await asyncio.to_thread(own_node.start)
                await until(
                    partial(lambda greeted: own_node.log().count("granted access to vhost") > greeted, greeted),
                    "it has connected, and declares",
                    timeout=60,
                )
                await asyncio.to_thread(own_node.kill)
            proxy.pass_through()
            await asyncio.to_thread(own_node.start)
            await fault.recovery(lambda: is_back(runner), "everything is back")
            await load.finish()
            consumers = await asyncio.to_thread(consumers_of, own_node)
            connections = (await asyncio.to_thread(own_node.ctl, "list_connections", "pid")).split()
    assert sorted(consumers) == sorted([*load.queues[:2], f"{own_project.unique}.producers"])
    assert len(connections) == 2
    check_quiet(runner)
    fault.judge(load.expected, load.done(), twice=3 * LOST_AT_ONCE)
    with Foreign(own_node.url) as foreign:
        check_empty(foreign, *load.queues)


PATIENT = """
    async def handle(order: str) -> None:
        try:
            await asyncio.sleep(0.02 if order != "sent-99" else 25)
            note(order)
        except asyncio.CancelledError:
            note("cancelled")
            raise
"""


@pytest.mark.fault("F4", "SIGSTOP of the broker until it is noticed, then SIGCONT")
async def test_a_broker_that_freezes(own_node: Node, own_project: Project, fault: Fault) -> None:
    """Noticed within three heartbeats and a margin; no handler is cancelled, and no publication fails for good."""
    load = Load(own_project, sent=600, made=600, heartbeat="2s")
    work = own_project.folder / "work.py"
    work.write_text(work.read_text().partition("async def handle")[0] + PATIENT.replace("\n    ", "\n"))
    port = free_port()
    async with own_project.running("--http", f"127.0.0.1:{port}") as runner:
        await load.send_to(own_node.url)
        await load.reach(250)
        own_node.freeze()
        since = time.monotonic()
        await both_lost(runner, Counter())
        assert time.monotonic() - since < 33
        assert ask(port, "/healthz")[0] == 200
        assert ask(port, "/readyz")[0] == 503
        own_node.thaw()
        await fault.recovery(lambda: is_back(runner), "everything is back")
        await load.finish()
    assert "cancelled" not in load.done()
    assert lines(runner, "producer.failed") == []
    check_quiet(runner)
    fault.judge(load.expected, load.done(), twice=LOST_AT_ONCE)
    with Foreign(own_node.url) as foreign:
        check_empty(foreign, *load.queues)


FAILS_FIRST = """
    from runner import Message

    async def handle(order: str, message: Message) -> None:
        note(order, message.attempt)
        if message.attempt == 1:
            raise ValueError("not yet")
"""


@pytest.mark.fault("F1", "kill -9 of the broker while 1,000 messages wait for their retry")
async def test_a_broker_that_is_killed_while_retries_wait(own_node: Node, own_project: Project, fault: Fault) -> None:
    """They come back from the wait queue, whether their time was over before, during or after the outage."""
    load = Load(own_project, sent=1000)
    work = own_project.folder / "work.py"
    work.write_text(work.read_text().partition("async def handle")[0] + FAILS_FIRST.replace("\n    ", "\n"))
    own_project.pipeline(
        """
        version: 1
        logging: {messages: false}
        defaults: {subscriber: {retry: {attempts: 3, delay: 3s, backoff: fixed}}}
        queues: {UNIQUE.work: {}}
        subscribers:
          work: {from: UNIQUE.work, handler: work:handle}
        """
    )
    waiting = f"{own_project.unique}.retry.3000"

    def second() -> Counter[str]:
        return Counter(entry.payload for entry in own_project.ledger.entries() if entry.attempt == 2)

    async with own_project.running() as runner:
        await asyncio.to_thread(own_node.wait_until_kept, load.work, f"{load.work}.dead", waiting)
        await load.send_to(own_node.url)
        await until(lambda: second(), "the first of them are back")
        await asyncio.to_thread(own_node.kill)
        await both_lost(runner, Counter())
        assert len(second()) < len(load.sent)
        await asyncio.to_thread(own_node.start)
        await fault.recovery(lambda: is_back(runner, subscribers=1), "everything is back")
        await until(lambda: second().keys() >= load.expected, "all were tried again", timeout=60)
    fault.judge(load.expected, second(), twice=2 * PREFETCH)
    with Foreign(own_node.url) as foreign:
        check_empty(foreign, load.work, f"{load.work}.dead", waiting)
