"""`trip` on each broker: a service that is down does not empty a queue into its dead letters."""

from __future__ import annotations

import signal

from tests.foreign import Foreign
from tests.project import Project, lines, started, until

HANDLERS = """
    import os
    def send(): return [{"n": n} for n in range(30)]
    def handle(order: dict) -> None:
        if not os.path.exists("provider-is-up"):
            raise ConnectionError("no answer")
        note(order["n"])
"""
TRIP = "concurrency: 2, retry: {attempts: 9, delay: 100ms}, trip: {failures: 50%, over: 1m, least: 6, pause: PAUSE}"


async def test_a_subscriber_stops_while_a_service_is_down_and_goes_on_by_itself(project: Project) -> None:
    """It lets one message through after each pause; when the service is back, everything is handled once."""
    project.one_queue(HANDLERS, TRIP.replace("PAUSE", "300ms"))
    async with project.running() as runner:
        await until(lambda: len(lines(runner, "subscriber.paused")) >= 3, "it has let two messages through")
        failed = lines(runner, "message.retry")
        assert 8 <= len(failed) <= 14  # six to trip, some that ran or had begun by then, and two that were let through
        first, second, third, *_ = (line["reason"] for line in lines(runner, "subscriber.paused"))
        assert first == "6 of 6 attempts failed in 1m, the last one with ConnectionError; tries again after 300ms"
        assert (second.endswith("600ms"), third.endswith("1200ms")) == (True, True)
        (project.folder / "provider-is-up").touch()
        await project.ledger.wait_for(30)
        assert len(lines(runner, "subscriber.resumed")) == 1
    assert set(project.ledger.counts().values()) == {1}
    assert lines(runner, "message.dead_lettered") == []


async def test_a_process_that_dies_while_it_has_tripped_holds_nothing(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """All messages are in the queue or wait for a retry, and the next process handles them."""
    rabbit_project.one_queue(HANDLERS, TRIP.replace("PAUSE", "1h"))
    async with rabbit_project.up() as runner:
        await started(runner)
        await until(lambda: lines(runner, "subscriber.paused"), "it has tripped")
        await until(lambda: foreign.count(rabbit_project.name("work")) == 30, "everything is back in the queue")
        runner.signal(signal.SIGKILL)
        await runner.wait()
    (rabbit_project.folder / "provider-is-up").touch()
    await rabbit_project.up_until_idle()
    assert set(rabbit_project.ledger.counts()) == {str(n) for n in range(30)}
