"""The broker in a file: what is in memory, what outlives a process, and what several processes do at once."""

from __future__ import annotations

import asyncio
import os
import resource
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown
from runner.message import Address, Envelope
from runner.outcome import DeadLetter, Retry
from runner.pipeline.topology import Queue, Topology
from runner.transports.base import Delivery
from runner.transports.file import paged_buffer, queue_file, store
from runner.transports.pauses import Pause
from tests.unit.transports.file.sessions import OPTIONS, WORK, Session, change, crash, session, until

pytestmark = pytest.mark.usefixtures("no_file_left_open")


async def test_a_backlog_is_in_the_file_and_comes_in_order(tmp_path: Path) -> None:
    """Only the head is in memory, before a restart and after it; what is given back keeps its place."""
    count = paged_buffer.WINDOW * 3
    async with session(tmp_path / "q") as opened:
        await opened.publish_many(count)
        assert _in_memory(opened) <= paged_buffer.WINDOW
        await opened.subscribe(prefetch=3)
        first = [await opened.next() for _ in range(3)]
        await opened.transport._subscriptions[0].close()
        assert [delivery.envelope.body for delivery in first] == [b"0", b"1", b"2"]
    async with session(tmp_path / "q") as opened:
        assert (opened.count(), _in_memory(opened)) == (count, paged_buffer.PAGE)
        await opened.subscribe()
        assert await opened.take(count) == [str(number) for number in range(count)]
    async with session(tmp_path / "q") as opened:
        assert opened.count() == 0


def _in_memory(opened: Session) -> int:
    queue: Any = opened.transport.queue("work")
    return sum(len(fifo._head) for fifo in queue.fifos.values())


