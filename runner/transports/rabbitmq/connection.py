"""Keeps one connection to RabbitMQ alive: connects, watches it, and reconnects with backoff, until it is closed.

aio-pika's robust classes are not used: one queue that cannot be restored takes a robust connection down, with all its
other queues, again and again. aio-pika also reads settings from the URL's query and misreads some silently:
`heartbeat=30s` turns heartbeats off, and so does `no_verify_ssl=false` with verification. So the query of the user's
URL is replaced.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from yarl import URL

from runner.backoff import backoff_delays
from runner.errors import BrokerUnavailable
from runner.pipeline.model import BrokerSettings, TlsSettings
from runner.redaction import mask_passwords
from runner.release import PRODUCT, STARTED_AT, version
from runner.tasks import cancel_and_wait
from runner.transports.base import OnTransportEvent, TransportEvent
from runner.transports.rabbitmq.aiormq_workarounds import (
    CHANNEL_ERRORS,
    CONNECT_ERRORS,
    broker_version,
    close_within,
    describe_error,
    handshake_refusal,
    is_blocked_by_broker,
    is_lost,
    loss_as_error,
    product_of,
    release_writers,
    wait_within,
    watch_loss,
    write_queue,
)
from runner.transports.rabbitmq.amqp_fast_path import FastPathConnection
from runner.transports.rabbitmq.broker_features import features_of
from runner.transports.rabbitmq.connection_errors import (
    ConnectionFailure,
    explain_failure,
    explain_files,
    explain_refusal,
)
from runner.units import format_duration

CONNECT_ATTEMPT_S = 10.0
SHORT_CONNECT_ATTEMPT_S = 5.0
"""How long an attempt may take where a shorter connect timeout is set."""

REPORT_CONNECTING_S = 1.0
"""How long the first attempt may take before `broker.connecting` is reported."""

CLOSE_S = 5.0
BLOCKED_POLL_S = 0.5

STABLE_CONNECTION_S = 5.0
"""After a connection that lasted this long, the next attempts begin with short delays again."""

_REFUSALS = (
    aiormq.exceptions.AuthenticationError,
    aiormq.exceptions.ProbableAuthenticationError,
    aiormq.exceptions.ConnectionNotAllowed,
)


class ConnectionClosedByUs(Exception):
    """This process has closed the connection; there will be no other."""


class ReconnectingConnection:
    """One supervised connection, for publishing or for consuming.

    `restore` runs on each later connection before anything else may use it. An error in it ends that connection.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        role: str,
        name: str,
        on_transport_event: OnTransportEvent,
        restore: Callable[[AbstractConnection], Awaitable[None]] | None = None,
        release: str = "",
    ) -> None:
        self._settings = settings
        self._release = release
        self._role = role
        self._name = name
        self._on_event = on_transport_event
        self._restore = restore
        self._connection: AbstractConnection | None = None
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._next_url = 0
        self._is_closed = False
        self.is_blocked = False
        """Whether the broker accepts no messages now, for lack of memory or disk."""

    @property
    def is_ready(self) -> bool:
        """Whether there is a connection, and it is restored."""
        return self._ready.is_set() and not self._is_closed

    @property
    def current(self) -> AbstractConnection | None:
        """The connection; None where there is none, or it is not restored."""
        return self._connection if self.is_ready else None

    async def open(self) -> AbstractConnection:
        """Connect within the connect timeout, and keep a connection from then on.

        Raises BrokerUnavailable: at once where the broker refuses the login, otherwise after the timeout.
        """
        connection = await self._first_connection()
        self._task = asyncio.create_task(self._supervise(connection), name=f"rabbitmq-{self._role}")
        return connection

    async def ready(self) -> AbstractConnection:
        """Return the connection; wait while there is none. Raises ConnectionClosedByUs after `close`."""
        while True:
            await self._ready.wait()
            if self._is_closed:
                raise ConnectionClosedByUs
            if self._connection is not None:
                return self._connection

    async def close(self) -> None:
        """Disconnect for good. Idempotent, and takes at most a few seconds, whatever the broker does."""
        self._is_closed = True
        self._ready.set()
        await cancel_and_wait(self._task)
        await self._discard(self._connection)
        self._connection = None

    async def _first_connection(self) -> AbstractConnection:
        """Try each URL in turn until one works, or the connect timeout is over."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = began + self._settings.connect_timeout_s
        has_said = False
        for attempt, pause in enumerate(backoff_delays(), start=1):
            telling = loop.call_later(REPORT_CONNECTING_S, self._report_connecting) if attempt == 1 else None
            try:
                return await self._connect()
            except _REFUSALS as error:
                raise self._refused(error) from error
            except CONNECT_ERRORS as error:
                left_s = deadline - loop.time()
                has_tried_all = attempt >= len(self._settings.urls)
                failure = explain_failure(error, self._url, self._settings.tls)
                if has_tried_all and (left_s <= 0 or failure.is_final):
                    raise self._unreachable(failure, loop.time() - began) from error
                pause = min(pause, max(left_s, 0.0))
                if not has_said and left_s > 0:
                    fields = {"broker": self.target, "error": failure.reason, "help": failure.hint}
                    self._on_event(TransportEvent("broker.unreachable", "warning", fields))
                    has_said = True
            finally:
                if telling is not None:
                    telling.cancel()
            await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    def _report_connecting(self) -> None:
        self._on_event(TransportEvent("broker.connecting", "info", {"broker": self.target}))

    async def _connect(self) -> AbstractConnection:
        """Try to connect to the next URL."""
        url = self._settings.urls[self._next_url % len(self._settings.urls)]
        self._next_url += 1
        attempt_s = min(CONNECT_ATTEMPT_S, max(SHORT_CONNECT_ATTEMPT_S, self._settings.connect_timeout_s))
        try:
            # A second timeout around aiormq's own, which does not cover every step of the handshake.
            connecting = aio_pika.connect(
                connection_url(url, self._settings),
                ssl_context=tls_context(url, self._settings),
                timeout=attempt_s,
                client_properties={**client_properties(self._name, self._role, self._release)},
                connection_class=FastPathConnection,
            )
            return await wait_within(attempt_s + 1, connecting)
        except aiormq.exceptions.InvalidFrameError as error:
            if "Connection.Close" not in str(error):
                raise
            raise aiormq.exceptions.ConnectionNotAllowed(handshake_refusal(error)) from error

    @property
    def target(self) -> str:
        """The URL that was tried last, without its password."""
        return mask_passwords(self._url)

    @property
    def _url(self) -> str:
        return self._settings.urls[(self._next_url - 1) % len(self._settings.urls)]

    async def _supervise(self, connection: AbstractConnection) -> None:
        """Watch a connection, and replace it whenever it is lost, until cancelled."""
        loop = asyncio.get_running_loop()
        delays = backoff_delays()
        while True:
            self._connection = connection
            writes = write_queue(connection)
            self._ready.set()
            since = loop.time()
            reason = await self._watch(connection)
            self._ready.clear()
            self._connection = None
            self.is_blocked = False
            self._report("broker.lost", "warning", error=reason)
            await self._discard(connection)
            await release_writers(writes)
            if loop.time() - since > STABLE_CONNECTION_S:
                delays = backoff_delays()
            connection = await self._reconnect(delays)
            # The broker may be another one than before, or upgraded.
            features = features_of(broker_version(connection))
            more = {"features": [*features]} if features else {}
            self._report("broker.connected", "info", product=product_of(connection), **more)

    async def _reconnect(self, delays: Iterator[float]) -> AbstractConnection:
        """Try to connect and to restore until both succeed; report each new reason why it fails."""
        said = ""
        while True:
            await asyncio.sleep(next(delays))
            connection = None
            try:
                with loss_as_error:
                    connection = await self._connect()
                    if self._restore is not None:
                        await wait_within(CONNECT_ATTEMPT_S * 3, self._restore(connection), watch_loss(connection))
                return connection
            except (BrokerUnavailable, *CHANNEL_ERRORS) as error:
                await self._discard(connection)
                if (why := describe_error(error)) != said:
                    self._report("broker.unreachable", "warning", error=why)
                    said = why
            except asyncio.CancelledError:
                await self._discard(connection)
                raise

    async def _watch(self, connection: AbstractConnection) -> str:
        """Wait until the connection is lost, and return why. Report when the broker blocks it."""
        lost = watch_loss(connection)
        while not lost.done():
            if is_lost(connection):
                return "connection closed"
            self._note_blocked(is_blocked_by_broker(connection))
            await asyncio.wait([lost], timeout=BLOCKED_POLL_S)
        return lost.result()

    def _note_blocked(self, is_blocked: bool) -> None:
        if is_blocked == self.is_blocked:
            return
        self.is_blocked = is_blocked
        if is_blocked:
            self._report("broker.blocked", "warning")
        else:
            self._report("broker.unblocked", "info")

    def _report(self, event: str, level: str, **fields: Any) -> None:
        self._on_event(TransportEvent(event, level, {"role": self._role, "broker": self.target, **fields}))

    async def _discard(self, connection: AbstractConnection | None) -> None:
        """Close a connection that may be dead, within a few seconds."""
        if connection is not None:
            await close_within(connection.close(), CLOSE_S)

    def _unreachable(self, failure: ConnectionFailure, tried_s: float) -> BrokerUnavailable:
        after = f" after {format_duration(round(tried_s, 1 if tried_s < 1 else 0))}" if tried_s >= 0.5 else ""
        return BrokerUnavailable(f"cannot reach the broker {self.target}{after}: {failure.reason}", failure.hint)

    def _refused(self, error: BaseException) -> BrokerUnavailable:
        why, hint = explain_refusal(describe_error(error), self._url)
        return BrokerUnavailable(f"the broker {self.target} refuses the connection: {why}", hint)


def connection_url(url: str, settings: BrokerSettings) -> URL:
    """Return the URL to connect to, with the heartbeat. Without a user it is `guest`, which works on loopback only."""
    parsed = URL(url)
    if parsed.user is None:
        parsed = parsed.with_user("guest").with_password("guest")
    return parsed.with_query(heartbeat=str(max(1, round(settings.heartbeat_s))))


def client_properties(pipelines: str, role: str, release: str = "") -> dict[str, str]:
    """Return the client properties, which the broker shows in its list of connections."""
    host, pid = socket.gethostname(), os.getpid()
    properties = {
        "connection_name": f"{pipelines} ({role}) {host}:{pid}",
        "product": PRODUCT,
        "version": version(),
        "host": host,
        "pid": str(pid),
        "pipelines": pipelines,
        "started_at": STARTED_AT.isoformat(timespec="seconds"),
    }
    return properties | ({"release": release} if release else {})


def tls_context(url: str, settings: BrokerSettings) -> ssl.SSLContext | None:
    """Return the context for an `amqps` URL (verified, TLS 1.2 or newer); None for `amqp`."""
    if urlsplit(url).scheme != "amqps":
        return None
    tls = settings.tls
    try:
        context = ssl.create_default_context(cafile=str(tls.ca) if tls and tls.ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls and tls.cert:
            context.load_cert_chain(str(tls.cert), str(tls.key) if tls.key else None)
    except (OSError, ssl.SSLError) as error:
        raise BrokerUnavailable(*explain_files(error, tls or TlsSettings())) from error
    return context
