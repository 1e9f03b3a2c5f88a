"""The page's session with a broker: a connection of its own to RabbitMQ, or the process's in-process broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runner.operations.memory_access import MemoryAccess, make_access
from runner.operations.status import StatusReader, find_management
from runner.page.broker_view import Session
from runner.pipeline.model import Pipeline
from runner.transports.base import Transport
from runner.transports.memory import MemoryTransport

CONNECT_S = 5.0
"""Time limit of a connection attempt. It is short, so that the page soon shows why the broker is unreachable."""


async def connect(pipelines: Sequence[Pipeline], name: str, transport: Transport | None = None) -> Session:
    """Connect to the broker of the pipelines.

    `name` is shown in RabbitMQ's list of connections. `transport` is the process's own, if it runs the pipelines.

    Raises BrokerUnavailable.
    """
    if isinstance(transport, MemoryTransport):
        memory = MemoryAccess(transport)
        return Session(memory, StatusReader(pipelines, memory, None))
    settings = replace(pipelines[0].broker, connect_timeout_s=CONNECT_S)
    access = make_access(settings, name=f"{name} page")
    try:
        await access.open()
        management, _ = await find_management(settings, settings.management_url, access)
    except BaseException:
        await access.close()
        raise
    return Session(access, StatusReader(pipelines, access, management))
