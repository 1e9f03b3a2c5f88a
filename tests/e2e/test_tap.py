"""`runner tap`: messages are seen as they go by, and everybody else gets what they would have got."""

from __future__ import annotations

import json
import signal

import pytest

from tests.foreign import Foreign
from tests.node import Broker
from tests.process import RunnerProcess
from tests.project import Project, until

PIPELINE = """
    version: 1
    queues:
      UNIQUE.orders:
      UNIQUE.mail: {events: [UNIQUE.paid]}
      UNIQUE.pdf: {bind: [{exchange: UNIQUE.hdr, headers: {kind: pdf}, match: all}]}
    exchanges:
      UNIQUE.hdr: headers
    events:
      UNIQUE.paid:
      UNIQUE.refunded:
    subscribers:
      handle: {from: UNIQUE.orders, handler: work:handle}
      mail: {from: UNIQUE.mail, handler: work:handle}
      hear: {from: [UNIQUE.paid, UNIQUE.refunded], handler: work:handle}
      print: {from: UNIQUE.pdf, handler: work:handle}
"""
HANDLERS = "def handle(payload) -> None: note(payload)"


@pytest.fixture
async def shop(rabbit_project: Project) -> Project:
    """A project whose topology is there."""
    rabbit_project.write(PIPELINE, HANDLERS)
    await rabbit_project.up_until_idle()
    return rabbit_project


def tap(project: Project, name: str, *arguments: str) -> RunnerProcess:
    return project.run("tap", project.file, name, *arguments, *project.place.arguments)


async def listening(runner: RunnerProcess) -> None:
    await until(lambda: "listening to" in runner.stderr, "the tap listens")


async def ended(runner: RunnerProcess, code: int = 0) -> None:
    assert await runner.wait() == code, runner.stderr
    assert "Traceback" not in runner.stderr


@pytest.mark.parametrize("place", ["event", "queue", "subscriber", "pattern"])
async def test_copies_go_by_and_nobody_misses_anything(shop: Project, foreign: Foreign, place: str) -> None:
    """The real queues get all of it, in order, whatever is tapped."""
    name = {"event": shop.name("paid"), "queue": shop.name("mail"), "subscriber": "hear", "pattern": f"{shop.unique}.#"}
    bodies = [str(number).encode() for number in range(200)]
    async with tap(shop, name[place], "--json", "--limit", "200") as runner:
        await listening(runner)
        foreign.publish(shop.name("paid"), *bodies, exchange="events", type=shop.name("paid"), headers={"mine": 1})
        await ended(runner)
    seen = [json.loads(line) for line in runner.stdout.splitlines()]
    assert [each["body"].encode() for each in seen] == bodies
    assert {(each["event"], each["exchange"], each["routing_key"]) for each in seen} == {
        (shop.name("paid"), "events", shop.name("paid"))
    }
    assert seen[0]["headers"] == {"mine": 1}
    assert "200 messages" in runner.stderr
    assert [got.body for got in foreign.take(shop.name("mail"))] == bodies
    assert [got.body for got in foreign.take(f"{shop.unique}.hear")] == bodies


async def test_the_handler_gets_everything_while_somebody_watches(shop: Project, foreign: Foreign) -> None:
    """With `runner up` at work beside it."""
    async with shop.up() as up, tap(shop, shop.name("mail")) as runner:
        await up.wait_for(lambda line: line["event"] == "pipeline.started")
        await listening(runner)
        foreign.publish(shop.name("paid"), *(f"order {number}".encode() for number in range(50)), exchange="events")
        await shop.ledger.wait_for(100)
        await until(lambda: len(runner.stdout.splitlines()) == 50, "all went by")
        runner.signal(signal.SIGINT)
        await ended(runner)
    assert set(shop.ledger.counts().values()) == {2}  # two subscribers hear it
    assert "order 7" in runner.stdout
    assert "not covered: messages published to queue" in runner.stderr


async def test_nothing_is_left_on_the_broker(shop: Project, rabbitmq: Broker) -> None:
    """The tap's queue goes with it, also when it is killed."""
    async with tap(shop, shop.name("paid")) as runner:
        await listening(runner)
        assert ".tap." in rabbitmq.ctl("list_queues", "name")
        runner.signal(signal.SIGKILL)
        await runner.wait()
    await until(lambda: f"{shop.unique}.tap." not in rabbitmq.ctl("list_queues", "name"), "the queue is gone")


async def test_bindings_by_headers_are_the_same(shop: Project, foreign: Foreign) -> None:
    """A queue that is bound to a headers exchange is tapped by the same arguments."""
    async with tap(shop, "print", "--json", "--limit", "1") as runner:
        await listening(runner)
        foreign.publish("", b"no", exchange=shop.name("hdr"), headers={"kind": "txt"})
        foreign.publish("", b"yes", exchange=shop.name("hdr"), headers={"kind": "pdf"})
        await ended(runner)
    assert json.loads(runner.stdout)["body"] == "yes"
    assert foreign.count(shop.name("pdf")) == 1


