"""`runner pause` and `runner resume`: for all processes, over restarts, and said everywhere."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from tests.foreign import Foreign
from tests.node import Node
from tests.process import RunnerProcess
from tests.project import Project, lines, started, stop, until

PIPELINE = """
    version: 1
    queues: {UNIQUE.orders: {}, UNIQUE.bills: {}}
    subscribers:
      ship: {from: UNIQUE.orders, handler: work:handle, concurrency: 2}
      charge: {from: UNIQUE.bills, handler: work:handle}
"""
HANDLERS = """
    import asyncio, os
    async def handle(payload):
        await asyncio.sleep(float(os.environ.get("TAKES", 0)))
        note(payload)
"""


@pytest.fixture
def shop(rabbit_project: Project) -> Project:
    rabbit_project.write(PIPELINE, HANDLERS)
    return rabbit_project


@pytest.fixture
def own_shop(own_project: Project) -> Project:
    """The same project on a node of its own."""
    own_project.write(PIPELINE, HANDLERS)
    return own_project


async def run(project: Project, verb: str, *arguments: str, code: int = 0) -> RunnerProcess:
    """Run a command on the project's broker to its end."""
    return await project.run_to_end(verb, project.file, *arguments, *project.place.arguments, code=code)


async def paused(*runners: RunnerProcess, count: int = 1) -> None:
    for runner in runners:
        await until(lambda runner=runner: len(lines(runner, "subscriber.paused")) == count, "it is paused")


async def test_a_pause_stops_all_processes_and_outlives_them(shop: Project, foreign: Foreign) -> None:
    """Two running ones, and one that starts later. What runs ends; nothing is held; the other subscriber goes on."""
    orders, bills = shop.name("orders"), shop.name("bills")
    async with shop.up(env={"TAKES": "0.5"}) as first, shop.up(env={"TAKES": "0.5"}) as second:
        await started(first, second)
        foreign.publish(orders, *(b"order-%d" % n for n in range(40)))
        await shop.ledger.wait_for(1)
        runner = await run(shop, "pause", "ship", "--reason", "carrier is down")
        assert "ship is paused since " in runner.stderr
        assert ": carrier is down" in runner.stderr
        await paused(first, second)
        await until(lambda: foreign.consumers(orders) == 0, "no consumer is left")
        handled = len(shop.ledger.payloads())
        await until(lambda: foreign.count(orders) == 40 - len(shop.ledger.payloads()), "nothing is held")
        assert len(shop.ledger.payloads()) == handled < 40
        foreign.publish(bills, b"bill")
        await until(lambda: "bill" in shop.ledger.payloads(), "the other subscriber goes on")
        assert lines(first, "subscriber.paused")[0]["reason"] == "carrier is down"
        await stop(first)
        second.signal(signal.SIGKILL)
        await second.wait()
    async with shop.running() as third:
        (line,) = lines(third, "subscriber.paused")
        assert (line["subscriber"], line["reason"]) == ("ship", "carrier is down")
        foreign.publish(bills, b"bill-2")
        await until(lambda: "bill-2" in shop.ledger.payloads(), "the other subscriber works")
        assert foreign.consumers(orders) == 0
        await run(shop, "resume", "ship")
        await until(lambda: len(shop.ledger.counts()) == 42, "everything is handled")
        assert lines(third, "subscriber.resumed")[0]["reason"] == "carrier is down"


async def test_a_pause_may_be_set_before_anything_runs(shop: Project, foreign: Foreign) -> None:
    """The second one changes the reason, and keeps its beginning; what is not paused can be resumed."""
    first = await run(shop, "pause", "ship", "--reason", "carrier is down")
    again = await run(shop, "pause", "ship", "--reason", "and the road is closed")
    since = first.stderr.split(" since ")[1].split(": ")[0]
    assert f"since {since}: and the road is closed" in again.stderr
    assert "charge was paused by no operator" in (await run(shop, "resume", "charge")).stderr
    await shop.up_until_idle()
    (status,) = json.loads((await run(shop, "status", "--json")).stdout)
    assert status["pauses"] == [{"subscriber": "ship", "since": since, "reason": "and the road is closed"}]
    assert {queue["queue"]: queue["paused"] for queue in status["queues"]} == {
        shop.name("orders"): True,
        shop.name("bills"): False,
    }
    table = (await run(shop, "status")).stdout
    assert f"ship is paused since {since}: and the road is closed" in table
    assert f"{shop.name('orders')} (paused)" in table


