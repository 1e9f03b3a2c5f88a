"""Three nodes: the one we are connected to is killed, then the one that leads the queue; both come back. Under load."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.load import PREFETCH, UNCONFIRMED, Load, both_lost, check_quiet, is_back, losses
from tests.faults.verdict import Fault, check_empty
from tests.foreign import Foreign
from tests.node import Epmd, Node
from tests.process import RunnerProcess
from tests.project import Place, Project, started, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DISCONNECTED_S = 10
LOST_AT_ONCE = 2 * PREFETCH + UNCONFIRMED


@pytest.fixture
def cluster(installed: None) -> Iterator[list[Node]]:
    """Three nodes that form a cluster, on the loopback."""
    with ExitStack() as ending:
        epmd = Epmd()
        ending.callback(epmd.close)
        cookie, word = secrets.token_hex(16), secrets.token_hex(4)
        nodes = [Node(name=f"{name}{word}", epmd=epmd, cookie=cookie) for name in "abc"]
        for node in nodes:
            ending.callback(node.close)
            node.start()
        for node in nodes[1:]:
            node.ctl("stop_app")
            node.ctl("join_cluster", nodes[0].place.name)
            node.ctl("start_app")
        if nodes[0].line >= (4, 3):  # by default the consumers of a node that is gone keep their places for 60 s
            patience = f'{{"consumer-disconnected-timeout": {DISCONNECTED_S * 1000}}}'
            nodes[0].ctl("set_policy", "nodes", ".*", patience, "--apply-to", "quorum_queues")
        yield nodes


def members_of(node: Node, queue: str) -> tuple[str, set[str]]:
    """Return the node that leads a quorum queue, and those that have it, as another node sees it."""
    for line in node.ctl("list_queues", "name", "leader", "members").splitlines():
        name, leader, members = line.split("\t")
        if name == queue:
            return leader, {member.strip(" []'\"") for member in members.split(",")}
    raise AssertionError(f"no such queue: {queue}")


def connected_to(nodes: list[Node], runner: RunnerProcess) -> Node:
    """Return the node whose port the runner's last `broker.connected` names, or the first one."""
    said = [line["broker"] for line in runner.logs if line["event"] == "broker.connected"]
    return next(node for node in nodes if f":{node.port}" in said[-1])


@pytest.mark.fault("F1", "cluster of three: kill -9 of our node, then of the queue's leader; both come back")
async def test_a_cluster_that_loses_its_majority_and_finds_it_again(
    cluster: list[Node], tmp_path: Path, unique: str, fault: Fault
) -> None:
    """With one node gone it goes on; with two it waits, as there is no majority; when they are back it goes on."""
    project = Project(tmp_path, unique, Place(()))
    urls = [node.url for node in cluster]
    load = Load(project, sent=6000, made=3000, work_s=0.1, heartbeat="5s", urls=urls, is_held=True)
    async with project.running() as runner:
        await _wait_until_kept(cluster, load.kept)
        await load.send_to(cluster[0].url)
        load.release()
        await load.reach(100)
        first = connected_to(cluster, runner)
        await _kill(first, runner, fault)
        alive = [node for node in cluster if node is not first]
        count = load.count()
        await fault.recovery(lambda: load.count() >= count + 100, "it goes on with two nodes")
        second = await _leader_of(alive, load.work)
        assert load.count() < len(load.expected) - 500, "it is still under load"
        await asyncio.to_thread(second.kill)
        await asyncio.to_thread(first.start)
        await asyncio.to_thread(second.start)
        await fault.recovery(lambda: is_back(runner), "everything is back", timeout=90)
        await load.finish(120)
    check_quiet(runner)
    fault.judge(load.expected, load.done(), twice=3 * LOST_AT_ONCE)
    with Foreign(cluster[0].url) as foreign:
        check_empty(foreign, *load.queues)


MANY = [f"many.{number}" for number in range(8)]
PUBLISHING = """
    version: 1
    broker: {{urls: {urls}}}
    logging: {{messages: false}}
    queues: {{{queues}}}
    producers:
      make: {{handler: work:make, to: [{names}]}}
"""


@pytest.mark.fault("F1", "cluster of three: kill -9 of the node that we publish to")
async def test_a_producer_goes_on_with_two_nodes_of_three(
    cluster: list[Node], tmp_path: Path, unique: str, fault: Fault
) -> None:
    """Two of three are a majority: what is published is confirmed, at the latest after the patience for a confirm."""
    project = Project(tmp_path, unique, Place(()))
    names = [project.name(name) for name in MANY]
    urls = [node.url for node in cluster]
    load = Load(project, made=10_000)
    queues = ", ".join(f"{name}: {{}}" for name in names)
    project.pipeline(PUBLISHING.format(urls=urls, queues=queues, names=", ".join(names)))
    async with project.up() as runner:
        await started(runner)
        await until(lambda: len(load.given()) > 100, "it produces")
        await _wait_until_kept(cluster, [*names, f"{unique}.producers"])
        before = losses(runner)
        await asyncio.to_thread(connected_to(cluster, runner).kill)
        await until(lambda: losses(runner)["publish"] > before["publish"], "it notices")
        given = len(load.given())
        await fault.recovery(lambda: len(load.given()) > given + 200, "it goes on with two nodes")


async def _wait_until_kept(nodes: list[Node], queues: list[str]) -> None:
    """Wait until each queue has a copy on each node that outlives a kill."""
    everywhere = {node.place.name for node in nodes}
    for queue in queues:
        _, members = await asyncio.to_thread(members_of, nodes[0], queue)
        assert members == everywhere
    for node in nodes:
        await asyncio.to_thread(node.wait_until_kept, *queues)


async def _kill(node: Node, runner: RunnerProcess, fault: Fault) -> None:
    before = losses(runner)
    await asyncio.to_thread(node.kill)
    await both_lost(runner, before)
    await fault.recovery(lambda: is_back(runner), "everything is back, on another node", timeout=60)


async def _leader_of(alive: list[Node], queue: str) -> Node:
    for _ in range(20):
        leader, _ = await asyncio.to_thread(members_of, alive[0], queue)
        if found := [node for node in alive if node.place.name == leader]:
            return found[0]
    raise AssertionError(f"{leader} leads, which is dead")
