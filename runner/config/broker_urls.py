"""Checked URLs of brokers, made from a URL or from its parts."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import SplitResult, quote, unquote, urlsplit

from runner.units import is_loopback

_BLANK = re.compile(r"[\x00-\x20\x7f]")
_NOT_A_HOST = re.compile(r"[\x00-\x20\x7f,;<>\"'`{}|\\^%$*()]")

EXAMPLE_URL = "amqp://user:password@host:5672/vhost"


_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]+\](:\d+)?")
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def broker_url(host: str, port: int | None, vhost: str, login: tuple[str, str] | None, *, is_secure: bool) -> str:
    """Return the URL of a broker from parts that are not percent-encoded. Raises ValueError like `parse_broker_url`."""
    user = f"{quote(login[0], safe='')}:{quote(login[1], safe='')}@" if login is not None else ""
    place = f"[{host}]" if ":" in host else host
    if not place or set(place) & set("/?#@"):
        raise ValueError("the host in the broker's URL is not valid")
    at = f":{port}" if port is not None else ""
    return parse_broker_url(f"{'amqps' if is_secure else 'amqp'}://{user}{place}{at}/{quote(vhost, safe='')}")


def broker_file(url: str) -> str | None:
    """Return the path in the URL of a broker in a file, as in `file:data/shop.queue`; None for any other URL."""
    path = url.removeprefix("file:")
    return None if path == url else path.removeprefix("//")


def parse_broker_url(text: str) -> str:
    """Return a checked `amqp://`, `amqps://` or `file:` URL. Special characters in the user and password become %XX.

    Raises ValueError with a message that never shows the password. The user and password are optional for loopback
    hosts only: aio-pika then logs in as guest, which RabbitMQ accepts from the same machine only.
    """
    text = text.strip()
    if not text:
        raise ValueError("the broker's URL is empty")
    if (path := broker_file(text)) is not None:
        return f"file:{_checked_path(text, path)}"
    if not text.startswith(("amqp://", "amqps://")):
        raise ValueError("a broker's URL starts with amqp://, amqps:// or file:")
    if _BLANK.search(text):
        raise ValueError("a broker's URL has no blanks or control characters in it (write a space as %20)")
    text = _with_quoted_login(text)
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("the host in the broker's URL is not valid") from None
    _check_end(parts)
    _check_host(parts)
    _check_user(parts)
    _check_vhost(parts)
    return text


def _checked_path(text: str, path: str) -> str:
    if not path or path.endswith("/") or "\0" in path:
        raise ValueError("a broker in a file needs the path of a file, as in file:data/shop.queue")
    if text.startswith("file://") and not path.startswith("/"):
        raise ValueError("a broker in a file is on this machine: write file:PATH, or file:///PATH for an absolute one")
    return path


def _with_quoted_login(text: str) -> str:
    r"""Percent-encode the user and password that parsers of URLs read differently, such as `CORP\ann` or a `[`."""
    scheme, _, rest = text.partition("://")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    login, at, host = place.rpartition("@")
    quoted = quote(_LONE_PERCENT.sub("%25", login), safe="%:!$&'()*+,;=~")
    return f"{scheme}://{quoted}{at}{host}{rest[len(place) :]}"


def _check_end(parts: SplitResult) -> None:
    """Refuse a query and a fragment. aio-pika accepts some queries, and reads `no_verify_ssl=false` as true."""
    if "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(
            "write special characters of the user or password as %XX: @ is %40, / is %2F, # is %23, ? is %3F"
        )
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
    is_good = _is_name(parts.hostname) and not _NOT_A_HOST.search(parts.hostname)
    if set(parts.netloc) & set("[]"):
        is_good = _IPV6.fullmatch(parts.netloc.rpartition("@")[2]) is not None and _is_address(parts.hostname)
    if not is_good:
        raise ValueError("the host in the broker's URL is not valid")


def _is_name(host: str) -> bool:
    """Whether a host name can be looked up: as ASCII, its labels have 1 to 63 letters, digits and dashes."""
    try:
        is_plain = all(character.isalnum() or character in "-._~" for character in host)
        is_plain = is_plain and host == unicodedata.normalize("NFKC", host)
        return is_plain and bool(host.encode("idna").decode("idna"))
    except UnicodeError:
        return False


def _is_address(host: str) -> bool:
    from ipaddress import ip_address  # not needed at most starts

    try:
        return bool(ip_address(host))
    except ValueError:
        return False


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
    if _LONE_PERCENT.search(vhost):
        raise ValueError('write "%" inside the vhost as %25')
    if len(unquote(vhost, errors="surrogateescape").encode("utf-8", "surrogateescape")) > 255:
        raise ValueError("the vhost in the broker's URL is longer than 255 bytes")
