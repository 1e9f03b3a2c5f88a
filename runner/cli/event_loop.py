"""The event loop that runs pipelines: asyncio's, or with RUNNER_LOOP=uvloop that of uvloop (the extra `uvloop`).

asyncio's is the default. Each message needs few callbacks, so the loop is a small part of the work: `make bench` found
consuming slower on uvloop, and consuming with publishing slightly faster. Source: https://uvloop.readthedocs.io
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from runner.errors import RunnerError

T = TypeVar("T")

LOOP_VARIABLE = "RUNNER_LOOP"


class EventLoopUnavailable(RunnerError):
    """RUNNER_LOOP names an event loop that does not exist or is not installed."""

    exit_code = 2


def run_in_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run the whole program, like `asyncio.run`. Raises EventLoopUnavailable."""
    try:
        factory = _factory(os.environ.get(LOOP_VARIABLE, ""))
    except EventLoopUnavailable:
        main.close()
        raise
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def _factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name in ("", "asyncio"):
        return None
    if name != "uvloop":
        raise EventLoopUnavailable(
            f'{LOOP_VARIABLE} is "{name}", which is not an event loop', "write asyncio or uvloop"
        )
    try:
        import uvloop  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise EventLoopUnavailable(
            f"{LOOP_VARIABLE} asks for uvloop", 'install it: pip install "mqrunner[uvloop]"'
        ) from None
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return make
