"""`runner status`: what waits in each queue, over AMQP alone and with the management API."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import urllib.request
from typing import Any

import pytest

from tests.foreign import Foreign
from tests.node import Broker, Node, free_port
from tests.project import Project, until
from tests.scraping import Scrape

PIPELINE = """
    version: 1
    queues:
      UNIQUE.orders:
      UNIQUE.bills: {dead_letter: UNIQUE.lost}
    subscribers:
      handle: {from: UNIQUE.orders, handler: work:handle, concurrency: 2, prefetch: 2, retry: {attempts: 2, delay: 2m}}
"""
HANDLERS = """
    import time
    def handle(payload) -> None:
        note(payload)
        if payload == "fails":
            raise ValueError
        time.sleep(60)
"""


@pytest.fixture
def shop(rabbit_project: Project) -> Project:
    rabbit_project.write(PIPELINE, HANDLERS)
    return rabbit_project


async def looked(project: Project, *arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pipeline as `status --json` says, and its queues by name."""
    runner = await project.do("status", "--json", *arguments)
    (pipeline,) = json.loads(runner.stdout)
    return pipeline, {queue["queue"].removeprefix(f"{project.unique}."): queue for queue in pipeline["queues"]}


async def test_amqp_tells_what_is_ready_and_who_takes_it(shop: Project, foreign: Foreign) -> None:
    """One row for each queue with its dead letters; retries for the pipeline; unknown is a dash, and exit 0."""
    async with shop.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        foreign.publish(shop.name("orders"), b"fails", b"1", b"2", b"3", b"4")
        foreign.publish(shop.name("lost"), b"dead", b"too")
        await shop.ledger.wait_for(3)
        await runner.wait_for(lambda line: line["event"] == "message.retry")
        pipeline, queues = await looked(shop)
        assert queues["orders"] == {
            "queue": shop.name("orders"),
            "exists": True,
            "ready": 2,
            "unacked": None,
            "consumers": 1,
            "publish_rate": None,
            "deliver_rate": None,
            "oldest_s": None,
            "failed": None,
            "paused": False,
            "dead_letter": shop.name("orders.dead"),
            "dead": 0,
        }
        assert (queues["bills"]["ready"], queues["bills"]["consumers"], queues["bills"]["dead"]) == (0, 0, 2)
        assert (pipeline["pipeline"], pipeline["retrying"]) == (shop.unique, 1)
        assert set(queues) == {"orders", "bills"}
        table = await shop.do("status")
        assert "1 waiting for a retry" in table.stdout
        row = next(line for line in table.stdout.splitlines() if shop.name("orders") in line)
        assert row.split() == [shop.name("orders"), "2", "–", "1", "–", "–", "–", "–", "0"]
        assert "management API: not used" in table.stderr


async def test_the_management_api_tells_the_rest(managed_project: Project, managed: Broker, other: Foreign) -> None:
    """Unacknowledged messages and rates, and retries with delays that no pipeline says."""
    managed_project.write(PIPELINE, HANDLERS)
    async with managed_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        other.publish(managed_project.name("orders"), b"1", b"2", b"3")
        channel = other.channel
        channel.queue_declare(f"{managed_project.unique}.retry.77", durable=True)
        other.publish(f"{managed_project.unique}.retry.77", b"waits")
        await managed_project.ledger.wait_for(2)
        options = ("--management", managed.management_url)
        pipeline, queues = await looked(managed_project, *options)
        async with asyncio.timeout(30):  # its numbers are some seconds old
            while not (queues["orders"]["unacked"] and pipeline["retrying"]):
                pipeline, queues = await looked(managed_project, *options)
        assert (queues["orders"]["ready"], queues["orders"]["unacked"], queues["orders"]["consumers"]) == (1, 2, 1)
        assert isinstance(queues["orders"]["publish_rate"], float)
        assert isinstance(queues["orders"]["deliver_rate"], float)
        assert pipeline["retrying"] == 1
        table = await managed_project.do("status", *options)
        assert table.stderr == ""
        (process,) = pipeline["processes"]
        assert (process["host"], process["process"]) == (socket.gethostname(), str(runner.pid))
        assert f"run by {socket.gethostname()} · process {runner.pid} · " in table.stdout


async def test_a_queue_that_is_not_there_is_missing(shop: Project, foreign: Foreign) -> None:
    """Nothing has run yet: exit 0, and nothing is declared by looking."""
    table = await shop.do("status")
    assert [line.split()[-2:] for line in table.stdout.splitlines()[2:]] == [["missing", "–"], ["missing", "–"]]
    _, queues = await looked(shop)
    assert [queues[name]["exists"] for name in ("orders", "bills")] == [False, False]
    assert not foreign.has_queue(shop.name("orders"))


async def test_watching_looks_again(shop: Project, foreign: Foreign) -> None:
    """A list on each line, with what has changed, until SIGINT; then exit 0."""
    arguments = ("--watch", "--interval", "100ms", "--json", *shop.place.arguments)
    async with shop.run("status", shop.file, *arguments) as runner:
        await until(lambda: runner.stdout.count("\n") >= 2, "two looks")
        foreign.channel.queue_declare(shop.name("bills"), durable=True)
        foreign.publish(shop.name("bills"), b"1")

        def ready() -> Any:
            return json.loads(runner.stdout.splitlines()[-2])[0]["queues"][1]["ready"]

        await until(lambda: ready() == 1, "the new message is seen")
        runner.signal(signal.SIGINT)
        assert await runner.wait() == 0, runner.stderr
    assert "Traceback" not in runner.stderr


