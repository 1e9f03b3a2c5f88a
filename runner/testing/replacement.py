"""What stands in for a handler during a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """Stands in for the handler of a subscriber or a producer.

    A call takes `takes` (a duration, or seconds of virtual time), then raises `raises`, or calls `handler`, or returns
    `returns`. `raises` is an exception, its class, or an import path such as `shop.errors:CarrierAway`; `handler` is a
    function with a signature of its own, or its import path. With `times`, only the first calls are replaced, and later
    ones reach the real handler.
    """

    raises: BaseException | type[BaseException] | str | None = None
    returns: Any = None
    handler: Callable[..., Any] | str | None = None
    times: int | None = None
    takes: str | float = 0.0
