"""Operations: pipelines as objects of Kubernetes, scaled by KEDA with what waits in their queues. Pure.

Sources: https://kubernetes.io/docs/reference/kubernetes-api/ and https://keda.sh/docs/latest/scalers/rabbitmq-queue/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.operations.export.deployment import Deployment, Variable, document
from runner.operations.yaml_writer import to_yaml
from runner.pipeline.model import Pipeline
from runner.pipeline.topology import Queue, Topology

USER = 10_001
MAX_REPLICAS = 10

MANAGEMENT_VARIABLE = "RABBITMQ_HTTP_URL"
"""The key of the Secret with the address of the management API: AMQP does not tell how much is unacknowledged."""

SCALE_DOWN_S = 300
LONGEST_SCALE_DOWN_S = 3600
"""Kubernetes allows no longer window."""


def kubernetes(pipelines: Sequence[Pipeline], topology: Topology, known: Deployment) -> str:
    """Return the text of a file with all objects; Secret and ConfigMap have to be there and are only named."""
    is_alone = any(queue.exclusive for queue in topology.queues)
    scaled = [] if is_alone else scaling_triggers(pipelines, topology, known)
    objects = [_deployment(known, is_scaled=bool(scaled), is_alone=is_alone), _disruption_budget(known)]
    if known.has_http:
        objects.append(_service(known))
    if scaled:
        objects += [_authentication(known), _scaled_object(known, scaled)]
    # What compose and our own files would expand is no variable here: each dollar is written once.
    return _heading(known, is_scaled=bool(scaled)) + "---\n".join(
        to_yaml(document(item)).replace("$$", "$") for item in objects
    )


def scaling_triggers(pipelines: Sequence[Pipeline], topology: Topology, known: Deployment) -> list[dict[str, Any]]:
    """Return what KEDA looks at: each queue that is read, where a further process helps.

    For each process as many messages are wanted as one holds at once. Those are counted as well: a process at work must
    not be ended because nothing more waits.
    """
    queues = {queue.name: queue for queue in topology.queues}
    wanted: dict[str, int] = {}
    for pipeline in pipelines:
        for subscriber in pipeline.subscribers:
            if subscriber.key_of is None and _is_shared(queues.get(subscriber.queue)):
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
            "authenticationRef": {"name": f"{known.name}-broker"},
        }
        for queue, target in sorted(wanted.items())
    ]


def _is_shared(queue: Queue | None) -> bool:
    """Whether several processes can take messages from a queue at once."""
    return queue is None or not (queue.exclusive or queue.arguments.get("x-single-active-consumer"))


def _heading(known: Deployment, *, is_scaled: bool) -> str:
    kinds = [("Secret", _secret(known), True), ("ConfigMap", _configuration(known), False)]
    lines = []
    for kind, name, is_secret in kinds:
        variables = [variable for variable in known.variables if variable.is_secret is is_secret]
        names = [f"{each.name} (has a default)" if each.has_default else each.name for each in variables]
        names += [MANAGEMENT_VARIABLE] if is_secret and is_scaled else []
        lines += [f"Needs the {kind} {name} with {', '.join(names)}."] if names else []
    if is_scaled:
        lines.append(
            f"{MANAGEMENT_VARIABLE} is for KEDA: http://USER:PASSWORD@HOST:15672/VHOST, of the management API."
        )
    lines += known.notes
    return "".join(f"# {line}\n" for line in lines)


def _secret(known: Deployment) -> str:
    return f"{known.name}-secret"


def _configuration(known: Deployment) -> str:
    return f"{known.name}-config"


def _metadata(known: Deployment, suffix: str = "") -> dict[str, Any]:
    return {"name": f"{known.name}{suffix}", "labels": _labels(known)}


def _labels(known: Deployment) -> dict[str, str]:
    return {"app.kubernetes.io/name": known.name}


def _deployment(known: Deployment, *, is_scaled: bool, is_alone: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {} if is_scaled else {"replicas": 1}  # else KEDA says how many
    if is_alone:
        spec["strategy"] = {"type": "Recreate"}  # nobody else may have an exclusive queue meanwhile
    spec["selector"] = {"matchLabels": _labels(known)}
    spec["template"] = {
        "metadata": {"labels": _labels(known)},
        "spec": {
            "terminationGracePeriodSeconds": known.stop_timeout_s,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(known)],
        },
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _metadata(known), "spec": spec}


def _container(known: Deployment) -> dict[str, Any]:
    host, port = known.reachable  # the kubelet asks from outside
    arguments = ["up", *known.paths]
    if (host, port) != known.listens:
        arguments += ["--http", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
    return {
        "name": "runner",
        "image": f"{known.name}:latest",
        "command": ["runner"],
        "args": [argument.replace("$", "$$") for argument in arguments],
        "env": [_variable(known, variable) for variable in known.variables],
        "ports": [{"name": "http", "containerPort": port}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 3},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "http"},
            "initialDelaySeconds": 30,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _variable(known: Deployment, variable: Variable) -> dict[str, Any]:
    place = _secret(known) if variable.is_secret else _configuration(known)
    reference: dict[str, Any] = {"name": place, "key": variable.name}
    if variable.has_default:
        reference["optional"] = True
    return {
        "name": variable.name,
        "valueFrom": {"secretKeyRef" if variable.is_secret else "configMapKeyRef": reference},
    }


def _disruption_budget(known: Deployment) -> dict[str, Any]:
    """One at a time: a budget of `minAvailable: 1` would let nobody drain the node of a single replica."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(known),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _labels(known)}},
    }


def _service(known: Deployment) -> dict[str, Any]:
    """For producers with `http:`."""
    port = known.reachable[1]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(known),
        "spec": {"selector": _labels(known), "ports": [{"name": "http", "port": port, "targetPort": "http"}]},
    }


def _authentication(known: Deployment) -> dict[str, Any]:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": _metadata(known, "-broker"),
        "spec": {"secretTargetRef": [{"parameter": "host", "name": _secret(known), "key": MANAGEMENT_VARIABLE}]},
    }


def _scaled_object(known: Deployment, scaled: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": _metadata(known),
        "spec": {
            "scaleTargetRef": {"name": known.name},
            "minReplicaCount": 1,  # producers, and queues that do not scale, need one
            "maxReplicaCount": MAX_REPLICAS,
            "cooldownPeriod": max(SCALE_DOWN_S, known.stop_timeout_s),
            "advanced": {
                "horizontalPodAutoscalerConfig": {
                    "behavior": {
                        "scaleDown": {
                            "stabilizationWindowSeconds": min(
                                LONGEST_SCALE_DOWN_S, max(SCALE_DOWN_S, known.stop_timeout_s)
                            )
                        }
                    }
                }
            },
            "triggers": scaled,
        },
    }
