"""Schedules: intervals, and cron lines in a time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo

MAX_CLOCK_CORRECTION = timedelta(hours=3)
"""If the clock is set back by more than this, it was wrong before, and times that have passed are due again."""


class Schedule(Protocol):
    """Computes due times."""

    def first(self, now: datetime) -> datetime:
        """Return the first due time of a producer that has never run."""

    def next(self, after: datetime) -> datetime:
        """Return the first due time after `after`."""

    def latest(self, due: datetime, now: datetime) -> datetime:
        """Return the last due time up to `now`, at least `due`: one run replaces all missed ones."""

    def after_clock_change(self, due: datetime, now: datetime) -> datetime:
        """Return `due`, or an earlier due time if it is so far off that the clock must have been set back."""


@dataclass(frozen=True, slots=True)
class Every:
    """Every `seconds` seconds, starting immediately."""

    seconds: float

    def first(self, now: datetime) -> datetime:
        """Return `now`."""
        return now

    def next(self, after: datetime) -> datetime:
        """Return the time one interval later."""
        return after + timedelta(seconds=self.seconds)

    def latest(self, due: datetime, now: datetime) -> datetime:
        """Return the last due time up to `now`, in the rhythm of `due`."""
        missed = max(0, (now - due) // timedelta(seconds=self.seconds))
        return due + missed * timedelta(seconds=self.seconds)

    def after_clock_change(self, due: datetime, now: datetime) -> datetime:
        """Return `due`, but at most one interval from now."""
        return min(due, self.next(now))


@dataclass(frozen=True, slots=True)
class Cron:
    """A five-field cron line. Times that a daylight-saving change skips or repeats are due once.

    Source: https://github.com/cuu508/cronsim, which follows Debian's cron.
    """

    line: str
    zone: str | None = None

    def first(self, now: datetime) -> datetime:
        """Return the next time of the line."""
        return self.next(now)

    def next(self, after: datetime) -> datetime:
        """Return the next time of the line, in UTC."""
        return self._step(after, reverse=False)

    def latest(self, due: datetime, now: datetime) -> datetime:
        """Return the last time of the line up to `now`."""
        return max(due, self._step(now + timedelta(minutes=1), reverse=True)) if now >= self.next(due) else due

    def after_clock_change(self, due: datetime, now: datetime) -> datetime:
        """Return `due` after a small correction; after a large one, the next time by the new clock.

        As in Debian's cron, a small correction makes nothing run twice.
        """
        last = self._step(due, reverse=True)
        return self.next(now) if last - now > MAX_CLOCK_CORRECTION else due

    def _step(self, moment: datetime, *, reverse: bool) -> datetime:
        from cronsim import CronSim  # imported only if there is a cron line

        zone: tzinfo = ZoneInfo(self.zone) if self.zone else UTC
        found: datetime = next(CronSim(self.line, moment.astimezone(zone), reverse=reverse))
        return found.astimezone(UTC)
