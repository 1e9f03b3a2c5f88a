"""Names: whatever RabbitMQ takes works with every command, on RabbitMQ as in process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aio_pika
import pika
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.config.name_fields import name_problem, reserved_problem
from runner.message import Address, Envelope
from runner.pipeline.model import BrokerSettings
from runner.pipeline.topology import Binding, Exchange, Queue, Topology
from runner.transports.rabbitmq import RabbitTransport
from tests.foreign import Foreign
from tests.node import Broker
from tests.process import RunnerProcess
from tests.project import Project

NAMES = ["订单", "büro", "O'Reilly", 'a "b" c', "q$1;x[y]", "a%2Fb/c", "tenant=7&<b>", "😀", "Text, Messages_test"]


PIPELINE = """
    version: 1
    name: "NAME"
    exchanges: {"NAMEx": {type: topic}}
    queues: {"NAMEq": , "NAMEb": {bind: [{exchange: "NAMEx"}]}}
    events: {"NAMEe": {exchange: "NAMEx", key: "NAMEk"}}
    producers: {"NAMEp": {handler: "work:make", to: ["NAMEq", "NAMEe"]}}
    subscribers:
      "NAMEs": {from: "NAMEq", handler: "work:fail", retry: {attempts: 2, delay: 10ms}}
      "NAMEt": {from: "NAMEe", handler: "work:hear"}
"""


@pytest.mark.parametrize("odd", NAMES)
async def test_any_name_works(project: Project, odd: str) -> None:
    """As a pipeline's, a queue's, an exchange's, an event's, a producer's and a subscriber's, and in routing keys."""
    write(project, f"{project.unique} {odd}")
    await project.up_until_idle()
    assert project.ledger.counts() == {"failed": 2, "heard": 1}


@pytest.mark.parametrize("odd", ["订单", "q$1;x['y']"])
async def test_any_name_works_with_every_command(rabbit_project: Project, odd: str) -> None:
    name = f"{rabbit_project.unique} {odd}"
    write(rabbit_project, name)
    await rabbit_project.up_until_idle()
    for command in ("status", "plan", "apply"):
        await run(rabbit_project, command)
    await run(rabbit_project, "publish", f"{name}e", '"again"')
    assert name in (await run(rabbit_project, "dead", "list")).stdout
    await run(rabbit_project, "dead", "replay", f"{name}q")
    await run(rabbit_project, "dead", "drop", f"{name}q", "--yes", "--all")


def write(project: Project, name: str) -> None:
    project.pipeline(PIPELINE.replace("NAME", json.dumps(name, ensure_ascii=False)[1:-1]))
    project.handlers("""
        def make(): return ["once"]
        def fail(order: str) -> None: note("failed"); raise RuntimeError("no")
        def hear(order: str) -> None: note("heard")
    """)


async def run(project: Project, *arguments: str) -> RunnerProcess:
    """Run a command on the project's pipeline and broker."""
    words = 2 if arguments[0] == "dead" else 1
    rest = arguments[words:]
    return await project.run_to_end(*arguments[:words], project.file, *rest, *project.place.arguments)


@pytest.mark.parametrize("letter", ["q", "订", "😀"])
async def test_a_name_has_255_bytes(rabbit_project: Project, foreign: Foreign, letter: str) -> None:
    """The queue of others: whatever RabbitMQ has can be read. What is derived from a name has to fit as well."""
    name = rabbit_project.unique + letter * ((255 - len(rabbit_project.unique)) // len(letter.encode()))
    foreign.channel.queue_declare(name, durable=True)
    foreign.publish(name, b"one")
    options = f"{{declare: false, dead_letter: {rabbit_project.name('dead')}}}"
    rabbit_project.pipeline(f"""
        version: 1
        queues: {{{name}: {options}}}
        subscribers: {{s: {{from: {name}, handler: "work:handle"}}}}
    """)
    rabbit_project.handlers("def handle(order: str) -> None: note(order)")
    await rabbit_project.up_until_idle()
    assert rabbit_project.ledger.payloads() == ["one"]
    await run(rabbit_project, "status")
    await run(rabbit_project, "plan")
    rabbit_project.pipeline(f"""
        version: 1
        queues: {{{name}: }}
        subscribers: {{s: {{from: {name}, handler: "work:handle"}}}}
    """)
    runner = await rabbit_project.run_to_end("validate", rabbit_project.file, code=78)
    assert "its dead-letter queue would have a name of more than 255 bytes" in runner.stdout


@pytest.fixture
async def transport(rabbitmq: Broker) -> AsyncIterator[RabbitTransport]:
    made = RabbitTransport(BrokerSettings(urls=(rabbitmq.url,)))
    await made.connect()
    yield made
    await made.close()


@given(st.text(min_size=1, max_size=260))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_validate_takes_rabbitmq_takes_and_calls_the_same(foreign: Foreign, rabbitmq: Broker, name: str) -> None:
    """Declared by us, it is what pika declares: a queue, an exchange and a binding."""
    if name_problem(name) or reserved_problem(name):
        return

    async def declare_and_publish() -> None:
        transport = RabbitTransport(BrokerSettings(urls=(rabbitmq.url,)))
        try:
            await transport.connect()
            queue = Queue(name, durable=False, auto_delete=False)
            binding = Binding(name, name, name)
            await transport.declare(Topology((Exchange(name, "topic", durable=False),), (queue,), (binding,)))
            await transport.publish(Address(name, name), Envelope(b"x"))
        finally:
            await transport.close()

    asyncio.run(declare_and_publish())
    channel = foreign.channel
    channel.exchange_declare(name, "topic", passive=True)
    assert channel.queue_declare(name, passive=True).method.queue == name
    frame, _, body = channel.basic_get(name, auto_ack=True)
    assert (frame.exchange, frame.routing_key, body) == (name, name, b"x")
    channel.queue_delete(name)
    channel.exchange_delete(name)


@pytest.mark.parametrize("name", ["amq.x", "a" * 256, "订" * 86])
def test_what_validate_refuses_rabbitmq_refuses(foreign: Foreign, name: str) -> None:
    assert name_problem(name) or reserved_problem(name)
    with pytest.raises((pika.exceptions.ChannelClosedByBroker, pika.exceptions.ShortStringTooLong)):
        foreign.channel.queue_declare(name)


async def test_the_clients_of_others_in_this_process_are_as_they_were(
    transport: RabbitTransport, rabbitmq: Broker
) -> None:
    """aio-pika still refuses what it refuses: what we lift is lifted for our frames alone."""
    connection = await aio_pika.connect(rabbitmq.url)
    async with connection:
        channel = await connection.channel()
        with pytest.raises(ValueError, match="Invalid value for queue"):
            await channel.declare_queue("订单", auto_delete=True)
        assert type(connection) is aio_pika.Connection
    assert transport.unready_reasons == []
