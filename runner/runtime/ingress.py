"""Turns HTTP requests into messages: POST a body, get 202 when the broker has confirmed it.

Listens on the loopback interface unless told otherwise. There is no authentication: what faces others needs a proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from runner import log
from runner.errors import PublishFailed, RunnerError
from runner.metrics import Totals
from runner.pipeline.model import Producer
from runner.pipeline.payload import JsonText, as_payload
from runner.runtime.publishing import Publisher

if TYPE_CHECKING:
    from aiohttp import web

MAX_BODY_BYTES = 1024 * 1024
CONFIRM_S = 30.0
FULL_QUEUE_PATIENCE_S = 5.0
CLOSE_S = 5.0
"""How long requests that are under way may take to end by themselves."""

CANCEL_S = 1.0
"""How long they may take after that to end, and to notice that they were cancelled."""

DEFAULT_ADDRESS = ("127.0.0.1", 8080)


class CannotListen(RunnerError):
    """The HTTP address cannot be listened on, or the library for it is missing."""

    exit_code = 1


class Route:
    """One path, and what is published from it."""

    def __init__(self, producer: Producer, pipeline: str, publisher: Publisher, totals: Totals) -> None:
        self._producer = producer
        self._pipeline = pipeline
        self._publisher = publisher
        self._totals = totals
        self._logger = log.get_logger()
        self.path = producer.http_path or "/"

    async def accept(self, body: bytes, content_type: str) -> tuple[int, dict[str, Any]]:
        """Publish a body and return the status and the answer."""
        with log.bound({"pipeline": self._pipeline, "producer": self._producer.name}):
            try:
                outgoing = self._publisher.address(_payload(body, content_type), self._producer.to)
                async with asyncio.timeout(CONFIRM_S):
                    for item in outgoing:
                        await self._publisher.send(item, patience_s=FULL_QUEUE_PATIENCE_S)
            except TimeoutError:
                return 503, {"error": f"not confirmed within {CONFIRM_S:g} s: it may arrive all the same"}
            except ValueError as error:
                return 422, {"error": str(error)}
            except PublishFailed as failure:
                status = 503 if failure.reason == "refused" else 422
                return status, {"error": str(failure)}
            for item in outgoing:
                self._totals.published += 1
                name, message_id = item.destination.name, item.envelope.message_id
                self._logger.info("message.published", to=name, message_id=message_id)
            return 202, {"ids": [item.envelope.message_id for item in outgoing]}


class Ingress:
    """The HTTP server of the producers with `http:`."""

    def __init__(self, routes: list[Route], address: tuple[str, int]) -> None:
        self._routes = routes
        self._address = address
        self._runner: web.AppRunner | None = None
        self._answering = 0
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()

    async def start(self) -> None:
        """Listen. Raises CannotListen."""
        for path, count in Counter(route.path for route in self._routes).items():
            if count > 1:  # of two pipelines: within one it is found before
                text = f"{count} producers have the same HTTP path: {path}"
                raise CannotListen(text, "give one of them another, or run their pipelines apart")
        try:
            from aiohttp import web
        except ImportError:
            raise CannotListen("producers with http: need aiohttp", 'install it: pip install "runline[http]"') from None

        async def handle(route: Route, request: web.Request) -> web.Response:
            with self._counted():
                status, answer = await route.accept(await request.read(), request.content_type)
                response = web.json_response(answer, status=status)
                if self._runner is None:  # closing
                    response.force_close()
                return response

        application = web.Application(client_max_size=MAX_BODY_BYTES)
        for route in self._routes:
            application.router.add_post(_as_compared(route.path), partial(handle, route))
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=CANCEL_S)
        await self._runner.setup()
        host, port = self._address
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.close()
            hint = "choose another address with --http HOST:PORT"
            raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror or error}", hint) from error
        log.get_logger().info(
            "http.listening", address=f"{host}:{port}", paths=sorted(route.path for route in self._routes)
        )

    async def close(self) -> None:
        """Accept no new request, and answer those that are under way, for a few seconds at most. Idempotent."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            for site in tuple(runner.sites):
                await site.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._is_quiet.wait()
            await runner.cleanup()  # which would not read a body to its end

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a request as under way."""
        self._answering += 1
        self._is_quiet.clear()
        try:
            yield
        finally:
            self._answering -= 1
            if not self._answering:
                self._is_quiet.set()


def _as_compared(path: str) -> str:
    """Return a path as aiohttp compares it: with every %XX read, but for a slash and the percent sign itself."""
    for kept in ("%25", "%2F", "%2f"):
        path = path.replace(kept, f"%25{kept[1:].upper()}")
    return unquote(path)


def _payload(body: bytes, content_type: str) -> Any:
    """Return what a request carries; raises ValueError for a body that is not what its content type says."""
    found = as_payload(body)
    is_json = content_type == "application/json" or content_type.endswith("+json")
    if is_json and not isinstance(found, JsonText):
        raise ValueError("the body is not JSON")
    if content_type.startswith("text/") and isinstance(found, JsonText):
        return found.decode()
    return found
