"""A broker in a file: its process is killed, its disk is full, its file is copied, taken away and damaged."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent

import pytest

from runner.message import Address, Envelope
from runner.transports.file import FileBroker, FileTransport
from tests.e2e.test_examples import mail_server
from tests.faults.verdict import Fault
from tests.process import RunnerProcess
from tests.project import Place, Project, lines, started, stop, until

ROOT = Path(__file__).resolve().parents[2]

PIPELINE = """
    version: 1
    logging: {messages: false}
    queues: {UNIQUE.work: {delivery_limit: 5}, UNIQUE.made: {}}
    producers:
      make: {handler: work:make, to: UNIQUE.made}
    subscribers:
      work: {from: UNIQUE.work, handler: work:handle, concurrency: 10, retry: {attempts: 3, delay: 50ms}}
      made: {from: UNIQUE.made, handler: work:handle, concurrency: 10}
"""
HANDLERS = """
    import asyncio, os, signal

    async def make():
        for number in range(MADE):
            yield f"made-{number}"
            await asyncio.sleep(0.002)

    async def handle(order: str) -> None:
        if order.startswith("kills"):
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0.005)
        note(order)
"""
HELD = 2 * 20 + 100
"""What may be in hand, or published and not confirmed, when a process is killed."""


@pytest.fixture
def file_project(tmp_path: Path, unique: str, no_file_left_open: None) -> Project:
    project = Project(tmp_path, unique, Place.at("file:data/shop.queue"))
    project.write(PIPELINE, HANDLERS.replace("MADE", "0"))
    return project


def file_of(project: Project) -> Path:
    return project.folder / "data" / "shop.queue"


@contextlib.asynccontextmanager
async def other_process(path: Path) -> AsyncIterator[FileTransport]:
    """Connect to a file as a program that publishes does."""
    transport = FileTransport(FileBroker(path, is_owner=False))
    await transport.connect()
    try:
        yield transport
    finally:
        await transport.close()


async def send(transport: FileTransport, queue: str, names: list[str], confirmed: list[str]) -> None:
    """Publish each message, and note those that were confirmed."""
    for name in names:
        await transport.publish(Address("", queue), Envelope(name.encode(), message_id=name, content_type="text/plain"))
        confirmed.append(name)


async def finish(project: Project, runner: RunnerProcess, expected: set[str]) -> Counter[str]:
    """Wait until everything was handled, and nothing is left in the file."""
    await until(lambda: project.ledger.counts().keys() >= expected, "everything handled", 60)
    await stop(runner)
    with contextlib.closing(sqlite3.connect(file_of(project))) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)
        assert connection.execute("SELECT sum(messages), sum(bytes) FROM lines").fetchone() == (0, 0)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return project.ledger.counts()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.fault("F80", "kill -9 of the process that owns the file, 15 times under load")
async def test_an_owner_that_is_killed_again_and_again(file_project: Project, fault: Fault) -> None:
    """Another program publishes all the time, whether there is an owner or not."""
    kills, made, sent = 15, 300, [f"sent-{number}" for number in range(1500)]
    file_project.handlers(HANDLERS.replace("MADE", str(made)))
    drawn, confirmed = random.Random(54), list[str]()
    async with file_project.up() as runner:
        await started(runner)
        await stop(runner)
    async with other_process(file_of(file_project)) as transport:
        sending = asyncio.create_task(send(transport, file_project.name("work"), sent, confirmed))
        for _ in range(kills):
            async with file_project.up() as runner:
                await started(runner)
                await asyncio.sleep(drawn.uniform(0.0, 0.6))  # a moment that is drawn, not one that is waited for
                runner.signal(signal.SIGKILL)
                await runner.wait()
        await sending
    async with file_project.up() as runner:
        expected = {*confirmed, *(f"made-{number}" for number in range(made))}
        done = await finish(file_project, runner, expected)
    fault.judge(expected, done, twice=(kills + 1) * HELD + made * (kills + 1))


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.fault("F81", "a message kills the process that owns the file, again and again")
async def test_a_message_that_kills_the_owner(file_project: Project, fault: Fault) -> None:
    """It is given up after `delivery_limit`, and those that were in hand with it are handled."""
    async with file_project.up("--except", "make") as runner:
        await started(runner)
        await stop(runner)
    confirmed: list[str] = []
    async with other_process(file_of(file_project)) as transport:
        await send(transport, file_project.name("work"), ["a", "kills", "b"], confirmed)
    codes: list[int | None] = []
    while 0 not in codes and len(codes) < 12:
        async with file_project.up("--until-idle") as runner:
            codes.append(await runner.wait(60))
    assert codes[-1] == 0
    assert set(codes[:-1]) == {-signal.SIGKILL}
    assert len(codes) - 1 in (6, 7), "the first may have come before the message was in its queue's file"
    async with other_process(file_of(file_project)) as transport:
        dead = transport.queue(file_project.name("work.dead"))
        assert dead is not None
        assert dead.depth[0] == 1
    fault.judge({"a", "b"}, file_project.ledger.counts(), twice=len(codes))


@pytest.mark.fault("F82", "kill -9 between writing a group of messages and committing it")
async def test_an_owner_that_is_killed_before_its_commit(file_project: Project, fault: Fault) -> None:
    """What was confirmed before is there; of the group that was being written there is nothing."""
    script = """
        import asyncio, os, signal, sys
        from pathlib import Path
        from runner.message import Address, Envelope
        from runner.pipeline.topology import Queue, Topology
        from runner.transports.file import FileBroker, FileTransport

        class Killing:
            def __init__(self, connection):
                self.connection = connection
            def execute(self, statement, *parameters):
                if statement == "COMMIT" and Killing.armed:
                    os.kill(os.getpid(), signal.SIGKILL)
                return self.connection.execute(statement, *parameters)

        async def main():
            broker = FileBroker(Path(sys.argv[1]))
            transport = FileTransport(broker)
            await transport.connect()
            await transport.declare(Topology(queues=(Queue("work"),)))
            broker.store.writer, Killing.armed = Killing(broker.store.writer), False
            for number in range(100):
                Killing.armed = number == 50
                await transport.publish(Address("", "work"), Envelope(str(number).encode()))
                print(number, flush=True)

        asyncio.run(main())
    """
    path = file_project.folder / "q"
    command = [sys.executable, "-c", dedent(script), str(path)]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    fault.judge(ended.stdout.split(), Counter(_bodies(path)), twice=0)
    assert len(_bodies(path)) == 50


def _bodies(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [body.decode() for (body,) in connection.execute("SELECT body FROM messages ORDER BY id")]


@pytest.mark.slow
@pytest.mark.fault(
    "F87", "the disk is really full, while messages are published and acknowledged, and when a process starts"
)
async def test_a_disk_that_is_full(file_project: Project, fault: Fault) -> None:
    """On a file system of 64 MB of its own. It is said, publishers wait, and all goes on when there is room."""
    script = """
        import asyncio, os, sys
        from pathlib import Path
        from runner.errors import BrokerUnavailable
        from runner.message import Address, Envelope
        from runner.pipeline.topology import Queue, Topology
        from runner.transports.base import SubscriptionOptions
        from runner.transports.file import FileBroker, FileTransport, store

        store.VACUUM_LEAST = 16  # pages are given back all the time
        folder, events, deliveries = Path(sys.argv[1]), asyncio.Queue(), asyncio.Queue()

        def fill():
            with open(folder / "filler", "wb", buffering=0) as file:
                while True:
                    try:
                        file.write(bytes(4096))
                    except OSError:
                        return

        async def connected():
            transport = FileTransport(FileBroker(folder / "q"), on_transport_event=events.put_nowait)
            await transport.connect()
            return transport

        async def publish(transport, number):
            await transport.publish(Address("", "work"), Envelope(b"%04d" % number + bytes(4000)))
            print("confirmed", number, flush=True)

        async def take(transport, count):
            for _ in range(count):
                delivery = await deliveries.get()
                transport.ack(delivery)
                print("handled", int(delivery.envelope.body[:4]), flush=True)

        async def main():
            transport = await connected()
            await transport.declare(Topology(queues=(Queue("work"),)))
            await asyncio.gather(*(publish(transport, number) for number in range(200)))
            options = SubscriptionOptions(queue="work", prefetch=10, dead_letter=None, wait_prefix="w")
            subscription = await transport.subscribe(options, deliveries.put_nowait)
            fill()
            async with asyncio.TaskGroup() as tasks:
                for number in range(200, 2200):
                    tasks.create_task(publish(transport, number))
                blocked = await events.get()
                assert blocked.event == "broker.blocked"
                assert str(blocked.fields["hint"]).endswith(f"free some of the disk of {folder}")
                await take(transport, 100)
                (folder / "filler").unlink()
                assert (await events.get()).event == "broker.unblocked"
            await subscription.close()
            await transport.close()
            fill()
            try:
                await connected()
            except BrokerUnavailable as error:
                print("refused", error.hint, flush=True)
            (folder / "filler").unlink()
            transport = await connected()
            while not deliveries.empty():
                deliveries.get_nowait()
            left = transport.queue("work").depth[0]
            await transport.subscribe(options, deliveries.put_nowait)
            await take(transport, left)
            await transport.close()

        asyncio.run(asyncio.wait_for(main(), 50))
    """
    if subprocess.run(["unshare", "--map-root-user", "--mount", "true"], check=False).returncode:
        pytest.skip("this user may not mount a file system of its own")
    (file_project.folder / "disk").mkdir()
    mount = 'mount -t tmpfs -o size=64m tmpfs disk && exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", dedent(script)]
    process = await asyncio.create_subprocess_exec(
        *command, "disk", cwd=file_project.folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=PIPE, stderr=PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    said = [line.split(maxsplit=1) for line in output.decode().splitlines()]
    assert [text for word, text in said if word == "refused"] == [
        "make room on its disk if that is full, and start again"
    ]
    confirmed, handled = ([text for word, text in said if word == kind] for kind in ("confirmed", "handled"))
    assert len(confirmed) == 2200
    fault.judge(confirmed, Counter(handled), twice=0)


@pytest.mark.slow
@pytest.mark.fault("F83", "copies of the file and its -wal, taken while the owner is frozen, ten times")
async def test_copies_of_the_file(file_project: Project, fault: Fault) -> None:
    """As a snapshot of the disk: in each one is what was confirmed and not yet handled."""
    async with file_project.up() as runner:
        await started(runner)
        confirmed: list[str] = []
        async with other_process(file_of(file_project)) as transport:
            sent = [f"sent-{number}" for number in range(600)]
            sending = asyncio.create_task(send(transport, file_project.name("work"), sent, confirmed))
            for number in range(10):
                await until(lambda wanted=number * 50: len(confirmed) >= wanted, "messages are confirmed")
                runner.signal(signal.SIGSTOP)
                known, done = set(confirmed), set(file_project.ledger.counts())  # no await: nothing is published now
                for suffix in ("", "-wal"):
                    shutil.copy(f"{file_of(file_project)}{suffix}", file_project.folder / f"copy{number}{suffix}")
                runner.signal(signal.SIGCONT)
                assert known - done <= set(_bodies(file_project.folder / f"copy{number}"))
            await sending
        counts = await finish(file_project, runner, set(confirmed))
    fault.judge(confirmed, counts, twice=0)


@pytest.mark.fault("F84", "the file is deleted while it is in use")
async def test_a_file_that_is_deleted(file_project: Project, fault: Fault) -> None:
    """It is said at once, and the process ends."""
    async with file_project.up() as runner:
        await started(runner)
        file_of(file_project).unlink()
        assert await runner.wait() == 69
    (line,) = lines(runner, "broker.file_lost")
    assert "it was deleted while it was in use" in line["error"]
    fault.row["seconds"] = 0.0


@pytest.mark.fault("F85", "two owners: a second `up`; and one after kill -9 while a child of a handler lives")
async def test_two_owners(file_project: Project, fault: Fault) -> None:
    file_project.handlers(
        """
        import subprocess

        async def make():
            for item in ():
                yield item

        def handle(order: str) -> None:
            subprocess.Popen(["sleep", "30"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            note(order)
        """
    )
    async with file_project.up() as runner:
        await started(runner)
        second = await file_project.do("up", code=69)
        assert f"belongs to runner up ({file_project.unique}) with pid {runner.pid} on " in second.stderr
        await file_project.do("publish", file_project.name("work"), '"starts a child"')
        await file_project.ledger.wait_for(1)
        os.kill(runner.pid, signal.SIGKILL)
        await runner.wait()
    async with file_project.up() as runner:
        await started(runner)
        await stop(runner)
    fault.row["seconds"] = 0.0


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.fault("F86", "the back office runs on a file, and is killed every few seconds")
async def test_the_back_office_on_a_file(tmp_path: Path, fault: Fault) -> None:
    """Its books are exact: each order is reserved and paid once, and mailed. BACK_OFFICE_S is for how long: 20 seconds.

    Orders are published by another program, ten a second, also while nothing runs.
    """
    seconds, drawn = float(os.environ.get("BACK_OFFICE_S", "20")), random.Random(60)
    file, books, confirmed = tmp_path / "office.queue", tmp_path / "books.db", list[int]()
    options = ("resources.books.with.stock.lamp=1000000", "subscribers.book_payments.batch.wait=100ms")
    command = ["up", "pipelines/back_office.yaml", "--broker", f"file:{file}", "--http", "127.0.0.1:0"]
    command += ["--except", "old_orders", *(word for each in options for word in ("--set", each))]

    async def order(transport: FileTransport) -> None:
        for number in itertools.count(1):
            customer = f"customer-{number % 7}"
            body = {"number": number, "customer": customer, "email": f"{customer}@example.com"}
            body |= {"article": "lamp", "quantity": 1, "cents": 100}
            envelope = Envelope(json.dumps(body).encode(), message_id=f"o-{number}", content_type="application/json")
            await transport.publish(Address("", "orders"), envelope)
            confirmed.append(number)
            await asyncio.sleep(0.1)  # ten a second

    async with mail_server(refusals=0) as (port, mails):
        env = {"MAIL_PORT": str(port), "BOOKS": str(books)}

        def mailed() -> set[str]:
            return {line.split()[3] for mail in [*mails] for line in mail if line.startswith("Subject: Your order")}

        async with RunnerProcess(*command, cwd=ROOT, env=env) as runner:
            await started(runner)
            runner.signal(signal.SIGKILL)
            await runner.wait()
        until_s, kills = asyncio.get_running_loop().time() + seconds, 1
        async with other_process(file) as transport:
            ordering = asyncio.create_task(order(transport))
            while asyncio.get_running_loop().time() < until_s:
                async with RunnerProcess(*command, cwd=ROOT, env=env) as runner:
                    await started(runner)
                    await asyncio.sleep(drawn.uniform(0.2, 5.0))  # a moment that is drawn, not one that is waited for
                    runner.signal(signal.SIGKILL)
                    await runner.wait()
                kills += 1
            ordering.cancel()
            await asyncio.gather(ordering, return_exceptions=True)
        async with RunnerProcess(*command, cwd=ROOT, env=env) as runner:
            await until(lambda: mailed() >= set(map(str, confirmed)), "each order is mailed", 120)
            await until(lambda: _numbers(books, "payments") >= set(confirmed), "each order is paid", 120)
            await stop(runner)
    reserved, paid = _numbers(books, "reservations"), _numbers(books, "payments")
    with contextlib.closing(sqlite3.connect(books)) as connection:
        assert connection.execute("SELECT quantity FROM stock WHERE article = 'lamp'").fetchone() == (
            1_000_000 - len(reserved),
        )
    assert reserved == paid
    assert paid - set(confirmed) <= {len(confirmed) + 1}, "one was not confirmed when its program ended"
    fault.judge(map(str, paid), Counter(map(str, paid)), twice=0)
    fault.row["seconds"] = kills


def _numbers(books: Path, table: str) -> set[int]:
    with contextlib.closing(sqlite3.connect(books)) as connection:
        return {number for (number,) in connection.execute(f"SELECT number FROM {table}")}