async def test_a_queue_without_bindings_says_so(shop: Project, foreign: Foreign) -> None:
    """Nothing could be seen without taking it: exit 2, why, and what to do instead."""
    foreign.publish(shop.name("orders"), b"stays")
    for name in (shop.name("orders"), "handle"):
        async with tap(shop, name) as runner:
            await ended(runner, 2)
        assert "is not bound to an exchange" in runner.stderr
        assert "= help: bind it to an event" in runner.stderr
    assert foreign.count(shop.name("orders")) == 1


async def test_what_was_recorded_can_be_published_again(shop: Project, foreign: Foreign) -> None:
    """--record writes lines that a producer with `file:` reads; what is neither JSON nor text is counted."""
    bodies = [b'{"a": 1.10,\r\n "b": "x"}', "text ünd\nlines".encode(), b"17", b"\xff\xfe\x00", b"[]"]
    async with tap(shop, shop.name("paid"), "--record", "seen.jsonl", "--limit", "5") as runner:
        await listening(runner)
        foreign.publish(shop.name("paid"), *bodies, exchange="events")
        await ended(runner)
    assert "1 not recorded" in runner.stderr
    assert (shop.folder / "seen.jsonl").stat().st_mode & 0o777 == 0o600, "messages are nobody else's business"
    shop.pipeline(
        """
        version: 1
        queues: {UNIQUE.again: {}}
        producers:
          replay: {file: seen.jsonl, to: UNIQUE.again}
        subscribers:
          handle: {from: UNIQUE.again, handler: work:handle}
        """,
        "again.yaml",
    )
    async with shop.run("up", "again.yaml", "--until-idle", "--only", "replay", *shop.place.arguments) as runner:
        await ended(runner)
    again = [got.body.decode() for got in foreign.take(shop.name("again"))]
    assert again == ['{"a": 1.10,   "b": "x"}', '"text ünd\\nlines"', "17", "[]"]


async def test_a_slow_reader_hurts_nobody(shop: Project, foreign: Foreign) -> None:
    """Nobody reads its output: messages still flow, the tap lets go of old ones and says how many."""
    async with tap(shop, shop.name("paid"), "--json") as runner:
        await listening(runner)
        runner.pause_reading()
        try:
            foreign.publish(shop.name("paid"), *[b"x" * 1000] * 3000, exchange="events")
            await until(lambda: foreign.count(shop.name("mail")) == 3000, "the real queue has everything")
        finally:
            runner.resume_reading()
        await until(lambda: "x" in runner.stdout, "it writes again")
        runner.signal(signal.SIGINT)
        await ended(runner)
    assert " missed: they arrived faster than they could be written" in runner.stderr


async def test_hostile_messages_are_escaped(shop: Project, foreign: Foreign) -> None:
    """A message is one line, without control characters, and not too long."""
    nasty = "\x1b[31m\n\x07\u202e\u2028"
    async with tap(shop, shop.name("paid"), "--limit", "2") as runner:
        await listening(runner)
        foreign.publish(shop.name("paid"), nasty.encode() + b"y" * 100_000, b"\xff", exchange="events", type=nasty)
        await ended(runner)
    assert len(runner.stdout.splitlines()) == 2
    assert len(runner.stdout) < 10_000
    assert not set(runner.stdout) & set(nasty.replace("\n", "").replace("[31m", ""))


async def test_a_reader_that_goes_away_ends_it(shop: Project, foreign: Foreign) -> None:
    """As after `| head`: no traceback."""
    async with tap(shop, shop.name("paid")) as runner:
        await listening(runner)
        runner.stop_reading()
        foreign.publish(shop.name("paid"), *[b"x"] * 50, exchange="events")
        await ended(runner)


async def test_what_cannot_be_tapped_is_one_line(
    rabbit_project: Project, memory_project: Project, foreign: Foreign
) -> None:
    """Unknown names, the in-process broker, exchanges that are not there yet."""
    for project in (rabbit_project, memory_project):
        project.write(PIPELINE.replace("UNIQUE.refunded:", "UNIQUE.refunded: {exchange: UNIQUE.none}"), HANDLERS)
    async with tap(memory_project, memory_project.name("paid")) as runner:
        await ended(runner, 2)
    assert "there is no live broker to inspect" in runner.stderr
    async with tap(rabbit_project, rabbit_project.name("payd")) as runner:
        await ended(runner, 2)
    assert f'did you mean "{rabbit_project.name("paid")}"?' in runner.stderr
    async with tap(rabbit_project, rabbit_project.name("refunded")) as runner:
        await ended(runner, 69)
    assert f'exchange "{rabbit_project.name("none")}" does not exist' in runner.stderr
