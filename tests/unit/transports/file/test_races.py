"""The broker in a file: the loop, its writer's thread and other processes, in the order that does harm."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from runner.errors import BrokerUnavailable, PublishUnknown
from runner.message import Address, Envelope
from runner.pipeline.topology import Queue, Topology
from runner.transports.file import paged_buffer, store
from tests.unit.transports.file.sessions import change, crash, session, until

pytestmark = pytest.mark.usefixtures("no_file_left_open")


async def test_a_fault_of_the_writer_ends_the_waiting(tmp_path: Path) -> None:
    """What SQLite will never take is said, and no publisher waits for it for ever."""
    async with session(tmp_path / "q") as opened:
        opened.broker.store.execute("INSERT INTO meta VALUES (?, ?)", "key", object())
        with pytest.raises(PublishUnknown):
            await opened.publish("order")
        assert [event.event for event in opened.events] == ["broker.file_lost"]


async def test_a_session_that_ends_while_the_disk_is_full_ends_the_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that wait learn that it is unknown; what was confirmed is there, and the failed deliveries are counted."""
    monkeypatch.setattr(store, "CLOSE_S", 0.1)
    async with session(tmp_path / "q") as opened:
        await opened.publish("confirmed")
        await opened.subscribe()
        assert (await opened.next()).failed_deliveries == 0
        pages = opened.broker.store.rows("PRAGMA page_count")[0][0]
        opened.broker.store.writer.execute(f"PRAGMA max_page_count = {pages}")
        bodies = ["y" * 9000] * 3
        publishing = [asyncio.create_task(opened.publish(body)) for body in bodies]
        await until(lambda: opened.broker.store.is_blocked)
        publishing.append(asyncio.create_task(opened.publish("late")))
        await opened.transport.close()
        ended = await asyncio.gather(*publishing, return_exceptions=True)
        assert {type(each) for each in ended} == {PublishUnknown}
    async with session(tmp_path / "q") as opened:
        await opened.subscribe()
        delivery = await opened.next()
        assert (delivery.envelope.body, delivery.failed_deliveries) == (b"confirmed", 1)


async def test_what_another_process_removes_is_counted_once_while_the_disk_is_slow(tmp_path: Path) -> None:
    """The owner sees the note again, because its deletion is not written yet."""
    count = paged_buffer.WINDOW + 50
    async with session(tmp_path / "q") as owner:
        await owner.publish_many(count)
        with contextlib.closing(sqlite3.connect(tmp_path / "q", isolation_level=None)) as other:
            (last,) = other.execute("SELECT max(id) FROM messages").fetchone()
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO removed VALUES (?, 0)", (last,))
            other.execute("DELETE FROM messages WHERE id = ?", (last,))
            other.execute("COMMIT")
            other.execute("BEGIN IMMEDIATE")
            owner.broker.read_topology()
            owner.broker._data_version = -1  # a third process has written something
            owner.broker.read_topology()
            assert owner.count() == count - 1
            other.execute("ROLLBACK")


async def test_a_message_that_is_being_written_when_care_ends_is_delivered(tmp_path: Path) -> None:
    async with session(tmp_path / "q") as opened:
        crash(opened)
    async with session(tmp_path / "q") as opened:
        await opened.subscribe()
        publishing = asyncio.create_task(opened.publish("order"))
        await asyncio.sleep(0)  # the task runs until it waits for the disk
        await asyncio.sleep(0)  # the queue looks for messages that are in the file
        assert opened.count() == 1
        opened.broker.store.end_care()
        await publishing
        assert await opened.take(1) == ["order"]


async def test_a_new_queue_may_have_the_number_of_a_deleted_one(tmp_path: Path) -> None:
    """Its first messages are taken in."""
    async with session(tmp_path / "q") as owner, session(tmp_path / "q", is_owner=False) as other:
        for name in ("old", "new"):
            await other.transport.declare(Topology(queues=(Queue(name),)))
            await other.transport.publish(Address("", name), Envelope(b"1"))
            await until(lambda name=name: owner.transport.queue(name) is not None and owner.count(name) == 1)
            if name == "old":
                queue = other.broker.queue(name)
                assert queue is not None
                other.broker._delete(queue)
                await other.transport.written()
                await until(lambda: owner.transport.queue("old") is None)


async def test_subscriptions_that_come_at_once_are_all_noted(tmp_path: Path) -> None:
    """A crash counts a failed delivery for as many messages as they may hold together."""
    async with session(tmp_path / "q") as opened:
        await asyncio.gather(opened.subscribe(10), opened.subscribe(20))
        await opened.transport.written()
        assert opened.broker.store.rows("SELECT consumers, prefetch FROM consumers") == [(2, 30)]


async def test_a_definition_that_cannot_be_read_leaves_nothing_open(tmp_path: Path) -> None:
    """As one of a newer version may be."""
    async with session(tmp_path / "q"):
        pass
    change(tmp_path / "q", """INSERT INTO definitions VALUES ('queue', 'q', '{"name": "q", "news": 1}')""")
    with pytest.raises(BrokerUnavailable, match=r"cannot be used: .*unexpected keyword argument 'news'"):
        async with session(tmp_path / "q"):
            pass


def test_a_process_does_not_use_a_file_that_was_open_when_it_was_forked(tmp_path: Path) -> None:
    """SQLite believes there that it has its parent's locks: when the parent ends, what it writes is lost."""
    script = """
        import os, sys
        from pathlib import Path
        from runner.errors import BrokerUnavailable
        from runner.transports.file.queue_file import connect, disconnect

        def in_child():
            if not os.fork():
                try:
                    disconnect(connect(path, creates=False))
                    print("used", flush=True)
                except BrokerUnavailable as error:
                    print(error, flush=True)
                os._exit(0)
            os.wait()

        path = Path(sys.argv[1])
        connection = connect(path, creates=True)
        in_child()
        disconnect(connection)
        in_child()
    """
    command = [sys.executable, "-c", dedent(script), str(tmp_path / "q")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    refused, used = ended.stdout.splitlines()
    assert "was open when this process was forked" in refused
    assert used == "used"
