"""The connections of the HTTP server: how many may be open, and how long each may wait.

Connections use the same pool of file descriptors as the broker connection and the handlers. Clients that connect and
send nothing must therefore not use up the descriptors, and must not keep probes from being answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from runner import log
from runner.tasks import cancel_and_wait

MAX_CONNECTIONS = 1000
"""The most connections that are open at the same time, however many descriptors there are."""
MIN_CONNECTIONS = 8
"""The limit is at least this, however few descriptors there are."""
DESCRIPTOR_SHARE = 4
"""Connections take at most one in this many of the descriptors that the process may have."""

HEADER_TIMEOUT_S = 10.0
"""How long the header of a request may take, from its first byte. For the first request of a connection, from the
connect.
"""

KEEP_ALIVE_S = 75.0
"""How long a connection may stay open between two requests. Most load balancers close idle connections sooner."""

SWEEP_INTERVAL_S = 1.0
"""How often connections are checked for these timeouts."""
ACCEPT_PAUSE_S = 1.0
"""How long the server stops accepting when the process has run out of descriptors."""

WARN_INTERVAL_S = 60.0
"""At most one warning about refused connections is logged in this time."""
LISTEN_BACKLOG = 128

Phase = Literal["header", "receiving", "answering", "idle"]
"""What a connection waits for: the header, the body, the handler, or another request. Only one that is `answering` is
never closed to make room.
"""

BUSY_RESPONSE = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def connection_limit() -> int:
    """Return how many connections may be open at the same time."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    share = MAX_CONNECTIONS if descriptors == resource.RLIM_INFINITY else descriptors // DESCRIPTOR_SHARE
    return max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, share))


async def open_listeners(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on every address of `host`, all on the same port. Port 0 means any free port.

    Raises OSError.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                sockets.append(_open_listener(family, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error  # such as ::1 for localhost on a machine without IPv6
            else:
                port = sockets[-1].getsockname()[1]
        if not sockets and missing is not None:
            raise missing
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def _open_listener(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(LISTEN_BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


class HttpConnections:
    """The open connections of a server. `make_protocol` returns the protocol that speaks HTTP on a connection."""

    def __init__(self, sockets: Sequence[socket.socket], make_protocol: Callable[[], Any], limit: int) -> None:
        self._sockets = sockets
        self._make_protocol = make_protocol
        self._limit = limit
        self._open: dict[asyncio.BaseTransport, _HttpConnection] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._next_warning_at = 0.0

    def start(self) -> None:
        """Start accepting connections."""
        work = [*(self._accept(each) for each in self._sockets), self._sweep()]
        self._tasks = [asyncio.create_task(each, name="http-connections") for each in work]

    async def stop_accepting(self) -> None:
        """Stop accepting. Open connections stay open. Idempotent."""
        # The accept tasks end first: other files may get the descriptors of closed sockets.
        await cancel_and_wait(*self._tasks[:-1])
        for each in self._sockets:
            each.close()

    async def close(self) -> None:
        """Stop accepting and abort all connections. Idempotent."""
        await self.stop_accepting()
        await cancel_and_wait(*self._tasks)
        for connection in list(self._open.values()):
            connection.abort()

    @contextlib.contextmanager
    def phase(self, transport: asyncio.BaseTransport | None, phase: Phase, after: Phase) -> Iterator[None]:
        """Mark the connection as one in this phase, and at the end of the block as one in the phase `after`."""
        connection = self._open.get(transport) if transport is not None else None
        if connection is not None:
            connection.enter(phase)
        try:
            yield
        finally:
            if connection is not None:
                connection.enter(after)

    def add(self, connection: _HttpConnection, transport: asyncio.BaseTransport) -> None:
        """Register an open connection."""
        self._open[transport] = connection

    def discard(self, transport: asyncio.BaseTransport | None) -> None:
        """Forget a connection that has ended or is about to."""
        if transport is not None:
            self._open.pop(transport, None)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno not in (errno.ECONNABORTED, errno.EPROTO):
                    self._warn_refused(error.strerror or str(error))
                    await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            if not self._make_room():
                self._warn_refused("every connection is at work")
                with contextlib.suppress(OSError):
                    accepted.send(BUSY_RESPONSE)
                accepted.close()
                continue
            connection = _HttpConnection(self, self._make_protocol(), loop.time())
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(lambda made=connection: made, accepted)  # type: ignore[misc]

    def _make_room(self) -> bool:
        """Return whether one more connection fits. If none does, abort the one that has been waiting longest."""
        if len(self._open) < self._limit:
            return True
        waiting = [each for each in self._open.values() if each.phase != "answering"]
        if not waiting:
            return False
        min(waiting, key=lambda each: (each.phase == "receiving", each.since)).abort()
        return True

    async def _sweep(self) -> None:
        """Abort the connections that have exceeded a timeout."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            now = loop.time()
            for connection in [each for each in self._open.values() if each.is_late(now)]:
                connection.abort()

    def _warn_refused(self, error: str) -> None:
        """Log that connections are refused, at most once every `WARN_INTERVAL_S`."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_warning_at:
            self._next_warning_at = now + WARN_INTERVAL_S
            log.get_logger().warning("http.overloaded", error=error, connections=len(self._open), limit=self._limit)


class _HttpConnection(asyncio.Protocol):
    """One connection. Passes everything on to the HTTP protocol and tracks what the connection is waiting for."""

    def __init__(self, connections: HttpConnections, inner: Any, now: float) -> None:
        self._connections = connections
        self._inner = inner
        self._transport: asyncio.BaseTransport | None = None
        self.phase: Phase = "header"
        self.since = now

    def enter(self, phase: Phase) -> None:
        """Enter a phase and restart its clock."""
        self.phase = phase
        self.since = asyncio.get_running_loop().time()

    def is_late(self, now: float) -> bool:
        """Return whether the current phase has exceeded its timeout.

        The body has a timeout of its own, in `http_server`.
        """
        limit = {"header": HEADER_TIMEOUT_S, "idle": KEEP_ALIVE_S}.get(self.phase)
        return limit is not None and now - self.since > limit

    def abort(self) -> None:
        """Close the connection without sending what is buffered."""
        self._connections.discard(self._transport)
        if isinstance(self._transport, asyncio.Transport):
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._connections.add(self, transport)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self.phase == "idle":
            self.enter("header")
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        result: bool | None = self._inner.eof_received()
        return result

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self._transport)
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
