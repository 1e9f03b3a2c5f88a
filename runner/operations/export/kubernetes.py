"""Pipelines as Kubernetes objects, scaled by KEDA with the length of their queues, from `kubernetes.yaml`. Pure.

Sources: https://kubernetes.io/docs/reference/kubernetes-api/ and https://keda.sh/docs/latest/scalers/rabbitmq-queue/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.operations.export.deployment import FOLDER, Deployment, Variable
from runner.operations.export.templates import fill_template
from runner.operations.yaml_writer import to_yaml
from runner.pipeline.model import Pipeline
from runner.pipeline.topology import Queue, Topology
from runner.units import format_address

MANAGEMENT_VARIABLE = "RABBITMQ_HTTP_URL"
"""The key in the Secret for the URL of the management API. Only that API counts unacknowledged messages."""

SCALE_DOWN_S = 300
LONGEST_SCALE_DOWN_S = 3600
"""The longest stabilization window that Kubernetes allows."""


def kubernetes(pipelines: Sequence[Pipeline], topology: Topology, deployment: Deployment) -> str:
    """Return the text of a file with all objects. The Secret and the ConfigMap are only referred to by name."""
    is_alone = bool(deployment.file) or any(queue.exclusive for queue in topology.queues)
    triggers = [] if is_alone else scaling_triggers(pipelines, topology, deployment)
    host, port = deployment.reachable  # the kubelet connects from outside the pod
    arguments = ["up", *deployment.up_arguments(FOLDER)]
    if (host, port) != deployment.listens:
        arguments += ["--http", format_address(host, port)]
    cooldown_s = max(SCALE_DOWN_S, deployment.stop_timeout_s)
    words = {
        "name": deployment.name,
        "labels": {"app.kubernetes.io/name": deployment.name},
        "file": deployment.file,
        "folder": FOLDER,
        "alone": is_alone,
        "fixed": not triggers,
        "http": deployment.has_http,
        "port": port,
        "arguments": [argument.replace("$", "$$") for argument in arguments],
        "variables": [_variable(deployment, variable) for variable in deployment.variables],
        "stop_s": deployment.stop_timeout_s,
        "cooldown_s": cooldown_s,
        "window_s": min(LONGEST_SCALE_DOWN_S, cooldown_s),
        "management": MANAGEMENT_VARIABLE,
        "triggers": triggers,
    }
    objects = fill_template("kubernetes.yaml", words).values()
    documents = [to_yaml(item, has_variables=False) for item in objects]
    return _heading(deployment, is_scaled=bool(triggers)) + "---\n".join(documents)


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


def _variable(deployment: Deployment, variable: Variable) -> dict[str, Any]:
    place = _secret(deployment) if variable.is_secret else _configuration(deployment)
    reference: dict[str, Any] = {"name": place, "key": variable.name}
    if variable.has_default:
        reference["optional"] = True
    return {
        "name": variable.name,
        "valueFrom": {"secretKeyRef" if variable.is_secret else "configMapKeyRef": reference},
    }
