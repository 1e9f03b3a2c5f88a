"""Other programs on the other side of the broker: queues they declared, messages they sent, messages they get."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.foreign import Foreign
from tests.project import Project, stop, until

TEXT = "订单编号: 54321"

# What `queue_declare("order_queue")` of any other client makes.
PLAIN = """
    version: 1
    queues: {UNIQUE.orders: {type: classic, durable: false}}
    subscribers:
      process: {from: UNIQUE.orders, handler: work:process}
"""
SENDING = """
    version: 1
    queues: {UNIQUE.orders: {type: classic, durable: false}}
    producers:
      place: {handler: work:place, to: UNIQUE.orders}
"""
HANDLERS = f"""
    def process(order: str) -> None:
        assert type(order) is str
        note(order)

    def place():
        return "{TEXT}"
"""


async def test_a_queue_that_another_program_declared_is_joined(rabbit_project: Project, foreign: Foreign) -> None:
    """Declared elsewhere without any option, filled with plain text without a content type: the handler gets a str."""
    queue = rabbit_project.name("orders")
    foreign.channel.queue_declare(queue)
    foreign.channel.basic_publish("", queue, TEXT.encode())
    rabbit_project.pipeline(PLAIN)
    rabbit_project.handlers(HANDLERS)
    await rabbit_project.up_until_idle()
    assert rabbit_project.ledger.payloads() == [TEXT]
    foreign.channel.queue_declare(queue)  # still the same


async def test_another_program_joins_a_queue_of_ours(rabbit_project: Project, foreign: Foreign) -> None:
    """The runner was first: the other program's plain declaration fits, and what it sends is handled."""
    queue = rabbit_project.name("orders")
    rabbit_project.pipeline(PLAIN)
    rabbit_project.handlers(HANDLERS)
    async with rabbit_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        foreign.channel.queue_declare(queue)
        foreign.channel.basic_publish("", queue, TEXT.encode())
        await rabbit_project.ledger.wait_for(1)
        await stop(runner)
    assert rabbit_project.ledger.payloads() == [TEXT]


async def test_another_program_gets_the_plain_text(rabbit_project: Project, foreign: Foreign) -> None:
    """No envelope of ours: the body is the text in UTF-8."""
    rabbit_project.pipeline(SENDING)
    rabbit_project.handlers(HANDLERS)
    foreign.channel.queue_declare(rabbit_project.name("orders"))
    await rabbit_project.up_until_idle()
    (got,) = foreign.take(rabbit_project.name("orders"))
    assert got.body == TEXT.encode()
    assert got.properties.content_type == "text/plain"
    assert got.properties.message_id
    assert got.properties.app_id == rabbit_project.unique
    assert got.properties.type is None
    assert not got.headers


async def test_another_program_hears_our_events_and_we_hear_its(rabbit_project: Project, foreign: Foreign) -> None:
    """Events are plain topic messages: exchange `events`, the event's name as routing key and as type."""
    event, theirs = rabbit_project.name("paid"), rabbit_project.name("theirs")
    foreign.channel.exchange_declare("events", "topic", durable=True)
    foreign.channel.queue_declare(theirs, durable=True)
    foreign.channel.queue_bind(theirs, "events", f"{rabbit_project.unique}.#")
    rabbit_project.pipeline(
        """
        version: 1
        events: {UNIQUE.paid: , UNIQUE.moved: }
        producers:
          pay: {handler: work:pay, to: UNIQUE.paid}
        subscribers:
          hear: {from: UNIQUE.moved, handler: work:hear}
        """
    )
    rabbit_project.handlers(
        """
        def pay(): return {"order": 1}
        def hear(fact: dict) -> None: note(fact["order"])
        """
    )
    async with rabbit_project.up() as runner:
        await until(lambda: foreign.count(theirs) == 1, "their copy of our event")
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        foreign.publish(rabbit_project.name("moved"), b'{"order": 2}', exchange="events")
        await rabbit_project.ledger.wait_for(1)
        await stop(runner)
    ours, its = foreign.take(theirs)
    assert (ours.body, ours.exchange, ours.routing_key) == (b'{"order":1}', "events", event)
    assert (ours.properties.type, ours.properties.content_type) == (event, "application/json")
    assert its.body == b'{"order": 2}'
    assert rabbit_project.ledger.payloads() == ["2"]


async def test_what_a_handler_gets_follows_the_content_type(rabbit_project: Project, foreign: Foreign) -> None:
    """Without an annotation: JSON where it says so or where it parses, else text, else bytes."""
    rabbit_project.pipeline(PLAIN)
    rabbit_project.handlers("async def process(payload) -> None: note(repr(payload))")
    bodies = {
        (b'{"a": 1}', "application/json"): "{'a': 1}",
        (b'{"b": 1}', None): "{'b': 1}",
        (b'{"c": 1}', "text/plain"): "'{\"c\": 1}'",
        (b"7", "application/vnd.shop+json; charset=utf-8"): "7",
        ("größer".encode(), None): "'größer'",
        (b"\xff\xfe", None): "b'\\xff\\xfe'",
        (b"bytes", "application/octet-stream"): "b'bytes'",
    }
    async with rabbit_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        for body, content_type in bodies:
            foreign.publish(rabbit_project.name("orders"), body, content_type=content_type)
        await rabbit_project.ledger.wait_for(len(bodies))
        await stop(runner)
    assert sorted(rabbit_project.ledger.payloads()) == sorted(bodies.values())


@pytest.mark.skipif(shutil.which("amqp-publish") is None, reason="amqp-tools are not installed")
async def test_the_command_line_tools_of_amqp_work_with_us(rabbit_project: Project) -> None:
    """amqp-publish to our handler, and our producer to amqp-consume (or amqp-get), byte for byte."""
    url, queue = str(rabbit_project.place.url).rstrip("/"), rabbit_project.name("orders")

    def tool(name: str, *arguments: str) -> str:
        command = [name, f"--url={url}", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout

    tool("amqp-declare-queue", f"--queue={queue}")
    tool("amqp-publish", f"--routing-key={queue}", f"--body={TEXT}")
    rabbit_project.pipeline(PLAIN)
    rabbit_project.handlers(HANDLERS)
    await rabbit_project.up_until_idle()
    assert rabbit_project.ledger.payloads() == [TEXT]

    rabbit_project.pipeline(SENDING)
    await rabbit_project.up_until_idle()
    assert tool("amqp-consume", f"--queue={queue}", "--count=1", "cat") == TEXT
