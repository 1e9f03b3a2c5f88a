"""Streams with subscribers: where they begin, who reads them, and what becomes of failures."""

from __future__ import annotations

import json
import signal

from tests.foreign import Foreign
from tests.process import RunnerProcess
from tests.project import Project, lines, started, stop, until

PIPELINE = """
    version: 1
    queues: {UNIQUE.history: {type: stream}, UNIQUE.mended: {}}
    producers: {send: {handler: work:send, to: UNIQUE.history}}
    subscribers:
      audit: {from: UNIQUE.history, handler: work:audit, retry: {attempts: 3, delay: 10ms}}
      copy: {from: UNIQUE.history, handler: work:copy, order_by: key, retry: {attempts: 2, delay: 10ms}}
      mend: {from: UNIQUE.mended, handler: work:mend}
"""
AUDIT = """
    version: 1
    queues: {UNIQUE.history: {type: stream}}
    subscribers:
      audit: {from: UNIQUE.history, handler: work:audit}
"""
HANDLERS = """
    from runner import Message

    def send():
        for number in range(5):
            yield {"key": number % 2, "number": number}

    def audit(item: dict, message: Message) -> None:
        number = item["number"]
        note(f"audit-{number}", message.attempt)
        if number == 1 and message.attempt < 3 or number == 3:
            raise ValueError("no")

    def copy(item: dict, message: Message) -> None:
        note(f"copy-{item['number']}", message.attempt)
        if item["number"] == 0 and message.attempt == 1:
            raise ValueError("no")

    def mend(item: dict) -> None:
        note(f"mended-{item['number']}")
"""


def send(foreign: Foreign, project: Project, *numbers: int, **properties: object) -> None:
    bodies = [json.dumps({"key": 0, "number": number}).encode() for number in numbers]
    foreign.publish_confirmed(project.name("history"), *bodies, content_type="application/json", **properties)


def begins(runner: RunnerProcess) -> list[object]:
    return [line["offset"] for line in lines(runner, "stream.reading")]


async def test_a_stream_is_read_from_its_first_message_and_then_goes_on(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """Retries wait in the process. A dead letter belongs to its subscriber, and goes back to no other one.

    What a publisher writes into the header of the offset counts for nothing.
    """
    rabbit_project.write(PIPELINE, HANDLERS)
    dead = rabbit_project.name("audit.dead")
    await rabbit_project.do("up --only send --until-idle")
    async with rabbit_project.running("--except", "send") as runner:
        await rabbit_project.ledger.wait_for(15)
        await until(lambda: foreign.count(dead) == 1, "3 is given up")
        refused = await rabbit_project.do("dead replay", "audit", code=1)
        assert "is a stream, and each of its subscribers would get it: name a queue with --to" in refused.stderr
        await rabbit_project.do("dead replay", "audit", "--to", rabbit_project.name("mended"))
        await rabbit_project.ledger.wait_for(16)
    handled = rabbit_project.ledger.payloads()
    counts = {"audit-0": 1, "audit-1": 3, "audit-2": 1, "audit-3": 3, "audit-4": 1, "mended-3": 1}
    copies = {"copy-0": 2, "copy-1": 1, "copy-2": 1, "copy-3": 1, "copy-4": 1}
    assert rabbit_project.ledger.counts() == counts | copies
    assert [each for each in handled if each in ("copy-0", "copy-2", "copy-4")] == [
        *("copy-0", "copy-0", "copy-2", "copy-4")
    ]
    send(foreign, rabbit_project, 5, headers={"x-stream-offset": 1000})
    async with rabbit_project.running("--only", "audit") as runner:
        send(foreign, rabbit_project, 6)
        await rabbit_project.ledger.wait_for(18)
    assert sorted(rabbit_project.ledger.payloads()[16:]) == ["audit-5", "audit-6"]
    assert begins(runner) == ["5"]


async def test_another_process_takes_over_where_a_killed_one_was(rabbit_project: Project, foreign: Foreign) -> None:
    """One reads, and the other stands by. What was not settled is handled again, and nothing is lost."""
    rabbit_project.pipeline(AUDIT)
    rabbit_project.handlers(
        """
        import asyncio, os

        async def audit(item: dict) -> None:
            note(item["number"])
            while item["number"] == 7 and not os.path.exists("may_end"):
                await asyncio.sleep(0.01)
        """
    )
    async with rabbit_project.up() as first, rabbit_project.up() as second:
        await started(first, second)
        await until(lambda: begins(first) or begins(second), "one reads")
        reads, waits = (first, second) if begins(first) else (second, first)
        send(foreign, rabbit_project, *range(10))
        await rabbit_project.ledger.wait_for(10)
        assert {each.pid for each in rabbit_project.ledger.entries()} == {reads.pid}
        reads.signal(signal.SIGKILL)
        (rabbit_project.folder / "may_end").touch()
        await reads.wait()
        await until(lambda: begins(waits), "the other one takes over")
        send(foreign, rabbit_project, 10)
        await until(lambda: "10" in rabbit_project.ledger.payloads(), "it goes on")
        await stop(waits)
    again = [each.payload for each in rabbit_project.ledger.entries() if each.pid == waits.pid]
    assert {"7", "10"} <= set(again)
    assert len(rabbit_project.ledger.counts()) == 11


async def test_other_offsets_count_at_each_start(rabbit_project: Project, foreign: Foreign) -> None:
    """`stored` goes on where another offset has come to."""
    rabbit_project.handlers("def audit(item: dict) -> None: note(item['number'])")

    async def read(offset: str, published: int, least: int) -> None:
        """All messages from `least` on are handled, once, when another one is published."""
        rabbit_project.pipeline(AUDIT.replace("work:audit", f"work:audit, offset: {offset}"))
        before = len(rabbit_project.ledger.payloads())
        async with rabbit_project.running() as runner:
            await until(lambda: begins(runner), "it reads")
            send(foreign, rabbit_project, published)
            await until(lambda: str(published) in rabbit_project.ledger.payloads()[before:], "the last one is handled")
        handled = rabbit_project.ledger.payloads()[before:]
        assert sorted(handled, key=int) == [str(number) for number in range(least, published + 1)]

    rabbit_project.pipeline(AUDIT)
    await rabbit_project.do("apply")
    send(foreign, rabbit_project, 0)
    await read("next", 1, 1)
    await read("stored", 2, 2)
    await read("first", 3, 0)
    await read("1h", 4, 0)
    await read("stored", 5, 5)


async def test_what_never_becomes_idle(rabbit_project: Project) -> None:
    """A stream keeps its messages, so nothing says that all are handled."""
    rabbit_project.write(PIPELINE, HANDLERS)
    refused = await rabbit_project.do("up --until-idle", code=2)
    assert "which never becomes empty" in refused.stderr
    assert "leave --until-idle out, or add --except audit" in refused.stderr
