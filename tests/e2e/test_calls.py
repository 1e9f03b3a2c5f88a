"""Questions and answers: `runner call`, and the client of RabbitMQ's tutorial."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pika
import pytest

from tests.foreign import Foreign
from tests.process import RunnerProcess
from tests.project import Project, lines, until

PIPELINE = """
    version: 1
    queues:
      UNIQUE.quotes: {schema: work:Parcel}
      UNIQUE.rpc: {type: classic, durable: false}
      UNIQUE.nobody: {dead_letter: UNIQUE.expired}
    events: {UNIQUE.asked: , UNIQUE.unheard: }
    subscribers:
      quote: {from: UNIQUE.quotes, handler: work:quote, reply: true, retry: {attempts: 2, delay: 50ms}}
      fib: {from: UNIQUE.rpc, handler: work:fib, reply: true}
      hear: {from: UNIQUE.asked, handler: work:hear, reply: true}
"""
HANDLERS = """
    from pydantic import BaseModel
    from runner import Message, Reject

    class Parcel(BaseModel):
        kg: float

    def quote(parcel: Parcel, message: Message) -> dict:
        note(parcel.kg, message.attempt)
        if parcel.kg > 30:
            raise Reject("more than 30 kg")
        if parcel.kg < 0:
            raise ValueError("less than nothing")
        return {"price": parcel.kg * 2, "currency": "€", "for": message.id, "tenant": message.headers.get("tenant")}

    def fib(n: int) -> int:
        a, b = 0, 1
        for _ in range(n):
            a, b = b, a + b
        return a

    def hear(word: str) -> str | None:
        return word.upper() if word else None
"""


async def call(project: Project, name: str, *arguments: str, code: int = 0) -> RunnerProcess:
    return await project.run_to_end(
        "call", project.file, project.name(name), *arguments, *project.place.arguments, code=code
    )


async def test_a_call_prints_the_answer_or_why_there_is_none(rabbit_project: Project, foreign: Foreign) -> None:
    project = rabbit_project
    project.write(PIPELINE, HANDLERS)
    async with project.running():
        answered, text = await asyncio.gather(
            call(project, "quotes", '{"kg": 2}', "--header", "tenant=a", "--id", "q-1"),
            call(project, "asked", "größer"),
        )
        assert answered.stdout == '{"price":4.0,"currency":"€","for":"q-1","tenant":"a"}\n'
        assert answered.stderr == ""
        assert text.stdout == "GRÖSSER\n"

        rejected, failed, nothing = await asyncio.gather(
            call(project, "quotes", '{"kg": 40}', code=1),
            call(project, "quotes", '{"kg": -1}', "--format", "json", code=1),
            call(project, "asked", '""', "--format", "json"),
        )
        assert rejected.stdout == ""
        assert f'"{project.name("quotes")}" gave up (rejected): Reject: more than 30 kg' in rejected.stderr
        assert json.loads(failed.stdout) == {
            "error": "less than nothing",
            "error_type": "ValueError",
            "reason": "exhausted",
        }
        assert json.loads(nothing.stdout)["answer"] is None
    assert sorted((entry.payload, entry.attempt) for entry in project.ledger.entries()) == sorted(
        [("2.0", 1), ("40.0", 1), ("-1.0", 1), ("-1.0", 2)]
    )
    assert foreign.count(project.name("quotes.dead")) == 2

    late, unheard = await asyncio.gather(
        call(project, "nobody", "1", "--timeout", "300ms", code=75),
        call(project, "unheard", "1", "--timeout", "1h", code=1),
    )
    assert f'"{project.name("nobody")}" has not answered within 300ms' in late.stderr
    await until(lambda: foreign.count(project.name("expired")) == 1, "the question that expires")
    assert foreign.count(project.name("nobody")) == 0
    assert "no queue takes a message" in unheard.stderr


class FibonacciRpcClient:
    """The client of https://www.rabbitmq.com/tutorials/tutorial-six-python, with another URL and queue, and a limit."""

    def __init__(self, url: str, queue: str) -> None:
        self.queue = queue
        self.connection = pika.BlockingConnection(pika.URLParameters(url))

        self.channel = self.connection.channel()

        result = self.channel.queue_declare(queue="", exclusive=True)
        self.callback_queue = result.method.queue

        self.channel.basic_consume(queue=self.callback_queue, on_message_callback=self.on_response, auto_ack=True)

        self.response: bytes | None = None
        self.corr_id: str | None = None

    def on_response(self, ch: Any, method: Any, props: Any, body: bytes) -> None:
        if self.corr_id == props.correlation_id:
            self.response = body
            self.props = props

    def call(self, n: object) -> int:
        self.response = None
        self.corr_id = str(uuid.uuid4())
        self.channel.basic_publish(
            exchange="",
            routing_key=self.queue,
            properties=pika.BasicProperties(
                reply_to=self.callback_queue,
                correlation_id=self.corr_id,
            ),
            body=str(n),
        )
        self.connection.process_data_events(time_limit=20)
        assert self.response is not None
        return int(self.response)


async def test_the_tutorials_client_gets_its_answers(rabbit_project: Project, foreign: Foreign) -> None:
    """Unchanged. What its own body cannot be read as is said in headers that it need not know."""
    rabbit_project.write(PIPELINE, HANDLERS)

    def ask() -> None:
        client = FibonacciRpcClient(str(rabbit_project.place.url), rabbit_project.name("rpc"))
        assert [client.call(n) for n in (30, 1)] == [832040, 1]
        with pytest.raises(ValueError, match="the body is not JSON"):
            client.call("x")
        assert client.props.headers["x-runner-reason"] == "invalid"
        assert client.props.headers["x-runner-error-type"] == "InvalidMessage"
        client.connection.close()

    async with rabbit_project.running() as runner:
        await asyncio.to_thread(ask)
    assert len(lines(runner, "message.handled")) == 2
    assert len(lines(runner, "message.dead_lettered", reason="invalid")) == 1
