"""What travels between a master and its workers arrives as it was sent, and reports add up."""

from __future__ import annotations

from runner.metrics import Totals
from runner.runtime.supervisor import Report
from runner.workers.control import Role, as_line, from_line, report_as_words, report_from_words, summed

REPORT = Report(Totals(5, 4, 3, 2, 1), {"ship": 2}, 0, ("make",))


def test_a_role_survives_its_way() -> None:
    role = Role(2, 4, 7, is_terminal=True, is_colored=False, start="c3")
    assert Role.from_text(role.as_text()) == role


def test_a_report_survives_its_way() -> None:
    for report in (REPORT, None):
        line = as_line("report", {"is_done": True, **report_as_words(report)})
        assert line.count(b"\n") == 1
        words = from_line(line)
        assert (words["kind"], words["is_done"]) == ("report", True)
        assert report_from_words(words) == report


def test_reports_add_up() -> None:
    other = Report(Totals(10, 0, 0, 0, 10), {"ship": 1, "bill": 1}, 3, ("make", "send"))
    whole = summed([REPORT, other])
    assert whole == Report(Totals(15, 4, 3, 2, 11), {"ship": 3, "bill": 1}, 3, ("make", "send"))
    assert summed([]) == Report(Totals())
