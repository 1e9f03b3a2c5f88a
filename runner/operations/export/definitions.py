"""A topology as RabbitMQ definitions, to import before the pipelines run. Pure.

Arguments keep their types: to RabbitMQ, 100 and "100" differ. Things with `declare: false`, and exclusive queues, are
left out. Source: https://www.rabbitmq.com/docs/definitions
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote, urlsplit

from runner.pipeline.model import BrokerSettings
from runner.pipeline.topology import Binding, Exchange, Queue, Topology

DEFAULT_VHOST = "/"


def vhost_of(settings: BrokerSettings) -> str:
    """Return the virtual host of the first URL; for the in-process broker, RabbitMQ's default one."""
    path = urlsplit(settings.urls[0]).path if settings.is_rabbitmq else ""
    return unquote(path[1:]) or DEFAULT_VHOST


def definitions(topology: Topology, vhost: str) -> dict[str, Any]:
    """Return the document for `rabbitmqctl import_definitions` and the management API.

    It also creates a virtual host other than the default one. Users and permissions are not part of it.
    """
    exclusive = {queue.name for queue in topology.queues if queue.exclusive}
    exchanges = [item for item in topology.exchanges if item.declare and not item.name.startswith("amq.")]
    queues = [item for item in topology.queues if item.declare and not item.exclusive]
    bindings = [item for item in topology.bindings if item.queue not in exclusive]
    return {
        "vhosts": [{"name": vhost}] if vhost != DEFAULT_VHOST else [],
        "exchanges": [
            _item(item, vhost, type=item.type, durable=item.durable, auto_delete=False, internal=False)
            for item in exchanges
        ],
        "queues": [_item(item, vhost, durable=item.durable, auto_delete=item.auto_delete) for item in queues],
        "bindings": [_binding(item, vhost) for item in bindings],
    }


def to_json(document: dict[str, Any]) -> str:
    """Return the document as JSON text."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _item(item: Exchange | Queue, vhost: str, **options: Any) -> dict[str, Any]:
    return {"name": item.name, "vhost": vhost, **options, "arguments": dict(item.arguments)}


def _binding(binding: Binding, vhost: str) -> dict[str, Any]:
    return {
        "source": binding.exchange,
        "vhost": vhost,
        "destination": binding.queue,
        "destination_type": "queue",
        "routing_key": binding.key,
        "arguments": dict(binding.arguments),
    }
