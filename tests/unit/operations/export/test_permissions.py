"""Permissions: anchored expressions that match exactly what a pipeline needs."""

from __future__ import annotations

import re
import shlex

import pytest

from runner.operations.export.permissions import permissions
from runner.pipeline.topology import Exchange, Queue, Topology
from tests.unit.operations.export.exported import read, rights


def test_permissions_match_whole_names_and_nothing_else() -> None:
    """Anchored, dots escaped; a delay is a number; a name that only begins so is not ours."""
    found = rights(read())
    for name in ("orders", "shop.hear.dead", "shop.producers", "shop.pauses", "shop.retry.120", "events"):
        assert re.search(found.configure, name), name
    for name in ("orders2", "my.orders", "shopxhear", "shop.retry.", "shop.retry.x", "shop.retry.012", "amq.default"):
        assert not re.search(found.configure, name), name
    assert re.search(found.write, "amq.default")
    assert not re.search(found.write, "amq.topic")
    assert not re.search(found.write, "orders")
    assert not re.search(found.read, "orders.dead.dead")


@pytest.mark.parametrize("mode", ["verify", "ignore"])
def test_without_declaring_nothing_is_configured_or_bound(mode: str) -> None:
    """Publish and consume only; to verify needs just the delays that were declared."""
    found = rights(read(MODE=mode))
    assert found.configure == "^$"
    for name in ("amq.default", "events", "shop.retry.1000"):
        assert re.search(found.write, name), name
    assert bool(re.search(found.write, "shop.retry.123")) is (mode == "ignore")
    assert not re.search(found.write, "shop.hear")
    expected = {"orders", "ordered", "single", "shop.hear", "shop.producers", "shop.pauses"}
    assert set(found.read[2:-2].replace("\\", "").split("|")) == expected


def test_names_with_special_characters_are_escaped_and_quoted() -> None:
    """For the expression, and for the shell that the line is copied into."""
    name = "it's (a+b) [c] {d} $e^f|g?*\\h"
    system = read("version: 1\nname: n\nqueues: {}\n")
    topology = Topology(queues=(Queue(name),))
    found = permissions(system.pipelines, topology, "my vhost\n# x")
    assert re.fullmatch(found.configure, name)
    words = shlex.split(found.command("ann"))
    assert words == ["rabbitmqctl", "set_permissions", "--vhost", "my vhost\n# x", "ann", found.configure, "^$", "^$"]
    assert found.as_text("ann").splitlines()[0] == "# virtual host my vhost\\n# x, topology: manage"


def test_a_dead_letter_or_alternate_exchange_has_its_rights() -> None:
    """RabbitMQ asks for read of what has one, and for write of it."""
    system = read("version: 1\nname: n\nqueues: {}\n")
    topology = Topology(
        (Exchange("a", arguments={"alternate-exchange": "b"}),),
        (Queue("q", arguments={"x-dead-letter-exchange": "graves"}), Queue("r", declare=False)),
    )
    found = permissions(system.pipelines, topology, "/")
    assert (found.configure, found.write, found.read) == ("^(a|q)$", "^(b|graves)$", "^(a|q)$")


def test_partitions_are_read_one_by_one_and_with_their_number() -> None:
    """Who only publishes reads none of them."""
    queues = "queues: {orders: {partitions: 2, partition_by: id}}"
    reading = read(
        f"version: 1\nname: shop\n{queues}\nsubscribers: {{ship: {{from: orders, handler: 'exported_work:handle'}}}}"
    )
    found = rights(reading)
    for name in ("orders.0", "orders.1", "orders.partitions"):
        assert re.search(found.read, name), name
        assert re.search(found.configure, name), name
    assert not re.search(found.read, "orders")
    assert not re.search(rights(read(f"version: 1\nname: shop\n{queues}")).read, "orders.partitions")


def test_a_stream_is_read_with_the_queue_that_elects_its_reader() -> None:
    """The queue of its dead letters is declared and published to, never read."""
    found = rights(
        read(
            "version: 1\nname: shop\nbroker: amqp://localhost\nqueues: {history: {type: stream}}\n"
            "subscribers: {audit: {from: history, handler: 'exported_work:handle'}}\n"
        )
    )
    for name in ("history", "shop.audit", "shop.pauses"):
        assert re.search(found.read, name), name
    for name in ("history", "shop.audit", "shop.audit.dead", "shop.pauses"):
        assert re.search(found.configure, name), name
    assert re.search(found.write, "amq.default")
    assert not re.search(found.read, "shop.audit.dead")
