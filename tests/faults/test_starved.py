"""The broker runs out of memory or disk: it takes nothing in, and what it has goes on being handled."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.test_probes import ask
from tests.faults.load import UNCONFIRMED, Load, check_quiet
from tests.faults.verdict import Fault, check_empty
from tests.foreign import Foreign
from tests.node import Node, free_port
from tests.project import Project, lines, until

MEMORY = (("set_vm_memory_high_watermark", "0.00001"), ("set_vm_memory_high_watermark", "0.4"))
DISK = (("set_disk_free_limit", "99999GB"), ("set_disk_free_limit", "1MB"))


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "commands",
    [
        pytest.param(MEMORY, id="memory", marks=pytest.mark.fault("F13", "the broker's alarm")),
        pytest.param(DISK, id="disk", marks=pytest.mark.fault("F14", "the broker's alarm")),
    ],
)
async def test_a_broker_that_takes_nothing(
    own_node: Node, own_project: Project, fault: Fault, commands: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    """Consumers go on, the producer is held back and not failed; it is told once, and over when the alarm is."""
    load = Load(own_project, sent=2500, made=4000, pace_s=0.002)
    alarm, all_clear = commands
    port = free_port()
    async with own_project.running("--http", f"127.0.0.1:{port}") as runner:
        await load.send_to(own_node.url)
        await asyncio.to_thread(own_node.ctl, *alarm)
        await runner.wait_for(lambda line: line["event"] == "broker.blocked" and line["role"] == "publish")
        await until(lambda: load.done().keys() >= set(load.sent), "what is there is handled all the same", timeout=40)
        made = sum(name.startswith("made") for name in load.done())
        assert len(load.given()) <= made + UNCONFIRMED + 1, "the producer waits"
        assert len(load.given()) < len(load.made)
        assert lines(runner, "broker.unblocked") == []
        assert ask(port, "/healthz")[0] == ask(port, "/readyz")[0] == 200, "it works on what there is"
        await asyncio.to_thread(own_node.ctl, *all_clear)
        await fault.recovery(lambda: lines(runner, "broker.unblocked", role="publish"), "it may publish again")
        await load.finish()
    assert len(lines(runner, "broker.blocked")) == 1
    assert lines(runner, "broker.lost") == lines(runner, "producer.failed") == []
    check_quiet(runner)
    fault.judge(load.expected, load.done(), twice=UNCONFIRMED)
    with Foreign(own_node.url) as foreign:
        check_empty(foreign, *load.queues)
