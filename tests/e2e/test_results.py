"""What handlers return: published, confirmed, and only then is the message done."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.foreign import Foreign
from tests.project import Project, lines, until

# The second subscriber writes down what it hears of the first one's results.
CHAIN = """
    version: 1
    queues: {UNIQUE.in: {}, UNIQUE.out: {}, UNIQUE.aside: {}}
    events: {UNIQUE.done: }
    defaults:
      subscriber: {retry: {attempts: 2, delay: 10ms}}
    producers:
      send: {handler: work:send, to: UNIQUE.in}
    subscribers:
      work: {from: UNIQUE.in, handler: work:work, to: RESULTS}
      hear_out: {from: UNIQUE.out, handler: work:hear}
      hear_aside: {from: UNIQUE.aside, handler: work:hear}
      hear_done: {from: UNIQUE.done, handler: work:hear}
"""
HEARING = """
    import json
    from runner import Message, Publish

    def hear(payload, message: Message) -> None:
        note(json.dumps({
            "queue": message.queue, "payload": payload, "id": message.id, "flow": message.correlation_id,
            "event": message.event, "key": message.routing_key, "app": message.app_id,
            "type": message.content_type, "tenant": message.headers.get("tenant"),
        }))
"""


def heard(project: Project) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in project.ledger.payloads()]


def chain(project: Project, to: str, handlers: str) -> None:
    project.write(CHAIN.replace("RESULTS", to), HEARING + handlers)


async def test_a_result_goes_where_to_says_and_belongs_to_the_same_flow(project: Project) -> None:
    """A queue and an event both get it, with the first message's correlation id; the event names its type."""
    chain(
        project,
        "[UNIQUE.out, UNIQUE.done]",
        """
    def send(): return "order"
    async def work(order: str): return {"order": order}
    """,
    )
    runner = await project.up_until_idle()

    (sent,) = [line for line in runner.logs if line["event"] == "message.published"]
    (handled,) = [line for line in runner.logs if line["event"] == "message.handled" and line["subscriber"] == "work"]
    assert handled["published"] == 2
    by_queue = {each["queue"]: each for each in heard(project)}
    out, done = by_queue[project.name("out")], by_queue[f"{project.unique}.hear_done"]
    assert out["payload"] == done["payload"] == {"order": "order"}
    assert out["flow"] == done["flow"] == sent["message_id"]
    assert out["id"] != sent["message_id"]
    assert (out["event"], done["event"]) == (None, project.name("done"))
    assert done["key"] == project.name("done")
    assert out["app"] == project.unique
    assert out["type"] == "application/json"


async def test_a_foreign_correlation_id_is_kept_along_the_way(rabbit_project: Project, foreign: Foreign) -> None:
    """What another program began can be followed to what comes out for it."""
    rabbit_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.in: {}, UNIQUE.out: {}}
        subscribers:
          work: {from: UNIQUE.in, handler: work:work, to: UNIQUE.out}
        """
    )
    rabbit_project.handlers("async def work(order: str): return order.upper()")
    async with rabbit_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        foreign.publish(rabbit_project.name("in"), b"one", message_id="id-1", correlation_id="flow-1")
        foreign.publish(rabbit_project.name("in"), b"two", message_id="id-2")
        await until(lambda: foreign.count(rabbit_project.name("out")) == 2, "two results")
    results = {got.body: got.properties for got in foreign.take(rabbit_project.name("out"))}
    assert {body: properties.correlation_id for body, properties in results.items()} == {
        b"ONE": "flow-1",
        b"TWO": "id-2",
    }
    assert {properties.content_type for properties in results.values()} == {"text/plain"}
    assert {properties.delivery_mode for properties in results.values()} == {2}


async def test_each_item_of_a_generator_is_a_message_and_none_is_none(project: Project) -> None:
    """Generators, async or not, also behind plain functions, publish item by item; None publishes nothing."""
    chain(
        project,
        "UNIQUE.out",
        """
    def send(): yield from ("async", "sync", "wrapped", "none", "empty")

    async def items():
        yield "async-1"
        yield None
        yield "async-2"

    def work(kind: str):
        match kind:
            case "async": return items()
            case "sync": return (f"sync-{n}" for n in (1, 2, 3))
            case "wrapped": return ["one", "list"]
            case "empty": return iter_nothing()

    def iter_nothing():
        return
        yield
    """,
    )
    runner = await project.up_until_idle()
    payloads = [each["payload"] for each in heard(project)]
    assert sorted(map(str, payloads)) == sorted(
        map(str, ["async-1", "async-2", "sync-1", "sync-2", "sync-3", ["one", "list"]])
    )
    published = [
        line["published"] for line in runner.logs if line["event"] == "message.handled" and line["subscriber"] == "work"
    ]
    assert sorted(published) == [0, 0, 1, 2, 3]
    assert len({each["id"] for each in heard(project)}) == 6


async def test_publish_overrides_where_a_result_goes_and_what_it_carries(project: Project) -> None:
    """`Publish` names another queue or event, adds headers, and changes an event's routing key."""
    chain(
        project,
        "UNIQUE.out",
        """
    def send(): return "order"

    def work(order: str):
        yield Publish("here")
        yield Publish("aside", to="UNIQUE.aside", headers={"tenant": "north"})
        yield Publish("done", to="UNIQUE.done")
    """,
    )
    await project.up_until_idle()
    assert sorted((each["payload"], each["queue"], each["tenant"]) for each in heard(project)) == [
        ("aside", project.name("aside"), "north"),
        ("done", f"{project.unique}.hear_done", None),
        ("here", project.name("out"), None),
    ]


