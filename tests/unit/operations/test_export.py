"""Definitions, permissions, compose and Kubernetes as values: types, names, what is left out, and required fields."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from runner import app
from runner.app import System
from runner.operations.export.alerts import longest_pause_s
from runner.operations.export.compose import compose
from runner.operations.export.definitions import definitions, to_json, vhost_of
from runner.operations.export.deployment import Deployment, deployment, object_name
from runner.operations.export.kubernetes import kubernetes
from runner.operations.export.permissions import Permissions, permissions
from runner.operations.export.systemd import systemd
from runner.operations.pipeline_files import read_specs
from runner.pipeline.model import BrokerSettings
from runner.pipeline.topology import Binding, Exchange, Queue, Topology
from runner.schedule import Cron, Every, Schedule

HANDLERS = """
def handle(order: dict) -> dict:
    return order


def make(token: str, size: int, word: str):
    yield {}
"""

SHOP = """
    version: 1
    name: shop
    broker: {url: "${SHOP_URL}", topology: "${MODE:-manage}"}
    events: {paid: {}}
    queues:
      orders: {}
      ordered: {}
      single: {single_active_consumer: true}
      outbox: {}
    producers:
      make: {handler: "exported_work:make", to: orders, with: {token: "${API}", size: "${SIZE:-3}", word: "${WORD}"}}
    subscribers:
      handle: {from: orders, handler: "exported_work:handle", to: outbox, concurrency: 7, prefetch: 30}
      hear: {from: paid, handler: "exported_work:handle", concurrency: 3}
      in_order: {from: ordered, handler: "exported_work:handle", order_by: id}
      single: {from: single, handler: "exported_work:handle"}
    shutdown: {grace: 45500ms}
"""

ENVIRON = {"SHOP_URL": "amqp://ann:secret-canary@rabbit.host/my%20shop", "API": "api-canary", "WORD": "word-canary"}

READ = Path("shop.yaml")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pipeline's folder, which is the current one; the module of another test's folder is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "exported_work", raising=False)
    (tmp_path / "exported_work.py").write_text(HANDLERS)
    return tmp_path


def read(text: str = SHOP, **environ: str) -> System:
    READ.write_text(dedent(text))
    return app.load([READ], {**ENVIRON, **environ})


def known(system: System, http: tuple[str, int] | None = None) -> Deployment:
    return deployment(system.pipelines, read_specs([READ], ENVIRON), http)


def objects(system: System, http: tuple[str, int] | None = None) -> dict[str, Any]:
    text = kubernetes(system.pipelines, system.whole_topology, known(system, http))
    return {item["kind"]: item for item in yaml.safe_load_all(text)}


def services(system: System, http: tuple[str, int] | None = None) -> Any:
    return yaml.safe_load(compose(known(system, http), vhost_of(system.broker)))["services"]


def rights(system: System) -> Permissions:
    return permissions(system.pipelines, system.whole_topology, vhost_of(system.broker))


@pytest.mark.parametrize(
    ("urls", "vhost"),
    [
        ((), "/"),
        (("amqp://localhost",), "/"),
        (("amqp://localhost/",), "/"),
        (("amqp://u:p@h:1/shop", "amqp://u:p@i/shop"), "shop"),
        (("amqp://h/%2F",), "/"),
        (("amqps://h/a%2Fb%20c",), "a/b c"),
    ],
)
def test_the_virtual_host_is_that_of_the_url(urls: tuple[str, ...], vhost: str) -> None:
    """Decoded; without one it is RabbitMQ's default."""
    assert vhost_of(BrokerSettings(urls)) == vhost


def test_definitions_keep_types_and_leave_out_what_is_not_ours() -> None:
    """Integers and booleans stay what they are; foreign, exclusive and built-in things are not made."""
    topology = Topology(
        (Exchange("amq.topic"), Exchange("erp", declare=False), Exchange("shop", "direct", arguments={"x": True})),
        (
            Queue("q", arguments={"x-max-length": 5, "x-single-active-consumer": True, "x-overflow": "drop-head"}),
            Queue("foreign", declare=False),
            Queue("mine", exclusive=True),
        ),
        (Binding("erp", "q", "a.#"), Binding("shop", "mine"), Binding("amq.topic", "q", "", {"n": 1})),
    )
    document = definitions(topology, "v")
    assert document["vhosts"] == [{"name": "v"}]
    assert [item["name"] for item in document["exchanges"]] == ["shop"]
    assert [item["name"] for item in document["queues"]] == ["q"]
    assert [(item["source"], item["destination"]) for item in document["bindings"]] == [
        ("erp", "q"),
        ("amq.topic", "q"),
    ]
    assert '"x-max-length": 5,' in to_json(document)
    assert '"x-single-active-consumer": true' in to_json(document)
    assert definitions(topology, "/")["vhosts"] == []


