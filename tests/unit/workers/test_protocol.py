"""What travels between a master and its workers arrives as it was sent, and reports add up."""

from __future__ import annotations

from runner.metrics import Totals
from runner.runtime.supervisor import RunReport
from runner.workers.protocol import (
    WorkerEnv,
    decode_message,
    encode_message,
    report_from_message,
    report_to_message,
    sum_reports,
)

REPORT = RunReport(Totals(5, 4, 3, 2, 1), {"ship": 2}, 0, ("make",))


def test_a_role_survives_its_way() -> None:
    worker_env = WorkerEnv(2, 4, 7, is_terminal=True, is_colored=False, start_id="c3")
    assert WorkerEnv.from_text(worker_env.as_text()) == worker_env


def test_a_report_survives_its_way() -> None:
    for report in (REPORT, None):
        line = encode_message("report", {"is_done": True, **report_to_message(report)})
        assert line.count(b"\n") == 1
        words = decode_message(line)
        assert (words["kind"], words["is_done"]) == ("report", True)
        assert report_from_message(words) == report


def test_reports_add_up() -> None:
    other = RunReport(Totals(10, 0, 0, 0, 10), {"ship": 1, "bill": 1}, 3, ("make", "send"))
    whole = sum_reports([REPORT, other])
    assert whole == RunReport(Totals(15, 4, 3, 2, 11), {"ship": 3, "bill": 1}, 3, ("make", "send"))
    assert sum_reports([]) == RunReport(Totals())
