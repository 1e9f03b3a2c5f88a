"""What `runner export` writes for Prometheus and Grafana, judged by Prometheus itself."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.metrics import METRICS
from tests.node import Node, free_port
from tests.project import Project, until
from tests.scraping import fetch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed: `make slow` installs it"),
]

PIPELINE = """
    version: 1
    name: shop
    queues: {orders: {}}
    producers:
      make: {handler: work:make, to: orders}
      tick: {handler: work:make, to: orders, every: 10m}
      at_six: {handler: work:make, to: orders, cron: "0 6 * * 1-5"}
    subscribers:
      ship: {from: orders, handler: work:ship}
"""
HANDLERS = """
    import os

    def make():
        return 1

    def ship(number: int) -> None:
        note(number)
        if not os.path.exists("mended"):
            raise ValueError("broken")
"""

DEAD = 'runner_messages_total{pipeline="shop",subscriber="ship",queue="orders",outcome="dead_lettered"}'
HANDLED = 'runner_messages_total{pipeline="shop",subscriber="ship",queue="orders",outcome="handled"}'
OLDEST = 'runner_queue_oldest_seconds{pipeline="shop",queue="orders"}'
CONCURRENCY = 'runner_concurrency{pipeline="shop",subscriber="ship",instance="INSTANCE"}'
PAUSED = 'runner_paused{pipeline="shop",subscriber="ship"}'
LEADER = 'runner_leader{pipeline="shop",instance="INSTANCE"}'
LAST_RUN = 'runner_producer_last_run_timestamp_seconds{pipeline="shop",producer="PRODUCER"}'

ALERTS: dict[str, tuple[dict[str, str], list[str], list[str]]] = {
    "RunnerDeadLetters": ({DEAD: "0x3 1x30"}, ["4m", "8m"], ["2m", "10m"]),
    "RunnerLag": ({OLDEST: "0x3 400x10 10x30"}, ["10m", "13m"], ["8m", "15m"]),
    "RunnerErrorRatio": ({DEAD: "0x3 0+20x20 400x30", HANDLED: "0+60x60"}, ["12m", "20m"], ["6m", "32m"]),
    "RunnerPaused": ({PAUSED: "0x2 1x40 0x30", CONCURRENCY: "0x80"}, ["34m", "42m"], ["31m", "44m"]),
    "RunnerNoConsumer": (
        {CONCURRENCY.replace("INSTANCE", "a"): "0x20 5x20", CONCURRENCY.replace("INSTANCE", "b"): "5x3 0x40"},
        ["7m", "20m"],
        ["3m", "5m", "22m"],
    ),
    "RunnerNoLeader": (
        {LEADER.replace("INSTANCE", "a"): "0x30 1x20", LEADER.replace("INSTANCE", "b"): "1x3 0x40"},
        ["10m", "30m"],
        ["3m", "8m", "32m"],
    ),
    "RunnerProducerMissed": ({LAST_RUN.replace("PRODUCER", "tick"): "0x20 1260x20"}, ["13m", "20m"], ["11m", "22m"]),
}
"""For each alert: a minute of each series after the other, when it fires, and when it does not."""


def promtool(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, text=True, timeout=60)


async def exported(project: Project, what: str) -> str:
    runner = await project.run_to_end("export", what, project.file)
    return runner.stdout


@pytest.fixture
async def rules(memory_project: Project) -> Path:
    memory_project.write(PIPELINE, HANDLERS)
    path = memory_project.folder / "rules.yaml"
    path.write_text(await exported(memory_project, "alerts"))
    return path


async def test_prometheus_accepts_the_rules(rules: Path) -> None:
    checked = promtool("check", "rules", rules)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    names = [rule["alert"] for group in yaml.safe_load(rules.read_text())["groups"] for rule in group["rules"]]
    assert set(names) == set(ALERTS)
    assert names.count("RunnerProducerMissed") == 2


@pytest.mark.parametrize("alert", ALERTS)
async def test_an_alert_fires_and_resolves_when_it_should(rules: Path, alert: str) -> None:
    series, firing, silent = ALERTS[alert]
    (rule, *_) = (
        rule
        for group in yaml.safe_load(rules.read_text())["groups"]
        for rule in group["rules"]
        if rule["alert"] == alert
    )
    moments = [(moment, 1) for moment in firing] + [(moment, 0) for moment in silent]
    tests = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                        "eval_time": moment,
                        "exp_samples": [{"labels": "{}", "value": count}],
                    }
                    for moment, count in moments
                ],
            }
        ],
    }
    path = rules.with_name("tests.yaml")
    path.write_text(json.dumps(tests))
    tested = promtool("test", "rules", path)
    assert tested.returncode == 0, f"{rule['expr']}\n{tested.stdout}{tested.stderr}"


async def test_an_idle_paused_subscriber_is_not_reported_as_without_a_consumer(rules: Path) -> None:
    name = 'count(ALERTS{alertname="RunnerNoConsumer",alertstate="firing"}) or vector(0)'
    expected = [{"expr": name, "eval_time": "20m", "exp_samples": [{"labels": "{}", "value": 0}]}]
    series = [{"series": PAUSED, "values": "1x30"}, {"series": CONCURRENCY, "values": "0x30"}]
    tests = {"interval": "1m", "input_series": series, "promql_expr_test": expected}
    path = rules.with_name("tests.yaml")
    path.write_text(json.dumps({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [tests]}))
    tested = promtool("test", "rules", path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


async def test_the_dashboard_asks_for_metrics_that_there_are(memory_project: Project) -> None:
    memory_project.write(PIPELINE, HANDLERS)
    board = json.loads(await exported(memory_project, "grafana"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    known = {each.name for each in METRICS}
    for expression in expressions:
        names = {name.removesuffix("_bucket") for name in re.findall(r"\brunner_\w+", expression)}
        assert names
        assert names <= known, expression
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions)
    ]
    path = memory_project.folder / "panels.yaml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    checked = promtool("check", "rules", path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_prometheus_accepts_the_metrics(project: Project) -> None:
    port = free_port()
    project.pipeline(
        PIPELINE.replace("name: shop", f'telemetry: {{http: "127.0.0.1:{port}"}}').replace("orders", "UNIQUE.orders")
    )
    project.handlers(HANDLERS)
    async with project.running() as runner:
        await runner.wait_for(lambda line: line["event"] == "message.dead_lettered", timeout=60)
        checked = promtool("check", "metrics", stdin=fetch(port))
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@asynccontextmanager
async def prometheus(folder: Path, port: int, rules: Path) -> AsyncIterator[int]:
    """A real Prometheus that scrapes a port each half second; the value is its own port."""
    own = free_port()
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "400ms", "evaluation_interval": "500ms"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "runner", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }
    (folder / "prometheus.json").write_text(json.dumps(config))
    with (folder / "prometheus.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={folder / 'prometheus.json'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{own}",
            stdout=output,
            stderr=output,
        )
    try:
        yield own
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


def firing(port: int) -> set[str]:
    """Return the names of the alerts that fire."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/alerts", timeout=10) as answer:
            alerts: list[dict[str, Any]] = json.load(answer)["data"]["alerts"]
    except OSError:
        return set()
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def quick(text: str) -> str:
    """Return rules that look at seconds instead of minutes, and wait for none."""
    return re.sub(r"for: \w+", "for: 0s", text.replace("[5m]", "[5s]").replace("> 300", "> 3"))


