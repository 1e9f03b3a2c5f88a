"""Promise 13: declaring is idempotent, and what differs is named, before anything is changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runner.errors import PublishFailed, TopologyMismatch
from runner.pipeline.topology import Binding, Exchange, Queue
from tests.conformance.harness import Harness, bodies, text, to_queue


async def test_13_declaring_the_same_again_changes_nothing(harness: Harness) -> None:
    """A second start of the same pipeline finds everything as it was, messages included."""
    session, other = await harness.session(), await harness.session()
    exchange, queue = harness.exchange("events"), harness.queue("work", message_ttl=60_000)
    things = (exchange, queue, Binding(exchange.name, queue.name, "#"))
    await harness.declare(session, *things)
    await session.publish(to_queue(queue), text("kept"))
    for again in (session, other):
        await harness.declare(again, *things)
    assert bodies(await (await harness.collect(other, queue)).take(1)) == ["kept"]


async def test_13_declare_says_how_much_was_new(harness: Harness) -> None:
    """The first start makes things, the second makes none."""
    session, queue, exchange = await harness.session(), harness.queue("work"), harness.exchange("events")
    await harness.declare(session, queue)
    topology = replace(harness.declared[-1], exchanges=(exchange,))
    harness.declared.append(topology)
    assert [(await session.declare(topology)).new for _ in range(2)] == [1, 0]


@pytest.mark.parametrize(
    ("existing", "wanted", "expected"),
    [
        ({"message_ttl": 1000}, {"message_ttl": 2000}, "x-message-ttl is 1000 on the broker, the pipeline says 2000"),
        ({"max_length": 5}, {}, "x-max-length is 5 on the broker, the pipeline says none"),
        ({}, {"max_length": 5}, "x-max-length is none on the broker, the pipeline says 5"),
        ({"overflow": "reject-publish"}, {"overflow": "drop-head"}, "x-overflow is reject-publish on the broker"),
        (
            {"single_active_consumer": True},
            {},
            "x-single-active-consumer is true on the broker",
        ),
    ],
)
async def test_13_other_arguments_are_a_mismatch_that_names_them(
    harness: Harness, existing: dict[str, Any], wanted: dict[str, Any], expected: str
) -> None:
    """The error says which queue, which key, what the broker has and what the pipeline wants."""
    session = await harness.session()
    await harness.declare(session, harness.queue("orders", **existing))
    with pytest.raises(TopologyMismatch) as caught:
        await harness.declare(session, harness.queue("orders", **wanted))
    assert f'queue "{harness.unique}.orders": {expected}' in str(caught.value)


async def test_13_another_exchange_type_is_a_mismatch(harness: Harness) -> None:
    """An exchange cannot change its type either."""
    session = await harness.session()
    await harness.declare(session, harness.exchange("events", "topic"))
    with pytest.raises(TopologyMismatch) as caught:
        await harness.declare(session, harness.exchange("events", "fanout"))
    expected = f'exchange "{harness.unique}.events": type is topic on the broker, the pipeline says fanout'
    assert expected in str(caught.value)


async def test_13_a_mismatch_changes_nothing_and_harms_nobody(harness: Harness) -> None:
    """Nothing of a topology is made when a part of it does not fit; the session lives on."""
    session, queue, new = await harness.session(), harness.queue("work"), harness.queue("new")
    await harness.declare(session, queue)
    inbox = await harness.collect(session, queue)
    with pytest.raises(TopologyMismatch):
        await harness.declare(session, new, harness.queue("work", max_length=1))
    with pytest.raises(PublishFailed):
        await session.publish(to_queue(new), text("x"))
    await session.publish(to_queue(queue), text("fine"))
    assert bodies(await inbox.take(1)) == ["fine"]


async def test_13_all_differences_are_named_at_once(harness: Harness) -> None:
    """One run tells everything that has to be mended."""
    session = await harness.session()
    await harness.declare(session, harness.queue("one"), harness.queue("two"))
    with pytest.raises(TopologyMismatch) as caught:
        await harness.declare(session, harness.queue("one", max_length=1), harness.queue("two", max_length=2))
    assert all(f'queue "{harness.unique}.{word}"' in str(caught.value) for word in ("one", "two"))


async def test_13_what_belongs_to_somebody_else_must_exist(harness: Harness) -> None:
    """`declare: false` checks that a thing is there and nothing else about it."""
    session, owner = await harness.session(), await harness.session()
    foreign_queue = replace(harness.queue("theirs"), declare=False)
    foreign_exchange = Exchange(f"{harness.unique}.bus", declare=False)
    for thing in (foreign_queue, foreign_exchange):
        with pytest.raises(TopologyMismatch, match=f'"{thing.name}" does not exist'):
            await harness.declare(session, thing)
    await harness.declare(owner, harness.queue("theirs", message_ttl=60_000), harness.exchange("bus", "fanout"))
    await harness.declare(session, foreign_queue, foreign_exchange)


async def test_13_a_classic_queue_without_options_equals_a_plain_declaration(harness: Harness) -> None:
    """A pipeline can join a queue that another program has declared with no arguments at all."""
    session, owner, name = await harness.session(), await harness.session(), f"{harness.unique}.plain"
    await harness.declare(owner, Queue(name))
    await harness.declare(session, Queue(name, arguments={"x-queue-type": "classic"}))