async def test_what_cannot_be_looked_at_is_one_line(memory_project: Project) -> None:
    """The in-process broker: exit 2; none that answers: exit 69."""
    memory_project.write(PIPELINE, HANDLERS)
    runner = await memory_project.do("status", code=2)
    assert "there is no live broker to inspect" in runner.stderr
    memory_project.pipeline(PIPELINE + "    broker: {url: 'amqp://u:secret@127.0.0.1:1', connect_timeout: 100ms}\n")
    unreachable = await memory_project.run_to_end("status", memory_project.file, code=69)
    assert "127.0.0.1:1" in unreachable.stderr
    assert "secret" not in unreachable.stderr


@pytest.mark.slow
async def test_watching_outlives_the_broker(own_node: Node, own_project: Project) -> None:
    """While it is away, stderr says so; when it is back, looks go on."""
    own_project.write(PIPELINE, HANDLERS)
    arguments = ("--watch", "--interval", "100ms", "--json", *own_project.place.arguments)
    async with own_project.run("status", own_project.file, *arguments) as runner:
        await until(lambda: runner.stdout, "a look")
        await asyncio.to_thread(own_node.kill)
        await until(lambda: "trying again" in runner.stderr, "it says so")
        seen = runner.stdout.count("\n")
        await asyncio.to_thread(own_node.start)
        await until(lambda: runner.stdout.count("\n") > seen + 1, "it looks again", timeout=40)
        runner.signal(signal.SIGTERM)
        assert await runner.wait() == 0, runner.stderr
    assert "Traceback" not in runner.stderr


RUNNING = """
    version: 1
    release: r-7
    telemetry: {http: "127.0.0.1:PORT"}
    queues: {UNIQUE.orders: {type: KIND}}
    producers: {bring: {http: /bring, to: UNIQUE.orders}}
    subscribers:
      handle: {from: UNIQUE.orders, handler: work:wait, prefetch: 1, retry: {attempts: 2, delay: 50ms}}
"""
WAITING = """
    import os, time
    def wait(payload) -> None:
        note(payload)
        if payload == "fails":
            raise ValueError
        while not os.path.exists("go"):
            time.sleep(0.01)
"""


def bring(port: int, *texts: str) -> None:
    for text in texts:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/bring", json.dumps(text).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 202


@pytest.mark.timeout(180)
async def test_a_process_that_answers_says_what_no_broker_knows(project: Project) -> None:
    """Failed attempts, the oldest of a quorum queue, and what runs; of the in-process broker everything."""
    port = free_port()
    project.write(RUNNING.replace("PORT", str(port)).replace("KIND", "quorum"), WAITING)
    async with project.running() as runner:
        bring(port, "fails")
        await until(lambda: project.ledger.counts()["fails"] == 2, "one has failed twice")
        bring(port, "waits", "ready")
        await until(lambda: "waits" in project.ledger.counts(), "one waits")
        await until(lambda: Scrape(port)("runner_messages_total", outcome="dead_lettered") == 1, "it is counted")
        queue: dict[str, Any] = {}
        async with asyncio.timeout(30):
            while queue.get("ready") != 1 or not queue["oldest_s"] or queue["dead"] != 1:
                pipeline, queues = await looked(project)
                queue = queues["orders"]
        assert (queue["failed"], queue["paused"]) == (2, False)
        assert queue["oldest_s"] > 0
        (process,) = pipeline["processes"]
        assert (process["host"], process["process"]) == (socket.gethostname(), str(runner.pid))
        assert process["release"] == "r-7"
        table = await project.do("status")
        assert f"process {runner.pid} · release r-7 · " in table.stdout
        fine = ("dead>1", "age>1h", "consumers<1", "failed>2")
        await project.do("status", *(part for condition in fine for part in ("--fail-if", condition)))
        judged = await project.do("status", "--fail-if", "dead>0", "age>1h", "--fail-if", "failed>=2", code=1)
        assert [line for line in judged.stderr.splitlines() if line.startswith("failed: ")] == [
            f"failed: {project.name('orders')}: dead is 1 (dead>0)",
            f"failed: {project.name('orders')}: failed is 2 (failed>=2)",
        ]
        other = await project.do("status", "--fail-if", "nowhere: dead>0", code=2)
        assert "names no queue of the pipelines" in other.stderr
        (project.folder / "go").touch()
        await until(lambda: Scrape(port)("runner_messages_total", outcome="handled") == 2, "nothing is left")


async def test_what_is_not_known_fails_and_is_said(shop: Project, foreign: Foreign) -> None:
    """A probe that is green because nothing was known would be worse than none."""
    foreign.channel.queue_declare(shop.name("orders"), durable=True, arguments={"x-queue-type": "quorum"})
    foreign.publish(shop.name("orders"), b"1")
    judged = await shop.do("status", "--fail-if", "age>5m", code=1)
    assert f"failed: {shop.name('orders')}: age is not known, so age>5m may hold" in judged.stderr
    other = await shop.do("status", "--fail-if", f"{shop.name('bills')}: age>5m")
    assert "failed" not in other.stderr, "a queue that does not exist has no old message"


async def test_a_process_that_does_not_answer_is_named(project: Project) -> None:
    """On RabbitMQ the broker's part is shown all the same; of the in-process broker nothing is there to be shown."""
    port = free_port()
    project.write(RUNNING.replace("PORT", str(port)).replace("KIND", "quorum"), WAITING)
    runner = await project.do("status", code=69 if project.place.is_memory else 0)
    assert f"no process answers at 127.0.0.1:{port}: connection refused" in runner.stderr
