"""Operations: pipelines and their broker as a compose file. Pure.

Variables are named and have no values: compose takes them from its own environment or from `.env`.
Source: https://docs.docker.com/reference/compose-file/services/
"""

from __future__ import annotations

from typing import Any

from runner.operations.exporting.definitions import DEFAULT_VHOST
from runner.operations.exporting.deploying import DEFAULT_PORT, Deployment, address, document
from runner.operations.yaml_text import to_yaml
from runner.redaction import escape_controls

BROKER_IMAGE = "rabbitmq:4-management"

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def compose(known: Deployment, vhost: str) -> str:
    """Return the text of a compose file with a broker and a runner."""
    services = {"rabbitmq": _rabbitmq(vhost), "runner": _runner(known)}
    return _heading(known) + to_yaml(document({"services": services, "volumes": {"rabbitmq-data": {}}}))


def _heading(known: Deployment) -> str:
    lines = [f"{known.broker_variable} is the broker's URL; its host in here is rabbitmq."]
    lines += [f"The pipeline reads the file {escape_controls(name)}: mount it." for name in known.secret_files]
    return "".join(f"# {line}\n" for line in lines)


def _rabbitmq(vhost: str) -> dict[str, Any]:
    environment = ["RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS"]
    if vhost != DEFAULT_VHOST:
        environment.append(f"RABBITMQ_DEFAULT_VHOST={vhost}")
    return {
        "image": BROKER_IMAGE,
        "hostname": "rabbitmq",  # the node's name, and with it the folder of its data, has it
        "environment": environment,
        "volumes": ["rabbitmq-data:/var/lib/rabbitmq"],
        "healthcheck": {
            "test": ["CMD", "rabbitmq-diagnostics", "-q", "check_port_connectivity"],
            "interval": "10s",
            "timeout": "10s",
            "retries": 6,
            "start_period": "30s",
        },
        "stop_grace_period": "60s",
        "restart": "unless-stopped",
    }


def _runner(known: Deployment) -> dict[str, Any]:
    host, port = known.http or known.listens or ("127.0.0.1", DEFAULT_PORT)
    command = ["runner", "up", *known.paths]
    if known.http or not known.listens:
        command += ["--http", address(host, port)]
    return {
        "image": f"{known.name}:latest",
        "build": ".",
        "command": command,
        "environment": [variable.name for variable in known.variables],
        "depends_on": {"rabbitmq": {"condition": "service_healthy"}},
        "healthcheck": {
            "test": ["CMD", "python", "-c", _asking(_ANYWHERE.get(host, host), port)],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "30s",
        },
        "stop_grace_period": f"{known.patience_s}s",
        "restart": "unless-stopped",
    }


def _asking(host: str, port: int) -> str:
    """Return a program that fails unless the process is ready: a slim image has Python and no curl."""
    return f"import urllib.request; urllib.request.urlopen('http://{address(host, port)}/readyz', timeout=4)"
