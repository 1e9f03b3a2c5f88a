"""`runner up` as systemd starts it: with a socket that wants to be told."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import Project

PIPELINE = """
    version: 1
    queues: {UNIQUE.work: {}}
    producers: {make: {handler: work:make, to: UNIQUE.work}}
    subscribers: {work: {from: UNIQUE.work, handler: work:handle}}
"""
HANDLERS = """
    import os, time

    def make():
        return 1

    async def handle(number: int) -> None:
        note(sorted(name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG"))))
        while not os.path.exists("go"):
            time.sleep(0.01)
"""


class Manager:
    """The end of the socket that systemd holds."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.setblocking(False)

    async def told(self, timeout: float = 20.0) -> str:
        """Return the next message; raises TimeoutError."""
        async with asyncio.timeout(timeout):
            return (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode()

    async def told_until(self, last: str) -> list[str]:
        """Return the messages up to one."""
        found = [await self.told()]
        while found[-1] != last:
            found.append(await self.told())
        return found

    async def told_until_silence(self, seconds: float) -> None:
        """Return when nothing has come for so long: three intervals of a watchdog that is asked for."""
        with contextlib.suppress(TimeoutError):
            while await self.told(timeout=seconds) == "WATCHDOG=1":
                pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@mqrunner-{secrets.token_hex(8)}"
    made = Manager(address)
    yield made
    made.close()


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_says_that_it_is_ready_and_that_it_stops(
    rabbit_project: Project, manager: Manager, workers: int
) -> None:
    rabbit_project.write(PIPELINE, HANDLERS)
    (rabbit_project.folder / "go").touch()
    async with rabbit_project.up("--workers", str(workers), env={"NOTIFY_SOCKET": manager.address}) as runner:
        assert await manager.told() == "READY=1"
        assert (await rabbit_project.ledger.wait_for(1))[0].payload == "[]", "handlers are no services"
        runner.signal(signal.SIGTERM)
        assert await manager.told() == "STOPPING=1"
        assert await runner.wait() == 0


async def test_the_watchdog_hears_of_a_loop_that_goes_round_and_not_of_one_that_is_blocked(
    memory_project: Project, manager: Manager
) -> None:
    memory_project.write(PIPELINE, HANDLERS)
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "500000"}
    async with memory_project.up(env=env) as runner:
        assert set(await manager.told_until("READY=1")) <= {"READY=1", "WATCHDOG=1"}
        await memory_project.ledger.wait_for(1)
        await manager.told_until_silence(1.5)
        (memory_project.folder / "go").touch()
        assert await manager.told() == "WATCHDOG=1"
        assert await manager.told() == "WATCHDOG=1"
        runner.signal(signal.SIGTERM)
        assert set(await manager.told_until("STOPPING=1")) <= {"STOPPING=1", "WATCHDOG=1"}
        assert await runner.wait() == 0


async def test_a_manager_that_is_gone_is_no_reason_to_fail(memory_project: Project, tmp_path: Path) -> None:
    memory_project.write(PIPELINE, HANDLERS)
    (memory_project.folder / "go").touch()
    env = {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "200000"}
    runner = await memory_project.up_until_idle(env=env)
    assert "1 handled" in runner.stderr
