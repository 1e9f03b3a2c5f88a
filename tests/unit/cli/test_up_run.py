"""The totals at the end of `runner up`, and the exit code that they give."""

from __future__ import annotations

import pytest

from runner.cli.up_run import echo_totals
from runner.metrics import Totals
from runner.runtime.supervisor import RunReport

TOTALS = Totals(published=2, handled=3, retried=1)


def test_a_clean_end_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert echo_totals(RunReport(TOTALS)) == 0
    assert capsys.readouterr().err == "stopped: 2 published · 3 handled · 1 retried · 0 dead-lettered\n"


@pytest.mark.parametrize(
    ("report", "is_memory", "line"),
    [
        (
            RunReport(TOTALS, unfinished={"ship": 2}),
            False,
            "2 handlers of ship still ran when the grace period ended; their messages were given back to the broker",
        ),
        (
            RunReport(TOTALS, unfinished={"ship": 1}),
            True,
            "1 handler of ship still ran when the grace period ended; "
            "their messages are lost with the in-process broker",
        ),
        (RunReport(TOTALS, left_in_memory=1), True, "1 unhandled message lost with the in-process broker"),
        (RunReport(TOTALS, failed_producers=("fill",)), False, "producer fill failed and was not restarted"),
        (
            RunReport(TOTALS, idle_unknown_reason="others consume"),
            False,
            "it is not known whether anything is left to do: others consume",
        ),
    ],
)
def test_what_was_left_is_named_and_ends_with_1(
    report: RunReport, is_memory: bool, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert echo_totals(report, is_memory=is_memory) == 1
    assert f"error: {line}\n" in capsys.readouterr().err
