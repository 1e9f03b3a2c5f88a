"""Lets the first SIGINT, SIGTERM or SIGHUP stop a verb in good order, and the second end the process at once."""

from __future__ import annotations

import asyncio
import os
import signal

EXIT_INTERRUPTED = 130


def stop_signals() -> list[signal.Signals]:
    """Return the signals that ask for the end; not SIGHUP where it is ignored, as under nohup."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if is_ignored else [signal.SIGHUP])]


def stop_on_signals() -> asyncio.Event:
    """Return what the first signal sets. Call it in a running loop."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(EXIT_INTERRUPTED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, on_signal)
    return stop
