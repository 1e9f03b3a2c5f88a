"""A loop on which waiting takes no time: when nothing is ready, its clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

PATIENCE_S = 10.0
"""How long a thread may take, in real time, while everything else waits for it."""


class _JumpingSelector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            if ready := super().select(PATIENCE_S):  # a thread was at work
                return ready
            raise RuntimeError("nothing will ever happen: everybody waits, and no timer is set")
        self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_virtually(main: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """Run a coroutine function to its end; return how many seconds it took by its own clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
        return runner.get_loop().time()


def virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on such a loop; `asyncio.get_running_loop().time()` is how many seconds it has taken so far."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtually(lambda: test(*args, **kwargs))

    return run
