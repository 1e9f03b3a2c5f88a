"""Other programs on the other side of the broker: queues they declared, messages they sent, messages they get."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import subprocess
import time
import zlib
from typing import Any

import pika
import pytest

from tests.foreign import Foreign
from tests.project import Project, lines, until

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
    rabbit_project.write(PLAIN, HANDLERS)
    await rabbit_project.up_until_idle()
    assert rabbit_project.ledger.payloads() == [TEXT]
    foreign.channel.queue_declare(queue)  # still the same


async def test_another_program_joins_a_queue_of_ours(rabbit_project: Project, foreign: Foreign) -> None:
    """The runner was first: the other program's plain declaration fits, and what it sends is handled."""
    queue = rabbit_project.name("orders")
    rabbit_project.write(PLAIN, HANDLERS)
    async with rabbit_project.running():
        foreign.channel.queue_declare(queue)
        foreign.channel.basic_publish("", queue, TEXT.encode())
        await rabbit_project.ledger.wait_for(1)
    assert rabbit_project.ledger.payloads() == [TEXT]


async def test_another_program_gets_the_plain_text(rabbit_project: Project, foreign: Foreign) -> None:
    """No envelope of ours: the body is the text in UTF-8."""
    rabbit_project.write(SENDING, HANDLERS)
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
    async with rabbit_project.running() as runner:
        await until(lambda: foreign.count(theirs) == 1, "their copy of our event")
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        foreign.publish(rabbit_project.name("moved"), b'{"order": 2}', exchange="events")
        await rabbit_project.ledger.wait_for(1)
    ours, its = foreign.take(theirs)
    assert (ours.body, ours.exchange, ours.routing_key) == (b'{"order":1}', "events", event)
    assert (ours.properties.type, ours.properties.content_type) == (event, "application/json")
    assert its.body == b'{"order": 2}'
    assert rabbit_project.ledger.payloads() == ["2"]


async def test_what_a_handler_gets_follows_the_content_type(rabbit_project: Project, foreign: Foreign) -> None:
    """Without an annotation: JSON where it says so or where it parses, else text, else bytes."""
    rabbit_project.write(PLAIN, "async def process(payload) -> None: note(repr(payload))")
    bodies = {
        (b'{"a": 1}', "application/json"): "{'a': 1}",
        (b'{"b": 1}', None): "{'b': 1}",
        (b'{"c": 1}', "text/plain"): "'{\"c\": 1}'",
        (b"7", "application/vnd.shop+json; charset=utf-8"): "7",
        ("größer".encode(), None): "'größer'",
        (b"\xff\xfe", None): "b'\\xff\\xfe'",
        (b"bytes", "application/octet-stream"): "b'bytes'",
    }
    async with rabbit_project.running():
        for body, content_type in bodies:
            foreign.publish(rabbit_project.name("orders"), body, content_type=content_type)
        await rabbit_project.ledger.wait_for(len(bodies))
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
    rabbit_project.write(PLAIN, HANDLERS)
    await rabbit_project.up_until_idle()
    assert rabbit_project.ledger.payloads() == [TEXT]

    rabbit_project.pipeline(SENDING)
    await rabbit_project.up_until_idle()
    assert tool("amqp-consume", f"--queue={queue}", "--count=1", "cat") == TEXT


# What other clients say of their messages

READING = """
    version: 1
    queues: {UNIQUE.raw: , UNIQUE.any: , UNIQUE.text: , UNIQUE.dict: }
    defaults: {subscriber: {retry: none}}
    subscribers:
      raw: {from: UNIQUE.raw, handler: work:raw}
      any: {from: UNIQUE.any, handler: work:any_}
      text: {from: UNIQUE.text, handler: work:text}
      dict: {from: UNIQUE.dict, handler: work:dict_}
"""
READERS = """
    from runner import Message

    def raw(body: bytes, message: Message): note(f"raw {body!r} {message.content_encoding}")
    def any_(body): note(f"any {body!r}")
    def text(body: str): note(f"text {body!r}")
    def dict_(body: dict): note(f"dict {body!r}")
"""
MARK = b"\xef\xbb\xbf"


