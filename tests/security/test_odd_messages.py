"""Whatever RabbitMQ takes of foreign clients is handled, or kept equal to the byte: properties and headers at random.

Written byte by byte and confirmed by the broker, so that no library stands between. The seed is in the output.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import pika
import pytest

from tests.foreign import Foreign
from tests.project import Project, until

SEED = 20_261_130
COUNT = 200

PIPELINE = """
    version: 1
    queues: {UNIQUE.quorum: {}, UNIQUE.classic: {type: classic}, UNIQUE.theirs: {declare: false}}
    subscribers:
      quorum: {from: UNIQUE.quorum, handler: work:handle, retry: {attempts: 2, backoff: fixed, delay: 10ms}}
      classic: {from: UNIQUE.classic, handler: work:handle, retry: none}
      theirs: {from: UNIQUE.theirs, handler: work:handle, retry: none}
"""
HANDLERS = """
    from runner import Message

    def handle(order: str, message: Message) -> None:
        note(order, message.attempt)
        if order.endswith("fails"):
            raise RuntimeError("no")
"""

FLAGS = {"content_type": 15, "content_encoding": 14, "headers": 13, "delivery_mode": 12, "priority": 11}
FLAGS |= {"correlation_id": 10, "reply_to": 9, "message_id": 7, "timestamp": 6, "type": 5, "app_id": 3, "cluster_id": 2}


def sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def short(data: bytes) -> bytes:
    return bytes([len(data)]) + data


class Writer:
    """Makes properties as bytes, of everything that RabbitMQ does not refuse."""

    def __init__(self, random: random.Random) -> None:
        self._random = random

    def data(self, most: int) -> bytes:
        """Return a text as others write it: UTF-8, Latin-1, or bytes."""
        texts = [b"", b"plain", "订单 ü 😀".encode(), "bürö".encode("latin-1"), self._random.randbytes(9), b"x" * most]
        return self._random.choice(texts)[:most]

    def moment(self) -> bytes:
        some = [0, -157_766_400, 1_727_000_000, 1_727_000_000_000, 1_727_000_000_000_000, -62_135_596_800, -(2**63)]
        some += [2**63 - 1, 2**32, self._random.randrange(-(2**63), 2**63)]
        return struct.pack(">q", self._random.choice(some))

    def value(self, depth: int = 0) -> bytes:
        """Return a header's value, type included."""
        sizes = {"t": 0, "b": 1, "B": 1, "s": 2, "u": 2, "I": 4, "i": 4, "l": 8, "L": 8, "f": 0, "d": 0}
        kind = self._random.choice([*sizes, *"tDSTxVAF"])
        if kind in "AF" and depth > 3:
            kind = "V"
        match kind:
            case "t":
                data = self._random.choice([b"\x00", b"\x01"])
            case "f" | "d":  # RabbitMQ refuses what is no number
                data = struct.pack(f">{kind}", self._random.choice([0.0, -1.5, 0.1, 1e30, self._random.random()]))
            case "D":
                data = self._random.randbytes(5)
            case "T":
                data = self.moment()
            case "V":
                data = b""
            case "S" | "x":
                data = sized(self.data(300))
            case "A":
                data = sized(b"".join(self.value(depth + 1) for _ in range(self._random.randrange(4))))
            case "F":
                data = self.table(depth + 1)
            case _:
                data = self._random.randbytes(sizes[kind])
        written: bytes = kind.encode() + data
        return written

    def table(self, depth: int = 0) -> bytes:
        """Return a table. Of two entries under one name, RabbitMQ 4 keeps the first and 3.10 both: names are unique."""
        names = {self.data(255) for _ in range(self._random.randrange(5))}
        return sized(b"".join(short(name) + self.value(depth) for name in sorted(names)))

    def nested(self, depth: int) -> bytes:
        made = sized(b"")
        for _ in range(depth):
            made = sized(short(b"t") + b"F" + made)
        return made

    def properties(self) -> bytes:
        """Return flags and properties, in AMQP's order. All are persistent."""
        chosen = {name for name in FLAGS if self._random.random() < 0.5} | {"delivery_mode"}
        flags, parts = 0, []
        for name, bit in FLAGS.items():
            if name not in chosen:
                continue
            flags |= 1 << bit
            match name:
                case "headers":
                    parts.append(self.nested(500) if self._random.random() < 0.05 else self.table())
                case "delivery_mode":
                    parts.append(b"\x02")
                case "priority":
                    parts.append(self._random.randbytes(1))
                case "timestamp":
                    parts.append(self.moment())
                case "content_encoding":
                    parts.append(short(b""))
                case "content_type":
                    parts.append(short(b"text/plain"))
                case _:
                    parts.append(short(self.data(255)))
        return struct.pack(">H", flags) + b"".join(parts)


