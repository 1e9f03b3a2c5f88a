"""Faults that nobody has listed: drawn from all that a test can do, one after the other and at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from tests.faults.load import PREFETCH, UNCONFIRMED, Load, check_quiet
from tests.faults.verdict import Fault, check_empty
from tests.foreign import Foreign
from tests.node import Node
from tests.process import RunnerProcess
from tests.project import Place, Project, lines, started, stop
from tests.proxy import Proxy

SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEEDS", "1 2 3").split()]
BLOWS = int(os.environ.get("CHAOS_BLOWS", "12"))
MESSAGES = 1500

UNREACHABLE = 69
"""What a runner ends with that has not found its broker, within the connect timeout, when it started."""


class Chaos:
    """Two runners behind one proxy, a broker, and somebody who breaks one of them now and then."""

    def __init__(self, node: Node, proxy: Proxy, project: Project, seed: int) -> None:
        self.node = node
        self.proxy = proxy
        self.project = project
        self.random = random.Random(seed)
        self.runners: list[RunnerProcess] = []
        self.given_up: list[str] = []
        self.killed = 0
        self.cuts = 0

    @contextlib.asynccontextmanager
    async def two_runners(self) -> AsyncIterator[None]:
        """Run two, and whoever takes their places, until the end of the block."""
        try:
            for _ in range(2):
                self.runners.append(await self.project.up().__aenter__())
            await started(*self.runners)
            yield
        finally:
            for runner in self.runners:
                await runner.__aexit__(None, None, None)

    async def rage(self, fault: Fault, is_done: Callable[[], object]) -> None:
        """Strike so many times, wait until everything is handled all the same, and stop in good order."""
        for _ in range(BLOWS):
            await self.strike()
            await asyncio.sleep(self.random.uniform(0.0, 2.0))
        await fault.recovery(is_done, "everything is handled", timeout=200)
        await self.look_after()
        await started(*self.runners)
        for runner in self.runners:
            await stop(runner)
            check_quiet(runner)

    async def strike(self) -> None:
        """Do one harmful thing, and undo it."""
        await self.look_after()
        blows = (self.cut, self.freeze_broker, self.kill_broker, self.kill_runner, self.freeze_runner)
        more = (self.slow, self.half_open, self.close_connections, self.stop_runner)
        await self.random.choice(blows + more)()

    async def cut(self) -> None:
        self.cuts += 1
        self.proxy.cut()

    async def slow(self) -> None:
        self.proxy.latency(0.05)
        await self._a_while()
        self.proxy.pass_through()

    async def half_open(self) -> None:
        self.cuts += 1
        self.proxy.half_open(self.random.choice(("up", "down")))
        await self._a_while()
        self.proxy.pass_through()

    async def close_connections(self) -> None:
        self.cuts += 1
        await asyncio.to_thread(self.node.close_connections_of, "")

    async def freeze_broker(self) -> None:
        self.cuts += 1
        self.node.freeze()
        await self._a_while()
        self.node.thaw()

    async def kill_broker(self) -> None:
        self.cuts += 1
        await asyncio.to_thread(self.node.kill)
        await asyncio.to_thread(self.node.start)

    async def kill_runner(self) -> None:
        victim = self._victim()
        victim.signal(signal.SIGKILL)
        await victim.wait()
        await self._replace(victim)

    async def stop_runner(self) -> None:
        victim = self._victim()
        if lines(victim, "pipeline.started"):
            await stop(victim)
        else:  # it is struck while it starts, perhaps before it knows what to do with a signal
            victim.signal(signal.SIGTERM)
            assert await victim.wait() in (0, UNREACHABLE, -signal.SIGTERM), victim.stderr
        await self._replace(victim)

    async def freeze_runner(self) -> None:
        self.cuts += 1
        victim = self._victim()
        victim.signal(signal.SIGSTOP)
        await self._a_while()
        victim.signal(signal.SIGCONT)

    async def look_after(self) -> None:
        """Start anew, as a supervisor does, what has not found its broker in time; nothing else ends by itself."""
        for runner in list(self.runners):
            if runner.has_ended:
                assert await runner.wait() == UNREACHABLE, runner.stderr
                assert not lines(runner, "pipeline.started"), runner.stderr
                self.given_up.append(runner.stderr)
                await self._replace(runner)

    def _victim(self) -> RunnerProcess:
        return self.random.choice([runner for runner in self.runners if not runner.has_ended])

    async def _replace(self, victim: RunnerProcess) -> None:
        self.killed += 1
        await victim.__aexit__(None, None, None)
        self.runners.remove(victim)
        self.runners.append(await self.project.up().__aenter__())

    async def _a_while(self) -> None:
        await asyncio.sleep(self.random.uniform(0.1, 4.0))  # the fault lasts so long; nothing is waited for


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.fault("F29", "anything at any time")
async def test_whatever_happens_nothing_is_lost(
    own_node: Node, tmp_path_factory: pytest.TempPathFactory, unique: str, fault: Fault, seed: int
) -> None:
    """CHAOS_SEEDS="4 5 6" CHAOS_BLOWS=50 for more of it."""
    async with Proxy(own_node.port) as proxy:
        project = Project(tmp_path_factory.mktemp("project"), unique, Place.at(proxy.url))
        load = Load(project, sent=MESSAGES, work_s=0.1, heartbeat="2s")
        chaos = Chaos(own_node, proxy, project, seed)
        async with chaos.two_runners():
            await load.send_to(own_node.url)
            await asyncio.to_thread(own_node.wait_until_kept, *load.queues)
            await chaos.rage(fault, lambda: load.done().keys() >= load.expected)
    losses = chaos.cuts + chaos.killed
    fault.judge(load.expected, load.done(), twice=losses * 2 * (2 * PREFETCH + UNCONFIRMED))
    with Foreign(own_node.url) as foreign:
        check_empty(foreign, *load.queues)
