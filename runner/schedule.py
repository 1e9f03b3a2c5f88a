"""Vocabulary: when something is due: every so often, or by a cron line in a time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo

MAX_CLOCK_CORRECTION = timedelta(hours=3)
"""A clock that is put back by more than this was wrong: times that have come already are due again."""


class Schedule(Protocol):
    """Moments at which something is due."""

    def first(self, now: datetime) -> datetime:
        """Return the first moment, for who has never run before."""
        ...

    def next(self, after: datetime) -> datetime:
        """Return the first moment later than `after`."""
        ...

    def latest(self, due: datetime, now: datetime) -> datetime:
        """Return the last moment that is not later than `now`, at least `due`: for one run in place of all missed."""
        ...

    def after_clock_change(self, due: datetime, now: datetime) -> datetime:
        """Return `due`, or an earlier moment where it is so far off that the clock must have been put back."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """Every so many seconds, beginning at once."""

    seconds: float

    def first(self, now: datetime) -> datetime:
        """Now."""
        return now

    def next(self, after: datetime) -> datetime:
        """So many seconds later."""
        return after + timedelta(seconds=self.seconds)

    def latest(self, due: datetime, now: datetime) -> datetime:
        """Keep the rhythm that began with `due`."""
        missed = max(0, (now - due) // timedelta(seconds=self.seconds))
        return due + missed * timedelta(seconds=self.seconds)

    def after_clock_change(self, due: datetime, now: datetime) -> datetime:
        """At most one interval away."""
        return min(due, self.next(now))


@dataclass(frozen=True, slots=True)
class Cron:
    """A five-field cron line; times that a change of the clocks leaves out or repeats are due once.

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
        """Return the last time of the line up to now."""
        return max(due, self._step(now + timedelta(minutes=1), reverse=True)) if now >= self.next(due) else due

    def after_clock_change(self, due: datetime, now: datetime) -> datetime:
        """As Debian's cron: after a small correction nothing is due twice; after a large one the new clock counts."""
        last = self._step(due, reverse=True)
        return self.next(now) if last - now > MAX_CLOCK_CORRECTION else due

    def _step(self, moment: datetime, *, reverse: bool) -> datetime:
        from cronsim import CronSim  # imported by those who have a cron line

        zone: tzinfo = ZoneInfo(self.zone) if self.zone else UTC
        found: datetime = next(CronSim(self.line, moment.astimezone(zone), reverse=reverse))
        return found.astimezone(UTC)