def test_definitions_have_wait_dead_letter_and_leadership_queues() -> None:
    """The in-process broker needs none to say what there would be."""
    system = read(SHOP.replace('url: "${SHOP_URL}", ', ""))
    assert system.broker.is_memory
    names = {item["name"] for item in definitions(system.whole_topology, "/")["queues"]}
    assert {"orders", "orders.dead", "shop.hear", "shop.hear.dead", "shop.retry.1000", "shop.producers"} <= names


def test_permissions_match_whole_names_and_nothing_else() -> None:
    """Anchored, dots escaped; a delay is a number; a name that only begins so is not ours."""
    found = rights(read())
    for name in ("orders", "shop.hear.dead", "shop.producers", "shop.retry.120", "events"):
        assert re.search(found.configure, name), name
    for name in ("orders2", "my.orders", "shopxhear", "shop.retry.", "shop.retry.x", "shop.retry.012", "amq.default"):
        assert not re.search(found.configure, name), name
    assert re.search(found.write, "amq.default")
    assert not re.search(found.write, "amq.topic")
    assert not re.search(found.write, "orders")
    assert not re.search(found.read, "orders.dead.dead")


@pytest.mark.parametrize("mode", ["verify", "ignore"])
def test_without_declaring_nothing_is_configured_or_bound(mode: str) -> None:
    """Publish and consume only; to verify needs just the delays that were declared."""
    found = rights(read(MODE=mode))
    assert found.configure == "^$"
    for name in ("amq.default", "events", "shop.retry.1000"):
        assert re.search(found.write, name), name
    assert bool(re.search(found.write, "shop.retry.123")) is (mode == "ignore")
    assert not re.search(found.write, "shop.hear")
    expected = {"orders", "ordered", "single", "shop.hear", "shop.producers"}
    assert set(found.read[2:-2].replace("\\", "").split("|")) == expected


def test_names_with_special_characters_are_escaped_and_quoted() -> None:
    """For the expression, and for the shell that the line is copied into."""
    name = "it's (a+b) [c] {d} $e^f|g?*\\h"
    system = read("version: 1\nname: n\nqueues: {}\n")
    topology = Topology(queues=(Queue(name),))
    found = permissions(system.pipelines, topology, "my vhost\n# x")
    assert re.fullmatch(found.configure, name)
    words = shlex.split(found.command("ann"))
    assert words == ["rabbitmqctl", "set_permissions", "--vhost", "my vhost\n# x", "ann", found.configure, "^$", "^$"]
    assert found.as_text("ann").splitlines()[0] == "# virtual host my vhost\\n# x, topology: manage"


def test_a_dead_letter_or_alternate_exchange_has_its_rights() -> None:
    """RabbitMQ asks for read of what has one, and for write of it."""
    system = read("version: 1\nname: n\nqueues: {}\n")
    topology = Topology(
        (Exchange("a", arguments={"alternate-exchange": "b"}),),
        (Queue("q", arguments={"x-dead-letter-exchange": "graves"}), Queue("r", declare=False)),
    )
    found = permissions(system.pipelines, topology, "/")
    assert (found.configure, found.write, found.read) == ("^(a|q)$", "^(b|graves)$", "^(a|q)$")


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
    system = app.load([READ], environ)
    facts = deployment(system.pipelines, read_specs([READ], environ), None)
    assert facts.broker_variable == "RUNNER_BROKER"
    assert all(each.is_secret for each in facts.variables)


@pytest.mark.parametrize("broker", ['"${SHOP_URL:-amqp://a:b@c/}"', "{urls: ['${SHOP_URL:?say}', 'amqp://a:b@d/']}"])
def test_the_first_url_may_be_written_in_any_form(broker: str) -> None:
    """Short, with a default, or in a list."""
    assert known(read(f"version: 1\nname: shop\nbroker: {broker}\nqueues: {{}}\n")).broker_variable == "SHOP_URL"


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


