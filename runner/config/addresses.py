"""Input: the text of a broker's address into a checked one, or into one sentence that says what is wrong with it."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

from runner.units import is_loopback

_BLANK = re.compile(r"[\x00-\x20\x7f]")
_NOT_A_HOST = re.compile(r"[\x00-\x20\x7f,;<>\"'`{}|\\^%$*()]")

EXAMPLE = "amqp://user:password@host:5672/vhost"


def parse_broker_url(text: str) -> str:
    """Return a checked `amqp://` or `amqps://` URL, as it was written.

    Raises ValueError with one sentence that never shows the password. User and password may be missing for this
    machine only: aio-pika then logs in as guest, which RabbitMQ accepts from there and nowhere else.
    """
    text = text.strip()
    if not text:
        raise ValueError("the broker's URL is empty")
    if not text.startswith(("amqp://", "amqps://")):
        raise ValueError("a broker's URL starts with amqp:// or amqps://")
    if _BLANK.search(text):
        raise ValueError("a broker's URL has no blanks or control characters in it (write a space as %20)")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("the host in the broker's URL is not valid") from None
    _check_end(parts)
    _check_host(parts)
    _check_user(parts)
    _check_vhost(parts)
    return text


def _check_end(parts: SplitResult) -> None:
    """Refuse what follows the vhost: aio-pika would take some of it silently, even `no_verify_ssl=false` for true."""
    if "@" in parts.path + parts.query + parts.fragment:
        raise ValueError("write special characters of the user or password as %XX: / is %2F, # is %23, ? is %3F")
    if parts.query:
        names = ", ".join(f'"{pair.partition("=")[0]}"' for pair in parts.query.split("&"))
        raise ValueError(f"query parameters in the broker's URL are not supported: {names}")
    if parts.fragment:
        raise ValueError('a broker\'s URL has no "#" in it (write it as %23)')


def _check_host(parts: SplitResult) -> None:
    try:
        port = parts.port
    except ValueError:
        raise ValueError("the port in the broker's URL is not a number from 1 to 65535") from None
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("the port in the broker's URL is not a number from 1 to 65535")
    if not parts.hostname:
        raise ValueError("the broker's URL has no host")
    if "," in parts.netloc.rpartition("@")[2]:
        raise ValueError("a broker's URL has one host; name several nodes with urls: [first, second]")
    if _NOT_A_HOST.search(parts.hostname):
        raise ValueError("the host in the broker's URL is not valid")


def _check_user(parts: SplitResult) -> None:
    if parts.username and parts.password:
        return
    if parts.username or parts.password:
        missing = "password" if parts.username else "user"
        raise ValueError(f"the broker's URL has no {missing} before its host")
    if not is_loopback(parts.hostname or ""):
        raise ValueError("the broker's URL has no user and password before its host")


def _check_vhost(parts: SplitResult) -> None:
    vhost = parts.path[1:]
    if "/" in vhost:
        raise ValueError('write "/" inside the vhost as %2F')
    if len(unquote(vhost).encode()) > 255:
        raise ValueError("the vhost in the broker's URL is longer than 255 bytes")
