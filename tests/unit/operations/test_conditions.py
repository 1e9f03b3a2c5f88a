"""Conditions of `--fail-if`: their syntax, the errors for wrong ones, and the queues for which they hold."""

from __future__ import annotations

import pytest

from runner.operations.conditions import Condition, judge, parse_condition
from runner.operations.status import PipelineStatus, QueueStatus

ORDERS = QueueStatus(
    name="orders", exists=True, ready=3, unacked=None, consumers=1, dead_letter="orders.dead", dead=2, oldest_s=400.0
)
BILLS = QueueStatus(name="bills", exists=True, ready=0, consumers=0, oldest_s=0.0, is_paused=True)
MISSING = QueueStatus(name="missing", exists=False)
SHOP = [PipelineStatus("shop", "shop.yaml", (ORDERS, BILLS, MISSING), 0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dead>0", ("", "dead", ">", 0.0)),
        (" age >= 5m ", ("", "age", ">=", 300.0)),
        ("orders: consumers<1", ("orders", "consumers", "<", 1.0)),
        ("a:b c:ready!=0.5", ("a:b c", "ready", "!=", 0.5)),
    ],
)
def test_a_condition_is_a_name_a_comparison_and_a_limit(text: str, expected: tuple[str, str, str, float]) -> None:
    assert parse_condition(text) == Condition(text.strip(), *expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dead", "has no comparison, as in 'dead>0': without quotes"),
        ("dead > ", "is not a condition"),
        ("deaf>0", 'did you mean "dead"?'),
        ("weight>0", "use one of ready, unacked, consumers, in, out, age, failed, paused, dead"),
        ("dead=>0", '"=>" in "dead=>0" is not a comparison: did you mean ">="?'),
        ("dead=0", '"=" in "dead=0" is not a comparison'),
        ("dead>few", '"few" in "dead>few" is not a number'),
        ("dead>nan", '"nan" in "dead>nan" is not a number'),
        ("age>300", '"300" in "age>300" is not a duration: write 300s, 300m or 300h'),
        (
            "dead>0 and age>5m",
            "and there is no \"and\": each one alone lets it fail: write --fail-if 'dead>0' --fail-if 'age>5m'",
        ),
        ("dead>0, ready>9", "2 conditions, and each has its own option: write --fail-if 'dead>0' --fail-if 'ready>9'"),
        ("depth>100", '"depth" in "depth>100" is not a value of a queue: did you mean "ready"?'),
    ],
)
def test_errors_say_what_to_write(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_condition(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dead>0", ["orders: dead is 2 (dead>0)"]),
        ("dead>2", []),
        ("age>5m", ["orders: age is 400s (age>5m)"]),
        ("bills: age>5m", []),
        ("bills: paused>0", ["bills: paused is 1 (bills: paused>0)"]),
        ("consumers<1", ["bills: consumers is 0 (consumers<1)", "missing: consumers is 0 (consumers<1)"]),
        ("orders: unacked>0", ["orders: unacked is not known, so orders: unacked>0 may hold"]),
        ("missing: ready>0", []),
    ],
)
def test_a_condition_applies_to_all_queues_or_to_the_one_it_names(text: str, found: list[str]) -> None:
    """A condition on an unknown value may hold. The values of a queue that does not exist are 0."""
    assert [str(finding) for finding in judge([parse_condition(text)], SHOP)] == found


def test_an_unknown_queue_is_named() -> None:
    with pytest.raises(ValueError) as caught:
        list(judge([parse_condition("order: dead>0")], SHOP))
    assert str(caught.value) == '"order: dead>0" names no queue of the pipelines: did you mean "orders"?'
