"""The compose file: required fields, probes, ports."""

from __future__ import annotations

import pytest
import yaml

from runner.operations.export.compose import compose
from tests.unit.operations.export.exported import IN_A_FILE, SHOP, known, read, services


def test_compose_has_a_broker_and_a_runner() -> None:
    """What depends on what, how health is asked for, and how long the end may take."""
    found = services(read())
    rabbitmq, runner = found["rabbitmq"], found["runner"]
    assert rabbitmq["volumes"] == ["rabbitmq-data:/var/lib/rabbitmq"]
    assert "RABBITMQ_DEFAULT_VHOST=my shop" in rabbitmq["environment"]
    assert rabbitmq["healthcheck"]["test"][0] == "CMD"
    assert rabbitmq["stop_grace_period"] == "60s"
    assert runner["command"] == ["runner", "up", "shop.yaml", "--http", "0.0.0.0:8080"]
    url = "SHOP_URL=${SHOP_URL:?the URL of the broker, whose host name is rabbitmq}"
    assert runner["environment"] == ["API", "MODE", url, "SIZE", "WORD"]
    assert runner["init"] is True
    assert runner["ports"] == ["127.0.0.1:8080:8080"], "for /metrics and the page, from this machine alone"
    assert runner["stop_grace_period"] == "56s"
    assert runner["build"] == "."
    assert runner["image"] == "shop:latest"
    assert runner["depends_on"] == {"rabbitmq": {"condition": "service_healthy"}}
    assert "http://127.0.0.1:8080/readyz" in runner["healthcheck"]["test"][-1]


@pytest.mark.parametrize(
    ("telemetry", "http", "asked", "said"),
    [
        ("0.0.0.0:9000", None, "127.0.0.1:9000", []),
        ("127.0.0.1:9000", ("0.0.0.0", 7000), "127.0.0.1:7000", ["--http", "0.0.0.0:7000"]),
        ("'[::]:9000'", None, "[::1]:9000", []),
    ],
)
def test_compose_asks_where_the_pipeline_answers(
    telemetry: str, http: tuple[str, int] | None, asked: str, said: list[str]
) -> None:
    """The command line wins over `telemetry.http`; "anywhere" is asked on the loopback interface."""
    runner = services(read(f"{SHOP}    telemetry: {{http: {telemetry}}}\n"), http)["runner"]
    assert f"'http://{asked}/readyz'" in runner["healthcheck"]["test"][-1]
    compile(runner["healthcheck"]["test"][-1], "healthcheck", "exec")
    assert runner["command"] == ["runner", "up", "shop.yaml", *said]


def test_a_broker_in_a_file_is_on_a_volume() -> None:
    """No RabbitMQ, and no variable for its URL: the option wins over the path in the pipeline."""
    system = read(IN_A_FILE)
    runner, *others = services(system).values()
    assert others == []
    assert runner["volumes"] == ["messages:/var/lib/runner"]
    assert runner["command"][2:5] == ["shop.yaml", "--broker", "file:/var/lib/runner/shop.queue"]
    assert runner["environment"] == ["API", "SIZE", "WORD"]
    assert "depends_on" not in runner
    text = compose(known(system), "/")
    assert yaml.safe_load(text)["volumes"] == {"messages": {}}
    assert text.startswith("# Messages are in /var/lib/runner/shop.queue, and one process owns it")


def test_the_variable_of_a_file_is_passed_on_as_any_other() -> None:
    """The pipeline cannot be read without it, but its path is not that in the container."""
    runner = services(read(SHOP_URL="file:/srv/shop.queue", MODE="manage"))["runner"]
    assert "SHOP_URL" in runner["environment"]
    assert "file:/var/lib/runner/shop.queue" in runner["command"]
