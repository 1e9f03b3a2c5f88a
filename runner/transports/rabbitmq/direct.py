"""Takes deliveries and confirms off the wire, and puts publications and acknowledgements on it, past aiormq's queues.

aiormq hands each frame through two queues and a task; this reads what has come in one go and calls whoever it is for.
Everything else, and every frame that is out of the ordinary, goes aiormq's own way. It stands on parts of aiormq that
are not public: `is_possible` looks whether the installed version has them, else (or with RUNNER_PLAIN_AMQP=1) the
public way is taken, with the same results and less speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Protocol

import aiormq
import aiormq.connection
import pamqp.frame
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, ChannelFrame
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from pamqp.exceptions import PAMQPException
from pamqp.heartbeat import Heartbeat

from runner.transports.rabbitmq.frames import FRAME_END, FRAME_HEAD

READ_BYTES = 262_144
_ALIVE = (8, 0, Heartbeat())


class Route(Protocol):
    """Who takes the frames of one channel that it knows."""

    is_open: bool
    """Whether anything may still be written; false from the frame on that closes the channel."""

    def take(self, kind: int, payload: bytes) -> bool:
        """Take a frame; False for one that aiormq is to get."""
        ...


def is_possible() -> bool:
    """Whether the installed aiormq has the shape that this needs, and nobody has switched it off."""
    return not os.environ.get("RUNNER_PLAIN_AMQP") and _fits()


@functools.cache
def _fits() -> bool:
    try:
        receiver = inspect.signature(_Receiver.__init__).parameters
        frame = inspect.signature(ChannelFrame.__init__).parameters
        source = inspect.getsource(aiormq.connection.Connection)
    except (OSError, TypeError, AttributeError):
        return False
    return (
        list(receiver) == ["self", "reader"]
        and list(frame)[1:3] == ["payload", "should_close"]
        and "FrameReceiver(reader)" in source
        and "async for weight, channel, frame in frame_receiver" in source
        and all(hasattr(_Receiver, name) for name in ("get_frame", "__anext__"))
    )


_Receiver: Any = getattr(aiormq.connection, "FrameReceiver", object)
_made: ContextVar[list[DirectReceiver] | None] = ContextVar("runner_receivers", default=None)


class DirectReceiver(_Receiver):  # type: ignore[misc]  # not known to the type checker
    """Reads frames. Those of a channel with a route go there at once, the others to aiormq, in order."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self.routes: dict[int, Route] = {}
        self._buffer = bytearray()
        self._at = 0
        self._has_taken = False
        if (made := _made.get()) is not None:
            made.append(self)

    async def __anext__(self) -> Any:
        """Return the next frame that is aiormq's."""
        return await self.get_frame()

    async def get_frame(self) -> Any:
        """Return the next frame that is aiormq's: weight, channel and frame."""
        while True:
            frame = self._next()
            if frame is not None:
                return frame
            if self._has_taken:
                self._has_taken = False
                await asyncio.sleep(0)  # others first: what was taken has given them work
                return _ALIVE  # aiormq measures by frames whether the broker is alive
            try:
                data = await self.reader.read(READ_BYTES)
            except OSError as error:
                raise AMQPConnectionError(f"Server communication error: {error!r}") from error
            if not data:
                raise AMQPConnectionError("Server connection unexpectedly closed")
            self._buffer += data

    def _next(self) -> Any:
        """Hand out what is there, until a frame is aiormq's; None where more is needed."""
        buffer, at, routes = self._buffer, self._at, self.routes
        length = len(buffer)
        try:
            while length - at >= 8:
                kind, channel, size = FRAME_HEAD.unpack_from(buffer, at)
                end = at + 7 + size
                if length <= end and kind != 0x41:  # an A: not a frame, but the broker's "AMQP" and its version
                    return None
                route = routes.get(channel)
                if route is not None and buffer[end] == FRAME_END and _take(route, kind, bytes(buffer[at + 7 : end])):
                    self._has_taken = True
                    at = end + 1
                    continue
                frame = bytes(buffer[at : end + 1])
                at = end + 1
                try:
                    return pamqp.frame.unmarshal(frame)
                except PAMQPException as error:
                    raise InvalidFrameError(str(error)) from error
            return None
        finally:
            if at >= length:
                buffer.clear()
                at = 0
            elif at > READ_BYTES:
                del buffer[:at]
                at = 0
            self._at = at


def _take(route: Route, kind: int, payload: bytes) -> bool:
    try:
        return route.take(kind, payload)
    except Exception as error:  # bytes that cannot be read: as with pamqp, nothing behind them can be trusted
        raise InvalidFrameError(f"{type(error).__name__}: {error}") from error


class Outbox:
    """Writes of one connection: what is written in one turn of the loop becomes one write to the socket."""

    def __init__(self, writes: asyncio.Queue[Any]) -> None:
        self._writes = writes
        self._parts: list[tuple[Route, bytes]] = []
        self._task: asyncio.Task[None] | None = None

    def write(self, route: Route, data: bytes) -> None:
        """Write soon, if the route's channel is still open then: the broker closes a connection over anything else."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self.flush)
        self._parts.append((route, data))

    def flush(self) -> None:
        """Hand on what was written, if there is room; else as soon as there is."""
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


class Wire:
    """The direct way into one connection."""

    def __init__(self, receiver: DirectReceiver, connection: aiormq.abc.AbstractConnection) -> None:
        self._receiver = receiver
        self.outbox = Outbox(connection.write_queue)
        self.max_frame = connection.connection_tune.frame_max or 131_072

    def add(self, channel: AbstractChannel, route: Route) -> None:
        """Send a channel's frames to this route first, until the channel is closed."""
        number = channel.number
        self._receiver.routes[number] = route
        channel.closing.add_done_callback(lambda _: self._receiver.routes.pop(number, None))


@contextlib.contextmanager
def receivers_made() -> Iterator[list[DirectReceiver]]:
    """Make the connections that are opened in this block direct ones, if that is possible; yields their receivers.

    aiormq is told once, for all connections of the process: without routes a receiver does what aiormq's own does.
    """
    made: list[DirectReceiver] = []
    if not is_possible():
        yield made
        return
    setattr(aiormq.connection, "FrameReceiver", DirectReceiver)  # noqa: B010  # to the type checker it is a type
    token = _made.set(made)
    try:
        yield made
    finally:
        _made.reset(token)


def wire_of(connection: AbstractConnection) -> Wire | None:
    """Return the direct way into a connection; None where there is only the public one."""
    return getattr(connection, "runner_wire", None)


def attach(connection: AbstractConnection, receivers: list[DirectReceiver]) -> None:
    """Remember the direct way into a connection that was just opened."""
    transport = connection.transport
    if transport is not None and receivers:
        connection.runner_wire = Wire(receivers[-1], transport.connection)  # type: ignore[attr-defined]
