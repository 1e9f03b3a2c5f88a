"""Reads deliveries and confirms from the socket, and writes publications and acknowledgements to it, past aiormq.

aiormq passes each frame through two queues and a task. This module reads all frames that have arrived in one go and
calls the consumer or publisher that they belong to. Every other frame reaches aiormq unchanged, except for content
headers and reply texts that pamqp could not decode (see `message_decoder`).

Only connections of the runner are read this way: they are made with a transport factory, which is public in aiormq.
Nothing is replaced in aiormq's modules, so other aio-pika connections in the process work as they always do.

What this module uses of aiormq beyond its documentation: the reader that a transport factory returns is asked for
`at_eof` and `readexactly`; `write_queue` takes `ChannelFrame`s; `connection_tune` has the size of frames. Where a
version of aiormq lacks one of them, or with RUNNER_PLAIN_AMQP=1, all frames take aiormq's way: the results are the
same, and fewer messages pass in a second.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import aio_pika
import aiormq
import aiormq.connection
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, ChannelFrame
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from yarl import URL

from runner.transports.rabbitmq.frames import (
    BODY,
    BODY_SIZE,
    BODY_SIZE_AT,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    DELIVER,
    FRAME_END,
    FRAME_HEAD,
    HEADER,
    METHOD,
    RETURN,
)
from runner.transports.rabbitmq.message_decoder import frame_for_aiormq

SWITCH = "RUNNER_PLAIN_AMQP"
"""The environment variable that turns the fast path off."""

FAST_PATH_HINT = (
    f"unset {SWITCH}, and install a version of aiormq that the runner declares (pip install --upgrade mqrunner)"
)

READ_BYTES = 262_144
_HEARTBEAT = FRAME_HEAD.pack(8, 0, 0) + bytes((FRAME_END,))
HEARTBEAT_S = 1.0
"""How often aiormq gets a heartbeat for the frames that it does not see. It accepts 6 seconds of silence or more."""

_PROTOCOL_HEADER = 0x41
"""The first byte of `AMQP`, which a broker sends instead of a frame when it speaks another version."""

_WITH_CONTENT = frozenset({DELIVER, RETURN})
_CLOSES_CHANNEL = frozenset({CHANNEL_CLOSE, CHANNEL_CLOSE_OK})

OnCommand = Callable[[bytes, bytes, bytes], None]
"""Called with a method frame's payload, and the content header and the body that follow it, empty without content."""


class ChannelRoute:
    """The fast path of one channel: `on_command` gets its frames with these methods; `write` sends bytes.

    `is_open` turns false with the frame that closes the channel: the broker closes the whole connection over anything
    that is written to a closed channel.
    """

    def __init__(
        self,
        number: int,
        methods: frozenset[bytes],
        on_command: OnCommand,
        buffer: WriteBuffer | None = None,
        max_frame: int = 131_072,
    ) -> None:
        self.number = number
        self.max_frame = max_frame
        self.is_open = True
        self._methods = methods
        self._on_command = on_command
        self._buffer = buffer
        self._method = b""
        """The method whose content is still arriving."""
        self._header = b""
        self._pieces: list[bytes] = []
        self._missing = 0

    def write(self, data: bytes) -> None:
        """Send frames of this channel soon, unless the channel is closed by then."""
        assert self._buffer is not None
        self._buffer.write(self, data)

    def take(self, kind: int, payload: bytes) -> bool:
        """Take a frame; False for one that aiormq must get. Raises where a frame cannot be read at all."""
        if kind == METHOD:
            method = payload[:4]
            if method in self._methods:
                if method in _WITH_CONTENT:
                    self._method, self._header = payload, b""
                else:
                    self._on_command(payload, b"", b"")
                return True
            if method in _CLOSES_CHANNEL:
                self.is_open = False
            return False
        if not self._method:
            return False
        if kind == HEADER:
            self._header = payload
            (self._missing,) = BODY_SIZE.unpack_from(payload, BODY_SIZE_AT)
            if not self._missing:
                self._complete(b"")
        elif kind == BODY:
            self._missing -= len(payload)
            if self._missing > 0:
                self._pieces.append(payload)
            else:
                self._complete(b"".join((*self._pieces, payload)) if self._pieces else payload)
        return True

    def _complete(self, body: bytes) -> None:
        method, header = self._method, self._header
        self._method = b""
        self._pieces.clear()
        if not header:
            raise ValueError("a body without its header")
        self._on_command(method, header, body)


