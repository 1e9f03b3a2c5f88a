"""The private RabbitMQ node that the other tests rely on keeps its own promises."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pika
import pytest

from tests.node import Broker, Installation, Node, NodeError, Place


def connect(node: Broker, name: str = "") -> pika.BlockingConnection:
    parameters = pika.URLParameters(node.url)
    parameters.client_properties = {"connection_name": name}
    return pika.BlockingConnection(parameters)


def publish(node: Broker, queue: str, body: bytes) -> None:
    with connect(node) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True)
        channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))


def take(node: Broker, queue: str) -> bytes | None:
    body: bytes | None
    with connect(node) as connection:
        _, _, body = connection.channel().basic_get(queue, auto_ack=True)
    return body


def test_a_confirmed_message_outlives_a_frost_an_orderly_restart_and_kill_9(own_node: Node) -> None:
    publish(own_node, "kept", b"still here")
    url = own_node.url

    own_node.freeze()
    with socket.create_connection(("127.0.0.1", own_node.port), timeout=0.5) as client:
        client.sendall(b"AMQP\x00\x00\x09\x01")
        with pytest.raises(TimeoutError):
            client.recv(1)
    own_node.thaw()
    assert take(own_node, "kept") == b"still here"

    publish(own_node, "kept", b"and here")
    own_node.restart()
    assert take(own_node, "kept") == b"and here"

    publish(own_node, "kept", b"to the last")
    own_node.kill()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", own_node.port))
    own_node.start()
    assert own_node.url == url
    assert take(own_node, "kept") == b"to the last"


def test_nothing_is_left_of_a_closed_node(installed: None) -> None:
    node = Node()
    with node:
        folders = [Path(node.place.folder), node._epmd._folder.path]
        processes = _processes_in(folders)
        assert len(processes) >= 2
    assert not any(folder.exists() for folder in folders)
    assert not _processes_in(folders)


STARTED = """
import sys, time
from tests.node import Node
node = Node()
node.start()
print(node.place.folder, node._epmd._folder.path, flush=True)
time.sleep(600)
"""


def test_nothing_is_left_of_a_node_whose_owner_is_killed(installed: None) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTED], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folders = [Path(word) for word in owner.stdout.readline().split()]
        assert len(folders) == 2
        owner.kill()
    deadline = time.monotonic() + 20
    while any(folder.exists() for folder in folders) or _processes_in(folders):
        assert time.monotonic() < deadline, (folders, _processes_in(folders))
        time.sleep(0.05)


def test_only_the_named_connections_are_closed(rabbitmq: Broker, unique: str) -> None:
    mine, other = connect(rabbitmq, f"{unique}-runner"), connect(rabbitmq, f"other-{unique}")
    assert rabbitmq.close_connections_of(unique) == 1
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="closed by a test"):
        mine.process_data_events(time_limit=10)
    other.process_data_events(time_limit=0)
    assert other.is_open
    other.close()


def test_ctl_speaks_to_the_node(rabbitmq: Broker, unique: str) -> None:
    publish(rabbitmq, unique, b"one")
    assert f"{unique}\t1" in rabbitmq.ctl("list_queues", "name", "messages").splitlines()


@pytest.mark.parametrize("broker_name", ["memory", "rabbitmq"])
def test_what_needs_no_node_is_marked(request: pytest.FixtureRequest, broker_name: str) -> None:
    """A fixture that has a node, or RabbitMQ among brokers: `-m "not in_process"` runs these tests only."""
    is_marked = request.node.get_closest_marker("in_process") is not None
    assert is_marked == (broker_name == "memory")


def test_what_asks_for_a_node_is_not_marked(request: pytest.FixtureRequest, installed: None) -> None:
    assert request.node.get_closest_marker("in_process") is None


def test_what_is_marked_cannot_talk_to_a_node() -> None:
    """It fails on any line, so `make test` finds a test whose mark is wrong."""
    place = Place(folder="", name="", port=5672, distribution_port=0, epmd_port=0, installation=Installation())
    for use in (lambda: Broker(place).url, lambda: Broker(place).port, lambda: Broker(place).ctl("version")):
        with pytest.raises(NodeError, match="let it ask for the fixture `installed`"):
            use()


def _processes_in(folders: list[Path]) -> set[int]:
    """Return the processes that have one of the folders in their environment."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environ = (process / "environ").read_bytes()
        except OSError:
            continue
        if any(os.fsencode(folder) in environ for folder in folders):
            found.add(int(process.name))
    return found
