"""The same tests for every transport: the in-process broker, and RabbitMQ with quorum and with classic queues."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from runner.transports.base import Transport, TransportEvent
from runner.transports.file import FileBroker, FileTransport
from runner.transports.memory import MemoryBroker, MemoryTransport
from tests.conformance.harness import KINDS, Harness, Kind

OnTransportEvent = Callable[[TransportEvent], None]


PUBLIC_IS_SLOW = [pytest.param(kind, marks=[pytest.mark.slow] if kind.environment else []) for kind in KINDS]


@pytest.fixture(params=PUBLIC_IS_SLOW, ids=lambda kind: kind.name)
async def harness(
    request: pytest.FixtureRequest,
    unique: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    no_file_left_open: None,
) -> AsyncIterator[Harness]:
    """One broker, several sessions, names of this test's own."""
    kind: Kind = request.param
    for name, value in kind.environment.items():
        monkeypatch.setenv(name, value)
    if not kind.is_rabbitmq:
        held = _in_memory(kind, unique) if kind.name == "memory" else _in_file(kind, unique, tmp_path)
        yield held
        await held.close()
        return
    node: Any = request.getfixturevalue("rabbitmq")
    held = _on_rabbitmq(kind, unique, node)
    yield held
    await held.close()
    await _clean_up(node.url, held)


def _in_memory(kind: Kind, unique: str) -> Harness:
    broker = MemoryBroker()
    return Harness(kind, unique, lambda say: MemoryTransport(broker=broker, on_transport_event=say), lambda: None)


def _in_file(kind: Kind, unique: str, folder: Path) -> Harness:
    broker = FileBroker(folder / "broker.queue")
    return Harness(kind, unique, lambda say: FileTransport(broker, on_transport_event=say), lambda: None)


def _on_rabbitmq(kind: Kind, unique: str, node: Any) -> Harness:
    from runner.pipeline.model import BrokerSettings
    from runner.transports.rabbitmq import RabbitTransport

    def new_transport(say: OnTransportEvent) -> Transport:
        return RabbitTransport(BrokerSettings(urls=(node.url,)), name=unique, on_transport_event=say)

    return Harness(kind, unique, new_transport, lambda: node.close_connections_of(unique), node.line)


async def _clean_up(url: str, held: Harness) -> None:
    """Delete what the test has declared, wait queues included: a hundred idle quorum queues slow a node down."""
    import aio_pika

    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        for topology in held.declared:
            for queue in topology.queues:
                await channel.queue_delete(queue.name)
            for exchange in topology.exchanges:
                await channel.exchange_delete(exchange.name)