class FrameReader:
    """The reader that aiormq reads from. It passes frames to the routes of their channels, and the rest to aiormq.

    aiormq sees the frames that are left in the order in which the broker sent them.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.routes: dict[int, ChannelRoute] = {}
        self._buffer = bytearray()
        self._at = 0
        self._has_taken = False
        self._heartbeat_at = 0.0
        self._frame = b""
        """The rest of the frame that aiormq is reading."""

    def at_eof(self) -> bool:
        """Return False: the end of a connection is an error, and aiormq would stop without one."""
        return False

    async def readexactly(self, size: int) -> bytes:
        """Return the next bytes for aiormq, which asks for each part of a frame."""
        if not self._frame:
            self._frame = await self._next_frame()
        piece, self._frame = self._frame[:size], self._frame[size:]
        return piece

    async def _next_frame(self) -> bytes:
        """Return the next frame for aiormq."""
        while True:
            frame = self._next()
            if frame is not None:
                return frame
            if self._has_taken:
                self._has_taken = False
                # What the frames have woken runs before the next read: a busy socket must not starve handlers.
                await asyncio.sleep(0)
                # Without frames, aiormq takes the broker for dead. It does not see the frames that were routed.
                now = asyncio.get_running_loop().time()
                if now >= self._heartbeat_at:
                    self._heartbeat_at = now + HEARTBEAT_S
                    return _HEARTBEAT
                continue
            try:
                data = await self._reader.read(READ_BYTES)
            except OSError as error:
                raise AMQPConnectionError(f"Server communication error: {error!r}") from error
            if not data:
                raise AMQPConnectionError("Server connection unexpectedly closed")
            self._buffer += data

    def _next(self) -> bytes | None:
        """Route the frames in the buffer up to one for aiormq, and return it; None when more bytes are needed."""
        buffer, at, routes = self._buffer, self._at, self.routes
        length = len(buffer)
        try:
            while length - at >= 8:
                kind, channel, size = FRAME_HEAD.unpack_from(buffer, at)
                end = at + 7 + size
                if kind == _PROTOCOL_HEADER:
                    end = length - 1
                elif length <= end:
                    return None
                payload = bytes(buffer[at + 7 : end])
                route = routes.get(channel)
                if route is not None and buffer[end] == FRAME_END and _take(route, kind, payload):
                    self._has_taken = True
                    at = end + 1
                    continue
                head, last = bytes(buffer[at : at + 7]), bytes(buffer[end : end + 1])
                at = end + 1
                if kind == _PROTOCOL_HEADER:
                    return head + payload + last
                return frame_for_aiormq(kind, channel, payload) + last
            return None
        finally:
            # Bytes that were read leave the buffer when it is used up, or in large pieces: to cut it after each frame
            # would copy the rest each time.
            if at >= length:
                buffer.clear()
                at = 0
            elif at > READ_BYTES:
                del buffer[:at]
                at = 0
            self._at = at


def _take(route: ChannelRoute, kind: int, payload: bytes) -> bool:
    try:
        return route.take(kind, payload)
    except Exception as error:  # as with pamqp: after a frame that cannot be read, no later byte can be trusted
        raise InvalidFrameError(f"{type(error).__name__}: {error}") from error


class WriteBuffer:
    """The writes of one connection: one iteration of the event loop makes one write to the socket."""

    def __init__(self, writes: asyncio.Queue[Any]) -> None:
        self._writes = writes
        self._parts: list[tuple[ChannelRoute, bytes]] = []
        self._task: asyncio.Task[None] | None = None

    def write(self, route: ChannelRoute, data: bytes) -> None:
        """Write soon. Frames of a channel that is closed by then are dropped."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self.flush)
        self._parts.append((route, data))

    def flush(self) -> None:
        """Pass the frames to aiormq's writer; where its queue is full, as soon as it has room."""
        if self._parts and self._task is None:
            if self._writes.full():
                self._task = asyncio.create_task(self._wait_for_room())
            elif data := self._take():
                self._writes.put_nowait(ChannelFrame(data, False))

    def _take(self) -> bytes:
        data = b"".join([data for route, data in self._parts if route.is_open])
        self._parts.clear()
        return data

    async def _wait_for_room(self) -> None:
        try:
            while self._parts:
                if data := self._take():
                    await self._writes.put(ChannelFrame(data, False))
        finally:
            self._task = None


