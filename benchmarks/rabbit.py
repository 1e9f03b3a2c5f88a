"""The other side of the broker: makes queues, fills them fast and counts what is left, with pika."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pika
from pika.adapters.blocking_connection import BlockingChannel

from benchmarks.entries.job import body
from benchmarks.measuring import BenchmarkError

ARRIVAL_S = 120.0


@contextmanager
def channel(url: str) -> Iterator[BlockingChannel]:
    """Open a channel on a connection of its own."""
    connection = pika.BlockingConnection(pika.URLParameters(f"{url}%2F"))
    try:
        yield connection.channel()
    finally:
        connection.close()


def make(url: str, name: str, kind: str) -> None:
    """Make a durable queue, which must not exist yet."""
    arguments = {} if kind == "classic" else {"x-queue-type": kind}
    with channel(url) as opened:
        opened.queue_declare(name, durable=True, arguments=arguments)


def fill(url: str, name: str, count: int) -> None:
    """Put persistent messages with numbers from 0 into a queue, and return when all are there."""
    with channel(url) as opened:
        for number in range(count):
            properties = pika.BasicProperties(
                content_type="application/json", delivery_mode=2, message_id=f"{number:032x}"
            )
            opened.basic_publish("", name, json.dumps(body(number)).encode(), properties)
    deadline = time.monotonic() + ARRIVAL_S
    while (ready := count_ready(url, name)) != count:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{name} has {ready} messages instead of {count}")
        time.sleep(0.05)


def count_ready(url: str, name: str) -> int:
    """Return how many messages a queue has ready."""
    with channel(url) as opened:
        return int(opened.queue_declare(name, passive=True).method.message_count)


def settled_count(url: str, name: str, expected: int) -> int:
    """Return how many messages a queue has ready; where that is not what is expected, look again for two seconds.

    RabbitMQ counts lazily, and gives back what a closed connection held a moment later.
    """
    deadline = time.monotonic() + 2
    while (ready := count_ready(url, name)) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return ready


def delete(url: str, *names: str) -> None:
    """Delete queues with all that is in them."""
    with channel(url) as opened:
        for name in names:
            opened.queue_delete(name)
