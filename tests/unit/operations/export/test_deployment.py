"""What the deployment files share: variables, addresses, names; in both compose and Kubernetes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner.config.overlays import Overlay, Setting
from runner.operations.export.compose import compose
from runner.operations.export.definitions import vhost_of
from runner.operations.export.deployment import SecretInCommand, deployment, object_name
from runner.operations.export.kubernetes import kubernetes
from runner.operations.pipeline_files import read_specs
from runner.system import load
from tests.unit.operations.export.exported import ENVIRON, READ, SHOP, known, objects, read, services


def test_variables_are_named_and_divided() -> None:
    """The URL and what looks secret go to the Secret; one with a default may be missing; no value anywhere."""
    system = read()
    facts = known(system)
    found = {each.name: (each.is_secret, each.has_default) for each in facts.variables}
    assert found == {
        "SHOP_URL": (True, False),
        "API": (True, False),
        "MODE": (False, True),
        "SIZE": (False, True),
        "WORD": (False, False),
    }
    assert facts.broker_variable == "SHOP_URL"
    text = compose(facts, vhost_of(system.broker)) + kubernetes(system.pipelines, system.whole_topology, facts)
    assert "canary" not in text
    assert "ann" not in text
    assert "rabbit.host" not in text


def test_overlays_stand_in_the_command_and_their_variables_are_passed_on() -> None:
    read()
    Path("prod.yaml").write_text("shutdown: {grace: '${GRACE}'}\n")
    overlays: list[Overlay] = [Path("prod.yaml"), Setting("owner=${TEAM:-us}")]
    environ = {**ENVIRON, "GRACE": "90s"}
    system = load([READ], environ, overlays)
    facts = deployment(system.pipelines, read_specs([READ], environ, overlays), None, overlays)
    assert facts.arguments == ("shop.yaml", "--overlay", "prod.yaml", "--set", "owner=${TEAM:-us}")
    assert {"GRACE", "TEAM"} <= {variable.name for variable in facts.variables}
    assert facts.grace_s == 90.0
    text = kubernetes(system.pipelines, system.whole_topology, facts)
    assert '"owner=$${TEAM:-us}"' in text
    assert "owner=$${TEAM:-us}" in compose(facts, "/")


@pytest.mark.parametrize(
    ("setting", "is_refused"),
    [
        ("broker.url=amqp://shop:hunter2@rabbit", True),
        ("broker={host: rabbit, user: shop, password: hunter2}", True),
        ("subscribers.ship.with.api_token=hunter2", True),
        ("broker.url=amqp://shop:${PASSWORD}@rabbit", False),
        ("broker.password=${file:/run/secrets/rabbit}", False),
        ("events.paid.key=order.paid", False),
    ],
)
def test_a_secret_of_a_setting_does_not_get_into_a_command(setting: str, is_refused: bool) -> None:
    system = read()
    specs = read_specs([READ], ENVIRON)
    if is_refused:
        with pytest.raises(SecretInCommand) as error:
            deployment(system.pipelines, specs, None, [Setting(setting)])
        assert "hunter2" not in f"{error.value} {error.value.hint}"
    else:
        assert deployment(system.pipelines, specs, None, [Setting(setting)]).arguments[-1] == setting


@pytest.mark.parametrize(
    "broker",
    [
        "memory",
        '{url: "amqp://${SHOP_USER}:${SHOP_PASSWORD}@rabbit/"}',
        "amqp://localhost/",
        '{urls: ["amqp://a:b@c/"]}',
    ],
)
def test_a_url_that_is_not_one_variable_is_given_by_ours(broker: str) -> None:
    """`RUNNER_BROKER` wins over the file, in the container and for KEDA."""
    text = f"version: 1\nname: shop\nbroker: {broker}\nqueues: {{}}\n"
    READ.write_text(text)
    environ = {"SHOP_USER": "u", "SHOP_PASSWORD": "p"}
    system = load([READ], environ)
    facts = deployment(system.pipelines, read_specs([READ], environ), None)
    assert facts.broker_variable == "RUNNER_BROKER"
    assert all(each.is_secret for each in facts.variables)


@pytest.mark.parametrize("broker", ['"${SHOP_URL:-amqp://a:b@c/}"', "{urls: ['${SHOP_URL:?say}', 'amqp://a:b@d/']}"])
def test_the_first_url_may_be_written_in_any_form(broker: str) -> None:
    """Short, with a default, or in a list."""
    assert known(read(f"version: 1\nname: shop\nbroker: {broker}\nqueues: {{}}\n")).broker_variable == "SHOP_URL"


@pytest.mark.parametrize(
    ("telemetry", "port", "said"),
    [
        ("", 8080, ["--http", "0.0.0.0:8080"]),
        ("    telemetry: {http: '127.0.0.1:9000'}\n", 9000, ["--http", "0.0.0.0:9000"]),
        ("    telemetry: {http: '0.0.0.0:9000'}\n", 9000, []),
    ],
)
def test_a_producer_with_http_can_be_reached(telemetry: str, port: int, said: list[str]) -> None:
    """A published port, and a Service; the process listens on every address of its container."""
    text = SHOP.replace("producers:", "producers:\n      web: {http: /orders, to: orders}") + telemetry
    runner = services(read(text))["runner"]
    assert runner["command"] == ["runner", "up", "shop.yaml", *said]
    assert runner["ports"] == [f"{port}:{port}"]
    assert f"'http://127.0.0.1:{port}/readyz'" in runner["healthcheck"]["test"][-1]
    found = objects(read(text))
    assert found["Service"]["spec"]["ports"] == [{"name": "http", "port": port, "targetPort": "http"}]
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == labels


@pytest.mark.parametrize("broker", ['"${SHOP_URL:-memory}"', '{url: "${SHOP_URL:-amqp://a:b@c/}"}', "memory"])
def test_the_brokers_variable_is_never_optional(broker: str) -> None:
    """A missing Secret must not run production in memory, and be ready."""
    system = read(f"version: 1\nname: shop\nbroker: {broker}\nqueues: {{}}\n")
    facts = known(system)
    name = facts.broker_variable
    (container,) = objects(system)["Deployment"]["spec"]["template"]["spec"]["containers"]
    source = {each["name"]: each["valueFrom"] for each in container["env"]}[name]
    assert source == {"secretKeyRef": {"name": "shop-secret", "key": name}}
    (variable,) = services(system)["runner"]["environment"]
    assert variable.startswith(f"{name}=${{{name}:?")


@pytest.mark.parametrize(
    ("telemetry", "port", "said"), [("127.0.0.1:9000", 9000, ["--http", "0.0.0.0:9000"]), ("0.0.0.0:9000", 9000, [])]
)
def test_probes_are_answered_to_the_outside(telemetry: str, port: int, said: list[str]) -> None:
    """The kubelet is not on the container's loopback interface."""
    found = objects(read(f"{SHOP}    telemetry: {{http: {telemetry}}}\n"))
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["up", "shop.yaml", *said]
    assert container["ports"][0]["containerPort"] == port


def test_dollars_are_written_as_each_reader_wants_them() -> None:
    """KEDA reads a name as it stands; arguments of a container would expand $(…)."""
    subscriber = "{from: $$a$$$$b, handler: 'exported_work:handle'}"
    system = read(f"version: 1\nname: shop\nqueues: {{$a$$b: {{}}}}\nsubscribers: {{s: {subscriber}}}\n")
    (trigger,) = objects(system)["ScaledObject"]["spec"]["triggers"]
    assert trigger["metadata"]["queueName"] == "$a$$b"


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["shop"], "shop"),
        (["Shop_Floor", "b.c"], "shop-floor-b-c"),
        (["7up"], "runner-7up"),
        (["日本"], "runner"),
        (["a" * 80], "a" * 50),
        (["a" * 49 + ".b"], "a" * 49),
    ],
)
def test_a_name_is_one_that_kubernetes_takes(names: list[str], name: str) -> None:
    """Lower-case letters, digits and hyphens, with a letter first."""
    assert object_name(names) == name
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
