"""A subscriber is removed or renamed: `plan` and `status` name what it has left, `apply --prune` removes it safely."""

from __future__ import annotations

import json
import threading

import pika
import pytest

from tests.foreign import Foreign
from tests.node import Broker
from tests.project import Project

BEFORE = """
    version: 1
    name: UNIQUE
    events: {UNIQUE.paid: }
    subscribers:
      email: {from: UNIQUE.paid, handler: "work:handle", QUEUE retry: {attempts: 2, delay: 70ms}}
      keep: {from: UNIQUE.paid, handler: "work:handle"}
"""
AFTER = """
    version: 1
    name: UNIQUE
    events: {UNIQUE.paid: }
    subscribers:
      keep: {from: UNIQUE.paid, handler: "work:handle"}
"""


@pytest.fixture
def shop(project_with_api: Project) -> Project:
    project_with_api.handlers("def handle(x: str) -> None: ...")
    return project_with_api


async def removed(project: Project, queue: str = "") -> None:
    """Declare the pipeline as it was, and write the file as it is now."""
    project.pipeline(BEFORE.replace("QUEUE", queue))
    await project.do("apply")
    project.pipeline(AFTER)


@pytest.mark.parametrize("queue", ["", "queue: {type: classic},", "queue: {dead_letter: none},"])
async def test_an_empty_leftover_is_named_and_pruned(shop: Project, other: Foreign, queue: str) -> None:
    """With its dead-letter queue and the wait queue of its retries; then nothing is left, and nothing else is gone."""
    await removed(shop, queue)
    name = shop.name("email")
    runner = await shop.do("plan", "--detailed-exitcode", code=2)
    assert f'- queue "{name}" is not in the pipeline: 0 messages, 0 consumers, bound to events' in runner.stdout
    assert f'i queue "{shop.name("retry.70")}" is not in the pipeline' in runner.stdout
    document = json.loads((await shop.do("plan", "--json")).stdout)
    assert {"action": "extra", "kind": "queue", "name": name} in [
        {key: item[key] for key in ("action", "kind", "name")} for item in document["items"]
    ]
    runner = await shop.do("apply", code=1)
    assert " --prune` removes its bindings, and deletes it if it is empty" in runner.stdout
    runner = await shop.do("apply", "--prune")
    assert f"removed binding events --{shop.name('paid')}--> {name}" in runner.stdout
    for gone in ("email", "retry.70", *([] if "none" in queue else ["email.dead"])):
        assert f'deleted queue "{shop.name(gone)}" with 0 messages' in runner.stdout
        assert not other.has_queue(shop.name(gone))
    assert not other.has_exchange(shop.name("retry.70"))
    runner = await shop.do("plan", "--detailed-exitcode")
    assert "the broker matches the pipeline" in runner.stdout
    assert "nothing to change" in (await shop.do("apply", "--prune")).stdout
    assert other.has_queue(shop.name("keep"))


async def test_messages_are_kept_until_their_queue_is_named(shop: Project, other: Foreign) -> None:
    """The bindings go, so that it fills no longer; `--prune-queue` deletes it with its messages."""
    await removed(shop)
    name = shop.name("email")
    other.publish(name, b"1", b"2")
    (pipeline,) = json.loads((await shop.do("status", "--json")).stdout)
    assert [(each["queue"], each["ready"]) for each in pipeline["leftovers"]] == [(name, 2), (f"{name}.dead", 0)]
    assert f"{name} (not in the pipeline)" in (await shop.do("status")).stdout
    runner = await shop.do("apply", "--prune", code=1)
    assert f"removed binding events --{shop.name('paid')}--> {name}" in runner.stdout
    assert f'queue "{name}" is not in the pipeline: 2 messages, 0 consumers, bound to no exchange' in runner.stdout
    assert f"`--prune-queue {name}`, which deletes them" in runner.stdout
    assert other.count(name) == 2
    assert f'it is the dead-letter queue of "{name}" and can be removed after it' in runner.stdout
    assert other.has_queue(f"{name}.dead")
    runner = await shop.do("apply", "--prune", "--prune-queue", name)
    assert f'deleted queue "{name}" with 2 messages' in runner.stdout
    assert not other.has_queue(name)
    assert not other.has_queue(f"{name}.dead")


async def test_what_is_in_use_is_left_alone(shop: Project, other: Foreign) -> None:
    """Its bindings too: an old release may still run, or another program may have such a queue."""
    await removed(shop)
    name = shop.name("email")
    other.channel.basic_consume(name, lambda *_: None)
    runner = await shop.do("apply", "--prune", code=1)
    assert f'queue "{name}" is not in the pipeline: 0 messages, 1 consumer, bound to events' in runner.stdout
    assert "it is in use: stop its consumers first" in runner.stdout
    assert "removed binding" not in runner.stdout
    assert other.has_queue(f"{name}.dead")
    runner = await shop.do("apply", "--prune-queue", name, code=1)
    assert f'queue "{name}" is in use' in runner.stderr


