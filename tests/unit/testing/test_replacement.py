"""What stands in for handlers and resources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from runner import Message
from runner.errors import PipelineInvalid
from runner.testing import Replacement, running_sync
from tests.unit.testing.projects import write_project

START = datetime(2026, 3, 28, tzinfo=UTC)
PIPELINE = """
    resources: {db: {factory: shop_handlers:connect, with: {dsn: real}}}
    queues: {work: , results: }
    producers:
      feed: {handler: shop_handlers:feed, every: 1h, to: work, with: {count: 2}}
    subscribers:
      do:
        from: work
        handler: shop_handlers:do
        to: results
        with: {carrier: dhl}
        retry: none
        timeout: 1m
      batches: {from: results, handler: shop_handlers:take, batch: {size: 2, wait: 1s}}
    """
HANDLERS = """
    from dataclasses import dataclass
    @dataclass
    class Order:
        number: int
    class Away(Exception): pass
    def connect(dsn): return dsn
    def feed(count): return [{"number": number} for number in range(count)]
    def do(order: Order, carrier, db): return f"{order.number} by {carrier} on {db}"
    def take(items: list): pass
    def other(order): return "other"
    """


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_project(tmp_path, PIPELINE, HANDLERS)


def _result(path: Path, stand_in: Any, **more: Any) -> list[Any]:
    with running_sync(path, replace={"do": stand_in, **more}, now=START, only=("do",)) as pipelines:
        pipelines.publish("work", {"number": 1})
        pipelines.until_idle()
        return [record.payload for record in pipelines.published()] + [record.error_type for record in pipelines.dead()]


def test_a_function_with_a_signature_of_its_own(path: Path) -> None:
    assert _result(path, lambda order: f"fake {order.number}") == ["fake 1"]  # the real handler's Order

    async def with_argument(order: dict[str, int], carrier: str) -> str:
        await asyncio.sleep(1)
        return f"{order['number']} by {carrier}"

    def with_resource_and_message(message: Message, db: str) -> str:
        return f"{message.payload.number} on {db}"

    def generator(order: Any) -> Iterator[int]:
        yield order["number"]
        yield 2

    async def async_generator(order: Any) -> AsyncIterator[int]:
        yield order["number"]
        await asyncio.sleep(1)
        yield 2

    assert _result(path, with_argument) == ["1 by dhl"]
    assert _result(path, with_resource_and_message) == ["1 on real"]
    assert _result(path, generator) == _result(path, async_generator) == [1, 2]
    assert _result(path, "shop_handlers:other") == ["other"]


def test_mocks(path: Path) -> None:
    mock, async_mock = Mock(return_value="mock"), AsyncMock(return_value="async")
    assert _result(path, mock) == ["mock"]
    assert mock.call_args.args[0].number == 1
    assert _result(path, async_mock) == ["async"]
    assert async_mock.await_count == 1


@pytest.mark.parametrize(
    ("stand_in", "results"),
    [
        (Replacement(), []),
        (Replacement(returns="text"), ["text"]),
        (Replacement(returns={"a": 1}, takes="59s"), [{"a": 1}]),
        (Replacement(returns="late", takes="61s"), ["TimeoutError"]),
        (Replacement(raises="shop_handlers:Away"), ["Away"]),
        (Replacement(raises="TimeoutError"), ["TimeoutError"]),
        (Replacement(raises=KeyError("x")), ["KeyError"]),
        (Replacement(raises=LookupError), ["LookupError"]),
        (Replacement(handler=lambda order: "slow", takes=30), ["slow"]),
        (Replacement(handler="shop_handlers:other"), ["other"]),
    ],
)
def test_what_a_replacement_does(path: Path, stand_in: Replacement, results: list[Any]) -> None:
    assert _result(path, stand_in) == results


def test_the_first_calls_only(path: Path) -> None:
    """Later ones reach the real handler, with its arguments and resources."""
    for stand_in in (
        Replacement(returns="fake", times=2),
        Replacement(handler=AsyncMock(return_value="fake"), times=2),
    ):
        with running_sync(path, replace={"do": stand_in}, only=("do",)) as pipelines:
            for number in range(3):
                pipelines.publish("work", {"number": number})
                pipelines.until_idle()
            assert [record.payload for record in pipelines.published()] == ["fake", "fake", "2 by dhl on real"]


def test_a_message_that_the_real_handler_could_not_get_does_not_reach_a_stand_in(path: Path) -> None:
    seen: list[object] = []
    with running_sync(path, replace={"do": lambda order: seen.append(order)}, only=("do",)) as pipelines:
        pipelines.publish("work", {"number": "one"})
        assert [record.reason for record in pipelines.dead()] == ["invalid"]
        assert seen == []


def test_a_batch(path: Path) -> None:
    seen: list[object] = []
    with running_sync(path, replace={"batches": seen.append}, only=("batches",)) as pipelines:
        for number in range(3):
            pipelines.publish("results", number)
        pipelines.until_idle()
    assert seen == [[0, 1], [2]]
    with running_sync(path, replace={"batches": Replacement(raises=OSError)}, only=("batches",)) as pipelines:
        pipelines.publish("results", 1)
        pipelines.until_idle()
        assert len(pipelines.dead("results")) == 1


def test_a_producer(path: Path) -> None:
    def fake(count: int) -> list[int]:
        return [count]

    for stand_in, published in (
        (fake, [[2], [2], [2]]),
        (Replacement(returns={"x": 1}), [[{"x": 1}]] * 3),
        (Replacement(handler=AsyncMock(return_value=[]), times=2), [[], [], [{"number": 0}, {"number": 1}]]),
    ):
        with running_sync(path, replace={"feed": stand_in}, now=START, only=("feed",)) as pipelines:
            pipelines.advance("2h")
            ticks: dict[int, list[Any]] = {0: [], 1: [], 2: []}
            for record in pipelines.published("work"):
                ticks[(record.at - START).seconds // 3600].append(record.payload)
            assert list(ticks.values()) == published


def test_resources(path: Path) -> None:
    class Fake:
        def __str__(self) -> str:
            return "fake"

    def factory(dsn: str) -> str:
        return f"factory of {dsn}"

    for resource, shown in ((Fake(), "fake"), (Fake, "fake"), (factory, "factory of real"), (lambda: "none", "none")):
        with running_sync(path, replace={"resources": {"db": resource}}, only=("do",)) as pipelines:
            pipelines.publish("work", {"number": 1})
            pipelines.until_idle()
            assert pipelines.published()[0].payload == f"1 by dhl on {shown}"
    mock = MagicMock()
    with running_sync(path, replace={"resources": {"db": mock}, "do": lambda order, db: db.save(order)}) as pipelines:
        pipelines.publish("work", {"number": 1})
        pipelines.until_idle()
    assert mock.save.call_count > 0  # the object itself, neither called nor entered


@pytest.mark.parametrize(
    ("replace", "code", "text"),
    [
        ({"doo": len}, "unknown-name", 'replace.doo: no subscriber or producer is called "doo"'),
        ({"resources": {"bd": 1}}, "unknown-name", 'replace.resources.bd: no resource is called "bd"'),
        ({"do": lambda: None}, "wrong-parameters", "replace.do: "),
        ({"do": lambda order, size: None}, "wrong-parameters", 'needs "size", which nothing provides'),
        ({"do": "shop_handlers:othr"}, "attribute-not-found", 'did you mean "other"?'),
        ({"do": Replacement(raises="shop_handlers:do")}, "not-an-exception", "replace.do"),
        ({"do": 5}, "not-callable", "replace.do"),
        ({"resources": {"db": "shop_handlers:feed_all"}}, "attribute-not-found", "replace.resources.db"),
    ],
)
def test_a_stand_in_that_does_not_fit_is_a_problem(path: Path, replace: dict[str, Any], code: str, text: str) -> None:
    with pytest.raises(PipelineInvalid) as wrong, running_sync(path, replace=replace):
        pass
    assert [problem.code for problem in wrong.value.problems] == [code]
    assert text in str(wrong.value)


def test_contradictions() -> None:
    with pytest.raises(ValueError, match="either raises or returns"):
        Replacement(raises=OSError, returns=1)
    with pytest.raises(ValueError, match="at least 1"):
        Replacement(times=0)
    with pytest.raises(ValueError, match="not a duration"):
        Replacement(takes="long")
