"""Messages over HTTP: POST a body, and get 202 when it is in the queue."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from tests.foreign import Foreign
from tests.node import Broker, free_port
from tests.process import RunnerProcess
from tests.project import Place, Project, lines, started, stop, until
from tests.proxy import Proxy

PIPELINE = """
    version: 1
    queues: {UNIQUE.work: {}, UNIQUE.checked: {schema: work:Order}, UNIQUE.full: {type: classic, max_length: 1}}
    producers:
      orders: {http: /orders, to: UNIQUE.work}
      checked: {http: /checked/orders, to: [UNIQUE.checked, UNIQUE.work]}
      full: {http: "/full/%C3%A9%2F%25", to: UNIQUE.full}
"""
SUBSCRIBERS = """
    subscribers:
      hear: {from: UNIQUE.work, handler: work:hear}
      hear_checked: {from: UNIQUE.checked, handler: work:hear}
      hear_full: {from: UNIQUE.full, handler: work:hear}
"""
HANDLERS = """
    from pydantic import BaseModel
    from runner import Message

    class Order(BaseModel):
        n: int

    def hear(payload, message: Message) -> None: note(f"{message.id} {type(payload).__name__} {payload}")
"""
JSON = "application/json"


def post(
    port: int,
    path: str,
    body: bytes,
    content_type: str | None = JSON,
    method: str = "POST",
    headers: Mapping[str, str] = {},
) -> tuple[int, dict[str, Any] | str]:
    """Send one request; return the status, and what was answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, {**({"Content-Type": content_type} if content_type else {}), **headers})
        response = connection.getresponse()
        text = response.read().decode()
        is_json = response.headers["Content-Type"].startswith(JSON)
        return response.status, json.loads(text) if is_json else text
    finally:
        connection.close()


def serve(project: Project, *arguments: str) -> tuple[RunnerProcess, int]:
    port = free_port()
    return project.up("--http", f"127.0.0.1:{port}", *arguments), port


