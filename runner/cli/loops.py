"""Which event loop runs a pipeline: uvloop's where that is installed (the extra `uvloop`), else asyncio's own.

RUNNER_LOOP=asyncio keeps to asyncio's. Source: https://uvloop.readthedocs.io
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run the whole program, like `asyncio.run`."""
    with asyncio.Runner(loop_factory=_factory()) as runner:
        return runner.run(main)


def _factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if os.environ.get("RUNNER_LOOP") == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return make
