"""The URL, the client properties and the TLS context of a connection, from validated settings.

aio-pika reads settings from the URL's query and misreads some silently: `heartbeat=30s` turns heartbeats off, and so
does `no_verify_ssl=false` with verification. So the query of the user's URL is replaced.
"""

from __future__ import annotations

import os
import socket
import ssl
from urllib.parse import urlsplit

from yarl import URL

from runner.errors import BrokerUnavailable
from runner.pipeline.model import BrokerSettings, TlsSettings
from runner.release import PRODUCT, STARTED_AT, version
from runner.transports.rabbitmq.connection_errors import explain_files


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
