"""Where a pipeline's messages end, and what its topology may be made of: dead letters, streams, files, modes."""

from __future__ import annotations

import json
from typing import Any

from tests.foreign import Foreign
from tests.node import Broker
from tests.project import Project, lines, until


def options_of(rabbitmq: Broker, queue: str) -> dict[str, Any]:
    """Return a queue's arguments as the broker has them."""
    found = json.loads(rabbitmq.ctl("list_queues", "name", "arguments", "--formatter", "json"))
    (arguments,) = [item["arguments"] for item in found if item["name"] == queue]
    return {key: value[-1] for key, *value in arguments} if isinstance(arguments, list) else arguments


STREAM = """
    version: 1
    queues: {UNIQUE.log: {type: stream, max_bytes: 1MB, message_ttl: 1h}}
    events: {UNIQUE.happened: }
    producers:
      send: {handler: work:send, to: UNIQUE.log}
"""


async def test_a_stream_can_be_published_to(rabbit_project: Project, foreign: Foreign, rabbitmq: Broker) -> None:
    """It keeps everything, within its limits of size and age."""
    rabbit_project.write(STREAM, "def send(): return [1, 2, 3]")
    await rabbit_project.up_until_idle()
    queue = rabbit_project.name("log")
    await until(lambda: foreign.count(queue) == 3, "three messages are in the stream")
    assert options_of(rabbitmq, queue) == {
        "x-queue-type": "stream",
        "x-max-length-bytes": 1_000_000,
        "x-max-age": "3600s",
    }


async def test_the_in_process_broker_has_no_streams(memory_project: Project) -> None:
    """Exit 78, and it says what to do; the same file is right for RabbitMQ."""
    memory_project.write(STREAM, "def send(): note('sent')")
    runner = await memory_project.do("up", "--until-idle", code=78)
    assert "error[not-on-this-broker]" in runner.stderr
    assert "the in-process broker has no streams" in runner.stderr
    assert memory_project.ledger.entries() == []


HEAR = """
    from runner import Message
    def hear(payload, message: Message) -> None: note(f"{message.queue} {payload}")
"""
FAILING = (
    HEAR
    + """
    def send(): return ["order"]
    def fail(payload: str) -> None: raise ValueError(payload)
"""
)


async def test_dead_letters_go_where_the_queues_say(project: Project) -> None:
    """Several queues share one dead-letter queue, which has a subscriber; a queue with `false` drops, loudly."""
    project.pipeline(
        """
        version: 1
        queues:
          UNIQUE.a: {dead_letter: UNIQUE.failed}
          UNIQUE.b: {dead_letter: UNIQUE.failed, type: classic}
          UNIQUE.c: {dead_letter: false}
          UNIQUE.failed: {}
        defaults:
          subscriber: {handler: work:fail, retry: none}
        producers:
          send: {handler: work:send, to: [UNIQUE.a, UNIQUE.b, UNIQUE.c]}
        subscribers:
          a: {from: UNIQUE.a}
          b: {from: UNIQUE.b}
          c: {from: UNIQUE.c}
          failed: {from: UNIQUE.failed, handler: work:hear}
        """
    )
    project.handlers(FAILING)
    runner = await project.up_until_idle()
    assert project.heard() == ["failed order", "failed order"]
    ends = {line["subscriber"]: line["dead_letter"] for line in lines(runner, "message.dead_lettered", level="error")}
    assert ends == {"a": project.name("failed"), "b": project.name("failed"), "c": None}
    assert "warning[drops-failures]" in runner.stderr


