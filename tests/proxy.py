"""A TCP proxy on the loopback that fails on command, to stand between the runner and its broker.

async with Proxy(node.port) as proxy:
    ...                         # connect to proxy.port
    proxy.latency(0.3)          # each way
    proxy.half_open("down")     # connections stay up, what the broker says is held back
    proxy.blackhole()           # connections stay up and new ones are taken; nothing passes either way
    proxy.cut()                 # RST, not FIN, for all there are now
    proxy.pass_through()        # what was held back arrives
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Literal, Self

from tests.node import free_port

Direction = Literal["up", "down"]

CHUNK_BYTES = 65_536
CHUNKS_IN_FLIGHT = 1024
LINGER_0 = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards to `127.0.0.1:upstream_port` from `port`. `up` is towards the broker, `down` towards the client.

    `accepted` counts connections ever taken, `open` those there are now.
    """

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.port = free_port()
        self.accepted = 0
        self._delay_s = 0.0
        self._gates = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def open(self) -> int:
        return len(self._tasks)

    def pass_through(self) -> None:
        """Forward at once, also what was held back until now."""
        self._delay_s = 0.0
        self._hold()

    def latency(self, seconds: float) -> None:
        """Forward each byte so much later, each way, at full bandwidth."""
        self._delay_s = seconds
        self._hold()

    def half_open(self, held: Direction) -> None:
        """Keep connections up and hold back one direction."""
        self._hold(held)

    def blackhole(self) -> None:
        """Keep connections up, take new ones, and hold back both directions."""
        self._hold("up", "down")

    def cut(self) -> None:
        """Reset every connection on both sides; new ones work."""
        for writer in tuple(self._writers):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
            writer.transport.abort()
        for task in tuple(self._tasks):
            task.cancel()

    async def __aenter__(self) -> Self:
        self.pass_through()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = tuple(self._tasks)
        self.cut()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _hold(self, *directions: Direction) -> None:
        for name, gate in self._gates.items():
            if name in directions:
                gate.clear()
            else:
                gate.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until both sides have ended, or one has failed."""
        mine = {writer}
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
            mine.add(up_writer)
            self._writers.add(up_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, up_writer, "up"))
                group.create_task(self._pump(up_reader, writer, "down"))
        except* OSError:
            pass  # one side is gone: the other one follows
        finally:
            self._writers -= mine
            for each in mine:
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        """Forward one direction. Reading never waits for writing, so that latency costs no bandwidth."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_IN_FLIGHT)

        async def forward() -> None:
            data = b"-"
            while data:
                due, data = await chunks.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self._gates[direction].wait()
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

        async with asyncio.TaskGroup() as group:
            group.create_task(forward())
            data = b"-"
            while data:
                data = await reader.read(CHUNK_BYTES)
                await chunks.put((loop.time() + self._delay_s, data))
