"""Work is spaced out evenly."""

import asyncio

from runner.runtime.rate_limit import RateLimiter
from tests.unit.transports.virtual_time import virtual_time


@virtual_time
async def test_starts_are_evenly_spaced() -> None:
    """Ten starts at 5/s take 1.8 s, whoever asks, and the order is that of asking."""
    turns: list[tuple[int, float]] = []
    limiter = RateLimiter(5.0)

    async def one(number: int) -> None:
        await limiter.wait()
        turns.append((number, round(asyncio.get_running_loop().time(), 6)))

    await asyncio.gather(*(one(number) for number in range(10)))
    assert turns == [(number, round(number * 0.2, 6)) for number in range(10)]


@virtual_time
async def test_a_pause_earns_no_burst() -> None:
    """After a minute without work the next two starts are as far apart as ever."""
    limiter = RateLimiter(1.0)
    await limiter.wait()
    await asyncio.sleep(60)
    await limiter.wait()
    await limiter.wait()
    assert asyncio.get_running_loop().time() == 61.0
