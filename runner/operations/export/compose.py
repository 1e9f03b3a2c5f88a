"""A compose file with a broker and the pipelines. Pure.

Variables appear by name, without values: compose reads them from its environment or from `.env`, and refuses to start
without the broker's.
Source: https://docs.docker.com/reference/compose-file/services/
"""

from __future__ import annotations

from typing import Any

from runner.operations.export.definitions import DEFAULT_VHOST
from runner.operations.export.deployment import FOLDER, Deployment, Variable, format_address
from runner.operations.yaml_writer import Interpolated, to_yaml
from runner.units import is_loopback

BROKER_IMAGE = "rabbitmq:4.3-management"
"""The newest RabbitMQ release series that the tests run on."""

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def compose(deployment: Deployment, vhost: str) -> str:
    """Return the text of a compose file with a broker and a runner."""
    services = {} if deployment.file else {"rabbitmq": _rabbitmq(vhost)}
    services["runner"] = _runner(deployment)
    volumes: dict[str, Any] = {"messages" if deployment.file else "rabbitmq-data": {}}
    return _heading(deployment) + to_yaml({"services": services, "volumes": volumes})


def _heading(deployment: Deployment) -> str:
    lines = [f"{deployment.broker_variable} is the broker's URL; the broker's host name in this file is rabbitmq."]
    lines = (deployment.file_notes(FOLDER) or lines) + deployment.notes
    return "".join(f"# {line}\n" for line in lines)


def _rabbitmq(vhost: str) -> dict[str, Any]:
    environment = ["RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS"]
    if vhost != DEFAULT_VHOST:
        environment.append(f"RABBITMQ_DEFAULT_VHOST={vhost}")
    return {
        "image": BROKER_IMAGE,
        "hostname": "rabbitmq",  # part of the node's name, and so of its data folder
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


def _runner(deployment: Deployment) -> dict[str, Any]:
    host, port = deployment.http or deployment.reachable
    command = ["runner", "up", *deployment.up_arguments(FOLDER)]
    if (host, port) != deployment.listens:
        command += ["--http", format_address(host, port)]
    return {
        "image": f"{deployment.name}:latest",
        "build": ".",
        "init": True,  # an init process reaps child processes that handlers leave behind
        "command": command,
        "environment": [_variable(deployment, variable) for variable in deployment.variables],
        **({} if is_loopback(host) else {"ports": [_port(deployment, port)]}),
        **(
            {"volumes": [f"messages:{FOLDER}"]}
            if deployment.file
            else {"depends_on": {"rabbitmq": {"condition": "service_healthy"}}}
        ),
        "healthcheck": {
            "test": ["CMD", "python", "-c", _readiness_check(_ANYWHERE.get(host, host), port)],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "30s",
        },
        "stop_grace_period": f"{deployment.stop_timeout_s}s",
        "restart": "unless-stopped",
    }


def _port(deployment: Deployment, port: int) -> str:
    """Return the published port. Without HTTP producers only for this machine: /metrics and the page are not public."""
    return f"{port}:{port}" if deployment.has_http else f"127.0.0.1:{port}:{port}"


def _variable(deployment: Deployment, variable: Variable) -> str:
    """Return how a variable is passed on. Compose refuses to start without the broker's."""
    if variable.name != deployment.broker_variable:
        return variable.name
    return Interpolated(f"{variable.name}=${{{variable.name}:?the URL of the broker, whose host name is rabbitmq}}")


def _readiness_check(host: str, port: int) -> str:
    """Return a Python program that fails unless the runner is ready: slim images have Python but no curl."""
    return f"import urllib.request; urllib.request.urlopen('http://{format_address(host, port)}/readyz', timeout=4)"