async def test_encodings_of_other_clients_are_understood(rabbit_project: Project, foreign: Foreign) -> None:
    """Charsets, compressions and byte order marks; bytes are uncompressed, else as they are."""
    rabbit_project.write(READING, READERS)
    sent: list[tuple[str, bytes, str | None, str | None, str]] = [
        ("raw", b"\x08\x96", "application/data", "binary", "b'\\x08\\x96' binary"),
        ("raw", gzip.compress(b"\x08"), "application/json", "gzip", "b'\\x08' gzip"),
        ("raw", MARK, "text/plain; charset=x", "br", "b'\\xef\\xbb\\xbf' br"),
        ("text", "Müller".encode("latin-1"), "text/plain", "ISO-8859-1", "'Müller'"),
        ("text", b"Mueller", "text/plain", "us-ascii", "'Mueller'"),
        ("text", "Müller".encode("utf-16"), "text/plain; charset=utf-16", None, "'Müller'"),
        ("any", gzip.compress(b'{"a": 1}'), "application/json", "gzip", "{'a': 1}"),
        ("any", MARK + b'{"a": 2}', "application/json", "utf-8", "{'a': 2}"),
        ("any", MARK + b'{"a": 3}', None, None, "{'a': 3}"),
        ("any", MARK + b"text", None, None, "'text'"),
        ("dict", MARK + b'{"a": 4}', "application/json", None, "{'a': 4}"),
        ("dict", zlib.compress(b'{"a": 5}'), None, "deflate", "{'a': 5}"),
    ]
    async with rabbit_project.running():
        for queue, body, content_type, encoding, _ in sent:
            properties: dict[str, Any] = {"content_type": content_type, "content_encoding": encoding}
            foreign.publish(rabbit_project.name(queue), body, **properties)
        await rabbit_project.ledger.wait_for(len(sent))
    assert sorted(rabbit_project.ledger.payloads()) == sorted(f"{queue} {shown}" for queue, *_, shown in sent)


async def test_an_encoding_that_is_not_known_is_kept_with_its_name(rabbit_project: Project, foreign: Foreign) -> None:
    """The dead letter has it too, and so has what is sent back."""
    rabbit_project.write(READING, READERS)
    await apply(rabbit_project)
    foreign.publish(rabbit_project.name("dict"), b"{}", content_type="application/json", content_encoding="br")
    runner = await rabbit_project.up_until_idle()
    (dead,) = lines(runner, "message.dead_lettered")
    assert (dead["reason"], dead["error"]) == ("invalid", 'content encoding "br" is not supported')
    await rabbit_project.do("dead replay")
    (again,) = foreign.take(rabbit_project.name("dict"))
    assert (again.body, again.properties.content_encoding) == (b"{}", "br")


async def test_an_event_is_known_without_its_type(rabbit_project: Project, foreign: Foreign) -> None:
    """By exchange and routing key, which every publisher has right: its schema is checked, also after a retry."""
    event = rabbit_project.name("paid")
    rabbit_project.pipeline(
        """
        version: 1
        events: {UNIQUE.paid: "work:Paid"}
        subscribers:
          book: {from: UNIQUE.paid, handler: work:book, retry: {attempts: 2, delay: 50ms}}
          all: {from: "UNIQUE.#", handler: work:all_, retry: none}
        """
    )
    rabbit_project.handlers(
        """
        from pydantic import BaseModel
        from runner import Message

        class Paid(BaseModel):
            order: int

        def book(fact: dict, message: Message):
            note(f"book {message.id} {message.event}", message.attempt)
            if message.attempt == 1:
                raise ValueError("once")

        def all_(fact, message: Message): note(f"all {message.id} {message.event}", message.attempt)
        """
    )
    await apply(rabbit_project)
    for name, kind in (("none", None), ("ours", event), ("java", "com.example.events.OrderPaid")):
        foreign.publish(event, b'{"order": 1}', exchange="events", message_id=f"good-{name}", type=kind)
        foreign.publish(event, b'{"order": "x"}', exchange="events", message_id=f"bad-{name}", type=kind)
    other = rabbit_project.name("other")
    foreign.publish(other, b"{}", exchange="events", message_id="other", type="com.example.Other")
    runner = await rabbit_project.up_until_idle()
    names = ("none", "ours", "java")
    expected = [(f"book good-{name} {event}", attempt) for name in names for attempt in (1, 2)]
    expected += [(f"all good-{name} {event}", 1) for name in names] + [(f"all other {other}", 1)]
    assert sorted((entry.payload, entry.attempt) for entry in rabbit_project.ledger.entries()) == sorted(expected)
    dead = lines(runner, "message.dead_lettered", reason="invalid")
    assert sorted((line["subscriber"], line["message_id"]) for line in dead) == sorted(
        (subscriber, f"bad-{name}") for subscriber in ("all", "book") for name in names
    )