async def test_queues_of_another_pipeline_whose_name_begins_the_same_are_its_own(shop: Project, other: Foreign) -> None:
    """What has left traces of a longer name is not mentioned; what has left none is not pruned unless it is named."""
    await removed(shop)
    for name in ("eu.email", "eu.retry.50", "send.sms"):
        other.channel.queue_declare(shop.name(name), durable=True)
    runner = await shop.do("plan")
    assert shop.name("eu.") not in runner.stdout
    assert f'i queue "{shop.name("send.sms")}" is not in the pipeline' in runner.stdout
    await shop.do("apply", "--prune")
    assert [other.has_queue(shop.name(name)) for name in ("eu.email", "eu.retry.50", "send.sms")] == [True] * 3
    await shop.do("apply", "--prune-queue", shop.name("send.sms"))
    assert not other.has_queue(shop.name("send.sms"))


async def test_what_waits_for_a_retry_keeps_the_queue_that_it_may_come_back_to(shop: Project, other: Foreign) -> None:
    """AMQP does not tell where to; the bindings are taken away all the same."""
    await removed(shop)
    wait = shop.name("retry.60000")
    other.channel.queue_declare(wait, durable=True)
    other.publish(wait, b"later")
    runner = await shop.do("apply", "--prune", code=1)
    assert "no queue was deleted: 1 message may return from a retry" in runner.stderr
    assert f"--> {shop.name('email')}" in runner.stdout
    assert other.has_queue(shop.name("email"))
    assert other.count(wait) == 1


async def test_a_queue_of_the_pipeline_is_not_pruned_by_its_name(shop: Project) -> None:
    await removed(shop)
    runner = await shop.do("apply", "--prune-queue", shop.name("keep"), code=2)
    assert f'queue "{shop.name("keep")}" is in the pipeline' in runner.stderr
    runner = await shop.do("apply", "--prune-queue", shop.name("nowhere"), code=1)
    assert f'queue "{shop.name("nowhere")}" does not exist' in runner.stdout


async def test_without_the_management_api_leftovers_cannot_be_seen_and_that_is_said(
    rabbit_project: Project, foreign: Foreign
) -> None:
    rabbit_project.handlers("def handle(x: str) -> None: ...")
    await removed(rabbit_project)
    runner = await rabbit_project.do("plan", "--detailed-exitcode")
    assert "? leftover queues: not checked, the management API does not answer" in runner.stdout
    assert "everything as the pipeline says" not in runner.stdout
    assert "without it, leftover queues cannot be listed" in (await rabbit_project.do("status")).stderr
    runner = await rabbit_project.do("apply", "--prune", code=1)
    assert "nothing was removed: the management API does not answer" in runner.stderr
    assert foreign.has_queue(rabbit_project.name("email"))


GONE = (
    pika.exceptions.UnroutableError,
    pika.exceptions.ChannelClosedByBroker,
    pika.exceptions.ConnectionClosedByBroker,  # 541, where a quorum queue of 4.3 goes in the middle of a get
)
"""What a publisher hears of a queue that is gone."""


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_what_is_published_by_the_name_of_a_queue_is_not_deleted_with_it(
    shop: Project, other: Foreign, managed: Broker, kind: str
) -> None:
    """Another program publishes all the time, one message after the other: all but the last one are kept or returned.

    RabbitMQ itself confirms what arrives at a queue in the moment in which it is deleted, and deletes it.
    """
    await removed(shop, f"queue: {{type: {kind}}},")
    name, ready, ends = shop.name("email"), threading.Event(), threading.Event()
    there = 0

    def publish() -> None:
        nonlocal there
        with Foreign(managed.url) as publisher:
            channel = publisher.channel
            channel.confirm_delivery()
            while not ends.is_set():
                ready.set()
                try:
                    channel.basic_publish("", name, b"x", mandatory=True)
                    there += 1
                    got, _, _ = channel.basic_get(name, auto_ack=True)
                    there -= got is not None
                except GONE:
                    return

    thread = threading.Thread(target=publish)
    thread.start()
    ready.wait()
    try:
        for _ in range(5):
            async with shop.command("apply", "--prune") as runner:
                await runner.wait()
            assert "Traceback" not in runner.stderr
    finally:
        ends.set()
        thread.join()
    assert there - (other.count(name) if other.has_queue(name) else 0) in (0, 1)