async def test_publish_can_change_an_events_routing_key(project: Project) -> None:
    """A queue bound to that key gets the event, though the event has another name."""
    project.pipeline(
        """
        version: 1
        exchanges: {UNIQUE.shop: topic}
        events: {UNIQUE.done: {exchange: UNIQUE.shop}}
        queues:
          UNIQUE.north: {bind: [{exchange: UNIQUE.shop, key: "*.north"}]}
        producers:
          send: {handler: work:send, to: UNIQUE.done}
        subscribers:
          hear: {from: UNIQUE.north, handler: work:hear}
        """
    )
    project.handlers(HEARING + "\n    def send(): return Publish('order', key='shop.north')\n")
    await project.up_until_idle()
    (got,) = heard(project)
    assert (got["payload"], got["event"], got["key"]) == ("order", project.name("done"), "shop.north")


async def test_a_result_that_cannot_be_published_does_not_call_the_handler_again(project: Project) -> None:
    """An event without listeners is offered again; an unknown name and what JSON cannot hold are given up at once."""
    project.pipeline(
        """
        version: 1
        queues: {UNIQUE.in: {}}
        events: {UNIQUE.unheard: , UNIQUE.quiet: {unheard: ignore}}
        producers:
          send: {handler: work:send, to: UNIQUE.in}
        subscribers:
          work: {from: UNIQUE.in, handler: work:work, to: UNIQUE.unheard, retry: {attempts: 2, delay: 10ms}}
        """
    )
    project.handlers(
        """
        from runner import Publish

        RESULTS = {"unknown": Publish(1, to="nowhere"), "no JSON": object(), "inside": [Publish(1), 2]}
        RESULTS |= {"unheard": 1, "quiet": Publish(1, to="UNIQUE.quiet")}

        def send(): yield from RESULTS

        def work(kind: str):
            note(kind)
            return RESULTS[kind]
        """
    )
    runner = await project.up_until_idle()
    kinds = ("unheard", "unknown", "no JSON", "inside", "quiet")
    assert project.ledger.counts() == dict.fromkeys(kinds, 1)
    assert len(lines(runner, "result.retry")) == 1
    dead = lines(runner, "message.dead_lettered")
    assert {(line["error_type"], line["attempt"]) for line in dead} == {("PublishFailed", 1)}
    assert sorted((line["reason"], line["error"].partition(":")[0]) for line in dead) == [
        ("exhausted", 'no queue takes a message for "events'),
        ("invalid-result", "a Publish is inside another value, where it cannot be published"),
        ("invalid-result", 'no queue or event of this pipeline is called "nowhere"; there are'),
        ("invalid-result", "the payload cannot be written as JSON"),
    ]


async def test_an_attempt_that_fails_publishes_nothing(project: Project) -> None:
    """All results of a call are checked before the first is sent."""
    chain(
        project,
        "UNIQUE.out",
        """
    def send(): return "order"
    def work(order: str):
        yield "sold"
        yield Publish(object(), to="UNIQUE.aside")
        """,
    )
    await project.up_until_idle()
    assert heard(project) == []


