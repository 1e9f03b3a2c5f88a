"""One timer watches all calls in threads: each is reported once when it is late, and counts until it ends."""

from __future__ import annotations

import asyncio

from runner.runtime.watchdog import SLOW_AFTER_S, ThreadCall, ThreadWatchdog
from tests.unit.captured_log import configured, parsed
from tests.unit.transports.virtual_time import run_virtually


def call() -> ThreadCall[None]:
    return ThreadCall(lambda: None)


def test_a_late_call_is_reported_once_and_counts_until_it_ends() -> None:
    out = configured()

    async def main() -> None:
        watchdog = ThreadWatchdog(5.0)
        long, short, soon = call(), call(), call()
        watchdog.begin(long, 5.0)
        await asyncio.sleep(1)
        watchdog.begin(short, 2.0)  # due before the one that began earlier
        watchdog.begin(soon, 4.5)
        await asyncio.sleep(2.5)
        assert watchdog.overdue == 1
        watchdog.end(soon)
        await asyncio.sleep(60)
        assert watchdog.overdue == 2
        watchdog.end(long)
        assert watchdog.overdue == 1
        watchdog.end(short)
        assert watchdog.overdue == 0

    run_virtually(main)
    lines = parsed(out)
    assert [(line["event"], line["running_s"]) for line in lines] == [("handler.slow", 5.0)] * 2


def test_without_a_timeout_a_call_is_reported_and_never_overdue() -> None:
    out = configured()

    async def main() -> None:
        watchdog = ThreadWatchdog(None)
        watchdog.begin(call(), None)
        await asyncio.sleep(SLOW_AFTER_S + 1)
        assert watchdog.overdue == 0

    run_virtually(main)
    assert [line["running_s"] for line in parsed(out)] == [SLOW_AFTER_S]


def test_no_timer_is_left_when_nothing_runs() -> None:
    """A timer that is left would be the next moment of a test with virtual time."""

    async def main() -> None:
        watchdog = ThreadWatchdog(5.0)
        first, second = call(), call()
        watchdog.begin(first, 5.0)
        watchdog.begin(second, 5.0)
        watchdog.end(first)
        watchdog.end(second)
        timers = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        assert timers == []

    run_virtually(main)
