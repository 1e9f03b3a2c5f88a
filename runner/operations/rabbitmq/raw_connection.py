"""An AMQP 0-9-1 connection that passes messages as bytes: properties and headers are never decoded.

aiormq decodes a message and encodes it again, and the result is not the same message: floats lose precision, a missing
message id is made up, and text that is not UTF-8 ends the connection. Messages that are moved must not change. Source: https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self

from pamqp import commands, exceptions, frame
from pamqp.base import Frame

from runner.errors import BrokerUnavailable
from runner.message import Address
from runner.pipeline.model import BrokerSettings
from runner.redaction import mask_passwords
from runner.transports.rabbitmq.aiormq_workarounds import ShortString, describe_error
from runner.transports.rabbitmq.channels import QueueCounts
from runner.transports.rabbitmq.connection import client_properties, connection_url, tls_context
from runner.transports.rabbitmq.frames import (
    BODY,
    DELIVER,
    FRAME_HEAD,
    HEADER,
    METHOD,
    RETURN,
    read_deliver,
    read_size,
    write_frame,
    write_publish,
)

MAX_SILENCE_S = 60.0
"""How long to wait for a frame of the broker."""

CONNECT_S = 10.0
CLOSE_S = 5.0

ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, NOT_IMPLEMENTED = 403, 404, 406, 540

_HEARTBEAT = 8
_LARGEST_FRAME = 131_072


class RequestRefused(BrokerUnavailable):
    """The broker closed the channel or the connection over a request. `code` is AMQP's reply code."""

    def __init__(self, code: int, text: str) -> None:
        rights = "to move messages needs the rights to read and configure the queue, and to write what ends like it"
        super().__init__(f"the broker refuses: {text}", rights if code == ACCESS_REFUSED else "")
        self.code = code
        self.text = text


class RawMessage(NamedTuple):
    """A delivery as it arrived. `header` is the payload of its content header."""

    tag: int
    is_redelivered: bool
    routing_key: str
    header: bytes
    body: bytes