@pytest.mark.timeout(300)
async def test_a_real_prometheus_is_told_of_a_bad_day(own_node: Node, own_project: Project) -> None:
    """The handler fails, the broker dies, the broker comes back, the handler is mended, the process ends."""
    port = free_port()
    own_project.pipeline(
        f"""
        version: 1
        name: shop
        telemetry: {{http: "127.0.0.1:{port}"}}
        queues: {{orders: {{}}}}
        producers: {{make: {{handler: work:make, to: orders, every: 500ms}}}}
        subscribers: {{ship: {{from: orders, handler: work:ship, retry: none}}}}
        """
    )
    own_project.handlers(HANDLERS)
    rules = own_project.folder / "rules.yaml"
    rules.write_text(quick(await exported(own_project, "alerts")))
    async with prometheus(own_project.folder, port, rules) as server:
        await until(lambda: {"RunnerNoConsumer", "RunnerNoLeader"} <= firing(server), "nothing runs yet", 60)
        async with own_project.running():
            await until(lambda: firing(server) == {"RunnerDeadLetters", "RunnerErrorRatio"}, "it fails", 60)
            own_node.stop()
            await until(lambda: {"RunnerNoConsumer", "RunnerNoLeader"} <= firing(server), "no broker", 60)
            own_node.start()
            (own_project.folder / "mended").touch()
            await until(lambda: not firing(server), "all is well", 90)
        await until(lambda: {"RunnerNoConsumer", "RunnerNoLeader"} <= firing(server), "it has ended", 60)
