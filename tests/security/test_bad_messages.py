"""B1 to B9, as far as tests/e2e/test_bad_messages.py does not have them: hostile messages over real RabbitMQ."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from runner.message import MAX_BODY_BYTES
from tests.foreign import Foreign
from tests.project import Project, lines, stop, until

PIPELINE = """
    version: 1
    queues: {UNIQUE.work: {}, UNIQUE.text: {}, UNIQUE.once: {}}
    events: {UNIQUE.paid: {schema: work:Paid}}
    subscribers:
      any: {from: UNIQUE.work, handler: work:anything, retry: {attempts: 2, backoff: fixed, delay: 10ms}}
      text: {from: UNIQUE.text, handler: work:text, retry: {attempts: 2, backoff: fixed, delay: 10ms}}
      once: {from: UNIQUE.once, handler: work:text, dedupe: {window: 1h}}
      paid: {from: "UNIQUE.#", handler: work:text}
"""
HANDLERS = """
    import json
    from pydantic import BaseModel
    from runner import Message

    class Paid(BaseModel):
        amount: int

    def anything(order) -> None: note(json.dumps(order)[:200])
    def text(order: str, message: Message) -> None:
        note(order[:200], message.attempt)
        if order == "fail": raise RuntimeError("no\\n{\\"event\\": \\"forged\\"}\\x1b[31m\\u2028" + "x" * 2_000_000)
