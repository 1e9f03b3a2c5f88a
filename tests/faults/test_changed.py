"""Somebody changes things on the broker while we run: queues, exchanges, users, rights. And puts them right again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.test_probes import ask
from tests.faults.load import check_quiet, is_back
from tests.faults.verdict import Fault, check_empty
from tests.foreign import Foreign
from tests.node import Broker, free_port
from tests.process import LogLine, RunnerProcess
from tests.project import Place, Project, lines, until
from tests.proxy import Proxy

HANDLERS = """
    from runner import Message

    def handle(order: str, message: Message) -> None:
        note(order, message.attempt)
        if order.startswith("twice") and message.attempt == 1:
            raise ValueError("not yet")
"""
TWO_QUEUES = """
    version: 1
    broker: {url: 'amqp://127.0.0.1:1/'}
    queues: {UNIQUE.work: {}, UNIQUE.other: {}}
    subscribers:
      work: {from: UNIQUE.work, handler: work:handle}
      other: {from: UNIQUE.other, handler: work:handle}
"""
PASSWORD = "S3CR3T-CANARY"


def orders(word: str, count: int = 20) -> list[str]:
    return [f"{word}-{number}" for number in range(count)]


def send(foreign: Foreign, queue: str, names: list[str]) -> None:
    foreign.publish_confirmed(queue, *(name.encode() for name in names))


@pytest.mark.fault("F15", "somebody else's queue is deleted under its consumer, and declared again later")
async def test_a_queue_of_somebody_else_that_is_deleted(
    rabbit_project: Project, foreign: Foreign, fault: Fault
) -> None:
    """It is not ours to declare: we say that it is gone, wait, and go on when its owner has made it again."""
    rabbit_project.write(TWO_QUEUES.replace("UNIQUE.work: {}", "UNIQUE.work: {declare: false}"), HANDLERS)
    work, other = rabbit_project.name("work"), rabbit_project.name("other")
    foreign.channel.queue_declare(work, durable=True)
    port = free_port()
    async with rabbit_project.running("--http", f"127.0.0.1:{port}") as runner:
        send(foreign, work, orders("before"))
        await rabbit_project.ledger.wait_for(20)
        assert ask(port, "/readyz")[0] == 200
        foreign.channel.queue_delete(work)
        lost = await runner.wait_for(lambda line: line["event"] == "consumer.lost" and line["level"] == "error")
        assert lost["queue"] == work
        assert "no queue" in lost["error"]
        send(foreign, other, orders("meanwhile"))
        await rabbit_project.ledger.wait_for(40)
        assert not foreign.has_queue(work)
        assert ask(port, "/readyz") == (503, {"ready": False, "trouble": [f'nothing comes from queue "{work}"']})
        assert ask(port, "/healthz")[0] == 200
        foreign.channel.queue_declare(work, durable=True)
        send(foreign, work, orders("after"))
        await fault.recovery(lambda: len(rabbit_project.ledger.entries()) >= 60, "it is consumed again")
        assert ask(port, "/readyz")[0] == 200
    check_quiet(runner)
    expected = [*orders("before"), *orders("meanwhile"), *orders("after")]
    fault.judge(expected, rabbit_project.ledger.counts(), twice=0)
    check_empty(foreign, work, other)


@pytest.mark.fault("F16", "a queue is declared again with other arguments while we are away")
async def test_a_queue_that_has_other_arguments_when_we_come_back(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker, fault: Fault
) -> None:
    """The difference is told with both values; nobody else is held up by it."""
    rabbit_project.write(TWO_QUEUES, HANDLERS)
    work, other = rabbit_project.name("work"), rabbit_project.name("other")
    async with Proxy(rabbitmq.port) as proxy:
        rabbit_project.place = Place.at(proxy.url)
        async with rabbit_project.running() as runner:
            told = await _come_back_to_another_queue(runner, proxy, foreign, work)
            assert work in told["error"]
            assert "is none on the broker, the pipeline says" in told["error"]
            await _the_other_works(rabbit_project, foreign, fault)
    check_quiet(runner)
    fault.judge(orders("other"), rabbit_project.ledger.counts(), twice=0)
    check_empty(foreign, work, other)


@pytest.mark.fault("F16", "one queue has other arguments, another one is gone when we come back")
async def test_a_missing_queue_is_declared_again_beside_one_that_differs(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker, fault: Fault
) -> None:
    """What can be restored is, whatever else differs."""
    rabbit_project.write(TWO_QUEUES, HANDLERS)
    work, other = rabbit_project.name("work"), rabbit_project.name("other")
    async with Proxy(rabbitmq.port) as proxy:
        rabbit_project.place = Place.at(proxy.url)
        async with rabbit_project.running() as runner:
            await _come_back_to_another_queue(runner, proxy, foreign, work, other)
            await until(lambda: foreign.has_queue(other), "the other queue is declared again", timeout=10)
            await _the_other_works(rabbit_project, foreign, fault)
    fault.judge(orders("other"), rabbit_project.ledger.counts(), twice=0)


async def _come_back_to_another_queue(
    runner: RunnerProcess, proxy: Proxy, foreign: Foreign, work: str, *others: str
) -> LogLine:
    """Cut a runner off, delete queues, declare `work` with other arguments, and return what the runner logs then."""
    await _cut_off(proxy)
    for queue in (work, *others):
        foreign.channel.queue_delete(queue)
    foreign.channel.queue_declare(work, durable=True)
    proxy.pass_through()
    proxy.cut()
    return await runner.wait_for(lambda line: line["event"] == "topology.mismatch", timeout=40)


async def _the_other_works(project: Project, foreign: Foreign, fault: Fault) -> None:
    send(foreign, project.name("other"), orders("other"))
    done = project.ledger.counts
    await fault.recovery(lambda: done().keys() >= set(orders("other")), "the other subscriber works")


async def _cut_off(proxy: Proxy) -> None:
    proxy.blackhole()
    proxy.cut()
    await until(lambda: proxy.open > 0, "it tries to come back", timeout=10)


@pytest.mark.fault("F22", "what a retry needs is deleted while we run")
@pytest.mark.parametrize("what", ["exchange", "queue", "both"])
async def test_a_retry_whose_wait_queue_is_gone(
    rabbit_project: Project, foreign: Foreign, fault: Fault, what: str
) -> None:
    """It is declared again and the message retried; the original is not acknowledged before."""

    def second() -> Counter[str]:
        return Counter(entry.payload for entry in rabbit_project.ledger.entries() if entry.attempt == 2)

    rabbit_project.write(TWO_QUEUES + "    defaults: {subscriber: {retry: {attempts: 2, delay: 250ms}}}\n", HANDLERS)
    work, wait = rabbit_project.name("work"), f"{rabbit_project.unique}.retry.250"
    async with rabbit_project.running() as runner:
        if what != "queue":
            assert foreign.has_exchange(wait)
            foreign.channel.exchange_delete(wait)
        if what != "exchange":
            assert foreign.has_queue(wait)
            foreign.channel.queue_delete(wait)
        send(foreign, work, orders("twice"))
        await fault.recovery(lambda: second().keys() >= set(orders("twice")), "everything was tried again")
    check_quiet(runner)
    fault.judge(orders("twice"), second(), twice=0)
    check_empty(foreign, work, f"{work}.dead", wait)


class Guest:
    """A user of this test's own on the shared node."""

    def __init__(self, node: Broker, name: str) -> None:
        self.node = node
        self.name = name
        self.url = f"amqp://{name}:{PASSWORD}@127.0.0.1:{node.port}/"

    def add(self) -> None:
        self.node.ctl("add_user", self.name, PASSWORD)
        self.allow()

    def allow(self) -> None:
        self.node.ctl("set_permissions", self.name, ".*", ".*", ".*")

    def take_away(self, what: str) -> None:
        if what == "password":
            self.node.ctl("change_password", self.name, "another")
        elif what == "user":
            self.node.ctl("delete_user", self.name)
        else:
            self.node.ctl("clear_permissions", self.name)

    def give_back(self, what: str) -> None:
        if what == "password":
            self.node.ctl("change_password", self.name, PASSWORD)
        elif what == "user":
            self.add()
        else:
            self.allow()


