"""B3: messages that AMQP libraries cannot read. The broker hands them out as they came: bytes are bytes to it."""

from __future__ import annotations

import json
import socket
import struct

import pytest

from tests.foreign import Foreign
from tests.node import Broker
from tests.process import RunnerProcess
from tests.project import Project, lines, until

PIPELINE = """
    version: 1
    queues: {UNIQUE.work: {delivery_limit: 2}}
    subscribers:
      handle: {from: UNIQUE.work, handler: work:handle, retry: none}
"""
HANDLERS = "def handle(order: str) -> None: note(order)"

HEADERS, TYPE, MESSAGE_ID, TIMESTAMP = 1 << 13, 1 << 5, 1 << 7, 1 << 6


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def table(*fields: bytes) -> bytes:
    joined = b"".join(fields)
    return struct.pack(">I", len(joined)) + joined


def nested(depth: int) -> bytes:
    """Return a table in a table in a table."""
    made = table()
    for _ in range(depth):
        made = table(short(b"t") + b"F" + made)
    return made


POISON = {
    "message id not UTF-8": (MESSAGE_ID, short(b"id-\xff\xfe")),
    "type not UTF-8": (TYPE, short(b"\xc3\x28")),
    "name of a header not UTF-8": (HEADERS, table(short(b"n\xff") + b"t\x01")),
    "header not UTF-8": (HEADERS, table(short(b"name") + b"S" + struct.pack(">I", 2) + b"\xff\xff")),
    "a time in microseconds": (TIMESTAMP, struct.pack(">Q", 1_700_000_000_000_000)),
    "a time out of reach": (TIMESTAMP, struct.pack(">Q", 2**64 - 1)),
    "a time in a header": (HEADERS, table(short(b"at") + b"T" + struct.pack(">Q", 2**63))),
    "nested 2,000 deep": (HEADERS, nested(2000)),
    "a decimal of a strange scale": (HEADERS, table(short(b"d") + b"D\xff" + struct.pack(">i", -1))),
    "a name of a header twice": (HEADERS, table(short(b"a") + b"t\x01", short(b"a") + b"t\x00")),
}


class RawClient:
    """Speaks AMQP 0-9-1 by hand, so that it can say what no library would."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._wait_for(10, 10)
        response = b"\x00guest\x00guest"
        self._method(0, 10, 11, table() + short(b"PLAIN") + struct.pack(">I", len(response)) + response + short(b"C"))
        self._wait_for(10, 30)
        self._method(0, 10, 31, struct.pack(">HIH", 2047, 131072, 0))
        self._method(0, 10, 40, short(b"/") + b"\x00\x00")
        self._wait_for(10, 41)
        self._method(1, 20, 10, short(b""))
        self._wait_for(20, 11)

    def publish(self, queue: str, flags: int, properties: bytes, body: bytes) -> None:
        """Publish to a queue; the broker has it when `close` returns."""
        self._method(1, 60, 40, b"\x00\x00" + short(b"") + short(queue.encode()) + b"\x00")
        self._frame(2, 1, struct.pack(">HHQH", 60, 0, len(body), flags) + properties)
        self._frame(3, 1, body)

    def get(self, queue: str) -> bytes:
        """Take a message, unread but for its body."""
        self._method(1, 60, 70, b"\x00\x00" + short(queue.encode()) + b"\x01")
        self._wait_for(60, 71)
        _, _, size = struct.unpack(">BHI", self._read(7))
        (length,) = struct.unpack(">Q", self._read(size + 1)[4:12])
        body = b""
        while len(body) < length:
            _, _, size = struct.unpack(">BHI", self._read(7))
            body += self._read(size + 1)[:-1]
        return body

    def close(self) -> None:
        """Close the channel, which is answered after everything before it, and the connection."""
        self._method(1, 20, 40, b"\x00\xc8" + short(b"") + b"\x00\x00\x00\x00")
        self._wait_for(20, 41)
        self._socket.close()

    def _method(self, channel: int, class_: int, method: int, arguments: bytes) -> None:
        self._frame(1, channel, struct.pack(">HH", class_, method) + arguments)

    def _frame(self, kind: int, channel: int, payload: bytes) -> None:
        self._socket.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce")

    def _wait_for(self, class_: int, method: int) -> None:
        while True:
            kind, _, size = struct.unpack(">BHI", self._read(7))
            payload = self._read(size + 1)
            if kind == 1:
                assert struct.unpack(">HH", payload[:4]) == (class_, method), payload
                return

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            assert piece, "the broker has closed the connection"
            data += piece
        return data


def publish_raw(node: Broker, queue: str, *kinds: str) -> None:
    """Publish poison; its body is its kind."""
    client = RawClient(node.port)
    for kind in kinds:
        client.publish(queue, *POISON[kind], kind.encode())
    client.close()


UNREADABLE = {
    "more flags than there are properties": (MESSAGE_ID | 1, short(b"id")),
    "the same, with headers": (HEADERS | 1, table(short(b"a") + b"t\x01")),
}
"""What RabbitMQ takes, though AMQP says that more flags follow. Quorum queues repair it; since RabbitMQ 4 all do."""


def need_unreadable(node: Broker) -> None:
    """Skip where there is no such message."""
    if node.line >= (4, 0):
        pytest.skip("RabbitMQ 4 writes properties anew on every type of queue: what it hands out can be decoded")


EVERYWHERE = """
    version: 1
    queues:
      UNIQUE.classic: {type: classic}
      UNIQUE.theirs: {declare: false}
    subscribers:
      classic: {from: UNIQUE.classic, handler: work:handle, retry: none}
      theirs: {from: UNIQUE.theirs, handler: work:handle_some, batch: {size: 2, wait: 100ms}}
