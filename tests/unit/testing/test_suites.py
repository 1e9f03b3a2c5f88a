"""Test files with any value anywhere: they are valid, or they have problems with places in our own words."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.config.diagnostics import concise
from runner.errors import PipelineInvalid, Problem
from runner.testing.suites import load_suite
from tests.wrong.foreign import foreign_words

PIPELINE = """
version: 1
name: shop
queues: {payment: }
events: {order.paid: , order.shipped: {unheard: ignore}}
subscribers:
  book: {from: payment, handler: "goods:book", to: order.paid}
  ship: {from: order.paid, handler: "goods:ship", to: order.shipped}
resources: {db: "goods:db"}
"""
TESTS = """
version: 1
pipelines: [shop.yaml]
env: {CARRIER: dhl}
tests:
  paid:
    skip: later
    now: "2026-03-28T05:00:00Z"
    only: [ship]
    run_for: 4h
    replace: {ship: {raises: TimeoutError, times: 1, takes: 5s}, book: "goods:book", resources: {db: "goods:db"}}
    publish:
      - {to: order.paid, payload: {order: 1}, id: a, headers: {b: c}, at: 1s, priority: 1, expires: 1h}
      - {to: order.paid, reply: true, timeout: 5s}
    expect:
      handled: {ship: 1}
      retried: {ship: {count: 1, after: [1s]}, book: 2}
      published:
        - {to: order.shipped, payload: {a: [1]}, headers: {a: b}, id: x, at: 2s, times: 1}
        - {to: order.shipped, delay: 1h, priority: 1, expires: 1d}
      answers: [{to: order.paid, reason: timeout, error_type: A, error: b, id: x, payload: {a: 1}}]
      dead: [{queue: shop.ship, subscriber: ship, reason: exhausted, error_type: A, error: b, exactly: [1], times: 0}]
      duplicates: {ship: 0}
      unheard: {order.shipped: 1}
"""
ODD: list[Any] = [
    *(None, True, 0, -1, 1.5, float("inf"), 10**30),
    *("", "x", "*", "a:b", "a.b:c", "goods:", "none", "5s", "2026-01-01T00:00:00Z", "\x07", "${X}"),
    *([], {}, [[]], [None], ["x", "x"], {"": 1}, {"a": {"b": 1}}, {"resources": 1}),
]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    (tmp_path / "goods.py").write_text("def book(payment): ...\ndef ship(order): ...\ndef db(): return 1\n")
    return tmp_path / "a.test.yaml"


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _paths(item, (*path, key))


def _with(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    changed = copy.deepcopy(value)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = odd
    return changed


def test_the_file_is_valid(file: Path) -> None:
    file.write_text(TESTS)
    suite = load_suite(file)
    assert list(suite.spec.tests) == ["paid"]
    assert suite.line("paid") == 6


def test_any_value_anywhere_is_valid_or_a_problem(file: Path) -> None:
    """Three odd values at each place; a wrong value never ends as an exception of a library."""
    base = yaml.safe_load(TESTS)
    chance = random.Random(1)
    wrong = []
    for path in _paths(base):
        for odd in chance.sample(ODD, 3):
            file.write_text(yaml.safe_dump(_with(base, path, odd), sort_keys=False, allow_unicode=True))
            wrong += [(path, odd, problems)] if (problems := _problems(file)) else []
    assert len(wrong) > 100
    assert [each for each in wrong if foreign_words(concise(each[2])) or not all(item.line for item in each[2])] == []


def _problems(file: Path) -> tuple[Problem, ...]:
    try:
        load_suite(file)
    except PipelineInvalid as invalid:
        return invalid.problems
    return ()
