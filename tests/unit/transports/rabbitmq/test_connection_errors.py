"""Why a connection fails, in our words: the texts are those that RabbitMQ, Python and aiormq really give."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiormq
import pytest

from runner.errors import BrokerUnavailable
from runner.pipeline.model import BrokerSettings, TlsSettings
from runner.transports.rabbitmq import RabbitTransport
from runner.transports.rabbitmq.connection_errors import explain_failure, explain_files, explain_refusal

CERTIFICATE = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {} (_ssl.c:1006)"
ALERT = "SSLError(1, '[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required (_ssl.c:2580)')"
CLOSED = "Server connection error: <AMQPConnectionError: ('Server connection unexpectedly closed',)>"

FAILURES = [
    (
        "amqps://u:p@h:5672/",
        aiormq.AMQPConnectionError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"),
        "h:5672 does not speak TLS",
        "write amqp:// for this port, or amqps:// with the port for TLS, usually 5671",
        True,
    ),
    (
        "amqps://u:p@h:15672/",
        aiormq.AMQPConnectionError(1, "[SSL] record layer failure (_ssl.c:1016)"),
        "h:15672 does not speak TLS",
        "15672 is the management API: write the port of AMQP, 5672, or 5671 for amqps",
        True,
    ),
    (
        "amqp://u:p@h:15672/",
        TimeoutError(),
        "no answer in time",
        "15672 is the management API: write the port of AMQP, 5672, or 5671 for amqps",
        False,
    ),
    (
        "amqp://u:p@h:15672/",
        aiormq.AMQPConnectionError(CLOSED),
        "the connection was closed during the handshake",
        "15672 is the management API: write the port of AMQP, 5672, or 5671 for amqps",
        True,
    ),
    (
        "amqp://u:p@h:5671/",
        aiormq.AMQPConnectionError("Server communication error: ConnectionResetError(104, 'Connection reset by peer')"),
        "connection reset by peer",
        "if h:5671 speaks TLS, write amqps://; if it is the management API, the port of AMQP, usually 5672; "
        "else see the log of the broker",
        False,
    ),
    (
        "amqp://u:p@h/",
        aiormq.AMQPConnectionError(CLOSED),
        "the connection was closed during the handshake",
        "if h:5672 speaks TLS, write amqps://; if it is the management API, the port of AMQP, usually 5672; "
        "else see the log of the broker",
        False,
    ),
    (
        "amqps://u:p@h/",
        aiormq.AMQPConnectionError(1, CERTIFICATE.format("self-signed certificate in certificate chain")),
        "certificate verify failed: self-signed certificate in certificate chain",
        "set broker.tls.ca to the certificate of the authority that has signed the broker's",
        True,
    ),
    (
        "amqps://u:p@h/",
        aiormq.AMQPConnectionError(1, CERTIFICATE.format("certificate has expired")),
        "certificate verify failed: certificate has expired",
        "renew the certificate of the broker",
        True,
    ),
    (
        "amqps://u:p@10.0.0.1/",
        aiormq.AMQPConnectionError(1, CERTIFICATE.format("IP address mismatch, not valid for '10.0.0.1'.")),
        "certificate verify failed: ip address mismatch, not valid for '10.0.0.1'.",
        "write a host that the certificate names, or give the broker a certificate for 10.0.0.1",
        True,
    ),
    (
        "amqps://u:p@h/",
        aiormq.AMQPConnectionError(f"Server communication error: {ALERT}"),
        "the broker wants a certificate of this client (tlsv13 alert certificate required)",
        "set broker.tls.cert and broker.tls.key to a certificate that the broker accepts",
        True,
    ),
    (
        "amqp://u:p@no-such-host:5672/",
        aiormq.AMQPConnectionError(-2, "Name or service not known"),
        "Name or service not known",
        'correct the host "no-such-host", which has no address; is it running, and is the address right? '
        "`runner up` tries for broker.connect_timeout, other commands for --wait",
        False,
    ),
]


@pytest.mark.parametrize(("url", "error", "reason", "hint", "is_final"), FAILURES)
def test_a_connection_that_fails(url: str, error: Exception, reason: str, hint: str, is_final: bool) -> None:
    """Final is what the same settings can never change."""
    assert explain_failure(error, url, None) == (reason, hint, is_final)


def test_an_authority_that_is_set_is_named(tmp_path: Path) -> None:
    error = aiormq.AMQPConnectionError(1, CERTIFICATE.format("unable to get local issuer certificate"))
    hint = explain_failure(error, "amqps://u:p@h/", TlsSettings(tmp_path / "ca.pem")).hint
    assert hint.startswith(f"{tmp_path}/ca.pem is not the authority")


REFUSALS = [
    (
        "amqp://ann:p@h/",
        "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.",
        'the user "ann" does not exist, or the password is wrong',
        "correct them in the URL, or set the password: rabbitmqctl change_password ann",
    ),
    (
        "amqp://guest:guest@broker.example/",
        "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.",
        'the user "guest" can log in only from the machine of the broker',
        "create another user for it: rabbitmqctl add_user",
    ),
    (
        "amqp://ann:p@h/nope",
        "NOT_ALLOWED - vhost nope not found",
        'the virtual host "nope" does not exist',
        "correct the end of the URL, or create it: rabbitmqctl add_vhost nope; then `runner export permissions PATH "
        "--user ann` prints the command that gives the rights to it",
    ),
    (
        "amqp://ann:p@h/shop",
        "NOT_ALLOWED - access to vhost 'shop' refused for user 'ann'",
        'the user "ann" has no right to the virtual host "shop"',
        "`runner export permissions PATH --user ann` prints the command that gives it",
    ),
]


@pytest.mark.parametrize(("url", "reply", "reason", "hint"), REFUSALS)
def test_a_login_that_is_refused(url: str, reply: str, reason: str, hint: str) -> None:
    assert explain_refusal(reply, url) == (reason, hint)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    there, missing = tmp_path / "ca.pem", tmp_path / "client.pem"
    there.write_text("")
    reason, hint = explain_files(FileNotFoundError(2, "No such file or directory"), TlsSettings(there, missing))
    assert reason == f"the TLS files cannot be used: {missing} does not exist"
    assert hint == "correct broker.tls.cert, or make the file readable"


async def test_what_waiting_cannot_change_is_not_waited_for() -> None:
    """A port without TLS: the first connection fails at once, whatever the connect timeout."""

    def speak_amqp(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"AMQP\0\0\x09\x01")
        writer.close()

    server = await asyncio.start_server(speak_amqp, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = BrokerSettings((f"amqps://u:p@127.0.0.1:{port}/",), connect_timeout_s=600.0)
    transport = RabbitTransport(settings, name="shop", on_transport_event=lambda _: None)
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{port} does not speak TLS") as caught:
        await transport.connect()
    assert caught.value.hint.startswith("write amqp://")
    assert time.monotonic() - started < 60
    await transport.close()
    server.close()
    await server.wait_closed()
