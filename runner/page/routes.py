"""The HTTP routes of the page: `/`, and below `/-/` the requests of its script."""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from aiohttp import web

from runner.errors import BrokerUnavailable, RunnerError
from runner.page.access import Denied, check_origin
from runner.page.page import Page
from runner.redaction import mask_passwords

MAX_REQUEST_BYTES = 256 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def page_routes(page: Page) -> list[web.AbstractRouteDef]:
    """Return the routes of a page."""
    desk = page.desk
    reading = {"list": desk.groups, "open": desk.open}
    acting = {"try": desk.attempt, "replay": desk.replay, "drop": desk.drop}
    pausing = {"pause": page.pause_desk.pause, "resume": page.pause_desk.resume}

    async def answer_page(_: web.Request) -> web.Response:
        return web.Response(text=_document(), content_type="text/html")

    async def answer_state(_: web.Request) -> web.Response:
        return web.Response(body=await page.state(), content_type="application/json")

    async def answer_flow(_: web.Request) -> web.Response:
        return web.Response(text=await page.drawing(), content_type="image/svg+xml")

    return [
        web.get("/", _guarded(answer_page)),
        web.get("/-/state", _guarded(answer_state)),
        web.get("/-/flow", _guarded(answer_flow)),
        *(web.post(f"/-/dead/{name}", _guarded(_action(page, work, False))) for name, work in reading.items()),
        *(web.post(f"/-/dead/{name}", _guarded(_action(page, work, True))) for name, work in acting.items()),
        *(web.post(f"/-/subscriber/{name}", _guarded(_action(page, work, True))) for name, work in pausing.items()),
    ]


def _action(page: Page, work: Callable[[Mapping[str, Any]], Awaitable[Any]], is_action: bool) -> Handler:
    """Return a handler of requests about dead letters or subscribers. It checks the origin and the token first."""

    async def answer(request: web.Request) -> web.Response:
        headers = request.headers
        check_origin(request.host, headers.get("Origin"), headers.get("Sec-Fetch-Site"))
        page.access.check(headers.get("Authorization", ""), is_action=is_action)
        # A form on another site can send text, but it cannot set the content type of JSON.
        if request.content_type != "application/json" or (request.content_length or 0) > MAX_REQUEST_BYTES:
            raise Denied(415, "send JSON of at most 256 KiB, with Content-Type: application/json")
        try:
            about = await request.json()
        except (ValueError, RecursionError):
            raise Denied(400, "the body is not JSON") from None
        if not isinstance(about, dict):
            raise Denied(400, "the body is not a JSON object")
        return web.json_response(await work(about))

    return answer


def _guarded(handler: Handler) -> Handler:
    """Return a handler that turns errors into answers, and adds the security headers to every answer."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            response = await handler(request)
        except Denied as denied:
            response = web.json_response({"error": str(denied)}, status=denied.status)
            if denied.status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
        except BrokerUnavailable as error:
            response = web.json_response({"error": _error_text(error)}, status=503)
        except RunnerError as error:
            response = web.json_response({"error": _error_text(error)}, status=400)
        response.headers.update(_headers())
        return response

    return answer


def _error_text(error: RunnerError) -> str:
    return mask_passwords(f"{error}; {error.hint}" if error.hint else str(error))


@cache
def _document() -> str:
    return files("runner.page").joinpath("page.html").read_text("utf-8")


@cache
def _headers() -> Mapping[str, str]:
    """Return the headers of every answer. The policy allows only the page's own script and style, by their hashes."""
    script, style = (_hash(tag) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def _hash(tag: str) -> str:
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", _document(), re.DOTALL)
    return f"sha256-{base64.b64encode(sha256(content.encode()).digest()).decode()}"
