"""Pipelines as Kubernetes objects, scaled by KEDA with the length of their queues. Pure.

Sources: https://kubernetes.io/docs/reference/kubernetes-api/ and https://keda.sh/docs/latest/scalers/rabbitmq-queue/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.operations.export.deployment import FOLDER, Deployment, Variable, format_address
from runner.operations.yaml_writer import to_yaml
from runner.pipeline.model import Pipeline
from runner.pipeline.topology import Queue, Topology

USER = 10_001
MAX_REPLICAS = 10

MANAGEMENT_VARIABLE = "RABBITMQ_HTTP_URL"
"""The key in the Secret for the URL of the management API. Only that API counts unacknowledged messages."""

SCALE_DOWN_S = 300
LONGEST_SCALE_DOWN_S = 3600
"""The longest stabilization window that Kubernetes allows."""


def kubernetes(pipelines: Sequence[Pipeline], topology: Topology, deployment: Deployment) -> str:
    """Return the text of a file with all objects. The Secret and the ConfigMap are only referred to by name."""
    is_alone = bool(deployment.file) or any(queue.exclusive for queue in topology.queues)
    scaled = [] if is_alone else scaling_triggers(pipelines, topology, deployment)
    objects = [_deployment(deployment, is_scaled=bool(scaled), is_alone=is_alone), _disruption_budget(deployment)]
    if deployment.file:
        objects.insert(0, _claim(deployment))
    if deployment.has_http:
        objects.append(_service(deployment))
    if scaled:
        objects += [_authentication(deployment), _scaled_object(deployment, scaled)]
    return _heading(deployment, is_scaled=bool(scaled)) + "---\n".join(
        to_yaml(item, has_variables=False) for item in objects
    )


def scaling_triggers(pipelines: Sequence[Pipeline], topology: Topology, deployment: Deployment) -> list[dict[str, Any]]:
    """Return a KEDA trigger for each queue that several processes can read.

    The target per process is the number of messages that one process holds. Unacknowledged messages count too, so that
    KEDA does not stop a process that is still working.
    """
    queues = {queue.name: queue for queue in topology.queues}
    wanted: dict[str, int] = {}
    for pipeline in pipelines:
        for subscriber in pipeline.subscribers:
            if subscriber.is_enabled and subscriber.key_of is None and _is_shared(queues.get(subscriber.queue)):
                target = max(subscriber.prefetch, subscriber.concurrency)
                wanted[subscriber.queue] = wanted.get(subscriber.queue, 0) + target
    return [
        {
            "type": "rabbitmq",
            "metadata": {
                "protocol": "http",
                "queueName": queue,
                "mode": "QueueLength",
                "value": str(target),
                "excludeUnacknowledged": "false",
            },
            "authenticationRef": {"name": f"{deployment.name}-broker"},
        }
        for queue, target in sorted(wanted.items())
    ]


def _is_shared(queue: Queue | None) -> bool:
    """Whether several processes can consume from a queue at the same time."""
    return queue is None or not (queue.exclusive or queue.arguments.get("x-single-active-consumer"))


def _heading(deployment: Deployment, *, is_scaled: bool) -> str:
    kinds = [("Secret", _secret(deployment), True), ("ConfigMap", _configuration(deployment), False)]
    lines = []
    for kind, name, is_secret in kinds:
        variables = [variable for variable in deployment.variables if variable.is_secret is is_secret]
        names = [f"{each.name} (has a default)" if each.has_default else each.name for each in variables]
        names += [MANAGEMENT_VARIABLE] if is_secret and is_scaled else []
        lines += [f"Needs the {kind} {name} with {', '.join(names)}."] if names else []
    if is_scaled:
        lines.append(
            f"{MANAGEMENT_VARIABLE} is for KEDA: http://USER:PASSWORD@HOST:15672/VHOST, the URL of the management API."
        )
    lines += deployment.file_notes(FOLDER) + deployment.notes
    return "".join(f"# {line}\n" for line in lines)


def _secret(deployment: Deployment) -> str:
    return f"{deployment.name}-secret"


def _configuration(deployment: Deployment) -> str:
    return f"{deployment.name}-config"


def _metadata(deployment: Deployment, suffix: str = "") -> dict[str, Any]:
    return {"name": f"{deployment.name}{suffix}", "labels": _labels(deployment)}


def _labels(deployment: Deployment) -> dict[str, str]:
    return {"app.kubernetes.io/name": deployment.name}


def _deployment(deployment: Deployment, *, is_scaled: bool, is_alone: bool) -> dict[str, Any]:
    claim = {"claimName": f"{deployment.name}-messages"}
    spec: dict[str, Any] = {} if is_scaled else {"replicas": 1}  # with scaling, KEDA sets the number
    if is_alone:
        spec["strategy"] = {"type": "Recreate"}  # the old pod must release the exclusive queue, or the file, first
    spec["selector"] = {"matchLabels": _labels(deployment)}
    spec["template"] = {
        "metadata": {"labels": _labels(deployment)},
        "spec": {
            "terminationGracePeriodSeconds": deployment.stop_timeout_s,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
                **({"fsGroup": USER} if deployment.file else {}),
            },
            "containers": [_container(deployment)],
            **({"volumes": [{"name": "messages", "persistentVolumeClaim": claim}]} if deployment.file else {}),
        },
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _metadata(deployment), "spec": spec}


def _container(deployment: Deployment) -> dict[str, Any]:
    host, port = deployment.reachable  # the kubelet connects from outside the pod
    arguments = ["up", *deployment.up_arguments(FOLDER)]
    if (host, port) != deployment.listens:
        arguments += ["--http", format_address(host, port)]
    return {
        "name": "runner",
        "image": f"{deployment.name}:latest",
        "command": ["runner"],
        "args": [argument.replace("$", "$$") for argument in arguments],
        "env": [_variable(deployment, variable) for variable in deployment.variables],
        "ports": [{"name": "http", "containerPort": port}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 3},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "http"},
            "initialDelaySeconds": 30,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        **({"volumeMounts": [{"name": "messages", "mountPath": FOLDER}]} if deployment.file else {}),
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _claim(deployment: Deployment) -> dict[str, Any]:
    """Return the volume of the broker's file, which one node may use at a time."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = _metadata(deployment, "-messages")
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def _variable(deployment: Deployment, variable: Variable) -> dict[str, Any]:
    place = _secret(deployment) if variable.is_secret else _configuration(deployment)
    reference: dict[str, Any] = {"name": place, "key": variable.name}
    if variable.has_default:
        reference["optional"] = True
    return {
        "name": variable.name,
        "valueFrom": {"secretKeyRef" if variable.is_secret else "configMapKeyRef": reference},
    }


