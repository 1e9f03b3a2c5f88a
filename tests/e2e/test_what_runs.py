"""What runs can be seen from outside: in the broker's list of connections, in the log, and on /healthz."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.request

import pytest

from runner.release import version
from tests.node import Broker, free_port
from tests.project import Project, lines, until

PIPELINE = """
    version: 1
    name: UNIQUE
    release: "2026.11"
    queues: {UNIQUE.work: }
    subscribers: {s: {from: UNIQUE.work, handler: "work:handle"}}
    telemetry: {http: "127.0.0.1:PORT"}
"""


def alive(port: int) -> object:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
        return json.load(answer)


ENVIRONMENTS: list[tuple[dict[str, str], str]] = [
    ({}, "2026.11"),
    ({"RUNNER_RELEASE": "abc123"}, "abc123"),
    ({"RUNNER_RELEASE": ""}, "2026.11"),
]


@pytest.mark.parametrize(("environ", "release"), ENVIRONMENTS)
async def test_the_broker_the_log_and_the_probe_say_what_runs(
    rabbit_project: Project, rabbitmq: Broker, environ: dict[str, str], release: str
) -> None:
    port = free_port()
    rabbit_project.write(PIPELINE.replace("PORT", str(port)), "def handle(order: str) -> None: ...")
    async with rabbit_project.running(env=environ) as runner:
        told = rabbitmq.ctl("list_connections", "--formatter", "json", "client_properties")
        said = await asyncio.to_thread(alive, port)
    assert said == {"status": "alive", "version": version(), "release": release}
    (line,) = lines(runner, "pipeline.started")
    assert (line["version"], line["release"]) == (version(), release)
    host, pid, name = socket.gethostname(), runner.pid, rabbit_project.unique
    for role in ("publish", "consume"):
        assert f"{name} ({role}) {host}:{pid}" in told
    for key, value in {"product": "mqrunner", "version": version(), "release": release, "host": host}.items():
        assert f'["{key}","longstr","{value}"]' in told.replace(" ", "")


NEWEST = ["consumer timeouts", "32 quorum priorities", "uncounted returns"]
FEATURES: dict[tuple[int, int], list[str]] = {(3, 10): [], (4, 0): ["2 quorum priorities"], (4, 3): NEWEST}


async def test_the_log_and_the_checklist_say_what_this_line_of_rabbitmq_has(
    rabbit_project: Project, rabbitmq: Broker
) -> None:
    """At the start, and after each reconnect: behind the same address there may be another broker by then."""
    rabbit_project.write(PIPELINE.replace("PORT", str(free_port())), "def handle(order: str) -> None: ...")
    async with rabbit_project.running() as runner:
        await asyncio.to_thread(rabbitmq.close_connections_of, rabbit_project.unique)
        await until(lambda: len(lines(runner, "broker.connected")) == 3, "both connections are back")
    product, features = f"RabbitMQ {rabbitmq.ctl('version').strip()}", FEATURES[rabbitmq.line]
    for line in lines(runner, "broker.connected"):
        assert (line["product"], line.get("features", [])) == (product, features)
    shown = runner.stderr.splitlines()
    (number,) = [number for number, line in enumerate(shown) if line.startswith(f"broker     {product} · amqp://")]
    below = shown[number + 1]
    assert below == f"           with {' · '.join(features)}" if features else below.startswith("topology ")
