"""Client of RabbitMQ's management API, which knows what AMQP does not tell: bindings, arguments, policies, rates.

The API is optional: a broker may not have it, or may refuse the user. Passwords stay in the Authorization header: no
error and no `repr` contains one, redirects are not followed (they would take it to another host), and no proxy is used.
Source: https://www.rabbitmq.com/docs/management#http-api
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from yarl import URL

from runner.errors import BrokerUnavailable
from runner.pipeline.model import BrokerSettings
from runner.redaction import escape_controls
from runner.transports.rabbitmq.connection import tls_context

FIND_S = 2.0
"""How long to wait for the first answer. Most brokers without the API refuse the connection at once."""

REQUEST_S = 15.0
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
_CHUNK = 256 * 1024
_PORTS = {"amqp": ("http", 15672), "amqps": ("https", 15671)}


class ManagementFailed(BrokerUnavailable):
    """The management API did not answer, or refused. `status` is the HTTP status, 0 without an answer."""

    def __init__(self, message: str, hint: str = "", *, status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class ManagementApi:
    """The management API of one virtual host, reached by `find`.

    Each method is one request in a thread, and raises ManagementFailed.
    """

    def __init__(self, address: URL, *, user: str, password: str, vhost: str, context: ssl.SSLContext | None) -> None:
        self._address = address
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._authorization = f"Basic {token}"
        handlers = [HTTPSHandler(context=context)] if context is not None else []
        self._opener = build_opener(ProxyHandler({}), _NoRedirects(), *handlers)
        self.user = user
        self.vhost = vhost
        self.cluster_name = ""
        """The cluster's name, which the server properties of an AMQP connection have too."""

    def __repr__(self) -> str:
        return f"Management({self.shown!r})"

    @property
    def shown(self) -> str:
        """The address, without user and password."""
        return str(self._address).rstrip("/")

    @classmethod
    async def find(
        cls,
        settings: BrokerSettings,
        url: str | None = None,
        server_properties: Mapping[str, Any] | None = None,
    ) -> tuple[ManagementApi | None, str]:
        """Return the API of the broker, or None and why there is none.

        It does not count where it does not answer within about two seconds, refuses the user, or belongs to another
        broker than the AMQP connection with these `server_properties`. `url` is its address, with a user and a password
        if they differ from the broker's. Without it, the broker's hosts are tried in turn on the usual port. Raises
        BrokerUnavailable for TLS files that cannot be used, ValueError for a `url` that is not a URL.
        """
        reason = "there is no broker URL"
        for candidate in [_management_at(cls, url, settings)] if url else _candidates(cls, settings):
            try:
                if not url:
                    await asyncio.to_thread(candidate._check_challenge)
                overview = await candidate._get("overview", FIND_S)
            except ManagementFailed as error:
                reason = str(error)
                continue
            if not isinstance(overview, dict):
                reason = f"what answers at {candidate.shown} is no management API"
                continue
            candidate.cluster_name = str(overview.get("cluster_name", ""))
            if candidate._is_broker_of(server_properties):
                return candidate, ""
            other = f"another broker, {candidate.cluster_name}"
            return None, f"the management API at {candidate.shown} belongs to {other}"
        return None, reason

    def _is_broker_of(self, server_properties: Mapping[str, Any] | None) -> bool:
        """Return whether this API belongs to the broker of an AMQP connection with these server properties.

        Another broker may use the usual port of the same host. An unknown name counts as the same.
        """
        name = (server_properties or {}).get("cluster_name", b"")
        text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        return not text or not self.cluster_name or text == self.cluster_name

    async def queues(self) -> dict[str, dict[str, Any]]:
        """Return every queue of the virtual host, by its name."""
        return {str(each.get("name")): each for each in _mappings(await self._get(f"queues/{_part(self.vhost)}"))}

    async def queue(self, name: str) -> dict[str, Any] | None:
        """Return one queue with its consumers; None where it does not exist."""
        try:
            return _mapping(await self._get(f"queues/{_part(self.vhost)}/{_part(name)}"))
        except ManagementFailed as error:
            if error.status == 404:
                return None
            raise

    async def connections(self) -> list[dict[str, Any]]:
        """Return the connections to the virtual host; without the tag `monitoring`, those of our own user."""
        return _mappings(await self._get(f"vhosts/{_part(self.vhost)}/connections"))

    async def exchanges(self) -> list[dict[str, Any]]:
        """Return every exchange of the virtual host."""
        return _mappings(await self._get(f"exchanges/{_part(self.vhost)}"))

    async def bindings(self) -> list[dict[str, Any]]:
        """Return every binding of the virtual host. Those of the default exchange have the source ""."""
        return _mappings(await self._get(f"bindings/{_part(self.vhost)}"))

    async def policies(self) -> list[dict[str, Any]]:
        """Return the policies of the virtual host. Needs the tag `policymaker`, `monitoring` or `administrator`."""
        return _mappings(await self._get(f"policies/{_part(self.vhost)}"))

    async def may_set_policies(self) -> bool:
        """Return whether the user has a tag that permits setting policies."""
        tags = _mapping(await self._get("whoami")).get("tags") or []
        return not {"policymaker", "administrator"}.isdisjoint(tags.split(",") if isinstance(tags, str) else tags)

    async def set_policy(self, name: str, policy: Mapping[str, Any]) -> None:
        """Create a policy or change it: `pattern`, `definition`, `priority` and `apply-to`."""
        await self._ask("PUT", f"policies/{_part(self.vhost)}/{_part(name)}", REQUEST_S, policy)

    async def delete_policy(self, name: str) -> bool:
        """Delete a policy; False where it did not exist."""
        return await self._delete(f"policies/{_part(self.vhost)}/{_part(name)}")

    async def delete_binding(self, exchange: str, queue: str, properties_key: str) -> bool:
        """Delete one binding of a queue by its `properties_key`, from `bindings`; False where it did not exist."""
        place = f"e/{_part(exchange)}/q/{_part(queue)}/{_part(properties_key)}"
        return await self._delete(f"bindings/{_part(self.vhost)}/{place}")

    async def _delete(self, path: str) -> bool:
        try:
            await self._ask("DELETE", path, REQUEST_S)
        except ManagementFailed as error:
            if error.status == 404:
                return False
            raise
        return True

    async def _get(self, path: str, seconds: float = REQUEST_S) -> Any:
        return await self._ask("GET", path, seconds)

    async def _ask(self, method: str, path: str, seconds: float, content: object = None) -> Any:
        return await asyncio.to_thread(self._request, method, path, seconds, content)

    def _request(self, method: str, path: str, seconds: float, content: object = None) -> Any:
        """Send one request. Blocks for at most about `seconds`."""
        headers = {"Authorization": self._authorization, "Accept": "application/json"}
        data = None
        if content is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(content).encode()
        request = Request(f"{self.shown}/api/{path}", data=data, method=method, headers=headers)
        deadline = time.monotonic() + seconds
        try:
            with self._opener.open(request, timeout=seconds) as answer:
                body = self._body(answer, deadline)
            return json.loads(body) if body else None
        except HTTPError as error:
            with contextlib.closing(error):
                raise self._refused(error) from None
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            raise ManagementFailed(f"what answers at {self.shown} is no management API") from None
        except TimeoutError:
            raise self._silent(f"no answer within {seconds:g} s") from None
        except URLError as error:
            raise self._silent(_why(error.reason)) from None
        except (OSError, ValueError, EOFError) as error:  # cut off in the middle, or an answer that is not HTTP
            raise self._silent(_why(error)) from None

    def _check_challenge(self) -> None:
        """Ask without a password first: the address is a guess, and another program may listen there."""
        challenge = ""
        try:
            with self._opener.open(Request(f"{self.shown}/api/overview"), timeout=FIND_S):
                pass
        except HTTPError as error:
            with contextlib.closing(error):
                challenge = error.headers.get("WWW-Authenticate") or ""
        except (OSError, ValueError, EOFError) as error:
            raise self._silent(_why(error.reason if isinstance(error, URLError) else error)) from None
        if "RabbitMQ" not in challenge:
            text = f"what answers at {self.shown} is no management API; the broker's password was not sent to it"
            raise ManagementFailed(text, "say where it is by --management")

    def _body(self, answer: Any, deadline: float) -> bytes:
        """Return the body of a response that may be slow or endless."""
        pieces, size = [], 0
        while piece := answer.read1(_CHUNK):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_RESPONSE_BYTES:
                raise ManagementFailed(
                    f"the management API at {self.shown} answers more than {MAX_RESPONSE_BYTES >> 20} MiB"
                )
            if time.monotonic() > deadline:
                raise TimeoutError
        return b"".join(pieces)

    def _refused(self, error: HTTPError) -> ManagementFailed:
        """Return the error for a refusal, with a hint about the missing tag."""
        if error.code in (401, 403):
            said = f'the management API at {self.shown} refuses the user "{escape_controls(self.user)}"'
            return ManagementFailed(said, "give it the tag `management` or `monitoring`", status=error.code)
        return ManagementFailed(f"the management API at {self.shown} answers {error.code}", status=error.code)

    def _silent(self, why: str) -> ManagementFailed:
        way = "" if self.shown.endswith(("15672", "15671")) else "; its port is usually 15672"
        return ManagementFailed(f"the management API does not answer at {self.shown}: {why}{way}")


