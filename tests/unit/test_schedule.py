"""When intervals and cron lines are due, also when the clock is changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runner.schedule import Cron, Every, Schedule

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-{text}:00+00:00")


def test_an_interval_begins_at_once_and_keeps_its_rhythm() -> None:
    every = Every(10)
    assert every.first(NOON) == NOON
    assert every.next(NOON) == NOON + timedelta(seconds=10)
    assert every.latest(NOON, NOON + timedelta(seconds=35)) == NOON + timedelta(seconds=30)
    assert every.latest(NOON, NOON - timedelta(seconds=5)) == NOON


def test_a_cron_line_is_read_in_its_zone() -> None:
    """06:00 in Berlin is 05:00 UTC in winter, 04:00 in summer."""
    cron = Cron("0 6 * * *", "Europe/Berlin")
    assert [cron.first(at("03-28T00:00")), cron.next(at("03-28T05:00"))] == [at("03-28T05:00"), at("03-29T04:00")]


@pytest.mark.parametrize(
    ("line", "day", "expected"),
    [
        ("30 2 * * *", "03-29", ["03-29T01:00", "03-30T00:30"]),  # 02:30 is left out: it runs when the clock jumps
        ("30 2 * * *", "10-25", ["10-25T00:30", "10-26T01:30"]),  # 02:30 comes twice: it runs the first time
    ],
)
def test_a_time_that_is_left_out_or_repeated_is_due_once(line: str, day: str, expected: list[str]) -> None:
    cron = Cron(line, "Europe/Berlin")
    first = cron.first(at(f"{day}T00:00"))
    assert [first, cron.next(first)] == [at(text) for text in expected]


def test_missed_times_are_made_up_for_by_the_last_of_them() -> None:
    cron = Cron("*/10 * * * *")
    assert cron.latest(at("03-01T12:20"), at("03-01T13:05")) == at("03-01T13:00")
    assert cron.latest(at("03-01T12:20"), at("03-01T12:25")) == at("03-01T12:20")


@pytest.mark.parametrize(
    ("schedule", "due", "now", "expected"),
    [
        (Every(60), "03-01T12:01", "03-01T12:00", "03-01T12:01"),
        (Every(60), "03-31T12:01", "03-01T12:00", "03-01T12:01"),  # the clock was a month ahead
        (Cron("0 12 * * *"), "03-02T12:00", "03-01T10:00", "03-02T12:00"),  # two hours back: noon has been
        (Cron("0 12 * * *"), "03-31T12:00", "03-01T10:00", "03-01T12:00"),
    ],
)
def test_a_clock_that_was_ahead_does_not_stop_a_schedule(schedule: Schedule, due: str, now: str, expected: str) -> None:
    assert schedule.after_clock_change(at(due), at(now)) == at(expected)
