"""The file of messages that move between brokers: its lines, whatever is in them, and where each message goes."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.message import NO_HEADERS, Address, Envelope, Timestamp
from runner.operations.memory_access import FileAccess, MemoryAccess
from runner.operations.message_transfer import (
    GROUP,
    HEADER,
    MessageExport,
    MessageImport,
    TransferFailed,
    WaitingMessage,
    open_locked,
    places,
    prepare,
    read_file,
    read_line,
)
from runner.operations.targets import UnknownTarget
from runner.pipeline.delays import STEPS_MS
from runner.pipeline.model import Pipeline
from runner.system import load
from runner.transports.file import FileBroker, FileTransport
from runner.transports.memory import MemoryTransport

PIPELINE = """
    version: 1
    name: shop
    queues:
      orders: {events: [order.paid]}
      reminders:
    events: {order.paid: }
    delays: [reminders]
    subscribers:
      ship: {from: orders, handler: json:dumps, retry: {attempts: 3, delay: 1m, max_delay: 2m}}
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    path = tmp_path / "shop.yaml"
    path.write_text(dedent(PIPELINE))
    return load([path], {}).pipelines[0]


# Lines

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1), timezones=st.just(UTC)).map(
    lambda time: time.replace(microsecond=0)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS | st.binary(max_size=20) | TIMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ENVELOPES = st.builds(
    Envelope,
    st.binary(max_size=50) | TEXTS.map(str.encode),
    message_id=st.none() | TEXTS,
    type=st.none() | TEXTS,
    timestamp=st.none() | TIMES | st.integers(2**40, 2**60).map(Timestamp),
    priority=st.none() | st.integers(0, 255),
    expiration_ms=st.none() | st.integers(0, 10_000),
    headers=st.dictionaries(TEXTS, VALUES, max_size=4).map(lambda headers: headers or NO_HEADERS),
)


@given(ENVELOPES, TEXTS, TEXTS, st.none() | TIMES)
def test_a_message_survives_its_line(envelope: Envelope, exchange: str, key: str, due: datetime | None) -> None:
    message = WaitingMessage(envelope, Address(exchange, key), queue="orders", due=due)
    line = message.as_line()
    assert line.count(b"\n") == 1
    assert read_line(line) == message


GOOD: dict[str, Any] = {"queue": "orders", "exchange": "", "key": "orders", "body": "{}"}
WRONG: dict[str, Any] = {
    "no JSON": b"{",
    "no object": b"[1]",
    "nested too deeply": b"[" * 100_000,
    "no queue": {"queue": None},
    "queue and destination": {"to": "orders", "due": "2026-11-30T12:00:00+00:00"},
    "a delayed message that is never due": {"queue": None, "to": "orders"},
    "a queue that is no text": {"queue": 1},
    "a key that is no text": {"key": None},
    "a key that is too long": {"key": "x" * 256},
    "no exchange": {"exchange": None},
    "a due that is no time": {"due": "soon"},
    "no body": {"body": None},
    "a body that is no text": {"body": {}},
    "bytes that are none": {"body": None, "body_hex": "xy"},
    "an id that is no text": {"message_id": 7},
    "a priority out of range": {"priority": 256},
    "a time that is no time": {"timestamp": "yesterday"},
    "a time out of range": {"timestamp": {"seconds": -1}},
    "headers that are no map": {"headers": [1]},
    "a header that is too large": {"headers": {"map": {"a": "x" * 100_000}}},
    "bytes of a header that are none": {"headers": {"map": {"a": {"bytes": 5}}}},
    "a number that is none": {"headers": {"map": {"a": {"decimal": "x"}}}},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_a_wrong_line_is_named_and_nothing_is_published(
    wrong: bytes | dict[str, Any], pipeline: Pipeline, tmp_path: Path
) -> None:
    good = json.dumps(GOOD).encode() + b"\n"
    items = {**GOOD, **({} if isinstance(wrong, bytes) else wrong)}
    items = {name: value for name, value in items.items() if value is not None}
    bad = wrong if isinstance(wrong, bytes) else json.dumps(items).encode()
    (tmp_path / "m").write_bytes(HEADER + good + bad + b"\n" + good)
    transport = await connected()
    with pytest.raises(TransferFailed, match="m, line 3: "):
        await MessageImport(transport, [pipeline], tmp_path / "m", asyncio.Event()).run(pipeline.topology)
    assert transport.queue("orders") is None


async def test_a_progress_that_is_none_is_not_overwritten(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(HEADER)
    (tmp_path / "m.done").write_text("my notes")
    with pytest.raises(TransferFailed, match=r"m\.done is not what an import has written"):
        await MessageImport(await connected(), [pipeline], tmp_path / "m", asyncio.Event()).run(pipeline.topology)
    assert (tmp_path / "m.done").read_text() == "my notes"


async def test_a_queue_that_no_pipeline_has_is_named(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(HEADER + json.dumps({**GOOD, "queue": "bills"}).encode() + b"\n")
    work = MessageImport(await connected(), [pipeline], tmp_path / "m", asyncio.Event())
    with pytest.raises(TransferFailed, match='line 2: no pipeline here has "bills"; nothing of it was published'):
        await work.run(pipeline.topology)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a file of"),
        (b"version: 1\n", "is not a file of"),
        (HEADER + b'{"queue": "or', "line 2: it has no end"),
    ],
)
def test_a_file_that_is_no_export_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(TransferFailed, match=said):
        list(read_file(tmp_path / "m", 0, 0))


def test_an_export_keeps_what_a_file_has_and_cuts_a_line_that_was_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with open_locked(path) as file:
        prepare(file, path)
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(TransferFailed, match="another process uses it"), open_locked(path):
            pass
    path.write_bytes(HEADER + b'{"a": 1}\n{"b"')
    with open_locked(path) as file:
        prepare(file, path)
        assert file.tell() == path.stat().st_size
    assert path.read_bytes() == HEADER + b'{"a": 1}\n'
    path.write_bytes(HEADER[:7])  # killed at the very beginning
    with open_locked(path) as file:
        prepare(file, path)
    assert path.read_bytes() == HEADER
    path.write_bytes(b"my notes")
    with open_locked(path) as file, pytest.raises(TransferFailed, match="something else"):
        prepare(file, path)
    assert path.read_bytes() == b"my notes"


# Export


def test_queues_are_read_in_the_order_in_which_messages_pass_through_them(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(
        "broker: amqp://127.0.0.1\n"
        + dedent(PIPELINE).replace("reminders:\n", "reminders:\n  audit: {type: stream}\n", 1)
    )
    pipeline = load([path], {}).pipelines[0]
    found = [place.queue for place in places([pipeline])]
    assert found[:2] == [f"shop.delay.{STEPS_MS[-1]}", f"shop.delay.{STEPS_MS[-2]}"]
    at = {queue: number for number, queue in enumerate(found)}
    for order in (
        ["shop.delay.50", "shop.delay.to.orders", "orders", "orders.dead"],
        ["shop.retry.120000", "shop.retry.60000", "orders", "orders.dead"],
    ):
        assert [at[queue] for queue in order] == sorted(at[queue] for queue in order)
    assert "audit" not in found
    assert [place.queue for place in places([pipeline], ["orders"])] == ["orders"]
    with pytest.raises(UnknownTarget, match='no queue of the pipeline is called "order"'):
        places([pipeline], ["order"])


def test_the_name_of_a_queue_with_partitions_means_all_of_them(tmp_path: Path) -> None:
    queues = "queues: {parts: {partitions: 2, partition_by: id}, orders: }"
    path = tmp_path / "shop.yaml"
    path.write_text(f"version: 1\n{queues}\nsubscribers: {{ship: {{from: parts, handler: json:dumps}}}}\n")
    pipelines = load([path], {}).pipelines
    assert [place.queue for place in places(pipelines, ["parts"])] == list(pipelines[0].partitionings["parts"].names)


async def test_a_queue_in_use_is_left_alone(pipeline: Pipeline, tmp_path: Path) -> None:
    from runner.transports.base import SubscriptionOptions

    transport = await connected()
    await transport.declare(pipeline.topology)
    options = SubscriptionOptions(queue="orders", prefetch=1, dead_letter="orders.dead", wait_prefix="shop.retry")
    await transport.subscribe(options, lambda _: None)
    with open_locked(tmp_path / "m") as file:
        export = MessageExport(MemoryAccess(transport), places([pipeline]), file, asyncio.Event())
        with pytest.raises(TransferFailed, match='a process takes messages from "orders"'):
            await export.run()


# There and back


async def connected() -> MemoryTransport:
    transport = MemoryTransport()
    await transport.connect()
    return transport


@pytest.mark.usefixtures("no_file_left_open")
async def test_messages_go_through_a_file_and_back_as_they_were(pipeline: Pipeline, tmp_path: Path) -> None:
    """On a broker in a file, twice: what was removed beside its owner has numbers that are given again."""
    orders, count = Address("", "orders"), 2 * GROUP + 3
    for again in range(2):
        owner = FileTransport(FileBroker(tmp_path / "q"))
        await owner.connect()
        await owner.declare(pipeline.topology)
        if not again:
            for number in range(count):
                headers = {"n": number, "x-death": [{}], "CC": ["reminders"]}
                await owner.publish(orders, Envelope(b"%d" % number, message_id=f"id{number}", headers=headers))
        async with asyncio.timeout(20):
            while (queue := owner.queue("orders")) is not None and queue.depth[0] < count:
                await asyncio.sleep(0.01)  # the owner takes in what other processes have published
        await owner.close()
        assert await export(pipeline, tmp_path, f"m{again}") == 0
        messages = [message for _, _, message in read_file(tmp_path / f"m{again}", 0, 0)]
        expected = [Envelope(b"%d" % number, f"id{number}", headers={"n": number}) for number in range(count)]
        assert [message.envelope for message in messages] == expected
        owner = FileTransport(FileBroker(tmp_path / "q", is_owner=False))
        await owner.connect()
        work = MessageImport(owner, [pipeline], tmp_path / f"m{again}", asyncio.Event())
        await work.run(pipeline.topology)
        assert (work.before, work.count) == (0, count)
        await work.run(pipeline.topology)
        assert (work.before, work.count) == (count, count)
        await owner.close()


async def export(pipeline: Pipeline, folder: Path, name: str) -> int:
    """Export the broker of a file, and return what is left."""
    access = FileAccess(folder / "q", lambda _: None)
    await access.open()
    with open_locked(folder / name) as file:
        prepare(file, folder / name)
        left = await MessageExport(access, places([pipeline]), file, asyncio.Event()).run()
    await access.close()
    return left


def addressed(pipeline: Pipeline, message: WaitingMessage) -> tuple[Address, Envelope]:
    transport = MemoryTransport()
    return MessageImport(transport, [pipeline], Path(os.devnull), asyncio.Event())._addressed(message)


def test_a_retry_waits_for_what_is_left_and_one_whose_time_has_passed_does_not(pipeline: Pipeline) -> None:
    now, came_by = datetime.now(UTC), Address("shop.retry.60000", "orders")
    early = WaitingMessage(Envelope(b""), came_by, "orders", due=now + timedelta(seconds=30))
    address, envelope = addressed(pipeline, early)
    assert address == Address("shop.retry.60000", "orders")
    assert 29_000 < (envelope.expiration_ms or 0) <= 30_000
    other = Address("shop.retry.30000", "orders")  # the pipeline had another delay then
    address, envelope = addressed(pipeline, early._replace(address=other, due=now + timedelta(seconds=90)))
    assert address == Address("shop.retry.120000", "orders")
    address, envelope = addressed(pipeline, early._replace(due=now - timedelta(seconds=1)))
    assert (address, envelope.expiration_ms) == (Address("", "orders"), None)


def test_a_delayed_message_goes_down_the_ladder_for_what_is_left(pipeline: Pipeline) -> None:
    headers = {"x-runner-delay-to": "order.paid", "x-runner-delay-3200": True, "tenant": "a"}
    late = datetime.now(UTC) - timedelta(days=1)
    message = WaitingMessage(
        Envelope(b"", headers=headers), Address("shop.delay.3200", "own.key"), to="order.paid", due=late
    )
    address, envelope = addressed(pipeline, message)
    assert address == Address("shop.delay.50", "own.key")
    assert envelope.headers == {"x-runner-delay-to": "order.paid", "x-runner-delay-50": True, "tenant": "a"}


def test_the_event_of_a_message_is_kept(pipeline: Pipeline) -> None:
    """Another program has published it to the exchange, without a type."""
    came_by = pipeline.destinations["order.paid"].address
    _, envelope = addressed(pipeline, WaitingMessage(Envelope(b""), came_by, "orders"))
    assert envelope.type == "order.paid"