async def test_names_that_are_no_subscriber_are_refused(shop: Project) -> None:
    """A queue is none: the message names its subscriber, or all that there are."""
    runner = await run(shop, "pause", shop.name("orders"), code=2)
    assert f'write ship, which reads "{shop.name("orders")}"' in runner.stderr
    runner = await run(shop, "pause", "nothing", code=2)
    assert "there are: ship, charge" in runner.stderr


async def test_the_in_process_broker_is_paused_by_its_own_process_only(memory_project: Project) -> None:
    memory_project.write(PIPELINE, HANDLERS)
    runner = await run(memory_project, "pause", "ship", code=2)
    assert "only its own process can pause it" in runner.stderr


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_pause_is_known_again_after_the_broker_was_restarted(own_node: Node, own_shop: Project) -> None:
    """While it is paused the broker restarts; nothing is handled when it is back, and a resume reaches the process."""
    async with own_shop.running() as runner:
        await run(own_shop, "pause", "ship", "--reason", "away")
        await paused(runner)
        with Foreign(own_node.url) as foreign:
            foreign.publish_confirmed(own_shop.name("orders"), b"order")
        await asyncio.to_thread(own_node.wait_until_kept, own_shop.name("orders"))
        await asyncio.to_thread(own_node.stop)
        await until(lambda: lines(runner, "broker.lost"), "it has noticed")
        await asyncio.to_thread(own_node.start)
        with Foreign(own_node.url) as foreign:
            foreign.publish_confirmed(own_shop.name("bills"), b"bill")
        await until(lambda: own_shop.ledger.payloads() == ["bill"], "it works again", timeout=60)
        assert len(lines(runner, "subscriber.paused")) == 1
        assert not lines(runner, "subscriber.resumed")
        await run(own_shop, "resume", "ship", "--wait", "60s")
        await until(lambda: sorted(own_shop.ledger.payloads()) == ["bill", "order"], "it is resumed", timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_stream_that_the_broker_has_lost_stops_no_subscriber(own_node: Node, own_shop: Project) -> None:
    """RabbitMQ does not find its first stream when it is killed within a second of making it. 4.3 ends its readers."""
    with Foreign(own_node.url) as foreign:
        foreign.channel.queue_declare(f"{own_shop.unique}.pauses", durable=True, arguments={"x-queue-type": "stream"})
    await asyncio.to_thread(own_node.kill)
    await asyncio.to_thread(own_node.start)
    async with own_shop.up() as runner:
        await until(lambda: lines(runner, "pauses.unavailable"), "it says so", timeout=60)
        orders = [str(number).encode() for number in range(200)]
        await asyncio.to_thread(publish_all, own_node.url, own_shop.name("orders"), orders)
        await until(lambda: len(own_shop.ledger.counts()) == 200, "all are handled", timeout=60)
        await stop(runner)


def publish_all(url: str, queue: str, bodies: list[bytes]) -> None:
    with Foreign(url) as foreign:
        foreign.publish_confirmed(queue, *bodies)


async def test_without_the_right_to_read_pauses_everything_runs(shop: Project, foreign: Foreign) -> None:
    """Something else has the name of the stream: the log says so, and the subscribers work."""
    foreign.channel.queue_declare(f"{shop.unique}.pauses", durable=True)
    async with shop.running() as runner:
        (line,) = lines(runner, "pauses.unavailable")
        assert line["queue"] == f"{shop.unique}.pauses"
        foreign.publish(shop.name("orders"), b"order")
        await shop.ledger.wait_for(1)
    assert f"{shop.unique}.pauses" in (await run(shop, "pause", "ship", code=69)).stderr
