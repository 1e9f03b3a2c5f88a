"""The AsyncAPI document says what a pipeline publishes and reads, and all its references lead somewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.operations.export.asyncapi import asyncapi
from runner.system import load

ROOT = Path(__file__).resolve().parents[4]
EXAMPLES = sorted(path for path in (ROOT / "pipelines").glob("*.yaml") if not path.name.endswith(".test.yaml"))

PIPELINE = """
version: 1
name: shop
release: "2026.11"
broker: {urls: ["amqp://user:s3cret@one/v%2Fh", "amqps://user:s3cret@[::1]"]}
exchanges: {erp: direct}
queues:
  orders: {schema: schemas/order.json}
  订单: {type: classic}
  "a b": {type: classic, durable: false}
events:
  order.paid: {schema: schemas/paid.json, description: The money is here.}
  bill.due: {exchange: erp, key: due, unheard: ignore}
producers:
  web: {http: /orders, to: [orders, bill.due]}
subscribers:
  ship: {from: orders, handler: tests.unit.pipeline.sample_handlers:handle, to: order.paid}
  hear: {from: "order.*", handler: tests.unit.pipeline.sample_handlers:handle}
  ask: {from: 订单, handler: tests.unit.pipeline.sample_handlers:handle, reply: true}
  two: {from: "a b", handler: tests.unit.pipeline.sample_handlers:handle}
"""
ORDER = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": {"a/b": {"$anchor": "money", "type": "integer"}},
    "type": "object",
    "properties": {
        "item": {"$ref": "parts/item.json"},
        "next": {"$ref": "#"},
        "sum": {"$ref": "#/$defs/a~1b"},
        "tax": {"$ref": "#money"},
    },
}


def exported(*paths: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of the document, and its data."""
    system = load(list(paths), {})
    text = asyncapi(system.pipelines, [spec for _, spec in system.specs], system.topology)
    return text, yaml.safe_load(text)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "schemas" / "parts").mkdir(parents=True)
    (tmp_path / "schemas" / "order.json").write_text(json.dumps(ORDER))
    (tmp_path / "schemas" / "paid.json").write_text(json.dumps({"$ref": "parts/item.json#/properties/sku"}))
    (tmp_path / "schemas" / "parts" / "item.json").write_text(json.dumps({"properties": {"sku": {"type": "string"}}}))
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    return tmp_path / "shop.yaml"


def references(value: Any) -> list[str]:
    found = [value["$ref"]] if isinstance(value, dict) and isinstance(value.get("$ref"), str) else []
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        found += references(item)
    return found


def target(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


def test_every_reference_leads_somewhere(shop: Path) -> None:
    """Also those of schemas in files, to other files, to themselves and to anchors."""
    _, document = exported(shop)
    found = references(document)
    assert len(found) > 20
    for reference in found:
        assert target(document, reference) is not None, reference
    schemas = document["components"]["schemas"]
    assert schemas["order.json"]["properties"]["tax"] == {"$ref": "#/components/schemas/order.json/$defs/a~1b"}
    assert schemas["parts_item.json"] == {"properties": {"sku": {"type": "string"}}}
    assert "$schema" not in schemas["order.json"]


def test_channels_are_queues_and_events_with_their_addresses(shop: Path) -> None:
    _, document = exported(shop)
    channels = document["channels"]
    assert {name: each["address"] for name, each in channels.items()} == {
        "orders": "orders",
        "__": "订单",
        "a_b": "a b",
        "order.paid": "order.paid",
        "bill.due": "due",
    }
    assert channels["a_b"]["bindings"]["amqp"]["queue"] == {
        "name": "a b",
        "durable": False,
        "exclusive": False,
        "autoDelete": False,
        "vhost": "v/h",
    }
    assert channels["bill.due"]["bindings"]["amqp"]["exchange"]["name"] == "erp"
    assert channels["order.paid"]["description"] == "The money is here."


def test_the_partition_of_a_queue_is_a_parameter_of_its_address(tmp_path: Path) -> None:
    """With the rule that publishers of other programs need."""
    path = tmp_path / "shop.yaml"
    path.write_text("version: 1\nqueues: {orders: {partitions: 3, partition_by: customer.id}}\n")
    (channel,) = exported(path)[1]["channels"].values()
    assert channel["address"] == channel["bindings"]["amqp"]["queue"]["name"] == "orders.{partition}"
    assert channel["parameters"]["partition"]["enum"] == ["0", "1", "2"]
    assert "CRC-32 of the text at `customer.id`" in channel["parameters"]["partition"]["description"]


def test_operations_are_what_producers_and_subscribers_do(shop: Path) -> None:
    _, document = exported(shop)
    operations = {name: each["action"] for name, each in document["operations"].items()}
    assert operations == {
        "shop.web.send.orders": "send",
        "shop.web.send.bill.due": "send",
        "shop.ship.receive.orders": "receive",
        "shop.ship.send.order.paid": "send",
        "shop.hear.receive.order.paid": "receive",
        "shop.ask.receive.__": "receive",
        "shop.two.receive.a_b": "receive",
    }
    assert document["operations"]["shop.hear.receive.order.paid"]["x-runner-queue"] == "shop.hear"
    assert document["operations"]["shop.web.send.orders"]["x-runner-http"] == "/orders"
    assert document["operations"]["shop.ask.receive.__"]["reply"]["address"]["location"] == "$message.header#/reply_to"
    assert document["operations"]["shop.web.send.bill.due"]["bindings"]["amqp"]["mandatory"] is False


def test_servers_have_no_credentials(shop: Path) -> None:
    text, document = exported(shop)
    assert "s3cret" not in text
    assert document["servers"] == {
        "broker": {"host": "one:5672", "protocol": "amqp", "protocolVersion": "0.9.1", "pathname": "/v%2Fh"},
        "broker-2": {"host": "[::1]:5671", "protocol": "amqps", "protocolVersion": "0.9.1"},
    }
    assert (document["info"]["version"], document["info"]["title"]) == ("2026.11", "shop")


@pytest.mark.parametrize("broker", ["memory", "file:shop.queue"])
def test_a_broker_in_this_process_is_no_server(tmp_path: Path, broker: str) -> None:
    (tmp_path / "shop.yaml").write_text(f"version: 1\nbroker: {broker}\nqueues: {{a: {{}}}}\n")
    assert exported(tmp_path / "shop.yaml")[1]["servers"] == {}


def test_what_handlers_take_is_the_schema_where_there_is_none() -> None:
    _, document = exported(ROOT / "pipelines" / "orders.yaml")
    assert document["components"]["messages"]["order_queue"]["payload"] == {"type": "string"}


def test_all_examples_are_one_document() -> None:
    """What several pipelines share is there once; the text is the same each time."""
    text, document = exported(*EXAMPLES)
    assert exported(*EXAMPLES)[0] == text
    for reference in references(document):
        assert target(document, reference) is not None, reference


def test_the_document_in_the_documentation_is_what_is_written() -> None:
    """docs/reference/fulfilment.asyncapi.yaml is rewritten by `make docs`."""
    text, _ = exported(ROOT / "pipelines" / "fulfilment.yaml")
    assert (ROOT / "docs" / "reference" / "fulfilment.asyncapi.yaml").read_text("utf-8") == text
