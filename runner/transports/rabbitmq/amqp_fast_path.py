"""Takes deliveries and confirms off the wire, and puts publications and acknowledgements on it, past aiormq's queues.

aiormq hands each frame through two queues and a task; this reads what has come in one go and calls whoever it is for.
Everything else goes aiormq's own way, in a form that pamqp can decode, whatever the broker has sent. With
RUNNER_PLAIN_AMQP=1 everything does, with the same results and less speed. Only our own connections are read by this:
they are made with a transport factory, which is a public part of aiormq.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Protocol

import aio_pika
import aiormq
import aiormq.connection
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, ChannelFrame
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from yarl import URL

from runner.transports.rabbitmq.frames import FRAME_END, FRAME_HEAD
from runner.transports.rabbitmq.message_decoder import frame_for_aiormq

READ_BYTES = 262_144
_ALIVE = FRAME_HEAD.pack(8, 0, 0) + bytes((FRAME_END,))
"""A heartbeat."""


class FrameHandler(Protocol):
    """Who takes the frames of one channel that it knows."""

    is_open: bool
    """Whether anything may still be written; false from the frame on that closes the channel."""

    def handle(self, kind: int, payload: bytes) -> bool:
        """Take a frame; False for one that aiormq is to get."""
        ...


class FrameReader:
    """What aiormq reads from. Frames of a channel with a route go there at once, the others to aiormq, in order."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.handlers: dict[int, FrameHandler] = {}
        self._buffer = bytearray()
        self._at = 0
        self._has_taken = False
        self._frame = b""
        """What is left of the frame that aiormq reads now."""

    def at_eof(self) -> bool:
        """Whether aiormq is to stop without an error: never, for the end of a connection is one."""
        return False

    async def readexactly(self, size: int) -> bytes:
        """Return the next bytes for aiormq, which asks for each part of a frame."""
        if not self._frame:
            self._frame = await self._next_frame()
        piece, self._frame = self._frame[:size], self._frame[size:]
        return piece

    async def _next_frame(self) -> bytes:
        """Return the next frame that is aiormq's."""
        while True:
            frame = self._next()
            if frame is not None:
                return frame
            if self._has_taken:
                self._has_taken = False
                await asyncio.sleep(0)  # others first: what was taken has given them work
                return _ALIVE  # aiormq measures by frames whether the broker is alive
            try:
                data = await self._reader.read(READ_BYTES)
            except OSError as error:
                raise AMQPConnectionError(f"Server communication error: {error!r}") from error
            if not data:
                raise AMQPConnectionError("Server connection unexpectedly closed")
            self._buffer += data

    def _next(self) -> bytes | None:
        """Hand out what is there, until a frame is aiormq's; None where more is needed."""
        buffer, at, handlers = self._buffer, self._at, self.handlers
        length = len(buffer)
        try:
            while length - at >= 8:
                kind, channel, size = FRAME_HEAD.unpack_from(buffer, at)
                end = at + 7 + size
                if kind == 0x41:  # an A: not a frame, but the broker's "AMQP" and its version
                    end = length - 1
                elif length <= end:
                    return None
                payload = bytes(buffer[at + 7 : end])
                handler = handlers.get(channel)
                if handler is not None and buffer[end] == FRAME_END and _handle_frame(handler, kind, payload):
                    self._has_taken = True
                    at = end + 1
                    continue
                head, last = bytes(buffer[at : at + 7]), bytes(buffer[end : end + 1])
                at = end + 1
                return head + payload + last if kind == 0x41 else frame_for_aiormq(kind, channel, payload) + last
            return None
        finally:
            if at >= length:
                buffer.clear()
                at = 0
            elif at > READ_BYTES:
                del buffer[:at]
                at = 0
            self._at = at


def _handle_frame(handler: FrameHandler, kind: int, payload: bytes) -> bool:
    try:
        return handler.handle(kind, payload)
    except Exception as error:  # bytes that cannot be read: as with pamqp, nothing behind them can be trusted
        raise InvalidFrameError(f"{type(error).__name__}: {error}") from error


class WriteBuffer:
    """Writes of one connection: what is written in one turn of the loop becomes one write to the socket."""

    def __init__(self, writes: asyncio.Queue[Any]) -> None:
        self._writes = writes
        self._parts: list[tuple[FrameHandler, bytes]] = []
        self._task: asyncio.Task[None] | None = None

    def write(self, handler: FrameHandler, data: bytes) -> None:
        """Write soon, if the route's channel is still open then: the broker closes a connection over anything else."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self.flush)
        self._parts.append((handler, data))

    def flush(self) -> None:
        """Hand on what was written, if there is room; else as soon as there is."""
        if self._parts and self._task is None:
            if self._writes.full():
                self._task = asyncio.create_task(self._wait_for_room())
            elif data := self._take():
                self._writes.put_nowait(ChannelFrame(data, False))

    def _take(self) -> bytes:
        data = b"".join([data for handler, data in self._parts if handler.is_open])
        self._parts.clear()
        return data

    async def _wait_for_room(self) -> None:
        try:
            while self._parts:
                if data := self._take():
                    await self._writes.put(ChannelFrame(data, False))
        finally:
            self._task = None


class FrameRouter:
    """The direct way into one connection."""

    def __init__(self, reader: FrameReader, connection: aiormq.abc.AbstractConnection) -> None:
        self._reader = reader
        self.write_buffer = WriteBuffer(connection.write_queue)
        self.max_frame = connection.connection_tune.frame_max or 131_072

    def add(self, channel: AbstractChannel, handler: FrameHandler) -> None:
        """Send a channel's frames to this route first, until the channel is closed."""
        number = channel.number
        self._reader.handlers[number] = handler
        channel.closing.add_done_callback(lambda _: self._reader.handlers.pop(number, None))


class _TransportFactory(aiormq.connection.TransportFactory):
    """Makes the transport of one connection as aiormq does, but for who reads it."""

    def __init__(self) -> None:
        self.reader: FrameReader | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[Any, asyncio.StreamWriter]:
        """See `aiormq.TransportFactory`."""
        is_secure = url.scheme == "amqps"
        factory = aiormq.connection.TLSTransportFactory if is_secure else aiormq.connection.TCPTransportFactory
        reader, writer = await factory().create(url, **kwargs)
        self.reader = FrameReader(reader)
        return self.reader, writer


class FastPathConnection(aio_pika.Connection):
    """A connection of aio-pika whose frames we read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._transports = _TransportFactory()
        self.kwargs["transport_factory"] = self._transports
        self.frame_router: FrameRouter | None = None
        """The direct way into it; None where there is only the public one."""

    async def connect(self, timeout: float | None = None) -> None:
        """Connect. See `aio_pika.Connection.connect`."""
        await super().connect(timeout)
        if self.transport is not None and self._transports.reader is not None and is_fast_path_enabled():
            self.frame_router = FrameRouter(self._transports.reader, self.transport.connection)


def is_fast_path_enabled() -> bool:
    """Whether the direct way is on: RUNNER_PLAIN_AMQP switches it off."""
    return not os.environ.get("RUNNER_PLAIN_AMQP")


def frame_router_of(connection: AbstractConnection) -> FrameRouter | None:
    """Return the direct way into a connection; None where there is only the public one."""
    return connection.frame_router if isinstance(connection, FastPathConnection) else None
