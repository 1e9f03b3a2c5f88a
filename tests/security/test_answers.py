"""`reply_to` is what a stranger says: an answer that the broker refuses harms nothing else."""

from __future__ import annotations

from collections import Counter

from tests.foreign import Foreign
from tests.node import Broker
from tests.project import Project, lines, until
from tests.security.test_rights import as_user

COUNT = 100
PIPELINE = """
    version: 1
    broker: {topology: ignore}
    queues: {UNIQUE.work: {type: classic, dead_letter: false}}
    events: {UNIQUE.fact: }
    subscribers:
      handle: {from: UNIQUE.work, handler: work:handle, to: UNIQUE.fact, reply: true, retry: none}
"""
HANDLERS = """
    async def handle(number: int) -> int:
        note(number)
        return number
"""


async def test_answers_that_the_broker_does_not_permit(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker
) -> None:
    """RabbitMQ closes the channel over each. What else is published has another one: each result arrives, and once."""
    name = rabbit_project.unique
    channel = foreign.channel
    channel.exchange_declare("events", "topic", durable=True)
    for queue in (f"{name}.work", f"{name}.facts"):
        channel.queue_declare(queue, durable=True)
    channel.queue_bind(f"{name}.facts", "events", f"{name}.fact")
    as_user(rabbit_project, rabbitmq, configure="^$", write=f"^(events|{name}.retry.*)$", read=f"^{name}.*$")
    rabbit_project.write(PIPELINE, HANDLERS)
    for number in range(COUNT):
        reply_to = f"{name}.facts" if number % 2 else None
        foreign.publish(f"{name}.work", str(number).encode(), reply_to=reply_to, message_id=f"m-{number}")
    async with rabbit_project.running() as runner:
        await until(lambda: len(lines(runner, "reply.given_up")) == COUNT // 2, "the answers are given up")
        await until(lambda: len(lines(runner, "message.handled")) == COUNT // 2, "the other messages are handled")
    facts = foreign.take(f"{name}.facts")
    assert Counter(int(got.body) for got in facts) == dict.fromkeys(range(COUNT), 1)
    assert {got.exchange for got in facts} == {"events"}
    assert "does not permit" in lines(runner, "reply.given_up")[0]["error"]
    assert lines(runner, "broker.lost") == []
