"""Answers HTTP: the producers with `http:`, the probes `/healthz` and `/readyz`, and `/metrics`.

Listens on the loopback interface unless told otherwise. There is no authentication: what faces others needs a proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from runner import log
from runner.errors import RunnerError
from runner.metrics import Samples
from runner.runtime import exposition
from runner.runtime.http_connections import HttpConnections, connection_limit, open_listeners
from runner.runtime.http_producer import HttpProducer
from runner.units import is_loopback

if TYPE_CHECKING:
    from aiohttp import web

DEFAULT_ADDRESS = ("127.0.0.1", 8080)
MAX_BODY_BYTES = 1024 * 1024

ACCEPTED_ENCODINGS = ("identity", "gzip", "deflate")
"""Which aiohttp undoes, by the standard library."""

BODY_TIMEOUT_S = 30.0
"""How long the body of a request may take to arrive."""

RETRY_AFTER_S = 5
"""What an answer of 503 tells clients and load balancers to wait."""

CLOSE_TIMEOUT_S = 5.0
"""How long requests that are under way may take to end by themselves."""

CANCEL_TIMEOUT_S = 1.0
"""How long they may take after that to end, and to notice that they were cancelled."""


ReadinessCheck = Callable[[], Awaitable[Sequence[str]]]
"""Returns what keeps us from being ready, as words for people; nothing when we are."""


ReadMetrics = Callable[[], Awaitable[Samples]]
"""Returns the samples of all processes that we answer for."""


MakeRoutes = Callable[[], Iterable["web.AbstractRouteDef"]]
"""Returns what is answered besides, by aiohttp's own means; called when aiohttp is known to be there."""

EVERY_ADDRESS = ("0.0.0.0", "::")


class CannotListen(RunnerError):
    """The HTTP address cannot be listened on, or the library for it is missing."""

    exit_code = 1


class HttpServer:
    """The HTTP server of a process.

    It answers probes from `start` to `close`, and producers' requests from `accept_messages` to `stop_accepting`.
    """

    def __init__(
        self, address: tuple[str, int], producers: Sequence[HttpProducer], version: Mapping[str, str] = {}
    ) -> None:
        """`about` is what /healthz says beside that the process is alive."""
        self._address = address
        self._version = version
        self._producers = producers
        self._runner: web.AppRunner | None = None
        self._connections: HttpConnections | None = None
        self._refusal = "the pipeline is starting"
        self._url = ""
        self._answering = 0
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()

    @property
    def url(self) -> str:
        """Where it is reached from this machine, once it listens."""
        return self._url

    async def start(
        self, unready_reasons: ReadinessCheck, metrics: ReadMetrics | None, routes: MakeRoutes = lambda: ()
    ) -> None:
        """Listen. Without `metrics` there is no /metrics; `routes` returns what else is answered.

        Raises CannotListen.
        """
        for path, count in Counter(producer.path for producer in self._producers).items():
            if count > 1:  # of two pipelines: within one it is found before
                text = f"{count} producers have the same HTTP path: {path}"
                raise CannotListen(text, "give one of them another, or run their pipelines apart")
        try:
            import prometheus_client  # noqa: F401  # needed by each scrape
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
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._url = f"http://{address.replace(host, 'localhost') if host in EVERY_ADDRESS else address}/"
        log.get_logger().info("http.listening", address=address, paths=paths)

    def accept_messages(self) -> None:
        """Take what is sent to producers from now on."""
        self._refusal = ""

    async def stop_accepting(self) -> None:
        """Take nothing more, and answer what is under way, for a few seconds at most. Idempotent.

        Where something is sent to producers nobody can connect any more: who sends may then try elsewhere at once.
        """
        self._refusal = "the pipeline is stopping"
        if self._connections is not None and self._producers:
            await self._connections.stop_accepting()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._is_quiet.wait()

    async def close(self) -> None:
        """Listen no more. Idempotent."""
        if self._connections is not None:
            await self._connections.stop_accepting()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()
        if self._connections is not None:
            await self._connections.close()

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
        # In a thread: with a thousand subscribers it takes some 20 ms, for which the loop would stand still.
        body = await asyncio.to_thread(exposition.text, samples)
        response = web.Response(body=body, headers={"Content-Type": exposition.CONTENT_TYPE}, zlib_executor_size=65536)
        response.enable_compression()
        return response

    async def _answer(self, producer: HttpProducer, request: web.Request) -> web.Response:
        from aiohttp import web
        from aiohttp.http_exceptions import ContentEncodingError
        from aiohttp.web import RequestPayloadError

        with self._count_request():
            if self._refusal:
                status, answer = 503, {"error": self._refusal}
            elif request.headers.get("Content-Encoding", "identity").lower() not in ACCEPTED_ENCODINGS:
                status, answer = 415, {"error": "the content encoding is not known"}
            else:
                try:
                    with self._receiving(request):
                        async with asyncio.timeout(BODY_TIMEOUT_S):
                            body = await request.read()
                except TimeoutError:
                    status, answer = 408, {"error": f"the body did not arrive within {BODY_TIMEOUT_S:g} s"}
                except (ContentEncodingError, RequestPayloadError):
                    status, answer = 400, {"error": "the body cannot be read: it is not encoded as its header says"}
                else:
                    status, answer = await producer.accept(body, request.content_type)
            headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
            response = web.json_response(answer, status=status, headers=headers)
            if self._refusal or status in (400, 408):
                response.force_close()
            return response

    def _track_connections(self) -> Any:
        """Return a middleware that says which connections are at work."""
        from aiohttp import web

        @web.middleware
        async def watch(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            assert self._connections is not None
            with self._connections.answering(request.transport):
                return await handler(request)

        return watch

    def _receiving(self, request: web.Request) -> contextlib.AbstractContextManager[None]:
        assert self._connections is not None
        return self._connections.receiving(request.transport)

    @contextlib.contextmanager
    def _count_request(self) -> Iterator[None]:
        """Count a request as under way."""
        self._answering += 1
        self._is_quiet.clear()
        try:
            yield
        finally:
            self._answering -= 1
            if not self._answering:
                self._is_quiet.set()


def _loopback_guard() -> Any:
    """Return a middleware that keeps web pages from using a loopback address through their visitor's browser."""
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


def _is_loopback_url(url: str) -> bool:
    """Whether a URL names this machine; one without a host, or that is none, does not."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _is_no_bad_request(record: logging.LogRecord) -> bool:
    """Drop aiohttp's traceback for each request that cannot be read: anybody may send one."""
    from aiohttp.http_exceptions import HttpProcessingError
    from aiohttp.web import RequestPayloadError

    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | RequestPayloadError))


def _aiohttp_path(path: str) -> str:
    """Return a path as aiohttp compares it: with every %XX read, but for a slash and the percent sign itself."""
    for kept in ("%25", "%2F", "%2f"):
        path = path.replace(kept, f"%25{kept[1:].upper()}")
    return unquote(path)