class Raw(pika.BasicProperties):
    """Properties that pika writes as they are."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    def encode(self) -> list[bytes]:
        return [self._data]


@pytest.mark.timeout(120)  # more than the waits below together, so that one that ends says which
@pytest.mark.parametrize("way", [{}, {"RUNNER_PLAIN_AMQP": "1"}], ids=["direct", "public"])
async def test_odd_messages_are_handled_or_kept_byte_for_byte(
    rabbit_project: Project, foreign: Foreign, way: dict[str, str]
) -> None:
    """Each of 200 is handled. Those whose handler fails are in the dead-letter queue with the properties they had."""
    rabbit_project.write(PIPELINE, HANDLERS)
    foreign.channel.queue_declare(rabbit_project.name("theirs"), durable=True)
    places = [rabbit_project.name(place) for place in ("quorum", "classic", "theirs")]
    writer = Writer(random.Random(SEED))
    sent = {f"{number} {'fails' if number % 2 else 'works'}": writer.properties() for number in range(COUNT)}
    async with rabbit_project.running(env=way) as runner:
        channel = foreign.channel
        channel.confirm_delivery()
        for number, (body, properties) in enumerate(sent.items()):
            channel.basic_publish("", places[number % 3], body.encode(), Raw(properties), mandatory=True)
        failing = [body for body in sent if body.endswith("fails")]
        await until(
            lambda: (
                len(rabbit_project.ledger.counts()) == COUNT
                and sum(foreign.count(f"{place}.dead") for place in places) == len(failing)
            ),
            "each is handled, and each that fails is kept",
            40,
        )
    assert not [line for line in runner.logs if line["event"] in ("broker.lost", "consumer.lost", "settle.waiting")]
    assert all(foreign.count(place) == 0 for place in places)
    kept = {body: header for place in places for body, header in raw_messages(foreign, f"{place}.dead")}
    assert kept.keys() == set(failing)
    for body, properties in kept.items():
        expected = carried(sent[body])
        # A copy is published, and each publication has an id.
        assert {"message_id": carried(properties)["message_id"], **expected} == carried(properties), body


def raw_messages(foreign: Foreign, queue: str) -> list[tuple[str, bytes]]:
    """Take what is in a queue, with its properties as bytes."""
    found: list[tuple[str, bytes]] = []
    channel = foreign.channel
    original = pika.BasicProperties.decode

    def note(self: Any, encoded: bytes, offset: int = 0) -> Any:
        self.raw = encoded[offset:]
        return self

    pika.BasicProperties.decode = note
    try:
        while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
            found.append((got[2].decode(), got[1].raw))
    finally:
        pika.BasicProperties.decode = original
    return found


def carried(properties: bytes) -> dict[str, Any]:
    """Return what of properties a copy has to carry on: all but what is ours, and what the broker forbids to carry."""
    (flags,), at = struct.unpack_from(">H", properties), 2
    found: dict[str, Any] = {}
    for name, bit in FLAGS.items():
        if not flags & 1 << bit:
            continue
        size = {"priority": 1, "delivery_mode": 1, "timestamp": 8}.get(name, 1 + properties[at])
        if name == "headers":
            size = 4 + int.from_bytes(properties[at : at + 4])
            found |= headers(properties[at + 4 : at + size])
        elif name != "cluster_id":
            found[name] = properties[at : at + size]
        at += size
    return found


def headers(data: bytes) -> dict[str, Any]:
    """Return the headers that are neither ours nor the broker's, by name; each with the bytes of its value."""
    found: dict[str, Any] = {}
    at = 0
    while at < len(data):
        name = data[at + 1 : at + 1 + data[at]]
        at += 1 + len(name)
        value, at = value_at(data, at)
        if not name.startswith((b"x-runner-", b"x-delivery-count")):
            found[f"header {name!r}"] = value
    return found


SIZES = {"t": 1, "b": 1, "B": 1, "s": 2, "u": 2, "I": 4, "i": 4, "l": 8, "L": 8, "f": 4, "d": 8, "D": 5, "T": 8, "V": 0}
INTEGERS = {"b": ">b", "B": ">B", "s": ">h", "u": ">H", "I": ">i", "i": ">I", "l": ">q", "L": ">q"}


def value_at(data: bytes, at: int) -> tuple[Any, int]:
    """Return a value, and where it ends: numbers by their worth, for their width may change, all else by its bytes."""
    kind, at = chr(data[at]), at + 1
    end = at + SIZES[kind] if kind in SIZES else at + 4 + int.from_bytes(data[at : at + 4])
    if kind in INTEGERS:
        return struct.unpack(INTEGERS[kind], data[at:end])[0], end
    if kind in "fd":
        (number,) = struct.unpack(">f" if kind == "f" else ">d", data[at:end])
        return ("a float", repr(number)), end
    if kind == "F":
        return headers(data[at + 4 : end]) if not is_deep(data[at:end]) else data[at:end], end
    if kind == "A":
        items, inner = [], at + 4
        while inner < end:
            item, inner = value_at(data, inner)
            items.append(item)
        return items, end
    return (kind, data[at:end]), end


def is_deep(data: bytes) -> bool:
    return data.count(b"F\x00\x00") > 100
