"""The management API: found where it is, told apart from what is none, and never trusted with more than it needs."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from runner.pipeline.model import BrokerSettings
from runner.transports.rabbitmq import management_api
from runner.transports.rabbitmq.management_api import FIND_S, MAX_RESPONSE_BYTES, ManagementApi, ManagementFailed
from tests.foreign import Foreign
from tests.node import Broker

SECRET = "s3cr3t-canary"
Answer = Callable[[BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def http(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """Serve on a loopback port; yields its URL and the Authorization headers that came."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(str(self.headers.get("Authorization")))
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Answer for ever, a byte at a time: each read is in time, the whole is not."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        threading.Event().wait(0.1)


async def why_not(url: str) -> str:
    """Return why there is no API at a URL."""
    found, reason = await ManagementApi.find(BrokerSettings(urls=(f"amqp://app:{SECRET}@127.0.0.1/",)), url)
    assert found is None
    assert SECRET not in reason
    return reason


async def test_everything_is_asked_of_the_virtual_host_of_the_url(managed: Broker, unique: str) -> None:
    """Names with slashes and spaces are names like others."""
    settings = BrokerSettings(urls=(managed.url,))
    found, _ = await ManagementApi.find(settings, managed.management_url)
    assert found is not None
    name = f"{unique} a/b"
    with Foreign(managed.url) as other:
        channel = other.channel
        channel.queue_declare(name, arguments={"x-max-length": 3})
        channel.queue_bind(name, "amq.topic", "a/b.#")
        arguments = (await found.queue(name) or {})["arguments"]
        told = {"x-queue-type": "classic"} if managed.line >= (4, 0) else {}  # the default type, said
        assert arguments == {"x-max-length": 3, **told}
        assert (await found.queues())[name]["name"] == name
        (binding,) = [each for each in await found.bindings() if each["destination"] == name and each["source"]]
        assert await found.delete_binding("amq.topic", name, binding["properties_key"])
        assert not await found.delete_binding("amq.topic", name, binding["properties_key"])
        assert await found.queue(f"{unique}.nowhere") is None
        channel.queue_delete(name)
    assert "guest" not in repr(found)


async def test_a_wrong_password_is_a_refusal_without_the_password(managed: Broker) -> None:
    """The user is named, and what it lacks."""
    assert 'refuses the user "app"' in await why_not(managed.management_url)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (send(200, b"<html>hello</html>"), "is no management API"),
        (send(200, b"[1, 2]"), "is no management API"),
        (send(200, b"[" * 100_000), "is no management API"),
        (send(500), "answers 500"),
        (send(403), 'refuses the user "app"'),
        (send(200, b" " * (MAX_RESPONSE_BYTES + 1)), "answers more than 64 MiB"),
    ],
)
async def test_what_is_no_management_api_is_said_to_be_none(answer: Answer, reason: str) -> None:
    """Another service may listen there, or something hostile."""
    with http(answer) as (url, _):
        assert reason in await why_not(url)


async def test_a_slow_answer_is_not_waited_for() -> None:
    """A server that drips does not hold us up."""
    with http(drip) as (url, _):
        started = time.monotonic()
        assert "does not answer" in await why_not(url)
        assert time.monotonic() - started < FIND_S * 3


async def test_the_password_is_not_sent_elsewhere() -> None:
    """A redirect is not followed."""
    with http(send(200, json.dumps({"cluster_name": "x"}).encode())) as (elsewhere, seen):
        with http(send(302, Location=f"{elsewhere}/api/overview")) as (url, asked):
            assert "answers 302" in await why_not(url)
            assert len(asked) == 1
        assert seen == []


async def test_another_program_at_the_usual_port_gets_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has named that address: what listens there must ask as RabbitMQ does."""
    for answer in (send(200, b"{}"), send(401, b"", **{"WWW-Authenticate": 'Basic realm="a router"'})):
        with http(answer) as (url, seen):
            monkeypatch.setitem(management_api._PORTS, "amqp", ("http", int(url.rpartition(":")[2])))
            found, why = await ManagementApi.find(BrokerSettings(urls=(f"amqp://guest:{SECRET}@127.0.0.1:1/",)))
            assert found is None
        assert seen == ["None"]
        assert "the broker's password was not sent to it" in why


async def test_the_api_at_the_usual_port_is_found(managed: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for a password of RabbitMQ's."""
    monkeypatch.setitem(management_api._PORTS, "amqp", ("http", int(managed.management_url.rpartition(":")[2])))
    assert (await ManagementApi.find(BrokerSettings(urls=(managed.url,))))[0] is not None


async def test_an_api_that_goes_away_is_an_error_without_the_password() -> None:
    """Found first, gone later."""
    with http(send(200, json.dumps({"cluster_name": "x"}).encode())) as (url, _):
        settings = BrokerSettings(urls=(f"amqp://app:{SECRET}@127.0.0.1/",))
        found, _ = await ManagementApi.find(settings, url)
    assert found is not None
    with pytest.raises(ManagementFailed) as caught:
        await found.queues()
    assert "connection refused" in str(caught.value)
    assert SECRET not in str(caught.value) + repr(found) + repr(caught.value)
