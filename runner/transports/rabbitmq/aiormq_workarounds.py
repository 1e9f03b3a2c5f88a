"""What the AMQP client does not do, or does not tell, by itself."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import traceback
from collections.abc import Awaitable
from typing import Any, TypeVar

import aiormq
from aio_pika.abc import AbstractConnection
from pamqp.commands import Connection

T = TypeVar("T")

_TLS = re.compile(r"\[SSL[^]]*\] (?P<why>.*?)(?: \(_ssl\.c:\d+\))?['\")]*$")
_ERRNO = re.compile(r"\[Errno (\d+)\]|Error\((\d+), ")  # as `str` and as `repr` have it


class ShortString(str):
    """The name of a queue or an exchange, or a routing key, for a frame that we write.

    RabbitMQ takes any UTF-8 of at most 255 bytes; pamqp, which writes the frames, takes 127 characters of a few kinds.
    What pamqp checks is the text itself, which is empty here, and what it writes is `encode()`. So its checks are left
    out for what we send, and for no other code in the process.
    """

    __slots__ = ("_encoded",)
    _encoded: bytes

    def __new__(cls, name: str) -> ShortString:
        self = super().__new__(cls)
        self._encoded = name.encode("utf-8", "surrogateescape")
        return self

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Return the name's bytes."""
        return self._encoded

    def __str__(self) -> str:
        return self


def ignore_result(task: asyncio.Future[Any]) -> None:
    """Look at how a task has ended, so that asyncio does not report it as forgotten."""
    if not task.cancelled():
        task.exception()


def is_blocked_by_broker(connection: AbstractConnection) -> bool:
    """Whether the broker has sent connection.blocked: then aiormq's `ready()` would wait, so step into it once."""
    transport = connection.transport
    if transport is None:
        return False
    waiting = transport.connection.ready()
    try:
        waiting.send(None)
    except StopIteration:
        return False
    waiting.close()
    return True


def watch_loss(connection: AbstractConnection) -> asyncio.Future[str]:
    """Return what will tell why the connection was lost."""
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_close(_: Any, error: BaseException | None) -> None:
        if not lost.done():
            lost.set_result(describe_error(error))

    connection.close_callbacks.add(on_close)
    return lost


def is_lost(connection: AbstractConnection) -> bool:
    """Whether a connection is gone: aio-pika does not notice it when that happens before anybody listens."""
    transport = connection.transport
    return connection.is_closed or transport is None or transport.connection.is_closed


async def wait_within(seconds: float, work: Awaitable[T], lost: asyncio.Future[str] | None = None) -> T:
    """Return what the work returns, unless it takes too long (TimeoutError) or its connection is lost.

    In aiormq a call on a dead connection may wait for ever, and wait on when it is cancelled: then it is left alone.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(ignore_result)
    waiting: list[asyncio.Future[Any]] = [task] if lost is None else [task, lost]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
    if task.done() and not task.cancelled():
        return task.result()
    raise ConnectionError(lost.result()) if lost is not None and lost.done() else TimeoutError


def write_queue(connection: AbstractConnection) -> asyncio.Queue[Any]:
    """Return the queue of frames that are to be written; one of its own for a connection that is lost already."""
    transport = connection.transport
    return transport.connection.write_queue if transport is not None else asyncio.Queue()


async def release_writers(writes: asyncio.Queue[Any]) -> None:
    """Let go of those who wait for room in a dead connection's queue of frames, where aiormq leaves them for ever.

    Publications then fail with their channel; who settles looks at the channel afterwards.
    """
    quiet_turns = 0
    while quiet_turns < 5:
        quiet_turns = quiet_turns + 1 if writes.empty() else 0
        while not writes.empty():
            writes.get_nowait()
        await asyncio.sleep(0)


def handshake_refusal(error: aiormq.exceptions.InvalidFrameError) -> str:
    """Return why the broker closed the connection during the handshake, as it does for a bad virtual host.

    aiormq complains of the frame, in which the broker says why, and keeps it in a local variable only.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        answer = frame.f_locals.get("frame")
        if isinstance(answer, Connection.Close):
            return answer.reply_text
    return "it does not open the virtual host"


def describe_error(error: BaseException | None) -> str:
    """Return why, in one line without addresses of objects."""
    if error is None:
        return "connection closed"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    number = _system_error(error)
    if number is not None:
        return os.strerror(number).lower()
    if (refusal := _TLS.search(str(error))) is not None:
        return refusal["why"].lower()
    if isinstance(error, aiormq.exceptions.AMQPError):
        return str(error.args[-1]) if error.args and error.args[-1] else type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _system_error(error: BaseException) -> int | None:
    """Return the number behind a connection's failure: asyncio and aiormq put addresses where its words were."""
    if not isinstance(error, OSError) or "[SSL" in str(error):
        return None
    found = _ERRNO.search(str(error))  # several addresses were tried in vain
    number = int(found[1] or found[2]) if found else error.errno  # in aiormq's errors this may be AMQP's reply code
    return number if number in errno.errorcode else None