async def test_messages_that_arrive_while_a_backlog_is_read_come_after_it(tmp_path: Path) -> None:
    count = paged_buffer.WINDOW + 500
    async with session(tmp_path / "q") as opened:
        await opened.publish_many(count)
        await opened.subscribe()
        taken = await opened.take(count // 2)
        await opened.publish_many(200, b" later")
        taken += await opened.take(count - count // 2 + 200)
    assert taken == [*map(str, range(count)), *(f"{number} later" for number in range(200))]


async def test_after_a_restart_messages_arrive_as_before(tmp_path: Path) -> None:
    async with session(tmp_path / "q") as opened:
        await opened.publish("before")
    async with session(tmp_path / "q") as opened:
        await opened.publish("after")
        await opened.subscribe()
        assert await opened.take(2) == ["before", "after"]


async def test_priorities_outlive_a_restart(tmp_path: Path) -> None:
    async with session(tmp_path / "q") as opened:
        for priority in (None, 1, 31, None, 9):
            await opened.publish(f"{priority}", priority=priority)
    async with session(tmp_path / "q") as opened:
        await opened.subscribe(prefetch=1)
        assert await opened.take(5) == ["31", "9", "None", "None", "1"]


async def test_properties_and_headers_outlive_a_restart(tmp_path: Path) -> None:
    headers = {"a": 1, "b": b"\xff", "c": [True, None, {"d": 1.5}], "e": "\udcff", "empty": {}}
    sent = Envelope(b"\x00body", message_id="m", correlation_id="c", priority=3, headers=headers)
    async with session(tmp_path / "q") as opened:
        await opened.transport.publish(WORK, sent)
    async with session(tmp_path / "q") as opened:
        await opened.subscribe()
        assert (await opened.next()).envelope == sent


async def test_attempts_and_retries_outlive_a_restart(tmp_path: Path) -> None:
    async with session(tmp_path / "q") as opened:
        await opened.publish("order")
        await opened.subscribe()
        await opened.transport.settle(await opened.next(), Retry(0.3, "Error", "away"))
    async with session(tmp_path / "q") as opened:
        await opened.subscribe()
        delivery = await opened.next()
        assert delivery.attempt == 2
        await opened.transport.settle(delivery, DeadLetter("exhausted", "Error", "away"))
    async with session(tmp_path / "q") as opened:
        assert (opened.count(), opened.count("dead")) == (0, 1)


@pytest.mark.parametrize("days", [-365, 0, 365])
async def test_retries_keep_their_time_when_the_clock_is_changed(tmp_path: Path, days: int) -> None:
    """Put back by a year, while nothing runs: the time of the file goes on. Put forward: what waits is due."""
    async with session(tmp_path / "q") as opened:
        await opened.publish("order")
        await opened.subscribe()
        await opened.transport.settle(await opened.next(), Retry(1.0, "Error", "away"))
    async with session(tmp_path / "q", clock=lambda: datetime.now(UTC) + timedelta(days=days)) as opened:
        started = asyncio.get_running_loop().time()
        await opened.subscribe()
        assert (await opened.next()).attempt == 2
        assert asyncio.get_running_loop().time() - started < 10


async def test_a_message_that_ends_its_process_is_given_up(tmp_path: Path) -> None:
    """What was in hand when the process was killed has failed once more; what was not is not counted."""
    async with session(tmp_path / "q") as opened:
        await opened.publish("killer", "other")
    for failed in range(3):
        async with session(tmp_path / "q") as opened:
            await opened.subscribe(prefetch=1)
            delivery = await opened.next()
            assert (delivery.envelope.body, delivery.failed_deliveries) == (b"killer", failed)
            await opened.transport.written()
            crash(opened)
    async with session(tmp_path / "q") as opened:
        await opened.subscribe(prefetch=1)
        assert (await opened.take(1), opened.count("dead")) == (["other"], 1)


async def test_after_a_crash_a_message_is_in_the_file_before_it_is_delivered(tmp_path: Path) -> None:
    """Otherwise a message that ends its process at once would never be counted."""
    async with session(tmp_path / "q") as opened:
        crash(opened)
    async with session(tmp_path / "q") as opened:
        stored = []

        def on_delivery(delivery: Delivery) -> None:
            stored.append(_stored(opened))
            opened.transport.ack(delivery)

        await opened.transport.subscribe(OPTIONS, on_delivery)
        await opened.publish_many(100)
        await opened.transport.written()
        assert len(stored) == 100
        assert min(stored) > 0, "delivered before it was in the file"


def _stored(opened: Session) -> int:
    return int(opened.broker.store.rows("SELECT count(*) FROM messages")[0][0])


async def test_a_message_that_is_handled_at_once_needs_no_place_in_the_file(tmp_path: Path) -> None:
    async with session(tmp_path / "q") as opened:

        def on_delivery(delivery: Delivery) -> None:
            opened.transport.ack(delivery)

        await opened.transport.subscribe(OPTIONS, on_delivery)
        await opened.transport.written()
        await opened.publish_many(50)
        assert opened.broker.store.rows("SELECT count(*) FROM messages") == [(0,)]
        assert opened.broker.store.rows("SELECT sum(last) FROM lines") == [(0,)]


async def test_space_is_given_back_after_a_backlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "VACUUM_LEAST", 64)
    path = tmp_path / "q"
    async with session(path) as opened:
        await opened.publish_many(400, b"x" * 4000)
        await opened.subscribe(prefetch=100)
        await opened.take(400)
        await until(lambda: _stored(opened) == 0)
        await until(lambda: opened.broker.store.rows("PRAGMA freelist_count")[0][0] < 64)
    assert path.stat().st_size < 400_000


# Several processes


async def test_other_processes_publish_look_and_remove(tmp_path: Path) -> None:
    path = tmp_path / "q"
    async with session(path, is_owner=False) as other:
        await other.publish("before")
        async with session(path) as owner:
            await owner.subscribe(prefetch=1)
            assert (await owner.next()).envelope.body == b"before"
            await other.publish("one", "two", "three")
            await until(lambda: owner.count() == 3)
            await until(lambda: other.count() == 3)
            queue: Any = other.transport.queue("work")
            (gone,) = [message for message in iter(queue.take_head, None) if message.envelope.body == b"two"]
            queue.forget(gone)
            await until(lambda: owner.count() == 2)


async def test_a_pause_of_another_process_is_heard(tmp_path: Path) -> None:
    async with session(tmp_path / "q") as owner, session(tmp_path / "q", is_owner=False) as other:
        heard: list[Any] = []
        await owner.transport.follow_pauses("shop", lambda *change: heard.append(change))
        pause = Pause(datetime(2026, 1, 1, tzinfo=UTC), "away")
        await other.transport.set_pause("shop", "ship", pause)
        await until(lambda: heard == [({"ship": pause}, "ship")])
        await other.transport.set_pause("shop", "ship", None)
        await until(lambda: heard[1:] == [({}, "ship")])


async def test_a_queue_that_another_process_declares_is_there(tmp_path: Path) -> None:
    async with session(tmp_path / "q") as owner, session(tmp_path / "q", is_owner=False) as other:
        await other.transport.declare(Topology(queues=(Queue("more"),)))
        await other.transport.publish(Address("", "more"), Envelope(b"1"))
        await until(lambda: owner.transport.queue("more") is not None and owner.count("more") == 1)
        with pytest.raises(PublishFailed, match='no queue takes a message for "none"'):
            await other.transport.publish(Address("", "none"), Envelope(b"1"))


async def test_one_process_owns_the_file(tmp_path: Path) -> None:
    async with session(tmp_path / "q", who="runner up (shop)"):
        with pytest.raises(BrokerUnavailable, match=rf"belongs to runner up \(shop\) with pid {os.getpid()}"):
            async with session(tmp_path / "q"):
                pass
    async with session(tmp_path / "q"):
        pass


# A file that cannot be used


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    async with session(tmp_path / "q"):
        pass
    change(tmp_path / "q", "PRAGMA user_version = 99")
    with pytest.raises(BrokerUnavailable, match=r"made by a newer version of the runner \(format 99, this one has 1\)"):
        async with session(tmp_path / "q"):
            pass


async def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    change(tmp_path / "q", "CREATE TABLE theirs (x)")
    with pytest.raises(BrokerUnavailable, match="is the database of another program"):
        async with session(tmp_path / "q"):
            pass


async def test_what_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "q").write_bytes(b"a diary" * 1000)
    with pytest.raises(BrokerUnavailable, match="it is not a file of a broker") as caught:
        async with session(tmp_path / "q"):
            pass
    assert "put a backup in its place" in caught.value.hint
    assert (tmp_path / "q").read_bytes() == b"a diary" * 1000


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="cannot be used: it is a folder") as caught:
        async with session(tmp_path):
            pass
    assert caught.value.hint == f"name a file in it, as in file:{tmp_path}/shop.queue"