def _disruption_budget(deployment: Deployment) -> dict[str, Any]:
    """One pod at a time. `minAvailable: 1` would block draining the node of a single replica."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(deployment),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _labels(deployment)}},
    }


def _service(deployment: Deployment) -> dict[str, Any]:
    """Return the Service for producers with `http`."""
    port = deployment.reachable[1]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(deployment),
        "spec": {"selector": _labels(deployment), "ports": [{"name": "http", "port": port, "targetPort": "http"}]},
    }


def _authentication(deployment: Deployment) -> dict[str, Any]:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": _metadata(deployment, "-broker"),
        "spec": {"secretTargetRef": [{"parameter": "host", "name": _secret(deployment), "key": MANAGEMENT_VARIABLE}]},
    }


def _scaled_object(deployment: Deployment, scaled: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": _metadata(deployment),
        "spec": {
            "scaleTargetRef": {"name": deployment.name},
            "minReplicaCount": 1,  # producers, and queues that do not scale, need one process
            "maxReplicaCount": MAX_REPLICAS,
            "cooldownPeriod": max(SCALE_DOWN_S, deployment.stop_timeout_s),
            "advanced": {
                "horizontalPodAutoscalerConfig": {
                    "behavior": {
                        "scaleDown": {
                            "stabilizationWindowSeconds": min(
                                LONGEST_SCALE_DOWN_S, max(SCALE_DOWN_S, deployment.stop_timeout_s)
                            )
                        }
                    }
                }
            },
            "triggers": scaled,
        },
    }
