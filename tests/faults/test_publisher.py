"""A program that publishes with `Publisher` while the connection is cut, the broker killed, or the program itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner import AsyncPublisher, Publisher, PublishTimeout
from tests.faults.verdict import Fault
from tests.foreign import Foreign
from tests.node import Broker, Node
from tests.process import ROOT
from tests.project import Place, Project, until
from tests.proxy import Proxy

WORK = "version: 1\nqueues: {UNIQUE.work: {dead_letter: UNIQUE.failed}}\n"
"""Neither name begins with the other: `wait_until_kept` could not tell them apart."""

PROGRAM = """
import sys, time
from runner import Publisher
file, url, queue, first, last = sys.argv[1:]
shop = Publisher(file, broker=url, timeout="100ms", outbox="outbox.db")
for number in range(int(first), int(last)):
    shop.publish(queue, str(number), id=str(number))
    print(number, flush=True)
while first != last or shop.pending():  # a program that only sends what others have left ends then
    time.sleep(0.02)
"""


@contextmanager
def program(project: Project, url: str, first: int = 0, last: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that publishes numbers with an outbox, and kill it with SIGKILL at the end of the block.

    It writes each number whose `publish` has returned to a file.
    """
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(project.folder)}
    arguments = [str(project.file), url, project.name("work"), str(first), str(last)]
    with open(published_by(project, first), "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], cwd=project.folder, env=environment, stdout=out
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def published_by(project: Project, first: int) -> Path:
    return project.folder / f"published-{first}"


def published(project: Project, first: int) -> list[str]:
    """Return the numbers whose `publish` has returned in a program."""
    return published_by(project, first).read_text().split()


def in_order(bodies: list[str]) -> bool:
    """Whether numbers are in order where they appear for the first time."""
    numbers = [int(body) for body in dict.fromkeys(bodies)]
    return numbers == sorted(numbers)


@pytest.mark.fault("F50", "a program publishes, its connection is reset five times")
async def test_connections_that_are_cut_while_a_program_publishes(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker, fault: Fault
) -> None:
    """What was not confirmed is published again with the same id, before what comes after it."""
    rabbit_project.pipeline(WORK)
    name = rabbit_project.name("work")
    async with (
        Proxy(rabbitmq.port) as proxy,
        AsyncPublisher(rabbit_project.folder / rabbit_project.file, broker=proxy.url, timeout="40s") as shop,
    ):
        for number in range(300):
            sending = asyncio.ensure_future(shop.publish(name, str(number), id=str(number)))
            if number % 60 == 30:
                await asyncio.sleep(0)  # it is on its way
                proxy.cut()
            await sending
    found = foreign.take(name)
    bodies = [got.body.decode() for got in found]
    assert [got.properties.message_id for got in found] == bodies
    assert in_order(bodies)
    fault.judge(map(str, range(300)), Counter(bodies), twice=5)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.fault("F51", "kill -9 of the broker while a program publishes, twice")
async def test_a_broker_that_is_killed_while_a_program_publishes(
    own_node: Node, tmp_path: Path, unique: str, fault: Fault
) -> None:
    """`publish` waits for the broker. What it said is confirmed is there."""
    name = f"{unique}.work"
    (tmp_path / "work.yaml").write_text(WORK.replace("UNIQUE", unique))
    done: list[str] = []

    def publish() -> None:
        with Publisher(tmp_path / "work.yaml", broker=own_node.url, timeout="90s") as shop:
            done.extend(shop.publish(name, str(number), id=str(number)) for number in range(3000))

    publishing = asyncio.create_task(asyncio.to_thread(publish))
    await until(lambda: len(done) >= 100, "it publishes")
    await asyncio.to_thread(own_node.wait_until_kept, name, f"{unique}.failed")
    for _ in range(2):
        await asyncio.to_thread(own_node.kill)
        before = len(done)
        await asyncio.to_thread(own_node.start)
        await fault.recovery(lambda before=before: len(done) > before + 1, "it publishes again")
    await publishing
    with Foreign(own_node.url) as foreign:
        bodies = [got.body.decode() for got in foreign.take(name)]
    assert in_order(bodies)
    fault.judge(map(str, range(3000)), Counter(bodies), twice=2)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.fault("F53", "the broker's alarm while a program publishes")
async def test_a_broker_that_takes_no_messages(own_node: Node, tmp_path: Path, unique: str, fault: Fault) -> None:
    """The error says so, for each message in its time, and the publisher works again when the alarm is over."""
    name = f"{unique}.work"
    (tmp_path / "work.yaml").write_text(WORK.replace("UNIQUE", unique))
    async with AsyncPublisher(tmp_path / "work.yaml", broker=own_node.url, timeout="3s") as shop:
        await shop.publish(name, "0", id="0")
        await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "0.00001")
        with pytest.raises(PublishTimeout, match="takes no messages, because it is low on memory or disk space"):
            await shop.publish(name, "1", id="1")
        async with AsyncPublisher(tmp_path / "work.yaml", broker=own_node.url, timeout="3s") as other:
            with pytest.raises(PublishTimeout):
                await other.publish(name, "2", id="2")
        await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "0.4")
        for number in ("1", "2", "3"):
            await shop.publish(name, number, id=number, timeout="30s")
    with Foreign(own_node.url) as foreign:
        bodies = [got.body.decode() for got in foreign.take(name)]
    fault.judge(["0", "1", "2", "3"], Counter(bodies), twice=2)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.fault("F52", "an outbox: no broker, and kill -9 of those that fill it and of the one that empties it")
async def test_an_outbox_whose_programs_are_killed(own_node: Node, tmp_path: Path, unique: str, fault: Fault) -> None:
    """What `publish` has returned for arrives, in the order of each program, however often programs are killed."""
    project = Project(tmp_path, unique, Place((), own_node.url))
    project.pipeline(WORK)
    name = project.name("work")
    with Publisher(tmp_path / project.file, broker=own_node.url) as shop:
        shop.publish(name, "-1", id="-1")
    await asyncio.to_thread(own_node.wait_until_kept, name, f"{unique}.failed")
    await asyncio.to_thread(own_node.kill)
    with program(project, own_node.url, 0, 10_000), program(project, own_node.url, 10_000, 20_000):
        for first in (0, 10_000):  # both are killed in the middle of a `publish`
            await until(lambda first=first: len(published(project, first)) >= 200, "the outbox is filled", 60)
    expected = ["-1", *published(project, 0), *published(project, 10_000)]
    await asyncio.to_thread(own_node.start)
    with Foreign(own_node.url) as foreign:
        for count in (50, 180):
            with program(project, own_node.url, -1, -1):
                await until(lambda count=count: foreign.count(name) >= count, "it sends", 60)
        with program(project, own_node.url, -1, -1) as last:
            assert await asyncio.to_thread(last.wait, 90) == 0
        bodies = [got.body.decode() for got in foreign.take(name)]
    for low, high in ((0, 10_000), (10_000, 20_000)):
        assert in_order([body for body in bodies if low <= int(body) < high])
    # A program that was killed may have kept one message whose `publish` has not returned.
    begun = {str(int(published(project, first)[-1]) + 1) for first in (0, 10_000)}
    kept = Counter(body for body in bodies if body not in begun)
    fault.judge(expected, kept, twice=2 * 101)
