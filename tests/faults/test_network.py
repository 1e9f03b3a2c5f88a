"""The network fails between the runner and a broker that is well: cut, held back, slow, not there yet."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.faults.load import PREFETCH, UNCONFIRMED, Load, both_lost, check_quiet, is_back, losses
from tests.faults.verdict import RECOVERY_S, Fault, check_empty
from tests.foreign import Foreign
from tests.node import Broker, free_port
from tests.process import RunnerProcess
from tests.project import Place, Project, lines, stop, until
from tests.proxy import Direction, Proxy

LOST_AT_ONCE = 2 * PREFETCH + UNCONFIRMED
"""What may be done twice after one loss of both connections: what was held, and what was being published."""


def cpu_seconds(runner: RunnerProcess) -> float:
    """Return the processor time that the runner has used so far."""
    fields = Path(f"/proc/{runner.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def through(proxy: Proxy, project: Project) -> None:
    """Let the project reach its broker by the proxy only."""
    project.place = Place.at(proxy.url)


@pytest.mark.slow
@pytest.mark.fault("F5", "both connections reset every 200 ms for 10 s")
async def test_connections_that_are_reset_all_the_time(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker, fault: Fault
) -> None:
    """Nothing is lost; it neither spins nor floods the log while it cannot work, and then it works."""
    load = Load(rabbit_project, sent=1500, made=500)
    async with Proxy(rabbitmq.port) as proxy:
        through(proxy, rabbit_project)
        async with rabbit_project.running() as runner:
            load.send(foreign)
            await load.reach(100)
            cpu, since, cuts, had = cpu_seconds(runner), time.monotonic(), 0, 0
            while time.monotonic() < since + 10:
                had += proxy.open > 0
                proxy.cut()
                cuts += 1
                await asyncio.sleep(0.2)  # the period of the fault
            share = (cpu_seconds(runner) - cpu) / (time.monotonic() - since)
            written = len(runner.logs)
            await fault.recovery(lambda: proxy.open >= 2, "both connections are back")
            await load.finish(RECOVERY_S)
    assert cuts >= 20
    assert share < 0.5
    assert written <= 20 + 12 * had, "about a line for each change of each part, not for each attempt"
    check_quiet(runner)
    fault.judge(load.expected, load.done(), twice=had * LOST_AT_ONCE)
    check_empty(foreign, *load.queues)


@pytest.mark.slow
@pytest.mark.fault("F6", "one direction of the network is held back until it is noticed")
@pytest.mark.parametrize("held", ["up", "down"])
async def test_a_half_open_connection(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker, fault: Fault, held: Direction
) -> None:
    """Heartbeats find out, within the client's patience of three beats; running handlers are not disturbed."""
    load = Load(rabbit_project, sent=1000, made=500, heartbeat="2s")
    async with Proxy(rabbitmq.port) as proxy:
        through(proxy, rabbit_project)
        async with rabbit_project.running() as runner:
            load.send(foreign)
            await load.reach(100)
            proxy.half_open(held)
            await both_lost(runner, Counter())
            proxy.cut()  # new connections are needed: the old ones would pass on what they held back
            proxy.pass_through()
            await fault.recovery(lambda: is_back(runner), "everything is back")
            await load.finish()
    check_quiet(runner)
    fault.judge(load.expected, load.done(), twice=2 * LOST_AT_ONCE)
    check_empty(foreign, *load.queues)


@pytest.mark.fault("F7", "each byte comes 300 ms late, each way")
async def test_a_slow_network(rabbit_project: Project, foreign: Foreign, rabbitmq: Broker, fault: Fault) -> None:
    """As many messages in each round trip as the prefetch allows, no false alarm, and nothing twice."""
    load = Load(rabbit_project, sent=200, work_s=0.001)
    delay_s = 0.3
    async with Proxy(rabbitmq.port) as proxy:
        through(proxy, rabbit_project)
        async with rabbit_project.running() as runner:
            proxy.latency(delay_s)
            load.send(foreign)
            since = time.monotonic()
            await load.finish()
            took_s = time.monotonic() - since
            proxy.pass_through()
    ideal_s = len(load.sent) / PREFETCH * 2 * delay_s
    assert took_s < 5 * ideal_s
    assert lines(runner, "broker.lost") == lines(runner, "consumer.lost") == lines(runner, "broker.stalled") == []
    check_quiet(runner)
    fault.judge(load.expected, load.done(), twice=0)
    check_empty(foreign, *load.queues)


@pytest.mark.fault("F8", "the broker comes up only after the runner")
async def test_a_broker_that_comes_later(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker, fault: Fault
) -> None:
    """Within `connect_timeout` the runner waits, saying so once, and then runs as if nothing had been."""
    load = Load(rabbit_project, made=50)
    proxy = Proxy(rabbitmq.port)
    proxy.port = free_port()
    through(proxy, rabbit_project)
    async with rabbit_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "broker.unreachable")
        async with proxy:
            await fault.recovery(lambda: lines(runner, "pipeline.started"), "it runs")
            await load.finish()
            await stop(runner)
    assert len(lines(runner, "broker.unreachable")) == 1
    check_quiet(runner)
    fault.judge(load.expected, load.done(), twice=0)
    check_empty(foreign, *load.queues)


@pytest.mark.slow
@pytest.mark.fault("F17", "an operator closes its connections, ten in all")
@pytest.mark.timeout(120)
async def test_connections_that_an_operator_closes(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker, fault: Fault
) -> None:
    """It reconnects each time; the broker's word for it is in the log."""
    load = Load(rabbit_project, sent=8000, made=1500, pace_s=0.025)
    async with rabbit_project.running() as runner:
        load.send(foreign)
        await load.reach(50)
        closed = 0
        while closed < 10:
            before = losses(runner).total()
            assert load.count() < len(load.expected), "it is still under load"
            now = await asyncio.to_thread(rabbitmq.close_connections_of, rabbit_project.unique)
            await until(partial(lambda least: losses(runner).total() >= least, before + now), "it notices")
            await fault.recovery(lambda: is_back(runner), "everything is back")
            closed += now
        await load.finish()
    reasons = {line["error"] for line in lines(runner, "broker.lost")}
    assert any("closed by a test" in reason for reason in reasons), reasons
    check_quiet(runner)
    fault.judge(load.expected, load.done(), twice=closed * LOST_AT_ONCE)
    check_empty(foreign, *load.queues)


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.fault("F23", "connections that have stood for seconds are cut, six times")
async def test_a_connection_that_has_worked_is_made_again_soon(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker, fault: Fault
) -> None:
    """Some seconds of work later it is no failed attempt to connect: the next one is not put off for longer."""
    load = Load(rabbit_project, sent=6000, work_s=0.08)
    async with Proxy(rabbitmq.port) as proxy:
        through(proxy, rabbit_project)
        async with rabbit_project.running("--only", "work") as runner:
            load.send(foreign)
            for _ in range(6):
                await load.reach(load.count() + 900)  # takes more than 7 s
                before = losses(runner)
                proxy.cut()
                await both_lost(runner, before)
                await fault.recovery(lambda: is_back(runner, subscribers=1), "everything is back")
            await load.finish()
    fault.judge(load.expected, load.done(), twice=6 * PREFETCH)
    assert fault.row["seconds"] < 3, "the pause has grown"
