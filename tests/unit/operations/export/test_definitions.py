"""RabbitMQ definitions: types, names, and what is left out."""

from __future__ import annotations

import pytest

from runner.operations.export.definitions import definitions, to_json, vhost_of
from runner.pipeline.model import BrokerSettings
from runner.pipeline.topology import Binding, Exchange, Queue, Topology
from tests.unit.operations.export.exported import SHOP, read


@pytest.mark.parametrize(
    ("urls", "vhost"),
    [
        ((), "/"),
        (("amqp://localhost",), "/"),
        (("amqp://localhost/",), "/"),
        (("amqp://u:p@h:1/shop", "amqp://u:p@i/shop"), "shop"),
        (("amqp://h/%2F",), "/"),
        (("amqps://h/a%2Fb%20c",), "a/b c"),
    ],
)
def test_the_virtual_host_is_that_of_the_url(urls: tuple[str, ...], vhost: str) -> None:
    """Decoded; without one it is RabbitMQ's default."""
    assert vhost_of(BrokerSettings(urls)) == vhost


def test_definitions_keep_types_and_leave_out_what_is_not_ours() -> None:
    """Integers and booleans stay what they are; foreign, exclusive and built-in things are not made."""
    topology = Topology(
        (Exchange("amq.topic"), Exchange("erp", declare=False), Exchange("shop", "direct", arguments={"x": True})),
        (
            Queue("q", arguments={"x-max-length": 5, "x-single-active-consumer": True, "x-overflow": "drop-head"}),
            Queue("foreign", declare=False),
            Queue("mine", exclusive=True),
        ),
        (Binding("erp", "q", "a.#"), Binding("shop", "mine"), Binding("amq.topic", "q", "", {"n": 1})),
    )
    document = definitions(topology, "v")
    assert document["vhosts"] == [{"name": "v"}]
    assert [item["name"] for item in document["exchanges"]] == ["shop"]
    assert [item["name"] for item in document["queues"]] == ["q"]
    assert [(item["source"], item["destination"]) for item in document["bindings"]] == [
        ("erp", "q"),
        ("amq.topic", "q"),
    ]
    assert '"x-max-length": 5,' in to_json(document)
    assert '"x-single-active-consumer": true' in to_json(document)
    assert definitions(topology, "/")["vhosts"] == []


def test_definitions_have_the_queues_that_the_runner_adds() -> None:
    """The in-process broker needs none to say what there would be."""
    system = read(SHOP.replace('url: "${SHOP_URL}", ', ""))
    assert system.broker.is_memory
    names = {item["name"] for item in definitions(system.whole_topology, "/")["queues"]}
    wanted = {
        "orders",
        "orders.dead",
        "shop.hear",
        "shop.hear.dead",
        "shop.retry.1000",
        "shop.producers",
        "shop.pauses",
    }
    assert wanted <= names
