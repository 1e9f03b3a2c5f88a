"""The proxy that stands between the runner and a failing network fails as it is told, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.proxy import Proxy

MODES: dict[str, Callable[[Proxy], None]] = {
    "blackhole": Proxy.blackhole,
    "half-open up": lambda proxy: proxy.half_open("up"),
    "half-open down": lambda proxy: proxy.half_open("down"),
}


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # the proxy has cut us off
    finally:
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy


class Client:
    def __init__(self, proxy: Proxy) -> None:
        self._port = proxy.port

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self, size: int, timeout: float = 10.0) -> bytes:
        async with asyncio.timeout(timeout):
            return await self._reader.readexactly(size)


async def test_bytes_pass(proxy: Proxy) -> None:
    data = bytes(range(256)) * 8000
    async with Client(proxy) as client, asyncio.TaskGroup() as group:
        group.create_task(client.send(data))
        assert await client.receive(len(data)) == data
    assert proxy.accepted == 1


async def test_latency_is_each_way_and_not_for_each_chunk(proxy: Proxy) -> None:
    proxy.latency(0.15)
    clock = asyncio.get_running_loop().time
    async with Client(proxy) as client:
        began = clock()
        await client.send(b"x" * 2_000_000)
        await client.receive(2_000_000)
        assert 0.3 <= clock() - began < 3.0


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_held_back_arrives_later(proxy: Proxy, mode: str) -> None:
    async with Client(proxy) as client:
        MODES[mode](proxy)
        await client.send(b"ping")
        with pytest.raises(TimeoutError):
            await client.receive(4, timeout=0.2)
        proxy.pass_through()
        assert await client.receive(4) == b"ping"


async def test_a_cut_resets_and_a_new_connection_works(proxy: Proxy) -> None:
    async with Client(proxy) as client:
        await client.send(b"ping")
        await client.receive(4)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await client.receive(1)
    async with Client(proxy) as client:
        await client.send(b"ping")
        assert await client.receive(4) == b"ping"


async def test_a_connection_ends_when_the_upstream_is_not_there() -> None:
    async with Proxy(1) as proxy, Client(proxy) as client:
        with pytest.raises(asyncio.IncompleteReadError):
            await client.receive(1)