class FastPath:
    """The fast path of one connection."""

    def __init__(self, reader: FrameReader, connection: aiormq.abc.AbstractConnection) -> None:
        self._reader = reader
        self._buffer = WriteBuffer(connection.write_queue)
        self._max_frame = connection.connection_tune.frame_max or 131_072

    def open_route(self, channel: AbstractChannel, methods: frozenset[bytes], on_command: OnCommand) -> ChannelRoute:
        """Route frames of a channel with these methods to `on_command`, until the channel is closed."""
        number = channel.number
        route = ChannelRoute(number, methods, on_command, self._buffer, self._max_frame)
        self._reader.routes[number] = route
        channel.closing.add_done_callback(lambda _: self._reader.routes.pop(number, None))
        return route

    def flush(self) -> None:
        """Pass what was written to aiormq's writer now."""
        self._buffer.flush()


class _TransportFactory(aiormq.connection.TransportFactory):
    """Connects as aiormq does, and puts our reader between the socket and aiormq."""

    def __init__(self) -> None:
        self.reader: FrameReader | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[Any, asyncio.StreamWriter]:
        is_secure = url.scheme == "amqps"
        factory = aiormq.connection.TLSTransportFactory if is_secure else aiormq.connection.TCPTransportFactory
        reader, writer = await factory().create(url, **kwargs)
        self.reader = FrameReader(reader)
        return self.reader, writer


class FastPathConnection(aio_pika.Connection):
    """An aio-pika connection with a fast path. `no_fast_path` says why it has none; empty when it has one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._factory = _TransportFactory()
        self.kwargs["transport_factory"] = self._factory
        self.fast_path: FastPath | None = None
        self.no_fast_path = ""

    async def connect(self, timeout: float | None = None) -> None:
        """Connect. See `aio_pika.Connection.connect`."""
        await super().connect(timeout)
        if self.transport is None:
            return
        connection = self.transport.connection
        self.no_fast_path = _why_none(self._factory.reader, connection)
        if not self.no_fast_path and self._factory.reader is not None:
            self.fast_path = FastPath(self._factory.reader, connection)

    def __del__(self) -> None:
        """Do nothing: what was connected is closed explicitly.

        aio-pika would start a task that closes it, in the event loop of whichever thread collects the object.
        """


def _why_none(reader: FrameReader | None, connection: aiormq.abc.AbstractConnection) -> str:
    """Return why a connection can have no fast path; empty when it can."""
    if os.environ.get(SWITCH):
        return f"{SWITCH} is set"
    missing = [name for name in ("write_queue", "connection_tune") if not hasattr(connection, name)]
    if reader is None or missing:
        what = " and ".join(missing) or "a transport factory"
        return f"aiormq {version('aiormq')} works without {what}"
    return ""


def fast_path_of(connection: AbstractConnection) -> FastPath | None:
    """Return the fast path of a connection; None when all its frames take aiormq's way."""
    return connection.fast_path if isinstance(connection, FastPathConnection) else None


def no_fast_path(connection: AbstractConnection) -> str:
    """Return why a connection has no fast path; empty when it has one."""
    return connection.no_fast_path if isinstance(connection, FastPathConnection) else ""
