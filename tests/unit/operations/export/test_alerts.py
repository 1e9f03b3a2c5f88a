"""Alerting rules: how late a producer may be."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from runner.operations.export.alerts import longest_pause_s
from runner.schedule import Cron, Every, Schedule


@pytest.mark.parametrize(
    ("schedule", "pause_s"),
    [
        (Every(600.0), 600.0),
        (Cron("* * * * *"), 60.0),
        (Cron("0 6 * * 1-5", "Europe/Berlin"), 73 * 3600.0),
        (Cron("30 2 * * *", "Europe/Berlin"), 25 * 3600.0),
        (Cron("0 0 1 1 *"), 365 * 86400.0),
    ],
)
def test_the_longest_pause_of_a_schedule_is_that_of_a_year(schedule: Schedule, pause_s: float) -> None:
    """Weekends, the end of summer time, and lines that come once a year."""
    assert longest_pause_s(schedule, datetime(2026, 11, 30, tzinfo=UTC)) == pause_s
