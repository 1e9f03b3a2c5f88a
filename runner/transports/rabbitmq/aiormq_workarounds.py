"""Workarounds for gaps in aiormq and pamqp, and everything that relies on how they work inside.

Only this module and `amqp_fast_path` may rely on it. Each function says which gap it fills.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import traceback
from collections.abc import Awaitable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import aiormq
from aio_pika.abc import AbstractConnection
from pamqp.commands import Connection

from runner.transports.rabbitmq.broker_features import line_of

T = TypeVar("T")

CONNECT_ERRORS = (OSError, TimeoutError, aiormq.exceptions.AMQPError, asyncio.IncompleteReadError)
"""What connecting may raise. ConnectionError and aiormq's connection errors are OSErrors or AMQPErrors."""

CHANNEL_ERRORS = (*CONNECT_ERRORS, aiormq.exceptions.ChannelInvalidStateError)
"""What a call on a channel may raise when the channel or its connection is gone."""

_TLS = re.compile(r"\[SSL[^]]*\] (?P<why>.*?)(?: \(_ssl\.c:\d+\))?['\"),>]*$")
_ERRNO = re.compile(r"\[Errno (\d+)\]|Error\((\d+), ")  # as `str` and as `repr` have it


class ConnectionLost(ConnectionError):
    """aiormq cancelled a call because it lost the broker."""


class _LossAsError:
    """Turns the CancelledError that aiormq raises when it loses the broker into ConnectionLost.

    aiormq cancels the calls that wait on a connection when it is lost. To the caller that looks as if its own task had
    been cancelled, which asyncio counts in `cancelling`: where it counts none, aiormq has cancelled.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                raise ConnectionLost("the connection was lost") from error


loss_as_error = _LossAsError()
"""`with loss_as_error:` around calls on a channel: a loss of the broker is one of CHANNEL_ERRORS then."""


class ShortString(str):
    """The name of a queue or an exchange, or a routing key, for a frame that is written.

    RabbitMQ accepts any UTF-8 of at most 255 bytes; pamqp, which writes the frames, accepts 127 characters of a few
    kinds. pamqp checks the text itself, which is empty here, and writes what `encode()` returns. So its checks do not
    see our names, and still apply to all other code in the process.
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


def server_properties(connection: AbstractConnection) -> Mapping[str, Any]:
    """Return what the broker says of itself; nothing for a connection that is lost."""
    transport = connection.transport
    return dict(transport.connection.server_properties) if transport is not None else {}


def server_property(properties: Mapping[str, Any], name: str) -> str:
    """Return one of the broker's properties as text; empty where it does not say it."""
    value = properties.get(name, "")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def product_of(connection: AbstractConnection) -> str:
    """Return the broker's name and version, such as `RabbitMQ 4.3.6`."""
    properties = server_properties(connection)
    return f"{server_property(properties, 'product')} {server_property(properties, 'version')}"


def broker_version(connection: AbstractConnection) -> tuple[int, int]:
    """Return the broker's version, such as (4, 3); (0, 0) where it does not say one."""
    return line_of(server_property(server_properties(connection), "version"))


def ignore_result(task: asyncio.Future[Any]) -> None:
    """Retrieve a task's exception, so that asyncio does not report it as never retrieved."""
    if not task.cancelled():
        task.exception()


def is_blocked_by_broker(connection: AbstractConnection) -> bool:
    """Return whether the broker has sent connection.blocked, which aiormq does not tell.

    aiormq's `ready()` waits while the connection is blocked. Here it runs up to where it would wait, and no further.
    """
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
    """Return a future that is done, with the reason, when the connection is lost."""
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_close(_: Any, error: BaseException | None) -> None:
        if not lost.done():
            lost.set_result(describe_error(error))

    connection.close_callbacks.add(on_close)
    return lost


def is_lost(connection: AbstractConnection) -> bool:
    """Return whether a connection is gone. aio-pika misses a loss that happens before a close callback is added."""
    transport = connection.transport
    return connection.is_closed or transport is None or transport.connection.is_closed


async def wait_within(seconds: float | None, work: Awaitable[T], lost: asyncio.Future[str] | None = None) -> T:
    """Return the result of `work`; raises TimeoutError, or ConnectionError when its connection is lost first.

    None is no limit of time.

    A call of aiormq on a dead connection may wait without end, and go on waiting when it is cancelled. So it runs in a
    task of its own, which is abandoned.
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


async def close_within(closing: Awaitable[Any], seconds: float) -> None:
    """Wait at most `seconds` for a channel or a connection to close; ignore whether it worked.

    aiormq may wait for room in the queue of a dead connection, so the task is abandoned then.
    """
    with contextlib.suppress(*CHANNEL_ERRORS):
        await wait_within(seconds, closing)


def write_queue(connection: AbstractConnection) -> asyncio.Queue[Any]:
    """Return aiormq's queue of frames to write; an empty one for a connection that is lost already."""
    transport = connection.transport
    return transport.connection.write_queue if transport is not None else asyncio.Queue()


async def release_writers(writes: asyncio.Queue[Any]) -> None:
    """Release the tasks that wait for room in the write queue of a dead connection, where aiormq leaves them.

    Their publications then fail with their channel, and settling looks at the channel afterwards. Each frame that is
    removed lets one task write the next, so the queue counts as empty only after several iterations of the loop.
    """
    empty_iterations = 0
    while empty_iterations < 5:
        empty_iterations = empty_iterations + 1 if writes.empty() else 0
        while not writes.empty():
            writes.get_nowait()
        await asyncio.sleep(0)


def handshake_refusal(error: aiormq.exceptions.InvalidFrameError) -> str:
    """Return why the broker closed the connection during the handshake, for example over an unknown virtual host.

    aiormq raises an error about the frame that it did not expect. The frame has the broker's reason, and only a local
    variable of aiormq has the frame.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        answer = frame.f_locals.get("frame")
        if isinstance(answer, Connection.Close):
            return answer.reply_text
    return "it does not open the virtual host"


def describe_error(error: BaseException | None) -> str:
    """Return the reason of a failure in one line, without addresses of objects."""
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
    """Return the errno of a failed connection. asyncio and aiormq put it into a text, among addresses."""
    if not isinstance(error, OSError) or "[SSL" in str(error):
        return None
    found = _ERRNO.search(str(error))  # the text of several addresses that failed
    number = int(found[1] or found[2]) if found else error.errno  # aiormq's errors may have AMQP's reply code here
    return number if number in errno.errorcode else None
