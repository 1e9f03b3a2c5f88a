"""The broker's node is stopped under load, and comes back with the same data as another line of RabbitMQ."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from tests.faults.load import PREFETCH, UNCONFIRMED, both_lost, check_quiet, is_back, losses
from tests.faults.verdict import Fault, check_empty
from tests.foreign import Foreign
from tests.node import Installation, Node
from tests.process import RunnerProcess
from tests.project import Ledger, Place, Project, lines, started, stop, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

OLD, NEW = "4.0", "4.3"

SENT, MADE, SEEDS = 2500, 2500, 100
PIPELINE = """
    version: 1
    logging: {messages: false}
    defaults: {subscriber: {retry: {attempts: 3, delay: 8s, backoff: fixed}}}
    queues: {UNIQUE.work: {}, UNIQUE.plain: {type: classic}, UNIQUE.made: {}}
    producers:
      make: {handler: work:make, to: UNIQUE.made}
      seed: {handler: work:seed, to: UNIQUE.made, once: true}
    subscribers:
      work: {from: UNIQUE.work, handler: work:handle}
      plain: {from: UNIQUE.plain, handler: work:handle}
      made: {from: UNIQUE.made, handler: work:handle}
"""
HANDLERS = f"""
    import asyncio
    from runner import Message, Reject

    async def make():
        for number in range({MADE}):
            yield f"made-{{number}}"
            await asyncio.sleep(0.01)

    async def seed():
        for number in range({SEEDS}):
            yield f"seed-{{number}}"

    async def handle(order: str, message: Message) -> None:
        await asyncio.sleep(0.02)
        number = int(order.rpartition("-")[2])
        if number % 7 == 0:
            note(order, message.attempt)
            raise Reject("not for us")
        if number % 3 == 0 and message.attempt == 1:
            raise ValueError("not yet")
        note(order, message.attempt)
"""


class Sender:
    """Another program that publishes to two queues, and publishes again what was not confirmed. A context manager."""

    def __init__(self, url: str, *queues: str) -> None:
        self._url = url
        self._queues = queues
        self._may_end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.confirmed: list[str] = []
        self.refusals = 0

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._may_end.set()
        self._thread.join()

    @property
    def is_done(self) -> bool:
        """Whether everything is confirmed."""
        return len(self.confirmed) == SENT

    def _run(self) -> None:
        names = [f"sent-{number}" for number in range(SENT)]
        while not self._may_end.is_set() and not self.is_done:
            try:
                with Foreign(self._url) as foreign:
                    for name in names[len(self.confirmed) :]:
                        queue = self._queues[len(self.confirmed) % len(self._queues)]
                        foreign.publish_confirmed(queue, name.encode(), message_id=name)
                        self.confirmed.append(name)
                        if self._may_end.wait(0.01):
                            return
            except (pika.exceptions.AMQPError, OSError):
                self.refusals += 1
                self._may_end.wait(0.1)


@pytest.fixture
def old_node(installed: None) -> Iterator[Node]:
    """A node of the older line, where both are there."""
    for line in (OLD, NEW):
        if not Installation.of(line).is_complete:
            pytest.skip(f"RabbitMQ {line} is not there: `make .brokers/{line}` makes it")
    with Node(installation=Installation.of(OLD)) as node:
        yield node


def upgrade(node: Node) -> None:
    """Stop the node as its package does, and start the other RabbitMQ on what it has left. Blocks."""
    node.stop()
    node.move_to(Installation.of(NEW))
    node.start()
    assert node.line == (4, 3)


def second_attempts(ledger: Ledger) -> int:
    """Return how many messages were handled at their second attempt."""
    return sum(entry.attempt == 2 for entry in ledger.entries())


def has_ended(runner: RunnerProcess, producer: str) -> int:
    """Return how often this process has brought a finite producer to its end."""
    return len(lines(runner, "producer.finished", producer=producer))


def leaders(*runners: RunnerProcess) -> int:
    """Return how many of the processes have led."""
    return sum(bool(lines(runner, "leadership.won")) for runner in runners)


@pytest.mark.fault("F49", f"the node goes from RabbitMQ {OLD} to {NEW} with its data, under load")
async def test_a_node_that_becomes_another_rabbitmq(old_node: Node, tmp_path: Path, unique: str, fault: Fault) -> None:
    """Messages, waiting retries, dead letters and the state of the leadership are those that the old node had."""
    project = Project(tmp_path, unique, Place.at(old_node.url))
    project.write(PIPELINE, HANDLERS)
    work, plain, made = map(project.name, ("work", "plain", "made"))
    queues, waiting = [work, plain, made], f"{unique}.retry.8000"
    ledger = project.ledger
    async with project.up() as one, project.up() as two:
        await started(one, two)
        with Sender(old_node.url, work, plain) as sender:
            await until(lambda: second_attempts(ledger) > 100, "retries have come back", timeout=60)
            with Foreign(old_node.url) as foreign:
                assert foreign.count(waiting) > 50, "retries wait"
                assert all(foreign.count(f"{queue}.dead") for queue in queues), "there are dead letters"
            before = losses(one)
            await asyncio.to_thread(upgrade, old_node)
            assert not sender.is_done, "the other program still publishes"
            for runner in (one, two):
                await both_lost(runner, before)
                await fault.recovery(lambda runner=runner: is_back(runner, subscribers=3), "everything is back")
            await until(lambda: sender.is_done, "everything is published", timeout=60)
        expected = {*sender.confirmed, *names("made", MADE), *names("seed", SEEDS)}
        await until(lambda: ledger.counts().keys() >= expected, "everything is handled", timeout=90)
        await until(lambda: has_ended(one, "make") or has_ended(two, "make"), "the producer has ended")
        assert has_ended(one, "seed") + has_ended(two, "seed") == 1, "what `once` says outlives the upgrade"
        changes = leaders(one, two) - 1
        await stop(one)
        await stop(two)
    assert sender.refusals, "the other program has noticed"
    said = {line["product"].rpartition(".")[0] for line in lines(one, "broker.connected") if "role" in line}
    assert said == {f"RabbitMQ {NEW}"}
    for runner in (one, two):
        check_quiet(runner)
    done = ledger.counts()
    fault.judge(expected, done, twice=2 * (3 * PREFETCH) + UNCONFIRMED + sender.refusals + changes * MADE)
    with Foreign(old_node.url) as foreign:
        check_empty(foreign, *queues, waiting)
        check_dead(foreign, queues, {name for name in expected if int(name.rpartition("-")[2]) % 7 == 0}, done)


def names(word: str, count: int) -> list[str]:
    return [f"{word}-{number}" for number in range(count)]


def check_dead(foreign: Foreign, queues: list[str], rejected: set[str], done: Counter[str]) -> None:
    """Check that each message that was rejected is dead, with its reason, at most as often as it was rejected."""
    found = [letter for queue in queues for letter in foreign.take(f"{queue}.dead")]
    assert {letter.headers["x-runner-reason"] for letter in found} == {"rejected"}
    counts = Counter(letter.body.decode().strip('"') for letter in found)
    assert counts.keys() == rejected
    assert all(counts[name] <= done[name] for name in rejected)
