"""Delays between attempts that keep failing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

FIRST_DELAY_S = 0.2
MAX_DELAY_S = 30.0


def backoff_delays(
    first_s: float = FIRST_DELAY_S,
    max_s: float = MAX_DELAY_S,
    *,
    draw: Callable[[float, float], float] = random.uniform,
) -> Iterator[float]:
    """Yield growing delays in seconds, without end: each is random between half of its ceiling and all of it.

    The ceiling doubles from `first_s` to `max_s`. Randomness keeps processes apart that have failed at the same moment.
    """
    ceiling = min(first_s, max_s)
    while True:
        yield draw(ceiling / 2, ceiling)
        ceiling = min(ceiling * 2, max_s)
