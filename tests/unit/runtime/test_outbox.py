"""The outbox keeps messages in their order, whole, on the disk, and for several processes."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from runner.errors import OutboxUnavailable
from runner.message import Address, Envelope
from runner.pipeline.codec import encode
from runner.pipeline.model import Destination
from runner.runtime.outbox import Outbox
from runner.runtime.publisher import OutgoingMessage, address_of

FORKING = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
"""Python 3.12 warns of what is tested here."""


def message(body: str, **properties: object) -> OutgoingMessage:
    return OutgoingMessage(
        Destination("order.placed", Address("events", "order.placed"), is_event=True, encode=encode),
        Envelope(body.encode(), message_id=f"id-{body}", **properties),  # type: ignore[arg-type]
    )


def bodies(outbox: Outbox) -> list[str]:
    return [kept.outgoing.envelope.body.decode() for kept in outbox.first(0, 100)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


Open = Callable[..., Outbox]


@pytest.fixture
def open_outbox(path: Path) -> Iterator[Open]:
    """Open the file, for the pipeline `shop` and any number of messages, and close it after the test."""
    with ExitStack() as opened:

        def open_outbox(pipeline: str = "shop", max_pending: int = 1000) -> Outbox:
            outbox = Outbox(path, pipeline, max_pending)
            opened.callback(outbox.close)
            return outbox

        yield open_outbox


def rows(path: Path, question: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(question).fetchall()


def test_messages_come_back_whole_and_in_order(open_outbox: Open) -> None:
    """Also in the next process: what is kept is read from the file."""
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    headers = {
        "text": "\udcff é",
        "bytes": b"\x00\xff",
        "time": moment,
        "price": Decimal("1.20"),
        "list": [1, True, None, {"deep": 0.5}],
        "bytes in a map": {"bytes": "plain text"},
    }
    outbox = open_outbox()
    first = message("1", timestamp=moment, content_type="application/json", headers=headers)
    outbox.add(first._replace(key="order.placed.eu"))
    outbox.add(message("2"))
    outbox.close()
    kept = [item.outgoing for item in open_outbox().first(0, 100)]
    assert [item.envelope for item in kept] == [first.envelope, message("2").envelope]
    assert [address_of(item) for item in kept] == [
        Address("events", "order.placed.eu"),
        Address("events", "order.placed"),
    ]


def test_what_was_confirmed_is_gone_and_the_rest_keeps_its_order(open_outbox: Open) -> None:
    outbox = open_outbox()
    for body in "abcd":
        outbox.add(message(body))
    outbox.remove([kept.number for kept in outbox.first(0, 100) if kept.outgoing.envelope.body in (b"a", b"c")])
    outbox.add(message("e"))
    assert bodies(outbox) == ["b", "d", "e"]
    assert (outbox.count(), outbox.has_waiting()) == (3, True)


def test_a_full_outbox_refuses_messages(open_outbox: Open) -> None:
    outbox = open_outbox(max_pending=2)
    outbox.add(message("1"))
    outbox.add(message("2"))
    with pytest.raises(OutboxUnavailable, match="holds 2 messages, which is its limit"):
        outbox.add(message("3"))
    assert bodies(outbox) == ["1", "2"]


def test_pipelines_that_share_a_file_do_not_send_each_others_messages(open_outbox: Open) -> None:
    shop, mail = open_outbox(), open_outbox("mail")
    shop.add(message("1"))
    assert (shop.count(), mail.count(), mail.has_waiting()) == (1, 0, False)
    assert bodies(mail) == []


def test_what_no_broker_can_take_stays_in_the_file_and_waits_no_more(path: Path, open_outbox: Open) -> None:
    outbox = open_outbox()
    outbox.add(message("1"))
    outbox.give_up(outbox.first(0, 1)[0].number, "too large")
    assert (outbox.count(), bodies(outbox)) == (0, [])
    outbox.close()
    (row,) = rows(path, "SELECT body, error FROM messages")
    assert row == (b"1", "too large")


def test_one_at_a_time_sends(open_outbox: Open) -> None:
    first, second = open_outbox(), open_outbox()
    assert first.become_sender()
    assert not second.become_sender()
    first.resign()
    assert second.become_sender()
    second.close()
    assert first.become_sender()
    first.close()


def test_commits_are_on_the_disk(open_outbox: Open) -> None:
    """SQLite's default in WAL mode, NORMAL, loses the last commits when the power fails."""
    outbox = open_outbox()
    connection = outbox._connection
    assert connection is not None
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


@FORKING
def test_a_fork_leaves_connection_and_lock_to_the_parent(open_outbox: Open) -> None:
    """A child that used the parent's connection, or ended its lock, would destroy what the parent relies on."""
    outbox = open_outbox()
    outbox.add(message("1"))
    assert outbox.become_sender()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        mine = open_outbox()
        if not os.fork():  # a child of the child
            os._exit(0)
        os.wait()
        mine.add(message("2"))
        os.write(writer, f"{mine.become_sender()} {outbox._connection} {outbox._sender_lock}".encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reader, 100) == b"False None None"
    assert bodies(outbox) == ["1", "2"]
    assert not open_outbox().become_sender()
    outbox.close()


@FORKING
def test_threads_that_add_while_the_process_forks(path: Path, open_outbox: Open) -> None:
    outbox = open_outbox()

    def add(letter: str) -> None:
        for number in range(10):
            outbox.add(message(f"{letter}{number}"))

    threads = [threading.Thread(target=add, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for number in range(3):
        if (child := os.fork()) == 0:
            open_outbox().add(message(f"child{number}"))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    for thread in threads:
        thread.join()
    assert len(bodies(outbox)) == 23
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_only_its_owner_may_read_it(path: Path, open_outbox: Open) -> None:
    outbox = open_outbox()
    outbox.add(message("1"))
    outbox.become_sender()
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "outbox.db": 0o600,
        "outbox.db-wal": 0o600,
        "outbox.db-shm": 0o600,
        "outbox.db.lock": 0o600,
    }
    outbox.close()


def test_a_file_that_is_no_database(path: Path, open_outbox: Open) -> None:
    path.write_text("a letter to my grandmother, not a database" * 100)
    with pytest.raises(OutboxUnavailable, match="file is not a database"):
        open_outbox()


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(OutboxUnavailable, match="cannot be used: No such file or directory"):
        Outbox(tmp_path / "none" / "outbox.db", "shop", 10)


@FORKING
def test_processes_that_make_the_file_at_the_same_time(path: Path, open_outbox: Open) -> None:
    """As the workers of a web server at its first start: SQLite alone would refuse some of them."""
    children = []
    for number in range(6):
        if not (child := os.fork()):
            try:
                Outbox(path, "shop", 1000).add(message(str(number)))
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    assert sorted(bodies(open_outbox())) == ["0", "1", "2", "3", "4", "5"]