"""
JSON = {"content_type": "application/json"}
ZIP = {"content_encoding": "gzip"}

INVALID = {
    "an empty body": (b"", JSON),
    "NaN": (b'{"a": NaN}', JSON),
    "infinity": (b"[-Infinity]", JSON),
    "a lone surrogate": (b'"\\ud800"', JSON),
    "not UTF-8": (b'"\xff"', JSON),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), JSON),
    "100,000 deep": (b"[" * 100_000 + b"]" * 100_000, JSON),
    "100,000 deep in maps": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, JSON),
    "two values": (b"{} {}", JSON),
    "another encoding": (b"{}", {**JSON, "content_encoding": "br"}),
    "an encoding that is a line": (b"{}", {"content_encoding": 'gzip\n{"event": "forged"}'}),
}
BOMBS = {
    "a bomb": (gzip.compress(b"0" * 50_000_000), ZIP),
    "a bomb of deflate": (zlib.compress(b"0" * 50_000_000), {"content_encoding": "deflate"}),
    "a bomb of members": (gzip.compress(b"0" * 10_000_000) * 5, ZIP),
}


def prepare(project: Project) -> None:
    project.write(PIPELINE, HANDLERS)


async def test_bodies_that_cannot_be_read_are_kept_and_cost_nothing(rabbit_project: Project, foreign: Foreign) -> None:
    """One attempt each, no handler is called, memory stays where it was; bombs are kept as they came, not unpacked."""
    prepare(rabbit_project)
    work = rabbit_project.name("work")
    bad = INVALID | BOMBS
    async with rabbit_project.running() as runner:
        before = peak_of(runner.pid)
        for kind, (body, properties) in bad.items():
            foreign.publish(work, body, message_id=kind, **properties)
        foreign.publish(work, b'{"a": 1}', **JSON)
        await runner.wait_for(lambda _: len(lines(runner, "message.dead_lettered")) == len(bad), 30)
        await rabbit_project.ledger.wait_for(1)
        assert peak_of(runner.pid) - before < 40_000  # KiB: less than one of the bombs unpacked
    reasons = {line["message_id"]: line["reason"] for line in lines(runner, "message.dead_lettered")}
    assert reasons == dict.fromkeys(INVALID, "invalid") | dict.fromkeys(BOMBS, "too-large")
    assert {line["attempt"] for line in lines(runner, "message.dead_lettered")} == {1}
    assert not any("forged" in line["event"] for line in runner.logs)
    assert rabbit_project.ledger.payloads() == ['{"a": 1}']
    kept = {got.properties.message_id: got.body for got in foreign.take(f"{work}.dead")}
    assert kept == {kind: body for kind, (body, _) in bad.items()}


async def test_a_body_over_the_limit_is_kept_unread(rabbit_project: Project, foreign: Foreign) -> None:
    """Not parsed, one attempt, reason `too-large`, and as it came in the dead-letter queue; what follows is handled."""
    prepare(rabbit_project)
    body = b'"' + b"x" * MAX_BODY_BYTES + b'"'
    async with rabbit_project.running() as runner:
        foreign.publish(rabbit_project.name("work"), body, b'{"a": 1}', **JSON)
        await rabbit_project.ledger.wait_for(1)
        dead = await runner.wait_for(lambda line: line["event"] == "message.dead_lettered", 4)
    assert (dead["reason"], dead["attempt"]) == ("too-large", 1)
    assert [got.body for got in foreign.take(rabbit_project.name("work.dead"))] == [body]


async def test_numbers_and_keys_that_others_read_differently_are_handled_alike(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """A number of 4,000 digits and a key given twice (the last wins, as everywhere in Python) harm nobody."""
    prepare(rabbit_project)
    async with rabbit_project.running() as runner:
        foreign.publish(rabbit_project.name("work"), b'{"a": 1, "a": 2}', b"9" * 4000, b"1e400", **JSON)
        await runner.wait_for(lambda _: sum("duration_ms" in line for line in runner.logs) >= 3)
    assert '{"a": 2}' in rabbit_project.ledger.payloads()
    assert not any(line["event"] == "message.retry" for line in runner.logs if "1e400" in str(line))


FORGED = {
    "x-death": [{"queue": "other", "count": 10**9, "reason": "rejected", "routing-keys": ["x"]}],
    "x-delivery-count": 10**9,
    "x-acquired-count": 10**9,
    "x-first-death-queue": "other",
    "x-runner-attempt": 10**9,
    "x-runner-origin-key": "stolen",
    "x-runner-reason": "because",
}


async def test_headers_that_pretend_are_not_believed_and_not_sent_on(rabbit_project: Project, foreign: Foreign) -> None:
    """Forged deaths and attempts change nothing; CC and BCC do not send copies of a retry or a dead letter anywhere."""
    prepare(rabbit_project)
    text, thief = rabbit_project.name("text"), rabbit_project.name("thief")
    foreign.channel.queue_declare(thief)
    async with rabbit_project.running() as runner:
        for attempt in (-999, "abc", 10**9, None, [1], True):
            foreign.publish(text, f"{attempt}".encode(), headers={**FORGED, "x-runner-attempt": attempt})
        foreign.publish(text, b"fail", headers={**FORGED, "CC": [thief], "x-kept": "yes"})
        assert foreign.count(thief) == 1  # the broker's own doing, by the wish of who has published
        await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
        await rabbit_project.ledger.wait_for(8)
    assert {entry.attempt for entry in rabbit_project.ledger.entries() if entry.payload != "fail"} == {1}
    assert foreign.count(thief) == 1
    (dead,) = foreign.take(f"{text}.dead")
    assert (dead.headers["x-runner-attempt"], dead.headers["x-runner-reason"]) == (2, "exhausted")
    assert (dead.headers["x-runner-origin"], dead.headers["x-runner-origin-key"]) == (text, text)
    assert dead.headers["x-kept"] == "yes"
    assert not {"CC", "BCC", "x-first-death-queue"} & dead.headers.keys()


async def test_more_headers_than_a_frame_holds_stop_nothing(rabbit_project: Project, foreign: Foreign) -> None:
    """The most that comes in is cut to what goes out again; the retry and the dead letter are both taken over."""
    prepare(rabbit_project)
    text = rabbit_project.name("text")
    headers = {f"x-{number}": "h" * 1000 for number in range(120)}  # the broker's frames have 128 KiB
    async with rabbit_project.running() as runner:
        foreign.publish(text, b"fail", headers=headers, message_id="large")
        dead = await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
    assert dead["attempt"] == 2
    assert not lines(runner, "broker.lost")
    (kept,) = foreign.take(f"{text}.dead")
    assert 0 < sum(name.startswith("x-") and name[2:].isdigit() for name in kept.headers) < 120


async def test_headers_that_do_not_fit_are_refused_before_they_are_sent(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """A result with 200 KB of headers fails its own attempt, not the connection that all share."""
    prepare(rabbit_project)
    rabbit_project.handlers(
        """
        from runner import Publish
        def text(order: str): return Publish("x", to="UNIQUE.work", headers={"x-large": "h" * 200_000})
        anything = Paid = text
        """
    )
    rabbit_project.pipeline(
        PIPELINE.replace("    events: {UNIQUE.paid: {schema: work:Paid}}\n", "")
        .replace('paid: {from: "UNIQUE.#"', "paid: {from: UNIQUE.other")
        .replace("queues: {", "queues: {UNIQUE.other: {}, ")
    )
    async with rabbit_project.running() as runner:
        foreign.publish(rabbit_project.name("text"), b"go")
        dead = await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
    assert "headers" in dead["error"]
    assert not lines(runner, "broker.lost")


async def test_an_id_that_was_used_before_does_not_hide_another_message(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """With `dedupe`, an id and a body make a message; one without an id is always handled."""
    prepare(rabbit_project)
    once = rabbit_project.name("once")
    async with rabbit_project.running() as runner:
        foreign.publish(once, b"first", b"first", b"second", message_id="claimed")
        foreign.publish(once, b"nameless", b"nameless")
        await runner.wait_for(lambda _: len(lines(runner, "message.handled")) == 5)
    assert rabbit_project.ledger.counts() == {"first": 1, "second": 1, "nameless": 2}


async def test_an_event_that_nobody_knows_is_not_acknowledged_away(rabbit_project: Project, foreign: Foreign) -> None:
    """A type that is none of ours changes nothing: the message is known by its address, handled, and checked."""
    prepare(rabbit_project)
    paid = rabbit_project.name("paid")
    async with rabbit_project.running() as runner:
        foreign.publish(paid, b'{"amount": 1}', exchange="events", type="never.heard.of")
        for kind in (paid, "never.heard.of", None):
            foreign.publish(paid, b'{"amount": "all"}', exchange="events", type=kind)
        await rabbit_project.ledger.wait_for(1)
        await runner.wait_for(lambda _: len(lines(runner, "message.dead_lettered")) == 3)
    assert rabbit_project.ledger.payloads() == ['{"amount": 1}']
    assert {line["reason"] for line in lines(runner, "message.dead_lettered")} == {"invalid"}


@pytest.mark.parametrize("form", ["json", "console"])
async def test_nothing_of_a_message_writes_the_log(rabbit_project: Project, foreign: Foreign, form: str) -> None:
    """Id, correlation, type and error: line breaks, terminal codes and a megabyte come out as one short line each."""
    prepare(rabbit_project)
    evil = '\n{"event": "forged"}\r\x1b]0;title\x07\x1b[2J\u2028\u202e\x85'
    async with rabbit_project.up("--log-format", form, "--only", "text") as runner:
        await until(lambda: "running" in runner.stderr, "the start")
        foreign.publish(rabbit_project.name("text"), b"fail", message_id=evil, correlation_id=evil, type=evil[:100])
        await until(lambda: "message.dead_lettered" in runner.stdout, "the end of the message")
        await stop(runner)
    assert not any(character in runner.stdout for character in "\x1b\x07\r\u2028\x85")
    assert max(map(len, runner.stdout.split("\n"))) < 50_000
    if form == "json":
        assert not any("forged" in json.loads(line)["event"] for line in runner.stdout.splitlines())
    (dead,) = foreign.take(rabbit_project.name("text.dead"))
    assert len(dead.headers["x-runner-error"]) <= 1024
    assert dead.headers["x-runner-error"].isprintable()


def peak_of(pid: int) -> int:
    """Return the most memory that a process has had, in KiB."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
