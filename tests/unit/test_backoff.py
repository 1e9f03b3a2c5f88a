"""Backoff: delays that grow up to a limit, with jitter."""

from __future__ import annotations

from itertools import islice

from runner.backoff import backoff_delays


def test_delays_double_up_to_the_limit() -> None:
    longest = backoff_delays(1.0, 30.0, draw=lambda _, ceiling: ceiling)
    assert list(islice(longest, 7)) == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_delays_are_random_between_half_of_their_ceiling_and_the_ceiling() -> None:
    """Processes that failed for the same reason do not retry at the same moment."""
    firsts = {next(backoff_delays(1.0, 30.0)) for _ in range(20)}
    assert len(firsts) > 1
    assert all(0.5 <= first <= 1.0 for first in firsts)