"""


@pytest.mark.parametrize("way", [{}, {"RUNNER_PLAIN_AMQP": "1"}], ids=["direct", "public"])
async def test_what_only_looks_odd_is_handled(
    rabbit_project: Project, rabbitmq: Broker, foreign: Foreign, way: dict[str, str]
) -> None:
    """Every kind at once, by one connection, with what comes before and after it."""
    rabbit_project.write(PIPELINE, HANDLERS)
    work = rabbit_project.name("work")
    async with rabbit_project.running(env=way) as runner:
        publish_raw(rabbitmq, work, *POISON)
        foreign.publish(work, b"after")
        await until(lambda: "after" in rabbit_project.ledger.payloads(), "what comes after it is handled", 20)
    assert sorted(rabbit_project.ledger.payloads()) == sorted([*POISON, "after"])
    assert foreign.count(work) == foreign.count(f"{work}.dead") == 0
    assert "Traceback" not in runner.stderr
    assert not lines(runner, "broker.lost")


@pytest.mark.parametrize("way", [{}, {"RUNNER_PLAIN_AMQP": "1"}], ids=["direct", "public"])
async def test_what_cannot_be_decoded_is_kept_byte_for_byte(
    rabbit_project: Project, rabbitmq: Broker, foreign: Foreign, way: dict[str, str]
) -> None:
    """Where the broker itself has nowhere to put it: on a classic queue, and on a queue of others."""
    need_unreadable(rabbitmq)
    rabbit_project.write(EVERYWHERE, f"{HANDLERS}\ndef handle_some(orders: list[str]) -> None: note(orders[0])")
    foreign.channel.queue_declare(rabbit_project.name("theirs"), durable=True)
    places = [rabbit_project.name(place) for place in ("classic", "theirs")]
    async with rabbit_project.running("--log-format", "json", env=way) as runner:
        for place in places:
            client = RawClient(rabbitmq.port)
            for kind, (flags, properties) in UNREADABLE.items():
                client.publish(place, flags, properties, kind.encode())
            client.close()
            foreign.publish(place, b"beside")
        await rabbit_project.ledger.wait_for(2)
        await runner.wait_for(lambda _: len(lines(runner, "message.dead_lettered")) == 4, 20)
    assert rabbit_project.ledger.payloads() == ["beside"] * 2
    assert {line["reason"] for line in lines(runner, "message.dead_lettered")} == {"unreadable"}
    listed = await dead(rabbit_project, "list")
    assert listed.stdout.count("the message cannot be decoded: ValueError") == 4
    assert "it cannot be decoded" in (await dead(rabbit_project, "replay", code=None)).stderr
    for place in places:
        kept = {got.body.decode(): got.headers["x-runner-unreadable"] for got in foreign.take(f"{place}.dead")}
        raw = {kind: struct.pack(">H", flags) + properties for kind, (flags, properties) in UNREADABLE.items()}
        assert kept == raw
    assert not lines(runner, "broker.lost")


async def test_what_cannot_be_decoded_and_fills_a_frame_holds_nothing_up(
    rabbit_project: Project, rabbitmq: Broker, foreign: Foreign
) -> None:
    """Its dead letter has headers of ours as well: what does not fit beside them is cut off, and that is said."""
    need_unreadable(rabbitmq)
    rabbit_project.write(PIPELINE.replace("{delivery_limit: 2}", "{type: classic}"), HANDLERS)
    work, size = rabbit_project.name("work"), 131_000
    properties = table(short(b"a") + b"S" + struct.pack(">I", size) + b"x" * size)
    async with rabbit_project.running() as runner:
        client = RawClient(rabbitmq.port)
        for number in range(20):  # as many as the subscriber takes at once, and its slots
            client.publish(work, HEADERS | 1, properties, b"large %d" % number)
        client.close()
        foreign.publish(work, b"after")
        await until(lambda: "after" in rabbit_project.ledger.payloads(), "what comes after them is handled", 20)
        await until(lambda: len(lines(runner, "message.dead_lettered")) == 20, "they are dead letters")
    raw = struct.pack(">H", HEADERS | 1) + properties
    letters = foreign.take(f"{work}.dead")
    assert sorted(got.body for got in letters) == sorted(b"large %d" % number for number in range(20))
    for got in letters:
        kept = got.headers["x-runner-unreadable"]
        assert raw.startswith(kept)
        assert got.headers["x-runner-error"].endswith(
            f" ({len(kept)} of {len(raw)} bytes of its properties and headers are kept)"
        )


async def test_dead_letters_that_cannot_be_decoded_do_not_hide_those_behind_them(
    rabbit_project: Project, rabbitmq: Broker, foreign: Foreign
) -> None:
    """The broker has put them there by itself. They are listed and can be dropped, and what is behind them as well."""
    need_unreadable(rabbitmq)
    rabbit_project.write(PIPELINE, HANDLERS)
    kept = rabbit_project.name("work.dead")
    foreign.channel.queue_declare(kept, durable=True, arguments={"x-queue-type": "classic"})
    client = RawClient(rabbitmq.port)
    for kind, (flags, properties) in {**UNREADABLE, **POISON}.items():
        client.publish(kept, flags, properties, kind.encode())
    client.close()
    foreign.publish(kept, b"behind", message_id="behind")
    listed = await dead(rabbit_project, "list", "--json")
    found = [json.loads(line) for line in listed.stdout.splitlines()]
    assert len(found) == len(UNREADABLE) + len(POISON) + 1
    assert [each["reason"] for each in found].count("unreadable") == len(UNREADABLE)
    assert found[-1]["id"] == "behind"
    await dead(rabbit_project, "list")
    for letter in found:
        shown = await dead(rabbit_project, "show", "--json", "--id", letter["id"])
        assert json.loads(shown.stdout.splitlines()[0])["id"] == letter["id"]
    await dead(rabbit_project, "drop", "--all", "--yes")
    assert foreign.count(kept) == 0


async def dead(project: Project, verb: str, *arguments: str, code: int | None = 0) -> RunnerProcess:
    """Run `runner dead` on the project's broker; it ends with this code."""
    async with project.command(f"dead {verb}", *arguments) as runner:
        assert await runner.wait() == code or code is None, runner.stderr
    assert "Traceback" not in runner.stderr
    return runner
