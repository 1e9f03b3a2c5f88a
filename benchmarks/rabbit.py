"""The other side of the broker: makes queues and counts what is left, with pika; fills them fast, by a raw socket."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pika
from pika.adapters.blocking_connection import BlockingChannel

from benchmarks.entries.job import body
from benchmarks.entries.raw_socket import Connection, published
from benchmarks.harness import BenchmarkError

FILL = 200
"""How many messages are written at once."""
ARRIVAL_S = 30.0
SETTLE_S = 5.0


@contextmanager
def channel(url: str) -> Iterator[BlockingChannel]:
    """Open a channel on a connection of its own."""
    connection = pika.BlockingConnection(pika.URLParameters(f"{url}%2F"))
    try:
        yield connection.channel()
    finally:
        connection.close()


def make(url: str, names: Sequence[str], kind: str) -> None:
    """Make durable queues, which must not exist yet."""
    arguments = {} if kind == "classic" else {"x-queue-type": kind}
    with channel(url) as opened:
        for name in names:
            opened.queue_declare(name, durable=True, arguments=arguments)


def fill(url: str, names: Sequence[str], count: int, *, size: int = 0) -> None:
    """Put messages into queues, and return when all are there."""
    publish(url, names, count, size=size)
    wait_until_ready(url, names, count)


def publish(url: str, names: Sequence[str], count: int, *, size: int = 0) -> None:
    """Publish persistent messages with numbers from 0 to queues, in turn."""
    connection = Connection(url)
    for first in range(0, count, FILL):
        connection.send_bytes(
            b"".join(
                published(names[number % len(names)], number, json.dumps(body(number, size)).encode())
                for number in range(first, min(first + FILL, count))
            )
        )
    connection.close()


def wait_until_ready(url: str, names: Sequence[str], count: int) -> None:
    """Return when queues have so many messages ready, all together."""
    deadline = time.monotonic() + ARRIVAL_S
    while (ready := count_ready(url, names)) != count:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{names[0]} … has {ready} messages instead of {count}")
        time.sleep(0.05)


def count_ready(url: str, names: Sequence[str]) -> int:
    """Return how many messages queues have ready, all together."""
    with channel(url) as opened:
        return sum(int(opened.queue_declare(name, passive=True).method.message_count) for name in names)


def has_consumer(url: str, name: str) -> bool:
    """Whether somebody consumes from a queue."""
    with channel(url) as opened:
        return bool(opened.queue_declare(name, passive=True).method.consumer_count)


def settled_count(url: str, names: Sequence[str], expected: int) -> int:
    """Return how many messages queues have ready; where that is not what is expected, look again for some seconds.

    RabbitMQ counts lazily, and gives back what a closed connection held a moment later.
    """
    deadline = time.monotonic() + SETTLE_S
    while (ready := count_ready(url, names)) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return ready


def check(url: str, who: str, names: Sequence[str], expected: int) -> None:
    """Raise BenchmarkError unless queues have so many messages, all together."""
    if (left := settled_count(url, names, expected)) != expected:
        raise BenchmarkError(f"{who}: {names[0]} has {left} messages instead of {expected}")


def delete(url: str, names: Sequence[str]) -> None:
    """Delete queues with all that is in them."""
    with channel(url) as opened:
        for name in names:
            opened.queue_delete(name)
