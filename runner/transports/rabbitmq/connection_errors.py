"""Says why a connection fails and what to write: the words of TLS, of the operating system and of RabbitMQ, as ours."""

from __future__ import annotations

import os
import re
import ssl
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from runner.pipeline.model import TlsSettings
from runner.transports.rabbitmq.aiormq_workarounds import describe_error
from runner.units import is_loopback

_NO_TLS = ("wrong version number", "unknown protocol", "record layer failure", "packet length too long")
_CLIENT = ("certificate required", "unknown ca", "handshake failure", "bad certificate")
_PORTS = {
    15672: "the management API",
    15671: "the management API",
    25672: "the cluster's own port",
    4369: "epmd's port",
    5552: "the port of streams",
    61613: "the port of STOMP",
    1883: "the port of MQTT",
}
_ANSWERED = ("connection reset by peer", "the connection was closed during the handshake")
_RUNNING = (
    "is it running, and is the address right? `runner up` tries for broker.connect_timeout, other commands for --wait"
)


class ConnectionFailure(NamedTuple):
    """Why a connection fails, and the help. `is_final`: waiting does not help, the settings have to change."""

    reason: str
    hint: str
    is_final: bool = False


def explain_failure(error: BaseException, url: str, tls: TlsSettings | None) -> ConnectionFailure:
    """Return why a broker cannot be reached. The words of a certificate's failure are kept: they say which it is."""
    why, parts = describe_error(error), urlsplit(url)
    is_secure = parts.scheme == "amqps"
    port = parts.port or (5671 if is_secure else 5672)
    address = f"{parts.hostname}:{port}"
    if is_secure and any(words in why for words in _NO_TLS):
        hint = _wrong_port(port) or "write amqp:// for this port, or amqps:// with the port for TLS, usually 5671"
        return ConnectionFailure(f"{address} does not speak TLS", hint, is_final=True)
    if "certificate verify failed" in why:
        return _unproven(why, parts.hostname or "", tls)
    if is_secure and any(words in why for words in _CLIENT):
        hint = "set broker.tls.cert and broker.tls.key to a certificate that the broker accepts"
        return ConnectionFailure(f"the broker wants a certificate of this client ({_short(why)})", hint, is_final=True)
    if "unexpectedly closed" in why:
        why = "the connection was closed during the handshake"
    if _wrong_port(port):
        return ConnectionFailure(why, _wrong_port(port), is_final=why in _ANSWERED)
    if "not known" in why.lower() or "name resolution" in why.lower() or "no address" in why.lower():
        return ConnectionFailure(why, f'correct the host "{parts.hostname}", which has no address; {_RUNNING}')
    if not is_secure and why in _ANSWERED:
        hint = f"if {address} speaks TLS, write amqps://; if it is the management API, the port of AMQP, usually 5672"
        return ConnectionFailure(why, f"{hint}; else see the log of the broker")
    if why == "no answer in time":
        return ConnectionFailure(why, f"is {address} the port of AMQP? Usually that is 5672, or 5671 for amqps")
    return ConnectionFailure(why, _RUNNING)


def _wrong_port(port: int) -> str:
    """Return the help for a port of RabbitMQ that does not speak AMQP."""
    return f"{port} is {_PORTS[port]}: write the port of AMQP, 5672, or 5671 for amqps" if port in _PORTS else ""


def _unproven(why: str, host: str, tls: TlsSettings | None) -> ConnectionFailure:
    if "expired" in why:
        return ConnectionFailure(why, "renew the certificate of the broker", is_final=True)
    if "not valid for" in why or "mismatch" in why:
        hint = f"write a host that the certificate names, or give the broker a certificate for {host}"
        return ConnectionFailure(why, hint, is_final=True)
    hint = "set broker.tls.ca to the certificate of the authority that has signed the broker's"
    if tls is not None and tls.ca is not None:
        hint = f"{tls.ca} is not the authority that has signed the broker's certificate: set broker.tls.ca to that"
    return ConnectionFailure(why, hint, is_final=True)


def _short(why: str) -> str:
    return why.partition(" (_ssl")[0]


def explain_refusal(reply: str, url: str) -> tuple[str, str]:
    """Return why the broker refuses a login or a virtual host, from its reply text, and the help."""
    parts = urlsplit(url)
    user = unquote(parts.username or "guest")
    if "Login was refused" in reply:
        if user == "guest" and not is_loopback(parts.hostname or ""):
            hint = "create another user for it: rabbitmqctl add_user"
            return 'the user "guest" can log in only from the machine of the broker', hint
        hint = f"correct them in the URL, or set the password: rabbitmqctl change_password {user}"
        return f'the user "{user}" does not exist, or the password is wrong', hint
    found = re.search(r"vhost '?(.+?)'? not found", reply)
    if found is not None:
        hint = f"correct the end of the URL, or create it: rabbitmqctl add_vhost {found[1]}"
        hint += f"; then `runner export permissions PATH --user {user}` prints the command that gives the rights to it"
        return f'the virtual host "{found[1]}" does not exist', hint
    found = re.search(r"access to vhost '(.+?)' refused for user '(.+?)'", reply)
    if found is not None:
        hint = f"`runner export permissions PATH --user {found[2]}` prints the command that gives it"
        return f'the user "{found[2]}" has no right to the virtual host "{found[1]}"', hint
    return reply, "check the user, the password and the virtual host of the URL"


def explain_files(error: OSError, tls: TlsSettings) -> tuple[str, str]:
    """Return which file of `broker.tls` cannot be used, and the help."""
    for key in ("ca", "cert", "key"):
        file = getattr(tls, key)
        if file is not None and not os.access(file, os.R_OK):
            what = "cannot be read" if file.exists() else "does not exist"
            return (
                f"the TLS files cannot be used: {file} {what}",
                f"correct broker.tls.{key}, or make the file readable",
            )
    if isinstance(error, ssl.SSLError) and "KEY_VALUES_MISMATCH" in str(error):
        return (
            "the TLS files cannot be used: the key does not belong to the certificate",
            "set broker.tls.key to its key",
        )
    what = "a file has no certificate or key in it" if isinstance(error, ssl.SSLError) else str(error.strerror or error)
    return f"the TLS files cannot be used: {what.lower()}", "check the files in broker.tls: they must be PEM"