class RawConnection:
    """A connection with one channel. Deliveries go to `on_message`, other methods to `on_event`, in order.

    For one task at a time. An async context manager.
    """

    def __init__(self, settings: BrokerSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._frame_max = _LARGEST_FRAME
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.on_message: Callable[[RawMessage], Awaitable[None]] | None = None
        self.on_event: Callable[[Frame], None] = lambda event: None

    async def __aenter__(self) -> Self:
        error: Exception | None = None
        for url in self._settings.urls:
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._connect(url)
                return self
            except (OSError, TimeoutError, EOFError, exceptions.PAMQPException) as failure:
                error = failure
                await self._drop()
        raise BrokerUnavailable(f"cannot reach the broker {self._shown}: {describe_error(error)}") from error

    async def __aexit__(self, *_: object) -> None:
        """Close the connection properly, if possible, so that the broker reads all earlier acks."""
        with contextlib.suppress(OSError, TimeoutError, EOFError, BrokerUnavailable, exceptions.PAMQPException):
            async with asyncio.timeout(CLOSE_S):
                await self.call(commands.Connection.Close(200, "done", 0, 0), channel=0)
        await self._drop()

    @property
    def _shown(self) -> str:
        return ", ".join(mask_passwords(url) for url in self._settings.urls)

    async def call(self, method: Frame, channel: int = 1) -> Frame:
        """Send a method and return its answer. After RequestRefused the connection cannot be used any more."""
        await self.send(method, channel)
        while True:
            event = await self.step()
            if event is not None and event.name in method.valid_responses:
                return event

    async def send(self, method: Frame, channel: int = 1) -> None:
        """Send a method without an answer."""
        await self._write(frame.marshal(method, channel))

    async def publish(self, exchange: str, message: RawMessage, header: bytes) -> None:
        """Publish the body of a message with this content header and its routing key, mandatory."""
        if len(header) + 8 > self._frame_max:
            raise BrokerUnavailable("a message has too large headers to be moved: nothing is lost, it is where it was")
        frames = [write_publish(1, Address(exchange, message.routing_key)), write_frame(HEADER, 1, header)]
        body, size = message.body, self._frame_max - 8
        frames += (write_frame(BODY, 1, body[start : start + size]) for start in range(0, len(body), size))
        await self._write(b"".join(frames))

    async def counts(self, queue: str) -> QueueCounts:
        """Return the counts of a queue. Raises RequestRefused if it does not exist."""
        found: Any = await self.call(commands.Queue.Declare(0, ShortString(queue), passive=True))
        return QueueCounts(found.message_count or 0, found.consumer_count or 0)

    async def consume(self, queue: str, tag: str) -> None:
        """Consume a queue. Each message has to be acknowledged."""
        await self.call(commands.Basic.Consume(0, ShortString(queue), tag, False, False, False))

    async def delete(self, queue: str, **conditions: bool) -> int:
        """Delete a queue, and return how many messages it had. The conditions are `if_unused` and `if_empty`."""
        deleted: Any = await self.call(commands.Queue.Delete(0, ShortString(queue), **conditions))
        return int(deleted.message_count)

    async def step(self) -> Frame | None:
        """Read one method or delivery and pass it on; return it if it is a method."""
        kind, channel, payload = await self._read()
        if kind != METHOD:
            return None
        if payload[:4] == DELIVER:
            tag, is_redelivered, _, routing_key = read_deliver(payload)
            message = RawMessage(tag, is_redelivered, routing_key, *await self._content())
            if self.on_message is not None:
                await self.on_message(message)
            return None
        if payload[:4] == RETURN:
            await self._content()
            raise BrokerUnavailable("a copy of a message found no queue: nothing is lost, it is where it was")
        event = _decoded(payload, channel)
        if isinstance(event, commands.Channel.Close | commands.Connection.Close):
            raise RequestRefused(event.reply_code or 0, event.reply_text)
        if isinstance(event, commands.Connection.Blocked):
            raise BrokerUnavailable(f"the broker takes no messages now: {event.reason}", "run it again afterwards")
        self.on_event(event)
        return event

    async def _connect(self, text: str) -> None:
        url = connection_url(text, self._settings)
        port = url.port or (5671 if url.scheme == "amqps" else 5672)
        self._reader, self._writer = await asyncio.open_connection(
            url.host, port, ssl=tls_context(text, self._settings)
        )
        await self._write(b"AMQP\x00\x00\x09\x01")
        await self.step()
        login = f"\x00{url.user or ''}\x00{url.password or ''}"
        await self.send(commands.Connection.StartOk(_properties(self._name), "PLAIN", login, "en_US"), 0)
        tune: Any = await self.step()
        self._frame_max = min(tune.frame_max or _LARGEST_FRAME, _LARGEST_FRAME)
        await self.send(commands.Connection.TuneOk(tune.channel_max, self._frame_max, 0), 0)
        await self.call(commands.Connection.Open(url.path[1:] or "/"), channel=0)
        await self.call(commands.Channel.Open())

    async def _content(self) -> tuple[bytes, bytes]:
        _, _, header = await self._read()
        left, pieces = read_size(header), []
        while left > 0:
            _, _, piece = await self._read()
            pieces.append(piece)
            left -= len(piece)
        return header, b"".join(pieces)

    async def _read(self) -> tuple[int, int, bytes]:
        assert self._reader is not None
        try:
            async with asyncio.timeout(MAX_SILENCE_S):
                while True:
                    kind, channel, size = FRAME_HEAD.unpack(await self._reader.readexactly(FRAME_HEAD.size))
                    payload = (await self._reader.readexactly(size + 1))[:-1]
                    if kind != _HEARTBEAT:
                        return kind, channel, payload
        except (OSError, EOFError, TimeoutError) as error:
            raise BrokerUnavailable(f"the broker was lost: {describe_error(error) or 'connection closed'}") from error

    async def _write(self, data: bytes) -> None:
        assert self._writer is not None
        try:
            self._writer.write(data)
            async with asyncio.timeout(MAX_SILENCE_S):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise BrokerUnavailable(f"the broker was lost: {describe_error(error)}") from error

    async def _drop(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None


def _decoded(payload: bytes, channel: int) -> Frame:
    _, _, method = frame.unmarshal(write_frame(METHOD, channel, payload))
    assert isinstance(method, Frame)
    return method


def _properties(name: str) -> dict[str, Any]:
    """Return the client properties. They ask the broker to report cancelled consumers and blocked connections."""
    capabilities = {"consumer_cancel_notify": True, "connection.blocked": True, "publisher_confirms": True}
    return {**client_properties(name, "move"), "capabilities": capabilities}
