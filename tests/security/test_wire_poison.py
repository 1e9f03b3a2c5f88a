"""B3: messages that no AMQP library can read. The broker hands them out as they came: bytes are bytes to it."""

from __future__ import annotations

import socket
import struct

from tests.foreign import Foreign
from tests.node import Broker
from tests.project import Project, started, stop, until

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


async def test_poison_ends_in_the_dead_letter_queue_and_the_work_goes_on(
    rabbit_project: Project, rabbitmq: Broker, foreign: Foreign
) -> None:
    """Every kind at once: each loses us the connection as often as the queue's delivery limit allows, then it is kept.

    What can be read after all is handled. In the end nothing is left in the queue, and what comes then is handled.
    """
    rabbit_project.pipeline(PIPELINE)
    rabbit_project.handlers(HANDLERS)
    work, dead = rabbit_project.name("work"), rabbit_project.name("work.dead")
    async with rabbit_project.up() as runner:
        await started(runner)
        publish_raw(rabbitmq, work, *POISON)
        await until(
            lambda: foreign.count(dead) + len(rabbit_project.ledger.counts()) == len(POISON), "an end of the poison", 40
        )
        foreign.publish(work, b"after")
        await until(lambda: "after" in rabbit_project.ledger.payloads(), "what comes after it is handled", 20)
        await stop(runner)
    assert foreign.count(work) == 0
    kept = [got.decode() for got in bodies_of(rabbitmq, foreign, dead)]
    assert sorted([*kept, *rabbit_project.ledger.payloads()]) == sorted([*POISON, "after"])
    assert "Traceback" not in runner.stderr


async def test_messages_beside_poison_are_handled(rabbit_project: Project, rabbitmq: Broker, foreign: Foreign) -> None:
    """What was delivered together with poison is not dead-lettered together with it."""
    rabbit_project.pipeline(PIPELINE)
    rabbit_project.handlers(HANDLERS)
    work, dead = rabbit_project.name("work"), rabbit_project.name("work.dead")
    async with rabbit_project.up("--only", "handle") as runner:
        await started(runner)
        await stop(runner)
    publish_raw(rabbitmq, work, "type not UTF-8")
    foreign.publish(work, *(f"beside {number}".encode() for number in range(5)))
    async with rabbit_project.up() as runner:
        await started(runner)
        await until(lambda: foreign.count(dead) + len(rabbit_project.ledger.counts()) >= 6, "the end of all", 40)
        await stop(runner)
    assert sorted(rabbit_project.ledger.counts()) == [f"beside {number}" for number in range(5)]


def bodies_of(node: Broker, foreign: Foreign, queue: str) -> list[bytes]:
    """Take what is in a queue, and return the bodies alone, whatever the properties are."""
    count = foreign.count(queue)
    client = RawClient(node.port)
    bodies = [client.get(queue) for _ in range(count)]
    client.close()
    return bodies
