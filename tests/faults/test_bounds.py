"""Memory has bounds: the most telling cases of `python -m tests.faults.bounds`, small."""

from __future__ import annotations

import pytest

from tests.faults.bounds import GROWTH, Bench, Row
from tests.node import Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

WATCH_S = 8.0


def check(row: Row) -> None:
    assert row.complaint == "", " · ".join(row.cells())


async def test_a_large_backlog_takes_no_more_memory_than_a_small_one(own_node: Node) -> None:
    """What waits, waits on the broker."""
    bench = Bench(own_node, WATCH_S)
    few = await bench.backlogged("1,000 waiting", 1000)
    many = await bench.backlogged("30,000 waiting", 30_000, watch_s=30)
    check(few)
    check(many)
    assert many.late_mb <= few.late_mb * GROWTH


async def test_large_bodies_take_as_much_as_the_prefetch_holds(own_node: Node) -> None:
    """Twenty of 1 MB, twice over, and not all that pass."""
    check(await Bench(own_node, WATCH_S).large("1 MB bodies passed on", hop=True, limit_mb=250))


@pytest.mark.parametrize("give", ["'x' * 100", "LARGE"], ids=["small", "large"])
async def test_a_producer_waits_while_the_broker_takes_nothing(own_node: Node, give: str) -> None:
    """It is not asked for more; when the alarm is over, it goes on."""
    check(await Bench(own_node, WATCH_S).blocked("blocked broker", give, limit_mb=450, blocked_s=WATCH_S))


async def test_a_handler_that_never_ends_costs_no_memory(own_node: Node) -> None:
    """Acknowledgements go past it, and leave nothing behind."""
    row = await Bench(own_node, 30).stuck("one handler never ends", 60_000)
    check(row)


async def test_large_bodies_in_the_in_process_broker_are_bounded_in_bytes() -> None:
    """256 MiB wait in a queue, a hundred messages of the producer before it, and no more."""
    row = await Bench(None, WATCH_S).producing(
        "in-process: 1 MB bodies",
        "LARGE",
        memory=True,
        work="await asyncio.sleep(0.01)",
        fill_s=10,
        limit_mb=700,
    )
    check(row)