# Questions and answers

ANSWERING = """
    version: 1
    queues: {UNIQUE.add: {type: classic, durable: false}, UNIQUE.say: {type: classic, durable: false}}
    subscribers:
      add: {from: UNIQUE.add, handler: work:add, retry: {attempts: 2, delay: 50ms}}
      say: {from: UNIQUE.say, handler: work:say}
"""
ANSWERERS = """
    from runner import Message, Publish

    def add(numbers: dict, message: Message):
        if message.attempt < numbers.get("attempts", 1):
            raise ValueError("once more")
        note("added")
        return {"sum": numbers["a"] + numbers["b"]}

    def say(numbers: dict, message: Message):
        return Publish({"sum": numbers["a"] + numbers["b"]}, to=message.reply_to)
"""


@pytest.mark.parametrize("is_direct", [True, False], ids=["direct", "queue"])
async def test_a_caller_gets_its_answer(rabbit_project: Project, foreign: Foreign, is_direct: bool) -> None:
    """At a queue of its own or by a direct reply; with its correlation id, else its message id; also after a retry."""
    rabbit_project.write(ANSWERING, ANSWERERS)
    channel, answers = foreign.channel, []
    address = "amq.rabbitmq.reply-to" if is_direct else channel.queue_declare("", exclusive=True).method.queue
    questions = [
        ("add", b'{"a": 1, "b": 2}', {"correlation_id": "c-1"}, ("c-1", b'{"sum":3}')),
        ("add", b'{"a": 2, "b": 2, "attempts": 2}', {"correlation_id": "c-2"}, ("c-2", b'{"sum":4}')),
        ("say", b'{"a": 3, "b": 2}', {"message_id": "m-3"}, ("m-3", b'{"sum":5}')),
    ]
    async with rabbit_project.running() as runner:
        channel.basic_consume(address, lambda *got: answers.append(got[2:]), auto_ack=True)
        for queue, body, ids, _ in questions:
            properties = pika.BasicProperties(reply_to=address, **ids)
            channel.basic_publish("", rabbit_project.name(queue), body, properties)
        deadline = time.monotonic() + 20
        while len(answers) < len(questions) and time.monotonic() < deadline:
            channel.connection.process_data_events(0.1)
            await asyncio.sleep(0)
    found = sorted((properties.correlation_id, body) for properties, body in answers)
    assert found == sorted(answer for *_, answer in questions)
    assert lines(runner, "result.retry") == []


async def test_a_caller_that_has_gone_is_no_error(rabbit_project: Project, foreign: Foreign) -> None:
    """Its question is done. An address that RabbitMQ would end our connection for is not tried again and again."""
    rabbit_project.write(ANSWERING, ANSWERERS)
    await apply(rabbit_project)
    caller = pika.BlockingConnection(pika.URLParameters(str(rabbit_project.place.url)))
    asking = caller.channel()
    asking.basic_consume("amq.rabbitmq.reply-to", lambda *_: None, auto_ack=True)
    asked = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", delivery_mode=1)
    asking.basic_publish("", rabbit_project.name("add"), b'{"a": 1, "b": 2}', asked)
    caller.close()
    gone = "amq.rabbitmq.reply-to.g1h2AA9yZXBseUAxMTcwODk3ODAAAAK0AAAAAGsNFYM=.W83xCrIV5MKD4QkEnlqjMQ=="
    for reply_to in ("amq.gen-that-is-gone", gone, "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA.gone"):
        foreign.publish(rabbit_project.name("add"), b'{"a": 1, "b": 2}', reply_to=reply_to, delivery_mode=1)
    runner = await rabbit_project.up_until_idle()
    assert rabbit_project.ledger.payloads() == ["added"] * 4
    assert len(lines(runner, "message.handled")) == 4
    assert len(lines(runner, "broker.lost")) <= 2


async def apply(project: Project) -> None:
    await project.do("apply")
