"""Kubernetes objects: names that agree, probes, triggers."""

from __future__ import annotations

from runner.operations.export.kubernetes import kubernetes
from tests.unit.operations.export.exported import IN_A_FILE, SHOP, known, objects, read, services


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


def test_nothing_scales_where_one_process_has_a_queue_to_itself() -> None:
    """No two at once, not even while one replaces the other."""
    text = SHOP.replace("outbox: {}", "outbox: {}\n      mine: {type: classic, exclusive: true}")
    found = objects(read(text))
    assert set(found) == {"Deployment", "PodDisruptionBudget"}
    assert found["Deployment"]["spec"]["replicas"] == 1
    assert found["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


def test_a_broker_in_a_file_has_one_pod_and_a_volume() -> None:
    """Never two at a time, and nothing that scales it; the volume belongs to the user of the container."""
    found = objects(read(IN_A_FILE))
    assert {*found} == {"PersistentVolumeClaim", "Deployment", "PodDisruptionBudget"}
    spec = found["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    pod = spec["template"]["spec"]
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
    claim = found["PersistentVolumeClaim"]
    assert pod["volumes"] == [{"name": "messages", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    (container,) = pod["containers"]
    assert container["volumeMounts"] == [{"name": "messages", "mountPath": "/var/lib/runner"}]
    assert container["args"][:4] == ["up", "shop.yaml", "--broker", "file:/var/lib/runner/shop.queue"]
