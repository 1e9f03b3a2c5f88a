"""Errors say what is wrong in one sentence, and how the command ends."""

from __future__ import annotations

from typing import Any

import pytest

from runner import BatchFailed, Reject, RetryLater
from runner.errors import BrokerUnavailable, PipelineInvalid, Problem, PublishFailed, RunnerError


@pytest.mark.parametrize(
    ("problems", "text"),
    [
        ([], "0 errors"),
        ([Problem(code="a", message="m")], "1 error"),
        ([Problem(code="a", message="m"), Problem(code="w", message="m", severity="warning")], "1 error"),
        ([Problem(code="a", message="m")] * 2, "2 errors"),
    ],
)
def test_an_invalid_pipeline_counts_its_errors_and_keeps_all_problems(problems: list[Problem], text: str) -> None:
    error = PipelineInvalid(problems)
    assert (str(error), error.problems) == (text, tuple(problems))


def test_each_kind_ends_the_command_with_its_own_code() -> None:
    """As in sysexits.h: 69 for what is not available, 78 for a wrong configuration."""
    codes = [RunnerError("x"), PipelineInvalid([]), BrokerUnavailable("x"), PublishFailed("x", reason="refused")]
    assert [error.exit_code for error in codes] == [1, 78, 69, 1]


@pytest.mark.parametrize(("after", "seconds"), [("30s", 30.0), ("1.5m", 90.0), (0.25, 0.25)])
def test_a_retry_later_has_its_delay_in_seconds(after: str | float, seconds: float) -> None:
    assert RetryLater(after).after_s == seconds


@pytest.mark.parametrize("after", ["soon", -1, float("nan"), True])
def test_a_retry_later_refuses_what_is_no_duration(after: str | float) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        RetryLater(after)


def test_a_rejection_has_a_reason() -> None:
    assert [str(Reject()), str(Reject("no such customer"))] == ["rejected by the handler", "no such customer"]


@pytest.mark.parametrize(
    ("errors", "kind"),
    [({}, ValueError), ({-1: ValueError()}, TypeError), ({"0": ValueError()}, TypeError), ({0: "why"}, TypeError)],
)
def test_a_failed_batch_names_positions_and_errors(errors: dict[Any, Any], kind: type[Exception]) -> None:
    """The mistake is in the handler, so the handler gets the error."""
    with pytest.raises(kind):
        BatchFailed(errors)
    assert str(BatchFailed({0: ValueError(), 3: Reject("no")})) == "2 messages of the batch failed"
