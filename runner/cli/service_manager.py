"""Tells systemd how `runner up` is: ready, stopping, and still alive.

Source: sd_notify(3). The protocol is a datagram to a socket, so no library is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

USEC = 1_000_000


class ServiceManager:
    """What started this process, if it wants to be told. Takes its variables out of the environment.

    Programs that handlers start, and workers, must not speak in our name.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        interval, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        is_for_us = interval.isdecimal() and pid in ("", str(os.getpid()))
        self._watchdog_s = int(interval) / USEC if is_for_us else 0.0
        self._telling: list[asyncio.Task[None]] = []

    def start(self, stop: asyncio.Event) -> None:
        """Say from now on that the event loop goes round, and once that `stop` is set."""
        if self._address:
            self._telling = [asyncio.create_task(each) for each in (self._tell_stop(stop), self._tell_alive())]

    def tell(self, state: str) -> None:
        """Send one state, as in `READY=1`. A manager that does not listen is no reason to fail."""
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                channel.sendto(state.encode(), self._address)

    async def _tell_stop(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.tell("STOPPING=1")

    async def _tell_alive(self) -> None:
        while self._watchdog_s:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / 2)
