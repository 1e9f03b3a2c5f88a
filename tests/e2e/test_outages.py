"""The broker dies, or the network does, in the middle of the work: nothing that was confirmed is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import pytest

from tests.foreign import Foreign
from tests.node import Broker, Node
from tests.project import Place, Project, until
from tests.proxy import Proxy

ORDERS = 600
CONCURRENCY = 10
PREFETCH = 2 * CONCURRENCY
UNCONFIRMED = 100
"""How many publications of a producer are on their way at once: any of them may arrive twice."""

# One subscriber handles what another program has published, one what the producer publishes while the broker fails.
PIPELINE = """
    version: 1
    queues: {UNIQUE.work: {}, UNIQUE.made: {}}
    producers:
      make: {handler: work:make, to: UNIQUE.made}
    subscribers:
      work: {from: UNIQUE.work, handler: work:handle}
      made: {from: UNIQUE.made, handler: work:handle}
"""
HANDLERS = f"""
    import asyncio, os

    async def make():
        for number in range(int(os.environ.get("MAKE", {ORDERS}))):
            yield f"made-{{number}}"
            await asyncio.sleep(0.005)

    async def handle(order: str) -> None:
        await asyncio.sleep(0.02)
        note(order)
"""
EXPECTED = {f"{kind}-{number}" for kind in ("sent", "made") for number in range(ORDERS)}


def prepare(project: Project, foreign: Foreign) -> None:
    """Put a backlog into the queue, confirmed, before the runner starts."""
    project.write(PIPELINE, HANDLERS)
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": project.name("work.dead"),
        "x-dead-letter-strategy": "at-least-once",
    }
    foreign.channel.queue_declare(project.name("work"), durable=True, arguments=arguments)
    foreign.publish(project.name("work"), *(f"sent-{number}".encode() for number in range(ORDERS)))


def check_ledger(project: Project, losses: int) -> None:
    """Nothing lost, nothing invented; twice only what was under way."""
    counts = project.ledger.counts()
    assert EXPECTED - counts.keys() == set(), "lost"
    assert counts.keys() - EXPECTED == set(), "unexpected"
    duplicates = (counts - Counter(EXPECTED)).elements()
    kinds = Counter(name.partition("-")[0] for name in duplicates)
    assert kinds["sent"] <= losses * 2 * PREFETCH
    assert kinds["made"] <= losses * (2 * PREFETCH + UNCONFIRMED)


@pytest.mark.timeout(120)
async def test_a_broker_that_is_killed_and_comes_back_loses_nothing(
    own_node: Node, tmp_path_factory: pytest.TempPathFactory, unique: str
) -> None:
    """kill -9 of RabbitMQ under load: the runner reconnects by itself and every confirmed message is handled."""
    project = Project(tmp_path_factory.mktemp("project"), unique, Place.at(own_node.url))
    project.write(PIPELINE, HANDLERS)
    with Foreign(own_node.url) as foreign:
        prepare(project, foreign)
    async with project.running() as runner:
        await until(lambda: "made-100" in project.ledger.payloads(), "both kinds of messages are under way")
        queues = [project.name(name) for name in ("work", "made", "work.dead", "made.dead", "producers")]
        await asyncio.to_thread(own_node.wait_until_kept, *queues)
        await asyncio.to_thread(own_node.kill)
        assert len(project.ledger.entries()) < 2 * ORDERS
        await runner.wait_for(lambda line: line["event"] == "broker.lost")
        await asyncio.to_thread(own_node.start)
        await runner.wait_for(lambda line: line["event"] == "broker.connected" and "role" in line)
        await until(lambda: project.ledger.counts().keys() >= EXPECTED, "everything handled", timeout=60)
    check_ledger(project, losses=1)
    lost = {line["role"] for line in runner.logs if line["event"] == "broker.lost"}
    assert lost == {"publish", "consume"}
    with Foreign(own_node.url) as foreign:
        assert foreign.count(project.name("work")) == foreign.count(project.name("made")) == 0
        assert foreign.count(project.name("work.dead")) == foreign.count(project.name("made.dead")) == 0


async def test_a_connection_that_is_cut_again_and_again_loses_nothing(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker
) -> None:
    """Three resets under load: the runner reconnects by itself and every confirmed message is handled."""
    prepare(rabbit_project, foreign)
    async with Proxy(rabbitmq.port) as proxy:
        rabbit_project.place = Place.at(proxy.url)
        async with rabbit_project.running():
            for cut in (1, 2, 3):
                await rabbit_project.ledger.wait_for(cut * 200)
                accepted = proxy.accepted
                proxy.cut()
                await until(partial(lambda before: proxy.accepted >= before + 2, accepted), "both connections are back")
            await until(lambda: rabbit_project.ledger.counts().keys() >= EXPECTED, "everything handled", timeout=40)
    check_ledger(rabbit_project, losses=3)
    assert foreign.count(rabbit_project.name("work")) == foreign.count(rabbit_project.name("made")) == 0


async def test_a_connection_that_is_cut_while_it_comes_back_comes_back_later(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker
) -> None:
    """Cut in the middle of the handshake, of declaring, of registering: the runner ends up connected, and works."""
    rabbit_project.write(PIPELINE, HANDLERS)
    async with Proxy(rabbitmq.port) as proxy:
        rabbit_project.place = Place.at(proxy.url)
        async with rabbit_project.running():
            await rabbit_project.ledger.wait_for(50)
            for delay_s in (0.0, 0.004, 0.008, 0.016, 0.032):
                accepted = proxy.accepted
                proxy.cut()
                await until(partial(lambda before: proxy.accepted > before, accepted), "a connection")
                await asyncio.sleep(delay_s)  # how far it gets before the next cut
            made = {name for name in EXPECTED if name.startswith("made")}
            await until(lambda: rabbit_project.ledger.counts().keys() >= made, "everything handled", timeout=30)
            foreign.publish_confirmed(rabbit_project.name("work"), b"sent-1")
            await until(lambda: "sent-1" in rabbit_project.ledger.payloads(), "the other subscriber is back, too")


async def test_a_runner_that_is_killed_loses_nothing(rabbit_project: Project, foreign: Foreign) -> None:
    """kill -9 of the runner under load: what it held is handled by the next one."""
    prepare(rabbit_project, foreign)
    async with rabbit_project.up("--only", "work") as runner:
        await rabbit_project.ledger.wait_for(150)
        runner.signal(9)  # type: ignore[arg-type]
        assert await runner.wait() == -9
    await rabbit_project.up_until_idle("--only", "work")
    counts = rabbit_project.ledger.counts()
    sent = {name for name in EXPECTED if name.startswith("sent")}
    assert counts.keys() == sent
    assert sum(counts.values()) - len(sent) <= PREFETCH


async def test_a_stop_while_the_broker_is_away_ends(rabbit_project: Project, rabbitmq: Broker) -> None:
    """SIGTERM while it reconnects: exit 0 within the grace."""
    rabbit_project.write(PIPELINE, HANDLERS)
    async with Proxy(rabbitmq.port) as proxy:
        rabbit_project.place = Place.at(proxy.url)
        async with rabbit_project.running("--only", "work") as runner:
            proxy.blackhole()
            proxy.cut()
            await runner.wait_for(lambda line: line["event"] == "broker.lost")


async def test_a_queue_that_is_deleted_is_declared_again(rabbit_project: Project, foreign: Foreign) -> None:
    """Somebody deletes the queue under the subscriber: it says so, and goes on with a new one."""
    rabbit_project.write(PIPELINE, HANDLERS)
    queue = rabbit_project.name("work")
    async with rabbit_project.running("--only", "work") as runner:
        foreign.channel.queue_delete(queue)
        lost = await runner.wait_for(lambda line: line["event"] == "consumer.lost")
        assert lost["queue"] == queue
        await runner.wait_for(lambda line: line["event"] == "consumer.resumed")
        foreign.publish_confirmed(queue, b"sent-1")
        await rabbit_project.ledger.wait_for(1)