async def test_a_shared_dead_letter_queue_that_nobody_declares_is_made(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker
) -> None:
    """Once, as a quorum queue; both failures are in it with their stories."""
    rabbit_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.a: {dead_letter: UNIQUE.failed}, UNIQUE.b: {dead_letter: UNIQUE.failed}}
        producers:
          send: {handler: work:send, to: [UNIQUE.a, UNIQUE.b]}
        subscribers:
          a: {from: UNIQUE.a, handler: work:fail, retry: none}
          b: {from: UNIQUE.b, handler: work:fail, retry: none}
        """
    )
    rabbit_project.handlers(FAILING)
    await rabbit_project.up_until_idle()
    failed = rabbit_project.name("failed")
    assert options_of(rabbitmq, failed) == {"x-queue-type": "quorum"}
    origins = {got.headers["x-runner-origin"] for got in foreign.take(failed)}
    assert origins == {rabbit_project.name("a"), rabbit_project.name("b")}
    assert not foreign.has_queue(rabbit_project.name("a.dead"))


async def test_a_subscriber_of_an_event_sets_the_options_of_its_own_queue(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker
) -> None:
    """`queue: {…}`, with the keys that declared queues have."""
    rabbit_project.pipeline(
        """
        version: 1
        events: {UNIQUE.paid: }
        producers:
          send: {handler: work:send, to: UNIQUE.paid}
        subscribers:
          book:
            from: UNIQUE.paid
            handler: work:fail
            retry: none
            queue: {dead_letter: UNIQUE.failed, max_length: 100, delivery_limit: 5}
        """
    )
    rabbit_project.handlers(FAILING)
    await rabbit_project.up_until_idle()
    assert [got.body for got in foreign.take(rabbit_project.name("failed"))] == [b"order"]
    options = options_of(rabbitmq, f"{rabbit_project.unique}.book")
    assert options["x-max-length"] == 100
    assert options["x-overflow"] == "reject-publish"
    assert options["x-delivery-limit"] == 5
    assert options["x-dead-letter-routing-key"] == rabbit_project.name("failed")


async def test_a_pipeline_can_be_cut_into_files(project: Project) -> None:
    """`include`: queues in one, subscribers in another, below the folder of the first."""
    project.pipeline(
        """
        version: 1
        include: [parts/queues.yaml]
        producers:
          send: {handler: work:send, to: UNIQUE.work}
        """
    )
    project.pipeline("queues: {UNIQUE.work: {}}\ninclude: subscribers.yaml\n", file="parts/queues.yaml")
    project.pipeline("subscribers: {hear: {from: UNIQUE.work, handler: work:hear}}\n", file="parts/subscribers.yaml")
    project.handlers(FAILING)
    await project.up_until_idle()
    assert project.heard() == ["work order"]


async def test_a_name_that_two_files_define_is_an_error(project: Project) -> None:
    """Exit 78, with both places; nothing runs."""
    project.pipeline("version: 1\ninclude: [more.yaml]\nqueues: {UNIQUE.work: {}}\n")
    project.pipeline("queues:\n  UNIQUE.work: {type: classic}\n", file="more.yaml")
    runner = await project.do("up", "--until-idle", code=78)
    assert "more.yaml:2" in runner.stderr
    assert f"{project.file}:3" in runner.stderr


MODES = """
    version: 1
    broker: {topology: MODE}
    queues: {UNIQUE.work: {}}
    events: {UNIQUE.paid: }
    producers:
      send: {handler: work:send, to: [UNIQUE.work, UNIQUE.paid]}
    subscribers:
      hear: {from: UNIQUE.work, handler: work:hear}
      book: {from: UNIQUE.paid, handler: work:hear, retry: {attempts: 2, delay: 70ms}}
"""


async def test_verify_checks_and_makes_nothing(rabbit_project: Project, foreign: Foreign) -> None:
    """What is missing, all of it: exit 69. When everything is there it runs; a difference is told, nothing changed."""
    rabbit_project.write(MODES.replace("MODE", "verify"), HEAR + "\n    def send(): return 'order'\n")
    own = f"{rabbit_project.unique}.book"
    runner = await rabbit_project.do("up", code=69)
    for name in (rabbit_project.name("work"), rabbit_project.name("work.dead"), own, f"{own}.dead"):
        assert f'queue "{name}" does not exist' in runner.stderr
        assert not foreign.has_queue(name)

    rabbit_project.pipeline(MODES.replace("MODE", "manage"))
    await rabbit_project.up_until_idle()
    rabbit_project.pipeline(MODES.replace("MODE", "verify"))
    await rabbit_project.up_until_idle()
    assert rabbit_project.heard() == ["book order"] * 2 + ["work order"] * 2

    rabbit_project.pipeline(MODES.replace("MODE", "verify").replace("work: {}", "work: {max_length: 9}"))
    runner = await rabbit_project.do("up", code=69)
    assert f'queue "{rabbit_project.name("work")}": x-max-length is none on the broker' in runner.stderr


async def test_ignore_neither_checks_nor_makes(rabbit_project: Project, foreign: Foreign) -> None:
    """What differs is used as it is; what is missing is noticed by whoever needs it."""
    rabbit_project.write(MODES.replace("MODE", "manage"), HEAR + "\n    def send(): return 'order'\n")
    await rabbit_project.up_until_idle()
    rabbit_project.pipeline(MODES.replace("MODE", "ignore").replace("work: {}", "work: {max_length: 9}"))
    await rabbit_project.up_until_idle()
    assert rabbit_project.heard() == ["book order"] * 2 + ["work order"] * 2

    foreign.channel.queue_delete(f"{rabbit_project.unique}.book")
    runner = await rabbit_project.do("up", code=69)
    assert f"{rabbit_project.unique}.book" in runner.stderr
    assert not foreign.has_queue(f"{rabbit_project.unique}.book")