@pytest.fixture
def guest(rabbitmq: Broker, unique: str) -> Iterator[Guest]:
    guest = Guest(rabbitmq, unique)
    guest.add()
    yield guest
    rabbitmq.ctl("delete_user", unique)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.fault("F18", "the broker does not know us any more")
@pytest.mark.parametrize("what", ["password", "user", "permissions"])
async def test_credentials_that_are_revoked(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker, guest: Guest, fault: Fault, what: str
) -> None:
    """It says that it is refused, tries ever more slowly, never shows the password, and works when let in again."""
    rabbit_project.write(TWO_QUEUES, HANDLERS)
    rabbit_project.place = Place.at(guest.url)
    work = rabbit_project.name("work")
    async with rabbit_project.running() as runner:
        send(foreign, work, orders("before"))
        await rabbit_project.ledger.wait_for(20)
        await asyncio.to_thread(guest.take_away, what)
        if what != "user":  # only a deleted user's connections are closed by the broker
            send(foreign, work, orders("between"))
            await rabbit_project.ledger.wait_for(40)
            await asyncio.to_thread(rabbitmq.close_connections_of, rabbit_project.unique)
        refused = await runner.wait_for(lambda line: line["event"] == "broker.unreachable")
        assert _says_why(refused), refused
        send(foreign, work, orders("after"))
        await asyncio.to_thread(guest.give_back, what)
        await fault.recovery(lambda: is_back(runner), "everything is back")
        expected = {*orders("before"), *orders("after"), *(orders("between") if what != "user" else ())}
        await until(lambda: rabbit_project.ledger.counts().keys() >= expected, "everything handled")
    assert len(lines(runner, "broker.unreachable")) <= 6
    assert PASSWORD not in runner.stdout + runner.stderr
    check_quiet(runner)
    fault.judge(expected, rabbit_project.ledger.counts(), twice=20)
    check_empty(foreign, work, rabbit_project.name("other"))


def _says_why(line: dict[str, Any]) -> bool:
    return any(word in line["error"].lower() for word in ("refused", "not_allowed", "access", "authentic", "login"))
