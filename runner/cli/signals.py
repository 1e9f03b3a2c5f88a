"""How signals stop a verb: the first one asks for an orderly end, the second one ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

from runner.cli.output import EXIT_INTERRUPTED, write_stderr

REPEAT_S = 0.3
"""Within this time the same signal counts once: `timeout` and terminals signal a whole group of processes."""

_GIVEN_BACK = "messages that were being handled are given back to the broker"
_LOST = "what was running or waiting in the in-process broker is lost"


def stop_signals() -> list[signal.Signals]:
    """Return the signals that ask for an end; without SIGHUP where it is ignored, as under nohup."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if is_ignored else [signal.SIGHUP])]


def stop_on_signals() -> asyncio.Event:
    """Return an event that the first signal sets; a second signal ends the process. Needs a running loop."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(EXIT_INTERRUPTED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, on_signal)
    return stop


def drain_on_signals(
    stop: asyncio.Event,
    *,
    say: Callable[[str], None] = write_stderr,
    on_first: Callable[[], None] = lambda: None,
    on_force: Callable[[], None] = lambda: None,
    is_memory: bool = False,
) -> None:
    """Let the first SIGINT or SIGTERM set `stop`, and the second one call `on_force` and end the process. `on_first` is
    called in the signal handler, even if the loop is blocked; it may raise what ends that.

    SIGHUP sets `stop` and never forces: a terminal that closes sends it, and some service managers send it right after
    SIGTERM. Where it is ignored, as under nohup, it stays ignored.

    These are Python's signal handlers, not the loop's: a message handler that blocks the loop would block those too.
    """
    loop = asyncio.get_running_loop()
    _wake_on_signals(loop)
    first: tuple[int, float] | None = None

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if number == signal.SIGHUP:
            if not stop.is_set():
                say("draining")
        elif first is not None:
            if number == first[0] and now - first[1] < REPEAT_S:
                return
            on_force()
            say(f"forced to stop: {_LOST if is_memory else _GIVEN_BACK}")
            os._exit(EXIT_INTERRUPTED)
        else:
            first = number, now
            say("draining (once more to stop now)")
        loop.call_soon_threadsafe(stop.set)
        on_first()

    for number in stop_signals():
        signal.signal(number, on_signal)


def _wake_on_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Wake the loop for each signal: one that arrives just before `select` would wait for the next event."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    loop.add_reader(ours, lambda _: ours.recv(4096), theirs)  # the arguments keep both sockets alive
