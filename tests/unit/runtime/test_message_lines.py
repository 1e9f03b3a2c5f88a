"""The messages that are logged: all, those that fail, or a share of the flows; or only a summary."""

from __future__ import annotations

from typing import Any

import pytest

from runner import Message
from runner.message import Envelope
from runner.runtime.message_lines import line_filter
from tests.unit.runtime.running import Run, run

PIPELINE = """
logging: LOGGING
queues: {q: , out: }
producers: {p: {handler: 'h:produce', to: q}}
defaults: {subscriber: {retry: {attempts: 2, delay: 10s}}}
subscribers:
  s: {from: q, handler: 'h:handle', to: out, concurrency: 1}
  t: {from: out, handler: 'h:take'}
"""
COUNT = 400


def logged(logging: str, **how: Any) -> Run:
    """Handle many messages; every hundredth fails once, one fails for good."""
    record = Run()

    async def produce() -> list[int]:
        return list(range(COUNT))

    async def handle(number: int, message: Message) -> int:
        if number == 7 or (number % 100 == 0 and message.attempt == 1):
            raise ValueError(number)
        return number

    async def take(number: int) -> None:
        record.note(number)

    run(
        PIPELINE.replace("LOGGING", logging),
        {"produce": produce, "handle": handle, "take": take},
        record,
        **how,
    )
    assert len(record.things) == COUNT - 1
    assert len(record.events("message.retry")) == 5
    assert len(record.events("message.dead_lettered")) == 1
    (stopped,) = record.events("pipeline.stopped")
    counts = {name: stopped[name] for name in ("handled", "retried", "dead_lettered", "published")}
    assert counts == {"handled": 2 * COUNT - 2, "retried": 5, "dead_lettered": 1, "published": COUNT}
    return record


def flows(record: Run, event: str) -> set[str]:
    return {line["correlation_id"] for line in record.events(event)}


@pytest.mark.parametrize("value", ["all", "true", "100%"])
def test_all_have_a_line(value: str) -> None:
    record = logged(f"{{messages: {value}}}")
    assert len(record.events("message.published")) == COUNT
    assert len(record.events("message.handled")) == 2 * COUNT - 2
    assert not record.events("message.summary")


@pytest.mark.parametrize("value", ["errors", "false"])
def test_only_what_fails_has_a_line(value: str) -> None:
    record = logged(f"{{messages: {value}}}")
    events = {line["event"] for line in record.lines if line["event"].startswith("message.")}
    assert events == {"message.retry", "message.dead_lettered"}


def test_a_share_applies_to_whole_flows() -> None:
    """A flow has all its lines (published, handled, its result handled), or none."""
    record = logged("{messages: 25%}")
    sampled = flows(record, "message.published")
    assert COUNT * 0.15 < len(sampled) < COUNT * 0.35
    ended = [line["correlation_id"] for line in record.events("message.handled")]
    dead = flows(record, "message.dead_lettered")
    assert set(ended) == sampled - dead
    assert len(ended) == 2 * len(sampled - dead)


def test_a_summary_counts_the_messages_since_the_last_one() -> None:
    """A summary comes in each interval with messages and at the end; the sums are the totals."""
    record = logged("{messages: summary, every: 4s}", for_s=60)
    summaries = record.events("message.summary")
    assert {line["event"] for line in record.lines if line["event"].startswith("message.")} == {
        "message.summary",
        "message.retry",
        "message.dead_lettered",
    }
    assert {line.get("subscriber") or line["producer"] for line in summaries} == {"s", "t", "p"}
    (stopped,) = record.events("pipeline.stopped")
    for name in ("handled", "retried", "dead_lettered", "released", "published"):
        assert sum(line.get(name, 0) for line in summaries) == stopped[name]
    assert {line["during_s"] for line in summaries} == {4.0}


def test_a_message_without_ids_is_sampled_like_others() -> None:
    """All messages without ids count as one flow."""
    assert line_filter("100%")(Envelope(b""))
    assert not line_filter("errors")(Envelope(b"", message_id="a"))
    assert isinstance(line_filter("0.5%")(Envelope(b"", message_id="\udcff")), bool)
