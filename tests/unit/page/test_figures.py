"""The page's figures: rates and durations of the last seconds, calculated from counters that only grow."""

from __future__ import annotations

import pytest

from runner.metrics import Metrics, PipelineCounts, ProducerCounts, SubscriberCounts
from runner.page.figures import MAX_ERRORS, WINDOW_S, Figures


class Shop:
    """The counts of one pipeline, and the figures made of them."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.figures = Figures()
        self.start()

    def start(self) -> None:
        """Restart all counts from 0, as a new process does."""
        self.ship = SubscriberCounts("ship", "orders", ["shipped"])
        self.make = ProducerCounts("make", ["orders"])
        counts = PipelineCounts("shop", subscribers={"ship": self.ship}, producers={"make": self.make})
        self.metrics.pipelines["shop"] = counts

    def look(self, now: float) -> None:
        self.figures.add(self.metrics.samples(), now)

    def row(self) -> dict[str, object]:
        (row,) = self.figures.subscribers()
        return row


def test_rates_are_not_known_before_there_are_two_samples() -> None:
    """Totals are known: they need only one."""
    shop = Shop()
    shop.ship.handled = 7
    shop.look(100.0)
    row = shop.row()
    assert (row["rate"], row["failure_rate"], row["p50"]) == (None, None, None)
    assert row["totals"] == {"handled": 7, "retried": 0, "dead_lettered": 0, "released": 0, "duplicate": 0}


def test_rates_cover_the_time_between_two_samples() -> None:
    shop = Shop()
    shop.look(100.0)
    shop.ship.handled, shop.ship.retried, shop.ship.dead_lettered = 50, 4, 1
    for _ in range(20):
        shop.make.published.note("orders", "confirmed", 0.001)
        shop.make.published.note("orders", "refused", 0.001)
    shop.look(110.0)
    row = shop.row()
    assert (row["rate"], row["failure_rate"]) == (5.0, 0.5)
    (producer,) = shop.figures.producers({("shop", "make"): None})
    assert (producer["rate"], producer["published"]) == (2.0, 20)
    assert shop.figures.destinations()["shop", "orders"] == 2.0


def test_old_messages_do_not_count() -> None:
    """A rate falls to 0 when no more messages arrive."""
    shop = Shop()
    shop.look(100.0)
    shop.ship.handled = 50
    for second in range(101, 101 + int(WINDOW_S) + 5):
        shop.look(float(second))
    assert shop.row()["rate"] == 0.0


def test_a_sample_after_a_long_pause_starts_a_new_window() -> None:
    shop = Shop()
    shop.look(100.0)
    shop.ship.handled = 1_000_000
    shop.look(100.0 + 10 * WINDOW_S)
    assert shop.row()["rate"] is None


def test_a_restarted_process_has_no_negative_rates() -> None:
    shop = Shop()
    shop.ship.handled = 100
    shop.ship.handler_seconds.observe(0.3)
    shop.look(100.0)
    shop.start()
    shop.look(105.0)
    row = shop.row()
    assert (row["rate"], row["p50"], row["p99"]) == (0.0, None, None)


def test_durations_cover_recent_calls() -> None:
    """A slow hour long ago does not change the current p99."""
    shop = Shop()
    for _ in range(1000):
        shop.ship.handler_seconds.observe(20.0)
    shop.look(100.0)
    for _ in range(100):
        shop.ship.handler_seconds.observe(0.03)
    shop.look(105.0)
    row = shop.row()
    assert row["p50"] == pytest.approx(0.0375, abs=0.013)
    assert isinstance(row["p99"], float)
    assert row["p99"] <= 0.05


def test_the_most_frequent_errors_come_first() -> None:
    shop = Shop()
    for number in range(10):
        for _ in range(number + 1):
            shop.ship.note_error(f"Error{number}")
    shop.look(100.0)
    assert shop.row()["errors"] == [(f"Error{number}", number + 1) for number in range(9, 9 - MAX_ERRORS, -1)]
