"""Reports the state of `runner up` to systemd: ready, stopping, alive.

Source: sd_notify(3). The protocol is a datagram to a Unix socket, so no library is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

USEC = 1_000_000


class ServiceManager:
    """The service manager that started this process, if it asked for notifications.

    The constructor removes its variables from the environment, so that workers and programs that handlers start
    do not notify it.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        interval, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        is_for_us = interval.isdecimal() and pid in ("", str(os.getpid()))
        self._watchdog_s = int(interval) / USEC if is_for_us else 0.0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, stop: asyncio.Event) -> None:
        """Start to send watchdog notifications, and `STOPPING=1` when `stop` is set."""
        if self._address:
            self._tasks = [asyncio.create_task(each) for each in (self._notify_stop(stop), self._notify_alive())]

    def notify(self, state: str) -> None:
        """Send a state, such as `READY=1`. Errors are ignored, so that they cannot stop the pipelines."""
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                channel.sendto(state.encode(), self._address)

    async def _notify_stop(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.notify("STOPPING=1")

    async def _notify_alive(self) -> None:
        while self._watchdog_s:
            self.notify("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / 2)