def test_kubernetes_objects_have_what_they_need() -> None:
    """Versions, kinds, names that agree with each other, probes, and an end that is waited for."""
    found = objects(read())
    versions = {kind: item["apiVersion"] for kind, item in found.items()}
    assert versions == {
        "Deployment": "apps/v1",
        "PodDisruptionBudget": "policy/v1",
        "TriggerAuthentication": "keda.sh/v1alpha1",
        "ScaledObject": "keda.sh/v1alpha1",
    }
    spec = found["Deployment"]["spec"]
    labels = {"app.kubernetes.io/name": "shop"}
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"] == labels
    assert found["PodDisruptionBudget"]["spec"] == {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
    assert "replicas" not in spec
    pod = spec["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 56
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    assert container["resources"]["requests"] == {"cpu": "100m", "memory": "128Mi"}
    assert container["args"] == ["up", "shop.yaml", "--http", "0.0.0.0:8080"]
    sources = {each["name"]: each["valueFrom"] for each in container["env"]}
    assert sources["SHOP_URL"] == {"secretKeyRef": {"name": "shop-secret", "key": "SHOP_URL"}}
    assert sources["WORD"] == {"configMapKeyRef": {"name": "shop-config", "key": "WORD"}}
    assert sources["SIZE"]["configMapKeyRef"]["optional"] is True


def test_the_first_lines_say_what_has_to_be_there() -> None:
    """By names alone, for who makes the Secret and the ConfigMap."""
    system = read()
    first, second, *_ = kubernetes(system.pipelines, system.whole_topology, known(system)).splitlines()
    assert first == "# Needs the Secret shop-secret with API, SHOP_URL, RABBITMQ_HTTP_URL."
    assert second == "# Needs the ConfigMap shop-config with MODE (has a default), SIZE (has a default), WORD."


def test_each_queue_that_is_shared_is_a_trigger() -> None:
    """Ordered queues and those with a single active consumer are left out; values are texts, as KEDA wants."""
    found = objects(read())
    scaled = found["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"] == {"name": found["Deployment"]["metadata"]["name"]}
    values = {each["metadata"]["queueName"]: each["metadata"]["value"] for each in scaled["triggers"]}
    assert values == {"orders": "30", "shop.hear": "6"}
    for each in scaled["triggers"]:
        assert each["type"] == "rabbitmq"
        assert each["metadata"]["mode"] == "QueueLength"
        assert each["authenticationRef"] == {"name": found["TriggerAuthentication"]["metadata"]["name"]}
    (reference,) = found["TriggerAuthentication"]["spec"]["secretTargetRef"]
    assert reference == {"parameter": "host", "name": "shop-secret", "key": "RABBITMQ_HTTP_URL"}


def test_messages_at_work_keep_their_process() -> None:
    """Unacknowledged ones count, which only the management API tells; what ends has time for its longest handler."""
    text = SHOP.replace("prefetch: 30", "prefetch: 30, timeout: 10m").replace("45500ms", "30s")
    found = objects(read(text))
    scaled = found["ScaledObject"]["spec"]
    for each in scaled["triggers"]:
        assert (each["metadata"]["protocol"], each["metadata"]["excludeUnacknowledged"]) == ("http", "false")
    behavior = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == scaled["cooldownPeriod"] == 640
    assert found["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 640
    assert services(read(text))["runner"]["stop_grace_period"] == "640s"
    (note,) = [line for line in known(read(text)).notes if "shutdown.grace" in line]
    assert note == "shutdown.grace (30s) is shorter than the longest timeout (10m):"


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


def test_nothing_scales_where_one_process_has_a_queue_to_itself() -> None:
    """No two at once, not even while one replaces the other."""
    text = SHOP.replace("outbox: {}", "outbox: {}\n      mine: {type: classic, exclusive: true}")
    found = objects(read(text))
    assert set(found) == {"Deployment", "PodDisruptionBudget"}
    assert found["Deployment"]["spec"]["replicas"] == 1
    assert found["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


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


@pytest.mark.parametrize(
    ("schedule", "pause_s"),
    [
        (Every(600.0), 600.0),
        (Cron("* * * * *"), 60.0),
        (Cron("0 6 * * 1-5", "Europe/Berlin"), 73 * 3600.0),
        (Cron("30 2 * * *", "Europe/Berlin"), 25 * 3600.0),
        (Cron("0 0 1 1 *"), 365 * 86400.0),
    ],
)
def test_the_longest_pause_of_a_schedule_is_that_of_a_year(schedule: Schedule, pause_s: float) -> None:
    """Weekends, the end of summer time, and lines that come once a year."""
    assert longest_pause_s(schedule, datetime(2026, 11, 30, tzinfo=UTC)) == pause_s


def test_systemd_runs_what_is_named_and_waits_as_long_as_it_takes() -> None:
    facts = replace(known(read()), paths=("50% off.yaml",))
    unit = systemd(facts, ["/opt/my runner/bin/runner"], Path("/srv/100%"))
    lines = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    assert lines["ExecStart"] == '"/opt/my runner/bin/runner" up "50%% off.yaml"'
    assert lines["WorkingDirectory"] == "/srv/100%%"
    assert (lines["Type"], lines["TimeoutStartSec"], lines["TimeoutStopSec"]) == ("notify", "70", "56")
    assert lines["EnvironmentFile"] == "-/etc/runner/shop.env"
    assert "API, MODE, SHOP_URL, SIZE, WORD" in unit
