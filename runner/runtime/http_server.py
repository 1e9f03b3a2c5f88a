"""The HTTP server of a process: producers with `http:`, the probes `/healthz` and `/readyz`, `/metrics`, and the page.

It listens on the loopback interface by default. Its producers have no authentication: put a proxy in front of it before
you expose it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from runner import log
from runner.config.messages import closest
from runner.errors import RunnerError
from runner.metrics import Samples
from runner.pipeline.body_encoding import TEXT
from runner.runtime import exposition
from runner.runtime.answers import Answer
from runner.runtime.http_connections import WARN_INTERVAL_S, HttpConnections, connection_limit, open_listeners
from runner.runtime.http_producer import MESSAGE_HEADERS, HttpProducer
from runner.runtime.idempotency import HEADER
from runner.tasks import InProgress, wait_set
from runner.trace_context import TRACE_HEADERS
from runner.units import LOOPBACK_OF, format_address, is_loopback

if TYPE_CHECKING:
    from aiohttp import web

DEFAULT_ADDRESS = ("127.0.0.1", 8080)
MAX_BODY_BYTES = 1024 * 1024

ACCEPTED_ENCODINGS = ("identity", "gzip", "deflate")
"""The content encodings that aiohttp decodes with the standard library alone."""

BODY_TIMEOUT_S = 30.0
"""How long the body of a request may take to arrive."""

RETRY_AFTER_S = 5
"""The `Retry-After` of an answer that says to try again."""

CLOSE_TIMEOUT_S = 5.0
"""How long requests in progress may take to finish when the server stops."""

CANCEL_TIMEOUT_S = 1.0
"""How long they may take to end after they have been cancelled."""


_REFUSALS = (404, 405, 413)
"""The refusals of aiohttp that are answered in JSON, like all others."""


ReadinessCheck = Callable[[], Awaitable[Sequence[str]]]
"""Returns the reasons why the process is not ready, as text for people. No reasons: it is ready."""


ReadMetrics = Callable[[], Awaitable[Samples]]
"""Returns the samples of all processes that this server answers for."""


MakeRoutes = Callable[[], Iterable["web.AbstractRouteDef"]]
"""Returns additional routes. Called once aiohttp is known to be installed."""


class CannotListen(RunnerError):
    """The HTTP address cannot be listened on, or aiohttp is not installed."""


class HttpServer:
    """The HTTP server of a process.

    It answers probes from `start` to `close`, and producers' requests from `accept_messages` to `stop_accepting`.
    """

    def __init__(
        self, address: tuple[str, int], producers: Sequence[HttpProducer], version: Mapping[str, str] = {}
    ) -> None:
        """`version` is added to the answer of `/healthz`."""
        self._address = address
        self._version = version
        self._producers = producers
        self._runner: web.AppRunner | None = None
        self._connections: HttpConnections | None = None
        self._refusal = "the pipeline is starting"
        self._next_warning_at: dict[int, float] = {}
        self._url = ""
        self._answering = InProgress()

    @property
    def url(self) -> str:
        """Its URL from this machine, once it listens."""
        return self._url

    async def start(
        self, unready_reasons: ReadinessCheck, metrics: ReadMetrics | None, routes: MakeRoutes = lambda: ()
    ) -> None:
        """Start listening. Without `metrics` there is no `/metrics`; `routes` returns additional routes.

        Raises CannotListen.
        """
        for path, count in Counter(producer.path for producer in self._producers).items():
            if count > 1:  # of two pipelines: within one it is found before
                text = f"{count} producers have the same HTTP path: {path}"
                raise CannotListen(text, "give one of them another, or run their pipelines apart")
        try:
            import prometheus_client  # noqa: F401  # fail now, not at the first scrape
            from aiohttp import web
        except ImportError as error:
            text = f"answering HTTP needs {'aiohttp' if error.name == 'aiohttp' else 'prometheus-client'}"
            raise CannotListen(text, 'install it: pip install "mqrunner[http]"') from None
        host, port = self._address
        middlewares = [self._track_connections(), *([_loopback_guard()] if is_loopback(host) else [])]
        application = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=middlewares)
        application.router.add_get("/healthz", self._answer_alive)
        application.router.add_get("/readyz", partial(self._answer_ready, unready_reasons))
        if metrics is not None:
            application.router.add_get("/metrics", partial(self._answer_metrics, metrics))
        application.add_routes(routes())
        for producer in self._producers:
            application.router.add_post(_aiohttp_path(producer.path), partial(self._answer, producer))
        logging.getLogger("aiohttp.server").addFilter(_is_no_bad_request)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=CANCEL_TIMEOUT_S
        )
        await self._runner.setup()
        try:
            sockets = await open_listeners(host, port)
        except OSError as error:
            await self.close()
            hint = "choose another address with --http HOST:PORT"
            raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror or error}", hint) from error
        server = self._runner.server
        assert server is not None
        self._connections = HttpConnections(sockets, server, connection_limit())
        self._connections.start()
        port = sockets[0].getsockname()[1]
        paths = sorted({"/healthz", "/metrics", "/readyz", *(producer.path for producer in self._producers)})
        self._url = f"http://{format_address('localhost' if host in LOOPBACK_OF else host, port)}/"
        log.get_logger().info("http.listening", address=format_address(host, port), paths=paths)

    def accept_messages(self) -> None:
        """Accept producers' requests from now on."""
        self._refusal = ""

    async def stop_accepting(self) -> None:
        """Refuse new requests and wait a few seconds for those in progress. Idempotent.

        With HTTP producers the port is closed as well: a client whose connection is refused tries another instance at
        once.
        """
        self._refusal = "the pipeline is stopping"
        if self._connections is not None and self._producers:
            await self._connections.stop_accepting()
        await wait_set(self._answering.none, CLOSE_TIMEOUT_S)

    async def close(self) -> None:
        """Stop listening and close all connections. Idempotent."""
        if self._connections is not None:
            await self._connections.stop_accepting()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()
        if self._connections is not None:
            await self._connections.close()
            _forget_routes()

    async def _answer_alive(self, _: web.Request) -> web.Response:
        from aiohttp import web

        return web.json_response({"status": "alive", **self._version})

    async def _answer_ready(self, unready_reasons: ReadinessCheck, _: web.Request) -> web.Response:
        from aiohttp import web

        reasons = list(await unready_reasons())
        return web.json_response({"ready": not reasons, "trouble": reasons}, status=503 if reasons else 200)

    async def _answer_metrics(self, metrics: ReadMetrics, _: web.Request) -> web.Response:
        from aiohttp import web

        try:
            samples = await metrics()
        except TimeoutError:
            return web.Response(status=503, text="the master of the workers does not answer\n")
        # In a thread: with a thousand subscribers this takes about 20 ms, which would block the loop.
        body = await asyncio.to_thread(exposition.text, samples)
        response = web.Response(body=body, headers={"Content-Type": exposition.CONTENT_TYPE}, zlib_executor_size=65536)
        response.enable_compression()
        return response

    async def _answer(self, producer: HttpProducer, request: web.Request) -> web.Response:
        from aiohttp import web
        from aiohttp.http_exceptions import ContentEncodingError
        from aiohttp.web import RequestPayloadError

        answer: dict[str, Any] | Answer
        with self._answering:
            if self._refusal:
                status, answer = 503, {"error": self._refusal}
            elif request.headers.get("Content-Encoding", "identity").lower() not in ACCEPTED_ENCODINGS:
                status, answer = 415, {"error": "the content encoding is not known"}
            else:
                try:
                    assert self._connections is not None
                    with self._connections.phase(request.transport, "receiving", "answering"):
                        async with asyncio.timeout(BODY_TIMEOUT_S):
                            body = await request.read()
                except TimeoutError:
                    status, answer = 408, {"error": f"the body did not arrive within {BODY_TIMEOUT_S:g} s"}
                except (ContentEncodingError, RequestPayloadError):
                    status, answer = 400, {"error": "the body cannot be read: it is not encoded as its header says"}
                else:
                    trace = {name: ",".join(request.headers.getall(name, ())) for name in TRACE_HEADERS}
                    given = {
                        name: request.headers[name] for name in (*MESSAGE_HEADERS, HEADER) if name in request.headers
                    }
                    status, answer = await producer.accept(body, request.content_type, {**trace, **given})
            retry = {"Retry-After": str(RETRY_AFTER_S)} if status in (409, 503) else None
            if isinstance(answer, dict):
                self._warn_refused(request, status, str(answer.get("error")))
            if isinstance(answer, Answer):
                kind = f"{TEXT}; charset=utf-8" if answer.content_type == TEXT else answer.content_type
                response = web.Response(body=answer.body, headers={"Content-Type": kind})
            else:
                response = web.json_response(answer, status=status, headers=retry)
            if self._refusal or status in (400, 408):
                response.force_close()
            return response

    def _track_connections(self) -> Any:
        """Return a middleware that marks connections as busy while their request is handled."""
        from aiohttp import web

        @web.middleware
        async def watch(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            assert self._connections is not None
            with self._connections.phase(request.transport, "answering", "idle"):
                try:
                    return await handler(request)
                except web.HTTPClientError as error:
                    if error.status not in _REFUSALS:
                        raise
                    return self._refused(request, error)

        return watch

    def _refused(self, request: web.Request, error: web.HTTPClientError) -> web.Response:
        """Return aiohttp's own refusals as JSON that says what to do."""
        from aiohttp import web

        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        text = f"the body has more than {MAX_BODY_BYTES} bytes"
        if error.status == 404:
            guess = closest(request.path, [item.path for item in self._producers])
            text = f"nothing is at {request.path}" + (f'; did you mean "{guess}"?' if guess else "")
        elif error.status == 405:
            methods = allowed.get("Allow", "").replace(",", " or ")
            text = f"{request.method} is not allowed here: use {methods}"
        self._warn_refused(request, error.status, text)
        response = web.json_response({"error": text}, status=error.status, headers=allowed)
        if error.status == 413:
            response.force_close()
        return response

    def _warn_refused(self, request: web.Request, status: int, error: str) -> None:
        """Log that the request of a client is wrong, for each status at most once every `WARN_INTERVAL_S`."""
        now = asyncio.get_running_loop().time()
        if 400 <= status < 500 and now >= self._next_warning_at.get(status, 0):
            self._next_warning_at[status] = now + WARN_INTERVAL_S
            log.get_logger().warning("http.refused", status=status, path=request.path, error=error)


def _loopback_guard() -> Any:
    """Return a middleware that rejects requests of web pages. A page in a browser can reach loopback addresses."""
    from aiohttp import web

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if not _is_loopback_url(f"//{request.host}") or (origin is not None and not _is_loopback_url(origin)):
            answer = {"error": "only requests to and from this machine are answered here"}
            return web.json_response(answer, status=403)
        return await handler(request)

    return guard


def _forget_routes() -> None:
    """Empty a cache of aiohttp that would keep up to 1,024 routes of closed servers, and all that they use."""
    from aiohttp import web_app

    if (cached := getattr(web_app, "_cached_build_middleware", None)) is not None:
        cached.cache_clear()


def _is_loopback_url(url: str) -> bool:
    """Return whether a URL names this machine. False for a URL without a host, and for anything that is no URL."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _is_no_bad_request(record: logging.LogRecord) -> bool:
    """Drop aiohttp's traceback for requests that are no valid HTTP: any client can send one."""
    from aiohttp.http_exceptions import HttpProcessingError
    from aiohttp.web import RequestPayloadError

    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | RequestPayloadError))


def _aiohttp_path(path: str) -> str:
    """Return the path in the form in which aiohttp compares paths: every %XX decoded, except %2F and %25."""
    for kept in ("%25", "%2F", "%2f"):
        path = path.replace(kept, f"%25{kept[1:].upper()}")
    return unquote(path)
