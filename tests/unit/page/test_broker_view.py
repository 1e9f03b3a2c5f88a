"""The page reads the broker while a browser shows the page, and not otherwise."""

from __future__ import annotations

import asyncio

from runner.errors import BrokerUnavailable
from runner.operations.memory_access import MemoryAccess
from runner.operations.status import PipelineStatus, StatusReader
from runner.page.broker_view import IDLE_S, REFRESH_S, BrokerView, Session
from runner.transports.memory import MemoryTransport
from tests.unit.transports.virtual_time import virtual_time


class Broker:
    """An in-process broker that counts the connections to it."""

    def __init__(self) -> None:
        self.transport = MemoryTransport()
        self.connected = 0
        self.is_away = False

    async def connect(self) -> Session:
        self.connected += 1
        if self.is_away:
            raise BrokerUnavailable("it is away")
        access = MemoryAccess(self.transport)
        return Session(access, StatusReader((), access, None))


@virtual_time
async def test_it_refreshes_while_requests_come_and_then_stops() -> None:
    broker = Broker()
    view = BrokerView(broker.connect)
    assert broker.connected == 0
    for _ in range(10):
        await view.ask()
        await asyncio.sleep(REFRESH_S)
    assert broker.connected == 1
    await asyncio.sleep(IDLE_S + 2 * REFRESH_S)
    assert len(asyncio.all_tasks()) == 1
    await view.ask()
    assert broker.connected == 2
    await view.close()
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_an_unreachable_broker_is_reported_and_asked_again() -> None:
    broker = Broker()
    broker.is_away = True
    view = BrokerView(broker.connect)
    await view.ask()
    assert view.error == "it is away"
    broker.is_away = False
    await asyncio.sleep(REFRESH_S + 0.1)
    assert (view.error, broker.connected) == ("", 2)
    await view.close()


@virtual_time
async def test_ten_requests_make_one_connection() -> None:
    broker = Broker()
    view = BrokerView(broker.connect)
    await asyncio.gather(*(view.ask() for _ in range(10)), view.access(), view.access())
    assert broker.connected == 1
    await view.close()


@virtual_time
async def test_closing_ends_although_a_cancellation_is_lost() -> None:
    """An AMQP client may raise its own error instead; the page must not go on refreshing for its idle time."""
    broker, reading = Broker(), asyncio.Event()

    class Reader(StatusReader):
        async def read(self) -> list[PipelineStatus]:
            reading.set()
            try:
                await asyncio.sleep(REFRESH_S)
            except asyncio.CancelledError:
                raise BrokerUnavailable("closed") from None
            return []

    async def connect() -> Session:
        access = MemoryAccess(broker.transport)
        return Session(access, Reader((), access, None))

    view, loop = BrokerView(connect), asyncio.get_running_loop()
    asking = asyncio.ensure_future(view.ask())
    await reading.wait()
    began = loop.time()
    await view.close()
    assert loop.time() - began < REFRESH_S
    await asking
