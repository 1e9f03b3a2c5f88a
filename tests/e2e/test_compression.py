"""`compress:`: large messages travel compressed, and neither handlers nor the commands that show messages notice."""

from __future__ import annotations

import gzip
import json

from tests.foreign import Foreign
from tests.process import RunnerProcess
from tests.project import Project, until

PIPELINE = """
    version: 1
    queues: {UNIQUE.orders: {compress: 1kB}}
    events: {UNIQUE.paid: {compress: {over: 1kB, encoding: deflate}}}
    subscribers:
      read: {from: UNIQUE.orders, handler: work:read, retry: {attempts: 2, delay: 10ms}, to: UNIQUE.paid}
      hear: {from: UNIQUE.paid, handler: work:hear}
"""
HANDLERS = """
    import os
    from runner import Message
    def send():
        yield {"id": "small"}
        yield {"id": "large", "text": "order " * 1000}
    def read(order: dict, message: Message) -> dict:
        if message.attempt == 1 or os.environ.get("BROKEN"):
            raise ValueError("not yet")
        note(f"read {order['id']} {message.content_encoding}")
        return order
    def hear(body: bytes, message: Message) -> None:
        note(f"hear {len(body)} {message.content_encoding}")
"""


async def test_handlers_get_what_was_published(project: Project) -> None:
    """After a retry, of a queue and of an event, as an object and as bytes; small messages are not compressed."""
    project.write(PIPELINE + "    producers: {send: {handler: work:send, to: UNIQUE.orders}}\n", HANDLERS)
    await project.up_until_idle()
    assert sorted(project.ledger.payloads()) == [
        "hear 14 None",
        "hear 6024 deflate",
        "read large gzip",
        "read small None",
    ]


async def test_messages_are_shown_uncompressed_and_sent_back_as_they_were(
    rabbit_project: Project, foreign: Foreign
) -> None:
    shop, payload = rabbit_project, json.dumps({"id": "large", "text": "order " * 1000}).encode()
    shop.write(PIPELINE, HANDLERS)
    async with shop.running(env={"BROKEN": "1"}) as runner:
        foreign.publish(shop.name("orders"), gzip.compress(payload, mtime=0), content_encoding="gzip", message_id="o-1")
        await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")

    shown = json.loads((await _dead(shop, "show", "--id", "o-1", "--json")).stdout)
    assert json.loads(shown["body"]) == json.loads(payload)
    assert shown["content_encoding"] == "gzip"
    assert '"id": "large"' in (await _dead(shop, "show", "--id", "o-1")).stdout
    await _dead(shop, "replay")
    (got,) = foreign.take(shop.name("orders"))
    assert (got.body, got.properties.content_encoding) == (gzip.compress(payload, mtime=0), "gzip")

    async with shop.run("tap", shop.file, shop.name("paid"), "--json", "--limit", "1", *shop.place.arguments) as tap:
        await until(lambda: "listening to" in tap.stderr, "the tap listens")
        foreign.publish(shop.name("paid"), gzip.compress(payload), exchange="events", content_encoding="gzip")
        assert await tap.wait() == 0, tap.stderr
    assert json.loads(json.loads(tap.stdout)["body"]) == json.loads(payload)


async def _dead(project: Project, verb: str, *arguments: str) -> RunnerProcess:
    return await project.run_to_end("dead", verb, project.file, *arguments, *project.place.arguments)
