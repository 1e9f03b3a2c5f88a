"""Promise 21: questions, and their answers, between sessions of one broker."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from runner.errors import NoAnswer, PublishFailed, PublishUnknown
from runner.message import Address, Envelope
from runner.outcome import ACK, Retry
from runner.pipeline.topology import Binding, Exchange
from runner.transports.base import Delivery, Transport
from tests.conformance.harness import WAIT_S, Harness, to_queue

CALLS = 50


def question(number: int) -> Envelope:
    return Envelope(str(number).encode(), message_id=f"m-{number}", correlation_id=f"c-{number}")


async def answer(session: Transport, delivery: Delivery, body: bytes = b"", **more: Any) -> None:
    """Answer as any program does: to the queue that the question names, with its correlation id.

    RabbitMQ 3 calls a direct reply unroutable also when it arrives, and RabbitMQ 4 confirms one whose caller has gone.
    """
    asked = delivery.envelope
    assert asked.reply_to
    made = Envelope(body or b"answer to " + asked.body, correlation_id=asked.correlation_id, **more)
    reason = ""
    try:
        await session.publish(Address("", asked.reply_to), made, is_answer=True)
    except PublishFailed as failure:
        reason = failure.reason
    assert reason in ("", "unroutable")
    await session.settle(delivery, ACK)


async def test_each_question_gets_its_own_answer(harness: Harness) -> None:
    """In whatever order they are answered, with the properties of the answer, and from another session."""
    (asking, queue), answering = await harness.one_queue("questions"), await harness.session()
    inbox = await harness.collect(answering, queue, prefetch=CALLS)
    async with asyncio.timeout(WAIT_S):
        futures = [await asking.ask(to_queue(queue), question(number)) for number in range(CALLS)]
        for delivery in reversed(await inbox.take(CALLS)):
            await answer(answering, delivery, content_type="text/plain", headers={"tenant": "münchen"})
        answers = await asyncio.gather(*futures)
    assert [each.body.decode() for each in answers] == [f"answer to {number}" for number in range(CALLS)]
    assert {(each.content_type, each.headers["tenant"]) for each in answers} == {("text/plain", "münchen")}


async def test_a_question_is_answered_after_a_retry(harness: Harness) -> None:
    """The copy that waits still has the address of the caller."""
    session, queue, inbox = await harness.one_inbox("questions")
    async with asyncio.timeout(WAIT_S):
        future = await session.ask(to_queue(queue), question(1))
        await session.settle(await inbox.next(), Retry(harness.delay(0.1)))
        again = await inbox.next()
        assert again.attempt == 2
        await answer(session, again)
        assert (await future).body == b"answer to 1"


async def test_the_first_answer_counts(harness: Harness) -> None:
    """Of an event's subscribers, one after the other answers; nothing keeps the second answer, or a late one."""
    session, exchange = await harness.session(), harness.exchange("facts")
    queues = [harness.queue("first"), harness.queue("second")]
    await harness.declare(session, exchange, *queues, *(Binding(exchange.name, each.name, "x") for each in queues))
    first, second = [await harness.collect(session, queue) for queue in queues]
    async with asyncio.timeout(WAIT_S):
        given_up = await session.ask(Address(exchange.name, "x"), question(1))
        given_up.cancel()
        late, never = await first.next(), await second.next()
        future = await session.ask(Address(exchange.name, "x"), question(2))
        await answer(session, late)
        await answer(session, await second.next(), b"the first")
        assert (await future).body == b"the first"
        await answer(session, never)
        await answer(session, await first.next())
        last = await session.ask(Address(exchange.name, "x"), question(3))
        await answer(session, await first.next())
        assert (await last).body == b"answer to 3"


async def test_a_question_that_nobody_gets_fails_at_once(harness: Harness) -> None:
    """As any publication does; other questions of the session keep their answers."""
    session, queue, inbox = await harness.one_inbox("questions")
    async with asyncio.timeout(WAIT_S):
        future = await session.ask(to_queue(queue), question(1))
        with pytest.raises(PublishFailed) as caught:
            await session.ask(Address("", f"{harness.unique}.nowhere"), question(2))
        assert caught.value.reason == "unroutable"
        await answer(session, await inbox.next())
        assert (await future).body == b"answer to 1"


async def test_a_question_ends_with_its_session(harness: Harness) -> None:
    """The caller waits no longer than the session lives. An answer then finds no queue, and that is no bug."""
    asking, answering, queue = await harness.session(), await harness.session(), harness.queue("questions")
    await harness.declare(answering, queue)
    inbox = await harness.collect(answering, queue)
    async with asyncio.timeout(WAIT_S):
        future = await asking.ask(to_queue(queue), question(1))
        delivery = await inbox.next()
        await asking.close()
        with pytest.raises(NoAnswer) as caught:
            await future
        assert caught.value.reason == "lost"
        await answer(answering, delivery)


async def test_a_lost_connection_ends_the_questions_and_not_the_session(harness: Harness) -> None:
    """At once; the next question is asked, and answered, by the next connection."""
    harness.needs("reconnect")
    session, queue, inbox = await harness.one_inbox("questions")
    async with asyncio.timeout(WAIT_S):
        future = await session.ask(to_queue(queue), question(1))
        await inbox.next()
        harness.lose_connections()
        with pytest.raises(NoAnswer):
            await future
        again = await ask_until_confirmed(session, to_queue(queue), question(2))
        while (delivery := await inbox.next()).envelope.body != b"2":
            pass  # the first question comes again
        await answer(session, delivery)
        assert (await again).body == b"answer to 2"


async def ask_until_confirmed(session: Transport, address: Address, asked: Envelope) -> asyncio.Future[Envelope]:
    """Ask again while the session has not noticed yet that its connection is lost."""
    while True:
        with contextlib.suppress(PublishUnknown):
            return await session.ask(address, asked)
        await asyncio.sleep(0.02)


async def test_a_missing_exchange_is_declared_again(harness: Harness) -> None:
    """What the session has declared, and what another program has deleted since, is there for questions as well."""
    if not harness.kind.is_rabbitmq:
        pytest.skip("the in-process broker deletes no exchange")
    import aio_pika

    session, exchange, queue = await harness.session(), harness.exchange("facts"), harness.queue("questions")
    await harness.declare(session, exchange, queue, Binding(exchange.name, queue.name, "x"))
    inbox = await harness.collect(session, queue)
    async with asyncio.timeout(WAIT_S):
        await delete(session, exchange, aio_pika)
        future = await session.ask(Address(exchange.name, "x"), question(1))
        await answer(session, await inbox.next())
        assert (await future).body == b"answer to 1"


async def delete(session: Any, exchange: Exchange, aio_pika: Any) -> None:
    connection = await aio_pika.connect(session._settings.urls[0])
    async with connection, connection.channel() as channel:
        await channel.exchange_delete(exchange.name)