async def test_each_publish_of_a_list_goes_where_it_says(project: Project) -> None:
    """Of a handler and of a producer; each is a message of its own."""
    chain(
        project,
        "UNIQUE.out",
        """
    def send(): return iter([[Publish("one"), Publish("two", to="UNIQUE.aside")]])
    async def work(order: str): return (Publish(order, to=to) for to in ("UNIQUE.aside", "UNIQUE.done"))
        """,
    )
    runner = await project.up_until_idle()
    assert sorted((got["queue"].rpartition(".")[2], got["payload"]) for got in heard(project)) == [
        ("aside", "one"),
        ("aside", "two"),
        ("hear_done", "one"),
    ]
    assert len({got["id"] for got in heard(project)}) == 3
    assert len(lines(runner, "message.published")) == 2


async def test_a_second_attempt_publishes_under_the_same_ids(rabbit_project: Project, foreign: Foreign) -> None:
    """A handler that fails after its results went out publishes them again with equal ids, so that they can be told."""
    rabbit_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.in: {}, UNIQUE.out: {type: classic, durable: false}}
        producers:
          send: {handler: work:send, to: UNIQUE.in}
        subscribers:
          work: {from: UNIQUE.in, handler: work:work, to: UNIQUE.out, retry: {attempts: 2, delay: 10ms}}
        """
    )
    rabbit_project.handlers(
        """
        from runner import Message

        def send(): return "order"

        def work(order: str, message: Message):
            yield from range(1010)  # published by the thousand
            if message.attempt == 1:
                raise ValueError("after the first thousand")
        """
    )
    await rabbit_project.up_until_idle()
    ids = [got.properties.message_id for got in foreign.take(rabbit_project.name("out"))]
    assert len(ids) == 2010
    assert len(set(ids)) == 1010


async def test_a_message_is_not_done_before_its_result_is_taken(rabbit_project: Project, foreign: Foreign) -> None:
    """The result's queue is full: the message stays unsettled, and comes again when the process is killed."""
    rabbit_project.pipeline(
        """
        version: 1
        queues:
          UNIQUE.in: {}
          UNIQUE.marks: {}
          UNIQUE.full: {type: classic, max_length: 1}
        subscribers:
          work: {from: UNIQUE.in, handler: work:work, to: UNIQUE.full}
          mark: {from: UNIQUE.marks, handler: work:mark}
        """
    )
    rabbit_project.handlers(
        """
        async def work(order: str):
            note(order)
            return f"done {order}"
        def mark(payload: str) -> None: ...
        """
    )
    await rabbit_project.up_until_idle()  # declares
    foreign.publish_confirmed(rabbit_project.name("full"), b"in the way")
    async with rabbit_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        foreign.publish(rabbit_project.name("in"), b"order")
        await rabbit_project.ledger.wait_for(1)
        foreign.publish(rabbit_project.name("marks"), b"later")
        await runner.wait_for(lambda line: line["event"] == "message.handled")
        assert [line["subscriber"] for line in runner.logs if line["event"] == "message.handled"] == ["mark"]
        assert foreign.count(rabbit_project.name("in")) == 0
    await until(lambda: foreign.count(rabbit_project.name("in")) == 1, "the message is back")

    async with rabbit_project.up() as runner:
        await rabbit_project.ledger.wait_for(2)
        assert [got.body for got in foreign.take(rabbit_project.name("full"))] == [b"in the way"]
        await runner.wait_for(lambda line: line["event"] == "message.handled" and line["subscriber"] == "work")
    assert [got.body for got in foreign.take(rabbit_project.name("full"))] == [b"done order"]


@pytest.mark.node(config="max_message_size = 1000")
async def test_a_result_that_is_larger_than_the_broker_takes_is_refused(own_project: Project) -> None:
    """RabbitMQ closes the channel over it: to publish it again would never end, and what shares the channel goes on."""
    chain(
        own_project,
        "UNIQUE.out",
        """
    def send(): return ["small", "large", "small again"]
    def work(order: str): return order * (400 if order == "large" else 1)
    """,
    )
    runner = await own_project.up_until_idle()
    (dead,) = [line for line in runner.logs if line["event"] == "message.dead_lettered"]
    assert "has 2000 bytes, the broker takes at most 1000" in dead["error"]
    assert {each["payload"] for each in heard(own_project)} == {"small", "small again"}
