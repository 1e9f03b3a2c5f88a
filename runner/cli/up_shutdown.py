"""How `runner up` stops: signals, a log that nobody reads, and the end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from runner.cli.signals import stop_signals

EXIT_FORCED = 130
DUPLICATE_SIGNAL_S = 0.3
"""Within it the same signal again is the first one once more: `timeout` and terminals tell a group of processes."""

GIVEN_BACK = "what was running is given back by the broker"
LOST = "what was running or waiting in the in-process broker is lost"


def exit_process(code: int) -> NoReturn:
    """End the process, whatever still runs in it: nothing is left to clean up."""
    from runner import log

    log.flush()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # handlers may have closed or replaced it
            stream.flush()
    os._exit(code)


def drain_when_output_lost(error: OSError) -> None:
    """Drain when nobody reads our log lines any more, as after `| head`: to work on unseen helps nobody.

    A full disk is another matter: that may pass, and so long lines are left out.
    """
    write_stderr(f"log lines cannot be written ({error.strerror})")
    if isinstance(error, BrokenPipeError):
        os.kill(os.getpid(), signal.SIGTERM)


def drain_on_signals(
    stop: asyncio.Event,
    *,
    say: Callable[[str], None] | None = None,
    on_force: Callable[[], None] = lambda: None,
    is_memory: bool = False,
) -> None:
    """Let the first SIGINT or SIGTERM begin the drain, and the second end the process at once, after `on_force`.

    SIGHUP begins the drain and never forces: a terminal that is closed sends it, and some service managers send it
    right after SIGTERM. Where it is ignored, as under nohup, it stays ignored.

    These are Python's own handlers, not the loop's: a handler that blocks the loop would keep those from running.
    """
    say = say or write_stderr
    loop = asyncio.get_running_loop()
    _wake_at_signals(loop)
    first: tuple[int, float] | None = None

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if number == signal.SIGHUP:
            if not stop.is_set():
                say("draining")
        elif first is not None:
            if number == first[0] and now - first[1] < DUPLICATE_SIGNAL_S:
                return
            on_force()
            say(f"forced to stop: {LOST if is_memory else GIVEN_BACK}")
            os._exit(EXIT_FORCED)
        else:
            first = number, now
            say("draining (once more to stop now)")
        loop.call_soon_threadsafe(stop.set)

    for number in stop_signals():
        signal.signal(number, on_signal)


def _wake_at_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Wake the loop for each signal: one that comes just before it goes to sleep would wait for the next event."""
    ours, theirs = socket.socketpair()
    for end_of_pair in (ours, theirs):
        end_of_pair.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    loop.add_reader(ours, lambda _: ours.recv(4096), theirs)  # which keeps both


def write_stderr(text: str) -> None:
    """Write to stderr from a signal handler, which may have interrupted another write."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())