async def test_a_posted_body_is_a_message_and_202_says_that_it_is_there(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """The answer has the message's id and comes after the confirm: the message can be taken at once."""
    rabbit_project.write(PIPELINE, HANDLERS)
    runner, port = serve(rabbit_project)
    async with runner:
        await started(runner)
        for body, content_type, kind in (
            (b'{"n":  1}', JSON, JSON),
            (b"[1]", "application/vnd.shop+json; charset=utf-8", JSON),
            (b"plain", "text/plain", "text/plain"),
            (b"17", "text/plain", "text/plain"),
            (b"\xff\x00", None, "application/octet-stream"),
            (b"", None, "text/plain"),
        ):
            status, answer = await asyncio.to_thread(post, port, "/orders", body, content_type)
            (got,) = foreign.take(rabbit_project.name("work"))
            assert (status, answer) == (202, {"ids": [got.properties.message_id]})
            assert (got.body, got.properties.content_type) == (body, kind)
            line = await runner.wait_for(
                partial(lambda got, line: line.get("message_id") == got.properties.message_id, got)
            )
            assert (line["event"], line["producer"]) == ("message.published", "orders")
        await stop(runner)


async def test_posted_messages_are_handled(project: Project) -> None:
    """By the subscribers of the same process; one body goes to every name in `to`."""
    project.write(PIPELINE + SUBSCRIBERS, HANDLERS)
    runner, port = serve(project)
    async with runner:
        await started(runner)
        status, answer = await asyncio.to_thread(post, port, "/checked/orders", b'{"n": 1}')
        assert status == 202
        assert isinstance(answer, dict)
        await project.ledger.wait_for(2)
        await stop(runner)
    assert len(set(answer["ids"])) == 2
    assert sorted(project.ledger.payloads()) == sorted(f"{id_} dict {{'n': 1}}" for id_ in answer["ids"])


async def test_what_cannot_be_a_message_is_refused_with_its_reason(project: Project) -> None:
    """422 for what is no JSON though it says so, and for what breaks the schema; 413, 404, 405; nothing arrives."""
    project.write(PIPELINE + SUBSCRIBERS, HANDLERS)
    runner, port = serve(project)
    async with runner:
        await started(runner)

        async def answer(*request: Any, **more: Any) -> tuple[int, Any]:
            return await asyncio.to_thread(post, port, *request, **more)

        assert await answer("/orders", b"{n: 1}") == (
            422,
            {"error": "the body is not JSON: a name without double quotes (column 2)"},
        )
        status, refusal = await answer("/checked/orders", b'{"n": "one"}')
        assert status == 422
        assert f'does not fit the schema of "{project.name("checked")}": n must be a whole number' in refusal["error"]
        too_large = {"error": "the body has more than 1048576 bytes"}
        assert await answer("/orders", b'"' + b"x" * 1024 * 1024 + b'"') == (413, too_large)
        for path in ("/order", "/orders/"):
            not_found = {"error": f'nothing is at {path}; did you mean "/orders"?'}
            assert await answer(path, b"{}") == (404, not_found)
        for method in ("GET", "PUT"):
            refused = {"error": f"{method} is not allowed here: use POST"}
            assert await answer("/orders", b"{}", method=method) == (405, refused)
        status, accepted = await answer("/orders", b'"' + b"x" * (1024 * 1024 - 2) + b'"')
        assert status == 202
        ((heard, _, _),) = await project.ledger.wait_for(1)
        await stop(runner)
    assert heard.startswith(accepted["ids"][0])
    assert len(lines(runner, "message.published")) == 1
    refusals = [(line["status"], line["path"]) for line in lines(runner, "http.refused")]
    assert refusals == [(422, "/orders"), (413, "/orders"), (404, "/order"), (405, "/orders")]  # each once a minute


async def test_headers_of_a_request_are_options_of_its_message(project: Project) -> None:
    """Its id, delay, expiry and priority. A wrong one is 422, and names the header."""
    project.write(PIPELINE + SUBSCRIBERS, HANDLERS)
    runner, port = serve(project)
    async with runner:
        await started(runner)

        async def answer(**headers: str) -> tuple[int, Any]:
            named = {f"Message-{name}": value for name, value in headers.items()}
            return await asyncio.to_thread(post, port, "/orders", b"1", headers=named)

        assert await answer(Id="late", Delay="1500ms", Expires="1h") == (202, {"ids": ["late"]})
        assert await answer(Id="now", Delay="0s") == (202, {"ids": ["now"]})
        for name, value, why in (
            ("Delay", "-2h", "Message-Delay: must be a duration, as in \"2h\", not '-2h'"),
            ("Expires", "400d", "Message-Expires: must be a duration from 1ms to 365d, not 400d"),
            ("Priority", "high", "Message-Priority: must be a whole number from 0 to 255, not 'high'"),
        ):
            assert await answer(**{name: value}) == (422, {"error": why})
        status, refused = await answer(Priority="32")
        assert status == 422
        assert "has priorities up to 31, not 32" in refused["error"]
        await project.ledger.wait_for(2)
        await stop(runner)
    assert project.ledger.payloads() == ["now int 1", "late int 1"]


async def test_a_full_queue_is_503_and_not_silence(rabbit_project: Project, foreign: Foreign) -> None:
    """After some seconds of trying; the sender knows that it has to try again."""
    rabbit_project.write(PIPELINE, HANDLERS)
    runner, port = serve(rabbit_project)
    async with runner:
        await started(runner)
        assert (await asyncio.to_thread(post, port, "/full/%C3%A9%2F%25", b"1"))[0] == 202
        status, answer = await asyncio.to_thread(post, port, "/full/%C3%A9%2F%25", b"2")
        await stop(runner)
    assert status == 503
    assert isinstance(answer, dict)
    assert rabbit_project.name("full") in answer["error"]
    assert [got.body for got in foreign.take(rabbit_project.name("full"))] == [b"1"]


async def test_an_address_that_is_in_use_stops_the_start(project: Project) -> None:
    """Exit 1 with one line that names it, and what to do."""
    project.write(PIPELINE + SUBSCRIBERS, HANDLERS)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        runner = await project.do("up", "--http", f"127.0.0.1:{port}", code=1)
    assert f"error: cannot listen on 127.0.0.1:{port}: " in runner.stderr
    assert "choose another address with --http" in runner.stderr
    assert "Traceback" not in runner.stderr
    assert lines(runner, "pipeline.started") == []


async def test_two_producers_cannot_have_one_path(memory_project: Project) -> None:
    """Found at once in a pipeline (exit 78), and at the start where two pipelines run together (exit 1)."""
    one = "version: 1\nname: UNIQUE-{0}\nqueues: {{UNIQUE.{0}: }}\nproducers:\n  a: {{http: /a, to: UNIQUE.{0}}}\n"
    memory_project.pipeline(one.format("one") + "  b: {http: /a, to: UNIQUE.one}\n")
    runner = await memory_project.do("up", code=78)
    assert 'error[conflicting-options]: producers.b.http: "/a" is already the path of "a"' in runner.stderr

    for name in ("one", "two"):
        memory_project.pipeline(one.format(name), file=f"both/{name}.yaml")
    runner = await memory_project.run_to_end("up", "both", "--http", f"127.0.0.1:{free_port()}", code=1)
    assert "error: 2 producers have the same HTTP path: /a" in runner.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_request_that_was_accepted_is_answered_before_the_end(project: Project, number: signal.Signals) -> None:
    """A stop takes no new connections, and finishes what has begun: its message is published."""
    project.write(PIPELINE, HANDLERS)
    runner, port = serve(project)
    async with runner:
        await started(runner)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\nContent-Length: 8\r\n"
        writer.write(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")  # its handler has begun
        runner.signal(number)
        await runner.wait_for(lambda line: line["event"] == "pipeline.draining")
        await until(lambda: not accepts(port), "no new connections")
        writer.write(b'{"n": 1}')
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert await runner.wait() == 0, runner.stderr
    assert b"HTTP/1.1 202" in answer
    assert len(lines(runner, "message.published", producer="orders")) == 1
    assert "stopped: 1 published" in runner.stderr


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_a_client_that_never_sends_its_body_does_not_keep_the_runner_from_ending(project: Project) -> None:
    """Some seconds are enough for it; idle connections are closed at once."""
    project.write(PIPELINE, HANDLERS)
    runner, port = serve(project)
    async with runner:
        await started(runner)
        _, idle = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        await stop(runner)
        writer.close()
        idle.close()
    assert lines(runner, "pipeline.stopped") != []


def timed_post(port: int, path: str, body: bytes) -> tuple[float, int, str | None, dict[str, Any]]:
    """Send a request; return how long it took, the status, Retry-After and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        began = time.monotonic()
        connection.request("POST", path, body, {"Content-Type": JSON})
        response = connection.getresponse()
        answer = json.loads(response.read())
        return time.monotonic() - began, response.status, response.headers["Retry-After"], answer
    finally:
        connection.close()


async def until_accepted(port: int) -> None:
    """Return when a POST is taken again. The proxy runs on the same loop, which must not be blocked."""
    async with asyncio.timeout(50):
        while (await asyncio.to_thread(post, port, "/orders", b"{}"))[0] != 202:
            await asyncio.sleep(0.1)


async def test_without_a_connection_a_post_is_refused_at_once(rabbit_project: Project, rabbitmq: Broker) -> None:
    """503 with Retry-After, well under a second; and 202 again when the broker is back."""
    rabbit_project.write(PIPELINE, HANDLERS)
    async with Proxy(rabbitmq.port) as proxy:
        rabbit_project.place = Place.at(proxy.url)
        runner, port = serve(rabbit_project)
        async with runner:
            await started(runner)
            proxy.blackhole()
            proxy.cut()
            await runner.wait_for(lambda line: line["event"] == "broker.lost" and line["role"] == "publish")
            took, status, retry_after, answer = await asyncio.to_thread(timed_post, port, "/orders", b"{}")
            assert (status, retry_after) == (503, "5")
            assert answer == {"error": "the broker takes no messages now: nothing was published"}
            assert took < 1
            proxy.pass_through()
            proxy.cut()
            await until_accepted(port)
            await stop(runner)


async def test_a_confirm_is_waited_for_as_long_as_the_producer_says(rabbit_project: Project, rabbitmq: Broker) -> None:
    """The connection stands and nothing comes back; when it is lost meanwhile, the answer comes at once."""
    rabbit_project.pipeline(
        PIPELINE.replace("{http: /orders, to: UNIQUE.work}", "{http: /orders, to: UNIQUE.work, timeout: 1500ms}")
        + "      patient: {http: /patient, to: UNIQUE.work, timeout: 1h}\n"
    )
    rabbit_project.handlers(HANDLERS)
    async with Proxy(rabbitmq.port) as proxy:
        rabbit_project.place = Place.at(proxy.url)
        runner, port = serve(rabbit_project)
        async with runner:
            await started(runner)
            proxy.half_open("up")
            took, status, retry_after, answer = await asyncio.to_thread(timed_post, port, "/orders", b"{}")
            assert (status, retry_after) == (503, "5")
            assert answer == {"error": "not confirmed within 1500ms: it may arrive all the same"}
            assert 1.4 < took < 4
            posting = asyncio.create_task(asyncio.to_thread(timed_post, port, "/patient", b"{}"))
            await asyncio.sleep(0.3)
            proxy.blackhole()
            proxy.cut()
            took, status, _, answer = await posting
            assert (status, "may arrive all the same" in answer["error"]) == (503, True)
            assert took < 5
            proxy.pass_through()
            proxy.cut()
            await stop(runner)


async def test_a_body_that_is_not_json_is_called_that(project: Project) -> None:
    """Whatever its content type says, where the queue has a schema: curl sends a form's by default."""
    project.write(PIPELINE + SUBSCRIBERS, HANDLERS)
    runner, port = serve(project)
    async with runner:
        await started(runner)
        for content_type in (JSON, "application/x-www-form-urlencoded", None):
            status, answer = await asyncio.to_thread(post, port, "/checked/orders", b"n=1", content_type)
            why = "a text without double quotes, or no value (column 1)"
            assert (status, answer) == (422, {"error": f"the body is not JSON: {why}"})
        status, answer = await asyncio.to_thread(post, port, "/checked/orders", b"n=1", "text/plain")
        assert status == 422
        assert "does not fit the schema" in str(answer)
        await stop(runner)


async def test_port_0_takes_a_free_one_and_says_which(project: Project) -> None:
    project.write(PIPELINE + SUBSCRIBERS, HANDLERS)
    async with project.running("--http", "127.0.0.1:0") as runner:
        (line,) = lines(runner, "http.listening")
        host, _, port = line["address"].rpartition(":")
        assert host == "127.0.0.1"
        assert (await asyncio.to_thread(post, int(port), "/orders", b"{}"))[0] == 202


# Calls

CALLS = """
    version: 1
    queues:
      UNIQUE.quotes: {schema: work:Parcel}
      UNIQUE.words:
      UNIQUE.slow:
      UNIQUE.nobody: {dead_letter: UNIQUE.expired}
      UNIQUE.expired:
    events: {UNIQUE.unheard: }
    producers:
      quote: {http: /quotes, to: UNIQUE.quotes, reply: true}
      say: {http: /words, to: UNIQUE.words, reply: true}
      wait: {http: /slow, to: UNIQUE.slow, reply: true, timeout: 1h}
      nobody: {http: /nobody, to: UNIQUE.nobody, reply: true, timeout: 300ms}
      unheard: {http: /unheard, to: UNIQUE.unheard, reply: true}
    subscribers:
      price: {from: UNIQUE.quotes, handler: work:price, retry: {attempts: 2, delay: 50ms}}
      say: {from: UNIQUE.words, handler: work:say, reply: true}
      slow: {from: UNIQUE.slow, handler: work:slow, reply: true}
      note_expired: {from: UNIQUE.expired, handler: work:note_expired}
"""
ANSWERERS = """
    import asyncio
    from pydantic import BaseModel
    from runner import Message, Reject

    class Parcel(BaseModel):
        kg: float

    def price(parcel: Parcel, message: Message):
        if parcel.kg > 30:
            raise Reject("more than 30 kg")
        if parcel.kg < 0:
            raise ValueError(f"less than nothing, {message.attempt}")
        return {"price": parcel.kg * 2, "currency": "€"}

    def say(word: str):
        return {"bytes": b"\\xff", "nothing": None}.get(word, f"<b>{word}</b>")

    def note_expired(number: int) -> None:
        note(f"expired {number}")

    async def slow(number: int) -> None:
        note(number)
        await asyncio.Event().wait()
"""


async def test_a_post_can_be_a_call(project: Project) -> None:
    """The response is the answer; what was wrong is said with the status that it has in HTTP. With workers as well."""
    project.write(CALLS, ANSWERERS)
    workers = () if project.place.is_memory else ("--workers", "2")
    runner, port = serve(project, *workers)
    async with runner:
        await started(runner)

        async def ask(path: str, body: bytes, content_type: str = JSON) -> tuple[int, Any]:
            return await asyncio.to_thread(post, port, path, body, content_type)

        assert await ask("/quotes", b'{"kg": 2}') == (200, {"price": 4.0, "currency": "€"})
        assert await ask("/words", "größer".encode(), "text/plain") == (200, "<b>größer</b>")
        assert await asyncio.to_thread(content_type_of, port, "/words", b"x") == "text/plain; charset=utf-8"
        assert await asyncio.to_thread(content_type_of, port, "/words", b"bytes") == "application/octet-stream"
        assert await asyncio.to_thread(content_type_of, port, "/words", b"nothing") == JSON

        status, answer = await ask("/quotes", b'{"kg": "heavy"}')
        assert (status, "does not fit the schema" in answer["error"]) == (422, True)
        assert await ask("/quotes", b'{"kg": 40}') == (
            500,
            {"error": "more than 30 kg", "error_type": "Reject", "reason": "rejected"},
        )
        assert await ask("/quotes", b'{"kg": -1}') == (
            500,
            {"error": "less than nothing, 2", "error_type": "ValueError", "reason": "exhausted"},
        )
        late = f'"{project.name("nobody")}" has not answered within 300ms: the message may be handled all the same'
        assert await ask("/nobody", b"1") == (504, {"error": late})
        await project.ledger.wait_for(1)
        assert project.ledger.payloads() == ["expired 1"]
        status, answer = await ask("/unheard", b"1")
        assert (status, "no queue takes a message" in answer["error"]) == (503, True)
        await stop(runner)


async def test_a_call_ends_when_its_connection_is_lost(rabbit_project: Project, rabbitmq: Broker) -> None:
    """At once, and not after its timeout of an hour: the address of the answer is gone."""
    rabbit_project.write(CALLS, ANSWERERS)
    async with Proxy(rabbitmq.port) as proxy:
        rabbit_project.place = Place.at(proxy.url)
        runner, port = serve(rabbit_project)
        async with runner:
            await started(runner)
            asking = asyncio.create_task(asyncio.to_thread(timed_post, port, "/slow", b"7"))
            await rabbit_project.ledger.wait_for(1)
            proxy.cut()
            took, status, retry_after, answer = await asking
            assert (status, retry_after) == (503, "5")
            assert answer["error"].startswith("the connection to the broker was lost before the answer came")
            assert took < 10
            runner.signal(signal.SIGKILL)  # its handler never ends


def content_type_of(port: int, path: str, body: bytes) -> str:
    """Return the content type of the response to a text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", path, body, {"Content-Type": "text/plain"})
        return connection.getresponse().headers["Content-Type"]
    finally:
        connection.close()