async def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the path is relative, or leads there by a link, and the folder has a blank and an umlaut."""
    mounts, folder = tmp_path / "mounts", tmp_path / "an größe"
    folder.mkdir()
    escaped = str(folder).replace(" ", r"\040")
    mounts.write_text(f"1 1 0:1 / / rw - ext4 disk rw\n2 1 0:2 / {escaped} rw - nfs4 server:/ rw\n")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setattr(queue_file, "MOUNTS", mounts)
    monkeypatch.chdir(tmp_path)
    for path in (folder / "q", Path(folder.name) / "q", tmp_path / "link" / "q"):
        with pytest.raises(BrokerUnavailable, match=r"on a network file system \(nfs4\)"):
            async with session(path):
                pass


async def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    async with session(tmp_path / "data" / "q"):
        modes = {each.name: each.stat().st_mode & 0o777 for each in (tmp_path / "data").iterdir()}
    assert modes == dict.fromkeys(("q", "q-wal", "q-shm", "q.lock"), 0o600)


@pytest.mark.parametrize(("what", "suffix"), [("it", ""), ("its -wal", "-wal"), ("its .lock", ".lock")])
@pytest.mark.parametrize("how", ["deleted", "replaced by another file"])
async def test_a_file_that_is_gone_is_said_at_once(tmp_path: Path, what: str, suffix: str, how: str) -> None:
    """What is written to a deleted `-wal` is lost; without the `.lock`, a second process could own the file."""
    path = tmp_path / f"q{suffix}"
    async with session(tmp_path / "q") as opened:
        if how == "deleted":
            path.unlink()
        else:
            (tmp_path / "new").touch()
            (tmp_path / "new").rename(path)
        await until(lambda: bool(opened.events))
        assert opened.events[0].event == "broker.file_lost"
        assert f"{what} was {how} while it was in use" in opened.events[0].fields["error"]
        assert how in opened.transport.unready_reasons[0]


async def test_a_full_disk_stops_publishers_and_loses_nothing(tmp_path: Path) -> None:
    """They wait until it takes messages again, and acknowledgements are written then."""
    async with session(tmp_path / "q") as opened:
        await opened.publish_many(20, b"x" * 1000)
        await opened.subscribe()
        pages = opened.broker.store.rows("PRAGMA page_count")[0][0]
        opened.broker.store.writer.execute(f"PRAGMA max_page_count = {pages}")
        publishing = asyncio.gather(opened.publish(*("y" * 9000 for _ in range(20))))
        await until(lambda: [event.event for event in opened.events] == ["broker.blocked"])
        assert "full" in opened.events[0].fields["reason"]
        taken = await opened.take(20)
        assert not publishing.done()
        opened.broker.store.writer.execute("PRAGMA max_page_count = 1000000")
        await publishing
        assert [event.event for event in opened.events] == ["broker.blocked", "broker.unblocked"]
    async with session(tmp_path / "q") as opened:
        assert (len(taken), opened.count()) == (20, 20)


@pytest.mark.parametrize("is_owner", [True, False])
async def test_a_file_that_may_not_be_written_is_said_at_once(tmp_path: Path, is_owner: bool) -> None:
    """Waiting would not help: a user without the right to write, or a disk that was mounted again, after an error."""
    async with session(tmp_path / "q", is_owner=is_owner) as opened:
        opened.broker.store.writer.execute("PRAGMA query_only = 1")
        with pytest.raises(PublishUnknown, match=r"q cannot be used: attempt to write a readonly database") as caught:
            await opened.publish("order")
        assert caught.value.hint == "the user needs the right to write to it and to its folder"
        with pytest.raises(PublishUnknown if is_owner else BrokerUnavailable):
            await opened.publish("again")
        assert [event.event for event in opened.events] == ["broker.file_lost"]


async def test_damaged_pages_are_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "q"
    async with session(path) as opened:
        await opened.publish_many(3000, b"x" * 500)
    with path.open("r+b") as file:
        pages = path.stat().st_size // 4096
        for page in range(pages // 3, pages * 2 // 3):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with session(path) as opened:
        await opened.subscribe(prefetch=5000)
        await until(lambda: bool(opened.events))
        assert opened.events[0].event == "broker.file_lost"
        assert "put a backup in its place" in opened.events[0].fields["hint"]
    assert errors == [], "said once"


async def test_a_backlog_costs_no_memory(tmp_path: Path) -> None:
    """The window, and what is being written, are in memory."""
    async with session(tmp_path / "q") as opened:
        await opened.publish_many(200, b"x" * 16_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(12):
            await opened.publish_many(200, b"x" * 16_000)
        assert opened.count() == 2600
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
