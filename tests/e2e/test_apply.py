"""`runner apply`: what is missing is made, queues are made anew only when named, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
from typing import Any

import pika
import pytest

from tests.foreign import Foreign
from tests.node import Broker
from tests.project import Project, until

PIPELINE = """
    version: 1
    events: {UNIQUE.paid: {}}
    queues:
      UNIQUE.work: {max_length: 10000, events: [UNIQUE.paid]}
    subscribers:
      worker: {from: UNIQUE.work, handler: "work:handle", retry: none}
"""

HANDLERS = """
    def handle(x: str) -> None:
        note(x)
"""


@pytest.fixture
def here(managed_project: Project) -> Project:
    """The pipeline, on the node with the management API, which it is not told of."""
    managed_project.write(PIPELINE, HANDLERS)
    return managed_project


def declare(other: Foreign, name: str, **arguments: Any) -> None:
    keyed = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    other.channel.queue_declare(name, durable=True, arguments=keyed)


KINDS = [{}, {"queue_type": "quorum"}, {"queue_type": "quorum", "single_active_consumer": True}]


async def test_what_is_missing_is_made_and_then_nothing_is_left(here: Project, other: Foreign) -> None:
    """The second time there is nothing to change; `up` finds everything there."""
    first = await here.do("apply")
    assert f'created queue "{here.name("work")}"' in first.stdout
    second = await here.do("apply")
    assert second.stdout.startswith("nothing to change")
    other.publish_confirmed(here.name("work"), b"1")
    runner = await here.up_until_idle()
    assert "new)" not in runner.stderr
    assert here.ledger.payloads() == ["1"]


async def test_a_difference_is_left_alone_without_its_flag(here: Project, other: Foreign) -> None:
    """Exit 1, the difference, and the flag that would change it."""
    declare(other, here.name("work"), max_length=5)
    other.publish(here.name("work"), b"1")
    runner = await here.do("apply", code=1)
    assert f" --recreate {here.name('work')}` recreates it" in runner.stdout
    assert other.count(here.name("work")) == 1
    declare(other, here.name("work"), max_length=5)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_queue_is_made_anew_with_its_messages_in_order(
    here: Project, other: Foreign, managed: Broker, kind: dict[str, Any]
) -> None:
    """Classic, quorum, and with a single active consumer."""
    declare(other, here.name("work"), **kind)
    bodies = [str(number).encode() for number in range(1200)]
    other.publish_confirmed(here.name("work"), *bodies)
    runner = await here.do("apply", "--recreate", here.name("work"), "--management", managed.management_url)
    assert f'recreated queue "{here.name("work")}" with 1200 messages' in runner.stdout
    assert [got.body for got in other.take(here.name("work"))] == bodies
    assert not other.has_queue(here.name("work.recreating"))
    assert not other.has_exchange(here.name("work.recreating"))
    assert not other.has_exchange(here.name("work.recreated"))
    declare(
        other,
        here.name("work"),
        queue_type="quorum",
        delivery_limit=20,
        max_length=10000,
        overflow="reject-publish",
        dead_letter_exchange="",
        dead_letter_routing_key=here.name("work.dead"),
        dead_letter_strategy="at-least-once",
    )


async def test_properties_and_headers_are_kept_exactly(here: Project, other: Foreign) -> None:
    """CC routes nothing again, an expiration does not run out, and nobody makes up a message id."""
    declare(other, here.name("work"))
    declare(other, here.name("victim"))
    properties: dict[str, Any] = {
        "content_type": "text/x",
        "content_encoding": "enc",
        "headers": {
            "CC": [here.name("victim")],
            "n": 2**40,
            "deep": {"a": [1, None, True, "é"]},
            "x-death": [{"count": 3}],
        },
        "delivery_mode": 1,
        "priority": 7,
        "correlation_id": "c",
        "reply_to": "r",
        "expiration": "3600000",
        "message_id": "m",
        "timestamp": 1_700_000_000,
        "type": "t",
        "user_id": "guest",
        "app_id": "a",
    }
    other.publish(here.name("work"), b"full", **properties)
    other.publish(here.name("work"), b"bare", delivery_mode=None)
    before = [vars(got.properties) for got in _peek(other, here.name("work"))]
    assert len(other.take(here.name("victim"))) == 1
    await here.do("apply", "--recreate", here.name("work"))
    after = other.take(here.name("work"))
    assert [vars(got.properties) for got in after] == before
    assert [(got.body, got.routing_key) for got in after] == [
        (b"full", here.name("work")),
        (b"bare", here.name("work")),
    ]
    assert other.count(here.name("victim")) == 0


async def test_a_queue_in_use_is_not_touched_and_who_uses_it_is_named(
    here: Project, other: Foreign, managed: Broker
) -> None:
    """Consumers are stopped by who runs them."""
    name = here.name("work")
    await here.do("apply")
    here.pipeline(PIPELINE.replace("10000", "20000"))
    channel = other.channel
    channel.basic_consume(name, lambda *_: None, consumer_tag="somebody")
    runner = await here.do("apply", "--recreate", name, code=1)
    text = f'publishers cannot be shut out of queue "{name}" without the management API'
    assert text in runner.stderr
    assert not other.has_queue(f"{name}.recreating")
    await asyncio.to_thread(_until_management_knows, managed, name)
    runner = await here.do("apply", "--recreate", name, "--management", managed.management_url, code=1)
    assert f'queue "{name}" is in use: consumer "somebody" from 127.0.0.1:' in runner.stderr


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_what_somebody_holds_unacknowledged_is_not_deleted_with_the_queue(
    here: Project, other: Foreign, managed: Broker
) -> None:
    """A process that stopped consuming and still works. Of a classic queue only the management API can tell."""
    name = here.name("work")
    declare(other, name)
    other.publish_confirmed(name, b"held", b"free")
    channel = other.channel
    tag = channel.basic_get(name)[0].delivery_tag
    where = ("--management", managed.management_url)
    runner = await here.do("apply", "--recreate", name, *where, code=1)
    assert f'queue "{name}" has 1 message that another consumer holds unacknowledged; nothing is lost' in runner.stderr
    channel.basic_nack(tag, requeue=True)
    channel.close()
    await here.do("apply", "--recreate", name, *where)
    assert {got.body for got in other.take(name)} == {b"held", b"free"}


async def test_who_holds_messages_of_a_quorum_queue_counts_as_using_it(
    here: Project, other: Foreign, managed: Broker
) -> None:
    """Here AMQP alone is enough to see it."""
    name, where = here.name("work"), ("--management", managed.management_url)
    await here.do("apply")
    here.pipeline(PIPELINE.replace("10000", "20000"))
    other.publish_confirmed(name, b"held", b"free")
    channel = other.channel
    channel.basic_qos(prefetch_count=1)
    frame, _, _ = next(channel.consume(name))
    channel.basic_cancel(frame.consumer_tag)
    runner = await here.do("apply", "--recreate", name, *where, code=1)
    assert f'queue "{name}" is in use: 1 consumer; nothing is lost' in runner.stderr
    channel.close()
    await here.do("apply", "--recreate", name, *where)
    assert {got.body for got in other.take(name)} == {b"held", b"free"}


async def test_events_published_meanwhile_are_not_lost(here: Project, other: Foreign, managed: Broker) -> None:
    """The bindings move with the messages: an event is in one queue or the other, at worst in both."""
    name = here.name("work")
    await here.do("apply")
    here.pipeline(PIPELINE.replace("10000", "20000"))
    other.publish_confirmed(name, *(f"old {number}".encode() for number in range(500)))
    async with asyncio.TaskGroup() as group:
        runner = group.create_task(here.do("apply", "--recreate", name, "--management", managed.management_url))
        publishing = group.create_task(asyncio.to_thread(_publish_until, managed.url, here.name("paid"), runner))
    sent = publishing.result()
    found = [got.body for got in other.take(name)]
    assert len(sent) > 50
    assert {*sent, *(f"old {number}".encode() for number in range(500))} - set(found) == set()
    assert [body for body in found if body.startswith(b"old")] == [f"old {number}".encode() for number in range(500)]


@pytest.mark.timeout(120)
async def test_a_full_queue_leaves_the_rest_aside_and_the_next_run_goes_on(here: Project, other: Foreign) -> None:
    """The new limit is smaller than what waits: nothing is dropped."""
    name = here.name("work")
    here.pipeline(PIPELINE.replace("10000", "50"))
    declare(other, name)
    bodies = {str(number).encode() for number in range(200)}
    other.publish_confirmed(name, *bodies)
    runner = await here.do("apply", "--recreate", name, code=1)
    assert f'wait in "{name}.recreating"' in runner.stderr
    planned = await here.do("plan")
    assert f'~ queue "{name}": its recreation was interrupted' in planned.stdout
    found = []
    for _ in range(20):
        found += [got.body for got in other.take(name)]
        async with here.command("apply", "--recreate", name) as again:
            code = await again.wait(60)
        if code == 0:
            break
    found += [got.body for got in other.take(name)]
    assert code == 0, again.stderr
    assert set(found) == bodies
    assert not other.has_queue(f"{name}.recreating")


async def test_stale_bindings_go_only_with_prune_and_only_with_the_management_api(
    here: Project, other: Foreign, managed: Broker
) -> None:
    """Without it: exit 1, and why."""
    await here.do("apply")
    other.channel.queue_bind(here.name("work"), "events", f"{here.unique}.old")
    runner = await here.do("apply", "--prune", code=1)
    assert "nothing was removed: the management API does not answer" in runner.stderr
    where = ("--management", managed.management_url)
    runner = await here.do("apply", *where, code=1)
    assert " --prune` removes it" in runner.stdout
    runner = await here.do("apply", *where, "--prune")
    assert f"removed binding events --{here.unique}.old--> {here.name('work')}" in runner.stdout
    with pytest.raises(pika.exceptions.UnroutableError):
        _publish_event(other, f"{here.unique}.old")
    _publish_event(other, here.name("paid"))


async def test_a_name_that_is_none_of_ours_is_a_usage_error(here: Project) -> None:
    """With the name that was probably meant."""
    runner = await here.do("apply", "--recreate", here.name("wrok"), code=2)
    assert f'did you mean "{here.name("work")}"?' in runner.stderr


async def test_a_queue_that_is_as_wanted_is_left_alone(here: Project, other: Foreign) -> None:
    """--recreate of a queue without differences does nothing."""
    await here.do("apply")
    other.publish_confirmed(here.name("work"), b"1")
    runner = await here.do("apply", "--recreate", here.name("work"))
    assert f'queue "{here.name("work")}" does not differ: not recreated' in runner.stdout
    assert [got.body for got in other.take(here.name("work"))] == [b"1"]


async def test_a_queue_of_that_name_that_is_not_ours_is_left_alone(here: Project, other: Foreign) -> None:
    """Somebody may have had the same idea."""
    declare(other, here.name("work"))
    declare(other, here.name("work.recreating"), max_length=1)
    other.publish(here.name("work"), b"1")
    runner = await here.do("apply", "--recreate", here.name("work"), code=1)
    assert f'there is a queue "{here.name("work.recreating")}" that another program has made' in runner.stderr
    assert other.count(here.name("work")) == 1


async def test_a_stream_is_refused(here: Project, other: Foreign) -> None:
    """What was read of a stream stays in it: there is nothing to move."""
    declare(other, here.name("work"), queue_type="stream")
    runner = await here.do("apply", "--recreate", here.name("work"), code=1)
    assert "is a stream" in runner.stderr


async def test_after_a_recreation_the_pipeline_runs_on(here: Project, other: Foreign) -> None:
    """`up` refuses before, and handles everything after."""
    declare(other, here.name("work"))
    other.publish(here.name("work"), b"1", b"2")
    await here.do("up", code=69)
    await here.do("apply", "--recreate", here.name("work"))
    async with here.running():
        await until(lambda: len(here.ledger.payloads()) == 2, "both messages")
    assert sorted(here.ledger.payloads()) == ["1", "2"]


def _peek(other: Foreign, queue: str) -> list[Any]:
    """Return what is in a queue, and leave it there unchanged: nothing is marked as redelivered on a classic queue."""
    from tests.foreign import Got

    channel, found = other.channel, []
    while True:
        frame, properties, body = channel.basic_get(queue)
        if frame is None:
            break
        found.append(Got(body, properties, frame.exchange, frame.routing_key))
    channel.close()
    return found


def _publish_event(other: Foreign, key: str) -> None:
    channel = other.channel
    channel.confirm_delivery()
    channel.basic_publish("events", key, b"x", mandatory=True)
    channel.close()


def _publish_until(url: str, key: str, running: asyncio.Task[Any]) -> list[bytes]:
    """Publish events, each confirmed and routed, until a task has ended; return what was sent."""
    sent: list[bytes] = []
    with Foreign(url) as publisher:
        channel = publisher.channel
        channel.confirm_delivery()
        while not running.done():
            body = f"new {len(sent)}".encode()
            channel.basic_publish("events", key, body, mandatory=True)
            sent.append(body)
    return sent


def _until_management_knows(node: Broker, queue: str) -> None:
    """Wait until the management API has the queue's consumers, some seconds behind."""
    import base64
    import json
    import time
    from urllib.parse import quote
    from urllib.request import Request, urlopen

    token = base64.b64encode(b"guest:guest").decode()
    request = Request(
        f"{node.management_url}/api/queues/%2F/{quote(queue, safe='')}", headers={"Authorization": f"Basic {token}"}
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with urlopen(request, timeout=5) as answer:
            if json.load(answer).get("consumer_details"):
                return
    raise AssertionError("the management API never knew the consumer")