def _candidates(kind: type[ManagementApi], settings: BrokerSettings) -> list[ManagementApi]:
    """Return the usual addresses of the API, one for each host of the broker."""
    found: dict[str, ManagementApi] = {}
    for text in settings.urls:
        broker = URL(text)
        scheme, port = _PORTS[broker.scheme]
        address = URL.build(scheme=scheme, host=broker.host or "localhost", port=port)
        candidate = _made(kind, address, broker, settings)
        found.setdefault(candidate.shown, candidate)
    return list(found.values())


def _management_at(kind: type[ManagementApi], text: str, settings: BrokerSettings) -> ManagementApi:
    try:
        address = URL(text)
        is_good = address.scheme in ("http", "https") and address.host and not address.query_string
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError("write http://host:15672 or https://host:15671")
    broker = URL(settings.urls[0])
    login = address if address.user is not None else broker
    plain = address.with_user(None).with_fragment(None)
    return _made(kind, plain, login.with_path(broker.raw_path, encoded=True), settings)


def _made(kind: type[ManagementApi], address: URL, login: URL, settings: BrokerSettings) -> ManagementApi:
    user, password = (login.user, login.password or "") if login.user is not None else ("guest", "guest")
    context = tls_context("amqps://", settings) if address.scheme == "https" else None
    return kind(address, user=user, password=password, vhost=login.path[1:] or "/", context=context)


def _part(text: str) -> str:
    return quote(text, safe="")


def _mapping(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise ManagementFailed("the management API answers something else than an object")
    return answer


def _mappings(answer: Any) -> list[dict[str, Any]]:
    if not isinstance(answer, list):
        raise ManagementFailed("the management API answers something else than a list")
    return [item for item in answer if isinstance(item, dict)]


def _why(error: object) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "TLS failed"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return escape_controls(str(error)) or type(error).__name__
