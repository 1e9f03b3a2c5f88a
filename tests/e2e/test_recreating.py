"""`runner apply --recreate` killed as by `kill -9`, at moments found by watching the broker: nothing is ever lost."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pika
import pytest

from runner.operations.rabbitmq.message_mover import MAX_IN_FLIGHT
from tests.foreign import NOT_FOUND, Foreign
from tests.node import Broker, Node
from tests.project import Place, Project, until

PIPELINE = """
    version: 1
    events: {UNIQUE.paid: {}}
    queues:
      UNIQUE.work: {max_length: 100000, events: [UNIQUE.paid]}
    subscribers:
      worker: {from: UNIQUE.work, handler: "work:handle", retry: none}
"""

MESSAGES = 3000
MOST_KILLS = 5


class Watch:
    """What is in the two queues now, asked again and again: -1 for a queue that does not exist."""

    def __init__(self, url: str, name: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._name = name

    def close(self) -> None:
        self._connection.close()

    def depths(self) -> tuple[int, int]:
        return self._depth(self._name), self._depth(f"{self._name}.recreating")

    def _depth(self, name: str) -> int:
        channel = self._connection.channel()
        try:
            depth: int = channel.queue_declare(name, passive=True).method.message_count
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code == NOT_FOUND:
                return -1
            raise
        channel.close()
        return depth


@pytest.fixture
def here(project_with_api: Project) -> Project:
    project_with_api.write(PIPELINE, "def handle(x: str) -> None: ...")
    return project_with_api


def moments(seed: int) -> list[tuple[str, Callable[[int, int], bool]]]:
    """Return when to kill, drawn by a seed; `old` and `aside` are the depths of the two queues.

    The first is one that lasts long enough to be seen; the others may be over before one looks.
    """
    draw = random.Random(seed)
    first, some = draw.randrange(1, MESSAGES // 2), draw.randrange(1, MESSAGES)
    known: list[tuple[str, Callable[[int, int], bool]]] = [
        ("the queue aside was just made", lambda old, aside: aside >= 0),
        (f"{some} messages are aside", lambda old, aside: aside >= some),
        ("the old queue is nearly empty", lambda old, aside: aside > 0 and old <= draw.randrange(1, MAX_IN_FLIGHT)),
        ("the old queue was deleted", lambda old, aside: old == -1),
        (
            "the new queue was just made",
            lambda old, aside: aside >= MESSAGES - MAX_IN_FLIGHT and 0 <= old < MAX_IN_FLIGHT,
        ),
        (f"{some} messages are back", lambda old, aside: 0 <= aside <= MESSAGES - some and old > 0),
        (
            "the queue aside is nearly empty",
            lambda old, aside: 0 <= aside <= draw.randrange(1, MAX_IN_FLIGHT) and old > 0,
        ),
        ("the queue aside was deleted", lambda old, aside: aside == -1 and old >= MESSAGES),
    ]
    begun = (f"{first} messages are aside", lambda old, aside: aside >= first)
    return [begun, *draw.sample(known, draw.randrange(2, MOST_KILLS))]


@pytest.mark.parametrize("kind", [{}, {"x-queue-type": "quorum"}], ids=["classic", "quorum"])
@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
async def test_a_run_that_is_killed_anywhere_is_finished_by_the_next(
    here: Project, other: Foreign, managed: Broker, kind: dict[str, Any], seed: int
) -> None:
    """Every id is there, in order, and at most WINDOW of them twice for each kill."""
    name = here.name("work")
    other.channel.queue_declare(name, durable=True, arguments=kind)
    bodies = [str(number).encode() for number in range(MESSAGES)]
    other.publish(name, *bodies)
    await until(lambda: other.count(name) == MESSAGES, "every message in the queue")
    killed = 0
    for _, is_now in moments(seed):
        killed += await kill_when(here, managed, name, is_now)
        if seed:  # it takes its time
            assert await unfinished(here, managed.management_url) == await unfinished(here, "http://127.0.0.1:1")
    async with here.command("apply", "--recreate", name) as runner:
        assert await runner.wait(60) == 0, runner.stderr + runner.stdout
    found = [got.body for got in other.take(name)]
    counts = Counter(found)
    assert set(bodies) - set(counts) == set(), "lost"
    assert set(counts) - set(bodies) == set(), "unexpected"
    assert sum(counts.values()) - MESSAGES <= killed * MAX_IN_FLIGHT, "duplicated"
    assert list(dict.fromkeys(found)) == bodies, "order of what came first"
    assert not other.has_queue(f"{name}.recreating")
    assert killed, "no moment was ever seen"


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.node(management=True)
async def test_a_broker_that_is_killed_meanwhile_loses_nothing(own_node: Node, own_project: Project) -> None:
    """What was confirmed is on the disk; the next run goes on."""
    project = own_project
    project.place = Place.at(own_node.url, "--management", own_node.management_url)
    project.write(PIPELINE, "def handle(x: str) -> None: ...")
    name = project.name("work")
    bodies = [str(number).encode() for number in range(MESSAGES)]
    with Foreign(own_node.url) as other:
        other.channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
        other.publish(name, *bodies)
        await until(lambda: other.count(name) == MESSAGES, "every message in the queue")
    await asyncio.to_thread(own_node.wait_until_kept, name)
    watch = await asyncio.to_thread(Watch, own_node.url, name)
    async with project.command("apply", "--recreate", name) as runner:
        while (await asyncio.to_thread(watch.depths))[1] < MESSAGES // 3:
            pass
        await asyncio.to_thread(watch.close)
        await asyncio.to_thread(own_node.kill)
        assert await runner.wait() == 69
        assert "Traceback" not in runner.stderr
    await asyncio.to_thread(own_node.start)
    async with project.command("apply", "--recreate", name) as runner:
        assert await runner.wait(60) == 0, runner.stderr
    with Foreign(own_node.url) as other:
        found = [got.body for got in other.take(name)]
    assert list(dict.fromkeys(found)) == bodies
    assert len(found) - MESSAGES <= MAX_IN_FLIGHT


async def unfinished(here: Project, management: str) -> list[str]:
    """Return which recreations `plan` says were begun and not finished, asking this management API if it answers."""
    url = here.place.url
    runner = await here.run_to_end("plan", here.file, "--json", "--broker", str(url), "--management", management)
    items = json.loads(runner.stdout)["items"]
    return [item["name"] for item in items if item["action"] == "unfinished"]


async def kill_when(here: Project, node: Broker, name: str, is_now: Callable[[int, int], bool]) -> bool:
    """Run `apply --recreate` and kill it when the broker shows the moment; False where it ended before that."""
    watch = await asyncio.to_thread(Watch, node.url, name)
    try:
        async with here.command("apply", "--recreate", name) as runner:
            ended = asyncio.create_task(runner.wait(60))
            while not ended.done():
                if is_now(*await asyncio.to_thread(watch.depths)):
                    break
            has_ended = ended.done()
            if not has_ended:
                runner.signal(signal.SIGKILL)
            code = await ended
            assert code in (0, -signal.SIGKILL), runner.stderr
            return not has_ended and code == -signal.SIGKILL
    finally:
        await asyncio.to_thread(watch.close)


PARTITIONED = """
    version: 1
    queues:
      UNIQUE.orders: {partitions: 4, partition_by: id}
    subscribers:
      worker: {from: UNIQUE.orders, handler: "work:handle"}
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_the_number_of_partitions_changes_when_they_are_empty_and_nothing_consumes_them(here: Project) -> None:
    """Otherwise messages of one key would be in two partitions; each refusal says what to do first."""
    here.pipeline(PARTITIONED)
    await here.do("apply")
    here.pipeline(PARTITIONED.replace("partitions: 4", "partitions: 2"))
    number = f"{here.name('orders')}.partitions"
    with Foreign(str(here.place.url)) as foreign:
        foreign.publish_confirmed(f"{here.name('orders')}.3", b'{"id": 1}')
        refused = await here.do("apply", "--recreate", number, code=1)
        assert "1 message in the partitions of" in refused.stderr
        foreign.take(f"{here.name('orders')}.3")
        consuming = foreign.channel
        consuming.basic_consume(number, lambda *_: None)
        refused = await here.do("apply", "--recreate", number, code=1)
        assert "is in use" in refused.stderr
        consuming.close()
    await here.do("apply", "--recreate", number)
    await here.up_until_idle()
    planned = await here.do("plan", "--detailed-exitcode")
    assert "to recreate" not in planned.stdout  # a note may name the policy that closed the queue, for some seconds
