"""Pipelines as an AsyncAPI 3.0 document: what other programs can publish to them, and get from them. Pure.

Sources: https://www.asyncapi.com/docs/reference/specification/v3.0.0 and
https://github.com/asyncapi/bindings/tree/master/amqp
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from runner.config.spec import PipelineSpec
from runner.operations.export.definitions import vhost_of
from runner.operations.yaml_writer import to_yaml
from runner.pipeline.annotations import EMPTY
from runner.pipeline.model import BrokerSettings, Destination, Pipeline, Subscriber
from runner.pipeline.schemas import json_schemas, read_schema
from runner.pipeline.signature import payload_type
from runner.pipeline.topology import Topology

VERSION = "3.0.0"

_BINDING_VERSION = "0.3.0"
_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}


def asyncapi(pipelines: Sequence[Pipeline], specs: Sequence[PipelineSpec], topology: Topology) -> str:
    """Return the document as YAML. It is the same for the same pipelines."""
    return to_yaml(_Document(pipelines, specs, topology).as_data(), has_variables=False)


def payload_types(pipeline: Pipeline) -> dict[str, Any]:
    """Return the types of payloads by queue or event: from `schema`, else from the one handler that reads it."""
    found: dict[str, Any] = {}
    for subscriber in pipeline.subscribers:
        sources, annotation = _sources(pipeline, subscriber), payload_type(subscriber)
        if len(sources) == 1 and annotation not in (EMPTY, Any, object, bytes):
            found.setdefault(sources[0].name, annotation)
    return found | {name: read_schema(path)[0] for name, path in pipeline.schemas.items()}


class _Document:
    """Collects the parts. A channel is a queue or an event; what several pipelines share is one channel."""

    def __init__(self, pipelines: Sequence[Pipeline], specs: Sequence[PipelineSpec], topology: Topology) -> None:
        self._pipelines, self._specs = pipelines, specs
        self._vhost = vhost_of(pipelines[0].broker)
        self._queues = {queue.name: queue for queue in topology.queues}
        self._exchanges = {exchange.name: exchange for exchange in topology.exchanges}
        self._ids: dict[tuple[bool, Any], str] = {}
        self._types: dict[str, Any] = {}
        self._channels: dict[str, Any] = {}
        self._messages: dict[str, Any] = {}
        self._operations: dict[str, Any] = {}

    def as_data(self) -> dict[str, Any]:
        for pipeline, spec in zip(self._pipelines, self._specs, strict=True):
            for name, destination in pipeline.destinations.items():
                event = spec.events.get(name) if destination.is_event else None
                self._add_channel(destination, event.description if event is not None else "")
            for name, payload in payload_types(pipeline).items():
                self._types.setdefault(self._id(pipeline.destinations[name]), payload)
            for operation, content in self._operations_of(pipeline):
                self._operations[_free(operation, self._operations)] = content
        schemas, definitions = json_schemas(self._types, "#/components/schemas/{model}")
        for message, schema in schemas.items():
            self._messages[message]["payload"] = schema
        return {
            "asyncapi": VERSION,
            "id": f"urn:mqrunner:{_name('.'.join(pipeline.name for pipeline in self._pipelines))}",
            "info": self._info(),
            "defaultContentType": "application/json",
            "servers": _servers(self._pipelines[0].broker),
            "channels": self._channels,
            "operations": self._operations,
            "components": {"messages": self._messages, "schemas": definitions},
        }

    def _info(self) -> dict[str, Any]:
        first = self._pipelines[0]
        texts = [spec.description for spec in self._specs if spec.description]
        owners = dict.fromkeys(spec.owner for spec in self._specs if spec.owner)
        return {
            "title": ", ".join(pipeline.name for pipeline in self._pipelines),
            "version": first.release or first.fingerprint,
            **({"description": "\n".join(texts)} if texts else {}),
            **({"contact": {"name": ", ".join(owners)}} if owners else {}),
            "tags": [{"name": pipeline.name} for pipeline in self._pipelines],
        }

    def _id(self, destination: Destination) -> str:
        key = (destination.is_event, destination.address)
        if key not in self._ids:
            self._ids[key] = _free(destination.name, self._ids.values())
        return self._ids[key]

    def _add_channel(self, destination: Destination, description: str) -> None:
        found, name = self._id(destination), destination.name
        message: dict[str, Any] = {"name": name}
        if destination.is_event:
            exchange = self._exchanges[destination.address.exchange]
            traits = {"name": exchange.name, "type": exchange.type, "durable": exchange.durable, "autoDelete": False}
            binding: dict[str, Any] = {"is": "routingKey", "exchange": {**traits, "vhost": self._vhost}}
            message["bindings"] = _amqp(messageType=name)
        else:
            parts = destination.partitioning
            queue = self._queues[name if parts is None else parts.names[0]]
            flags = {"durable": queue.durable, "exclusive": queue.exclusive, "autoDelete": queue.auto_delete}
            address = _address(destination)["address"]
            binding = {"is": "queue", "queue": {"name": address, **flags, "vhost": self._vhost}}
        self._messages.setdefault(found, message)
        channel = {
            **_address(destination),
            **({"description": description} if description else {}),
            "messages": {found: {"$ref": f"#/components/messages/{found}"}},
            "bindings": _amqp(**binding),
        }
        self._channels.setdefault(found, channel)

    def _operations_of(self, pipeline: Pipeline) -> Iterator[tuple[str, dict[str, Any]]]:
        for producer in pipeline.producers:
            path = {"x-runner-http": producer.http_path} if producer.http_path is not None else {}
            for to in producer.to:
                yield f"{pipeline.name}.{producer.name}.send.{to.name}", self._operation("send", to, pipeline) | path
        for subscriber in pipeline.subscribers:
            for source in _sources(pipeline, subscriber):
                more: dict[str, Any] = {"x-runner-queue": subscriber.queue} if source.is_event else {}
                if subscriber.is_responder:
                    more["reply"] = {"address": {"location": "$message.header#/reply_to"}}
                name = f"{pipeline.name}.{subscriber.name}.receive.{source.name}"
                yield name, self._operation("receive", source, pipeline) | more
            for to in subscriber.to:
                yield f"{pipeline.name}.{subscriber.name}.send.{to.name}", self._operation("send", to, pipeline)

    def _operation(self, action: str, destination: Destination, pipeline: Pipeline) -> dict[str, Any]:
        channel = self._id(destination)
        options = {"ack": True} if action == "receive" else {"deliveryMode": 2, "mandatory": destination.needs_queue}
        return {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [{"$ref": f"#/channels/{channel}/messages/{channel}"}],
            "tags": [{"name": pipeline.name}],
            "bindings": _amqp(**options),
        }


def _amqp(**options: Any) -> dict[str, Any]:
    return {"amqp": {**options, "bindingVersion": _BINDING_VERSION}}


def _address(destination: Destination) -> dict[str, Any]:
    """Return the address of a channel: a routing key, or a queue, whose partition is a parameter if it has any."""
    parts = destination.partitioning
    if parts is None:
        return {"address": destination.address.key}
    how = f"The CRC-32 of the text at `{parts.path}` of the payload, modulo {parts.count}."
    parameter = {"description": how, "enum": [str(number) for number in range(parts.count)]}
    return {"address": f"{parts.queue}.{{partition}}", "parameters": {"partition": parameter}}


def _sources(pipeline: Pipeline, subscriber: Subscriber) -> list[Destination]:
    """Return the queue or the events that a subscriber reads. What another program binds is in no pipeline."""
    if subscriber.queue in pipeline.destinations:
        return [pipeline.destinations[subscriber.queue]]
    return [pipeline.destinations[name] for name in subscriber.event_patterns]


def _servers(broker: BrokerSettings) -> dict[str, Any]:
    """Return the nodes of the broker, without users and passwords."""
    servers = {}
    for number, url in enumerate(broker.urls if broker.is_rabbitmq else (), 1):
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
        server = {"host": f"{host}:{parts.port or _DEFAULT_PORTS[parts.scheme]}", "protocol": parts.scheme}
        path = {"pathname": parts.path} if parts.path else {}
        servers["broker" if number == 1 else f"broker-{number}"] = {**server, "protocolVersion": "0.9.1", **path}
    return servers


def _name(text: str) -> str:
    """Return a name that may be a key in the document."""
    return re.sub(r"[^\w.-]", "_", text, flags=re.ASCII)


def _free(text: str, taken: Collection[str]) -> str:
    """Return a key for a name, with a number if another name has the same one."""
    wanted = _name(text)
    return wanted if wanted not in taken else f"{wanted}-{len(taken)}"
