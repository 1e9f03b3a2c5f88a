"""Expectations of a test file against records of what happened: what is a failure, where it points, and its story."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runner.config.suite_loader import read_suite
from runner.testing.expectations import Comparison, Failure, story_lines
from runner.testing.records import Record, RecordKind

START = datetime(2026, 3, 28, tzinfo=UTC)


def record(kind: RecordKind, at_s: float = 0.0, *, id: str = "o-1", payload: Any = None, **fields: Any) -> Record:
    headers = fields.pop("headers", {})
    return Record(
        kind=kind, at=START + timedelta(seconds=at_s), message_id=id, payload=payload, headers=headers, **fields
    )


def shipped(payload: Any = None, at_s: float = 0.0, id: str = "s-1", **fields: Any) -> Record:
    return record("published", at_s, id=id, payload=payload, to="order.shipped", subscriber="ship", **fields)


def dead(at_s: float = 0.0, **fields: Any) -> Record:
    given = {"queue": "shop.ship", "subscriber": "ship", "reason": "exhausted", "error_type": "CarrierAway"}
    return record("dead", at_s, **(given | {"error": "the carrier is away", "payload": {"order": 1}} | fields))


def answered(at_s: float = 0.0, **fields: Any) -> Record:
    return record("answered", at_s, **({"to": "quotes", "payload": {"cents": 7}} | fields))


RETRIES = [
    record("retried", after, attempt=attempt, subscriber="ship", queue="shop.ship", after=after)
    for attempt, after in ((1, 1.0), (2, 2.0), (3, 4.0))
]


@pytest.fixture
def compare(tmp_path: Path) -> Any:
    """Return the failures of one test with an expectation."""

    def failures(expect: str, *records: Record) -> list[Failure]:
        path = tmp_path / "shop.test.yaml"
        path.write_text(f"version: 1\npipelines: [shop.yaml]\ntests:\n  paid:\n    expect: {expect}\n")
        read = read_suite(path)
        assert read.spec is not None, read.file.problems
        comparison = Comparison(read.file, ("tests", "paid"), records, START)
        return list(comparison.failures(read.spec.tests["paid"].expect))

    return failures


@pytest.mark.parametrize(
    ("expect", "records"),
    [
        ("{handled: {ship: 1}}", [record("handled", subscriber="ship")]),
        ("{handled: {ship: 0}}", [record("handled", subscriber="send_receipt")]),
        ("{duplicates: {ship: 1}, unheard: {audit: 1}}", [record("duplicate", subscriber="ship"), record("unheard", to="audit")]),
        ("{retried: {ship: 3}}", RETRIES),
        ("{retried: {ship: {after: [1s, 2s, 4s]}}}", RETRIES),
        ("{retried: {ship: {count: 3, after: [1s, 2s, 4s]}}}", RETRIES),
        ("{published: none, dead: none}", [record("published", to="order.paid")]),  # by the test itself
        ("{published: [{to: order.shipped}]}", [shipped()]),
        ("{published: [{to: order.shipped}]}", [shipped(), record("published", to="other", subscriber="ship")]),
        ("{published: [{to: order.shipped, payload: {order: 1}}]}", [shipped({"order": 1, "parcel": 5})]),
        ("{published: [{to: order.shipped, payload: {a: {b: 1}}}]}", [shipped({"a": {"b": 1, "c": 2}})]),
        ("{published: [{to: order.shipped, payload: [{b: 1}]}]}", [shipped([{"b": 1, "c": 2}])]),
        ("{published: [{to: order.shipped, exactly: {order: 1}}]}", [shipped({"order": 1})]),
        ("{published: [{to: order.shipped, exactly: null}]}", [shipped(None)]),
        ("{published: [{to: order.shipped, payload: 1.0}]}", [shipped(1)]),
        ("{published: [{to: order.shipped, headers: {a: b}}]}", [shipped(headers={"a": "b", "c": "d"})]),
        ("{published: [{to: order.shipped, id: s-1, at: 5s}]}", [shipped(at_s=5)]),
        ('{published: [{to: order.shipped, at: "2026-03-28T02:00:05+02:00"}]}', [shipped(at_s=5)]),
        ("{published: [{to: order.shipped, times: 2}]}", [shipped(), shipped()]),
        ("{published: [{to: order.shipped, times: 0}]}", []),
        ("{published: [{to: order.shipped, payload: 2, times: 0}]}", [shipped(1)]),
        # the specific item needs the first message, so the general one must take the second
        ("{published: [{to: order.shipped}, {to: order.shipped, payload: {a: 1}}]}", [shipped({"a": 1}), shipped({"a": 2})]),
        ("{published: [{to: order.shipped, times: 3000}]}", [shipped(n) for n in range(3000)]),
        ("{published: [{to: order.shipped, payload: {a: 1}, times: 2}, {to: order.shipped, times: 2}]}", [shipped({"a": n}) for n in (1, 2, 1, 3)]),
        ("{published: [{to: order.shipped, delay: 2h, expires: 1d, priority: 5}]}", [shipped(delay=7200.0, expires=86400.0, priority=5)]),
        ("{answers: none}", []),
        ("{answers: [{to: quotes, id: o-1, payload: {cents: 7}, at: 1s}]}", [answered(1)]),
        ("{answers: [{id: o-1, reason: rejected, error_type: Reject, error: truck}]}", [answered(payload=None, reason="rejected", error_type="Reject", error="by truck")]),
        ("{dead: [{}]}", [dead()]),
        ("{dead: [{queue: shop.ship, reason: exhausted, error_type: CarrierAway, error: is away}]}", [dead()]),
        ("{dead: [{subscriber: ship, payload: {order: 1}, id: o-1, at: 7s}]}", [dead(7)]),
    ],
)  # fmt: skip
def test_what_is_as_expected_is_no_failure(compare: Any, expect: str, records: list[Record]) -> None:
    """Each key of an expectation, with what meets it."""
    assert compare(expect, *records) == []


@pytest.mark.parametrize(
    ("expect", "records", "at", "message"),
    [
        ("{handled: {ship: 1}}", [], "1", "expect.handled.ship: expected 1, got 0"),
        ("{handled: {ship: 0}}", [record("handled", subscriber="ship")], "0", "expect.handled.ship: expected 0, got 1"),
        ("{duplicates: {ship: 1}}", [], "1", "expect.duplicates.ship: expected 1, got 0"),
        ("{unheard: {audit: 2}}", [record("unheard", to="audit")], "2", "expect.unheard.audit: expected 2, got 1"),
        ("{retried: {ship: 2}}", RETRIES, "2", "expect.retried.ship.count: expected 2, got 3"),
        ("{retried: {ship: {count: 2}}}", RETRIES, "2", "expect.retried.ship.count: expected 2, got 3"),
        ("{retried: {ship: {after: [1s, 3s]}}}", RETRIES, "[1s, 3s]", "expect.retried.ship.after: expected [1s, 3s], got [1s, 2s, 4s]"),
        ("{retried: {ship: {after: [1s]}}}", [], "[1s]", "expect.retried.ship.after: expected [1s], got none"),
        ("{published: none}", [shipped(1)], "none", "expect.published: expected none, got 1"),
        ("{published: [{to: order.shipped}]}", [], "order.shipped", "expect.published.0.to: expected this message, got none"),
        ("{published: [{to: order.shipped, payload: {order: 1}}]}", [shipped({"order": 2})], "1", "expect.published.0.payload.order: expected 1, got 2"),
        ("{published: [{to: order.shipped, payload: {order: 1}}]}", [shipped({})], "1", "expect.published.0.payload.order: expected 1, got no such key"),
        ("{published: [{to: order.shipped, payload: {order: 1}}]}", [shipped("text")], "{order: 1}", 'expect.published.0.payload: expected {"order": 1}, got "text"'),
        ("{published: [{to: order.shipped, payload: true}]}", [shipped(1)], "true", "expect.published.0.payload: expected true, got 1"),
        ("{published: [{to: order.shipped, payload: [1]}]}", [shipped([1, 2])], "[1]", "expect.published.0.payload: expected [1], got [1, 2]"),
        ("{published: [{to: order.shipped, exactly: {a: 1}}]}", [shipped({"a": 1, "b": 2})], "exactly", "expect.published.0.exactly.b: expected no such key, got 2"),
        ("{published: [{to: order.shipped, headers: {a: b}}]}", [shipped(headers={"a": "c"})], "b", 'expect.published.0.headers.a: expected "b", got "c"'),
        ("{published: [{to: order.shipped, id: s-2}]}", [shipped()], "s-2", 'expect.published.0.id: expected "s-2", got "s-1"'),
        ("{published: [{to: order.shipped, at: 5s}]}", [shipped(at_s=6)], "5s", "expect.published.0.at: expected 5s, got 6s"),
        ("{published: [{to: order.shipped, at: 2026-03-28T05:00:00Z}]}", [shipped()], "2026-03-28T05:00:00Z", "expect.published.0.at: expected 2026-03-28T05:00:00Z, got 2026-03-28T00:00:00Z"),
        ("{published: [{to: order.shipped}]}", [shipped(1), shipped(2)], "{to: order.shipped}", "expect.published.0: expected no more, got 1"),
        ("{published: [{to: order.shipped, times: 0}]}", [shipped(1), shipped(2)], "{to: order.shipped, times: 0}", "expect.published.0: expected none, got 2"),
        ("{published: [{to: order.shipped, delay: 1h}]}", [shipped(delay=7200.0)], "1h", "expect.published.0.delay: expected 1h, got 2h"),
        ("{published: [{to: order.shipped, expires: 1d}]}", [shipped()], "1d", "expect.published.0.expires: expected 1d, got none"),
        ("{published: [{to: order.shipped, priority: 5}]}", [shipped(priority=0)], "5", "expect.published.0.priority: expected 5, got 0"),
        ("{answers: none}", [answered()], "none", "expect.answers: expected none, got 1"),
        ("{answers: [{to: quotes}]}", [], "quotes", "expect.answers.0.to: expected this message, got none"),
        ("{answers: [{to: prices}]}", [answered()], "prices", 'expect.answers.0.to: expected "prices", got "quotes"'),
        ("{answers: [{reason: timeout}]}", [answered()], "timeout", 'expect.answers.0.reason: expected "timeout", got null'),
        ("{answers: [{id: o-1}]}", [answered(payload=None, reason="timeout")], "{id: o-1}", "expect.answers.0: expected an answer, got none: timeout"),
        ("{dead: none}", [dead()], "none", "expect.dead: expected none, got 1"),
        ("{dead: [{reason: rejected}]}", [dead()], "rejected", 'expect.dead.0.reason: expected "rejected", got "exhausted"'),
        ("{dead: [{error_type: Reject}]}", [dead()], "Reject", 'expect.dead.0.error_type: expected "Reject", got "CarrierAway"'),
        ("{dead: [{error: ship}]}", [dead()], "ship", 'expect.dead.0.error: expected "ship", got "the carrier is away"'),
        ("{dead: [{queue: a}]}", [dead()], "a", 'expect.dead.0.queue: expected "a", got "shop.ship"'),
        ("{dead: [{subscriber: b}]}", [dead()], "b", 'expect.dead.0.subscriber: expected "b", got "ship"'),
    ],
)  # fmt: skip
def test_a_failure_points_at_its_own_line(
    compare: Any, expect: str, records: list[Record], at: str, message: str
) -> None:
    """With its text: the value that is not met is underlined, and what was there instead is said."""
    (failure,) = compare(expect, *records)
    problem = failure.problem
    line = Path(problem.file).read_text().splitlines()[problem.line - 1]
    assert line[problem.column - 1 :][: problem.length] == at
    assert f"{problem.path}: {problem.message}" == message
    assert problem.code == "unmet-expectation"


def test_the_closest_message_is_compared(compare: Any) -> None:
    """Of two messages, the one that is as expected is paired, and the other one is explained key by key."""
    expect = (
        "{published: [{to: order.shipped, payload: {order: 1, a: 1}}, {to: order.shipped, payload: {order: 2, a: 2}}]}"
    )
    far = shipped({"order": 4, "a": 4, "b": 4}, id="s-4", at_s=9)
    failures = compare(
        expect.replace("a: 1}}", "a: 1}, at: 0s}"), far, shipped({"order": 2, "a": 2}), shipped({"order": 3, "a": 3})
    )
    assert [each.problem.path for each in failures] == ["expect.published.0.payload.order", "expect.published.1"]
    assert failures[0].differences == ("payload.order: expected 1, got 3", "payload.a: expected 1, got 3")
    (failure,) = compare(expect, shipped({"order": 2, "a": 2}), shipped({"order": 3, "a": 3}))
    assert failure.problem.path == "expect.published.0.payload.order"
    assert failure.differences == ("payload.order: expected 1, got 3", "payload.a: expected 1, got 3")


def test_many_messages_that_are_other_than_expected_are_one_failure(compare: Any) -> None:
    """The closest of the first ones is compared; a test that goes wrong a thousand times is still readable."""
    (failure,) = compare("{published: [{to: order.shipped, payload: 0, times: 2000}]}", *map(shipped, range(1, 2001)))
    assert failure.problem.message == "expected 0, got 1"
    (failure,) = compare("{published: [{to: order.shipped, times: 3}]}", shipped(), shipped())
    assert failure.problem.message == "1 of them are missing"
    (failure,) = compare("{dead: none}", *[dead()] * 2000)
    assert failure.problem.message == "expected none, got 2000"
    assert len(failure.differences) == 20


def test_all_failures_are_reported(compare: Any) -> None:
    """Not only the first."""
    failures = compare("{handled: {ship: 1, book: 1}, dead: none}", dead(), dead())
    assert [each.problem.path for each in failures] == ["expect.handled.ship", "expect.handled.book", "expect.dead"]


def test_the_story_is_that_of_the_messages_concerned(compare: Any) -> None:
    """With what caused them and what they caused, and without others."""
    records = [
        record("published", id="p-1", to="payment", payload=1),
        record("published", id="p-2", to="payment", payload=2),
        record("published", id="o-1", to="order.paid", subscriber="book", cause="p-1", payload=1),
        record("handled", id="p-1", subscriber="book"),
        record("handled", id="p-2", subscriber="book"),
        record(
            "retried", 1.5, id="o-1", subscriber="ship", attempt=1, after=3.0, error_type="CarrierAway", error="away"
        ),
    ]
    (failure,) = compare("{retried: {ship: 0}}", *records)
    assert [each.message_id for each in failure.story] == ["p-1", "o-1", "p-1", "o-1"]
    assert story_lines(failure.story, START) == [
        "  +0s  published  the test → payment · 1                                 p-1",
        "  +0s  published  book → order.paid · 1                                  o-1",
        "  +0s  handled    book                                                   p-1",
        "+1.5s  retried    ship · attempt 1 · again after 3s · CarrierAway: away  o-1",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "+0s"), (0.25, "+0.25s"), (59, "+59s"), (61, "+1m1s"), (3600, "+1h0m"), (90061, "+25h1m1s")],
)
def test_times_in_a_story_are_easy_to_read(seconds: float, shown: str) -> None:
    """Since the start of the test."""
    (line,) = story_lines([record("handled", seconds, subscriber="ship")], START)
    assert line.startswith(f"{shown}  handled")


def test_without_any_message_concerned_the_whole_story_is_told(compare: Any) -> None:
    """What happened instead explains why nothing reached the subscriber."""
    (failure,) = compare(
        "{handled: {ship: 1}}", record("published", to="payment"), record("handled", subscriber="book")
    )
    assert len(failure.story) == 2
