"""Lets the first SIGINT or SIGTERM stop a verb in good order, and the second end the process at once."""

from __future__ import annotations

import asyncio
import os
import signal

INTERRUPTED = 130


def stop_on_signals() -> asyncio.Event:
    """Return what the first signal sets. Call it in a running loop."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return stop
