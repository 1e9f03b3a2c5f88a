"""Operations: pipelines and their broker as a compose file. Pure.

Variables are named and have no values: compose takes them from its own environment or from `.env`. It refuses to start
without the broker's.
Source: https://docs.docker.com/reference/compose-file/services/
"""

from __future__ import annotations

from typing import Any

from runner.operations.export.definitions import DEFAULT_VHOST
from runner.operations.export.deployment import Deployment, Variable, document, format_address
from runner.operations.yaml_writer import Interpolated, to_yaml
from runner.units import is_loopback

BROKER_IMAGE = "rabbitmq:4.3-management"
"""The newest line of RabbitMQ that the tests run on; the other one is 3.10."""

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def compose(known: Deployment, vhost: str) -> str:
    """Return the text of a compose file with a broker and a runner."""
    services = {"rabbitmq": _rabbitmq(vhost), "runner": _runner(known)}
    return _heading(known) + to_yaml(document({"services": services, "volumes": {"rabbitmq-data": {}}}))


def _heading(known: Deployment) -> str:
    lines = [f"{known.broker_variable} is the broker's URL; its host in here is rabbitmq."]
    lines += known.notes
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
    host, port = known.http or known.reachable
    command = ["runner", "up", *known.paths]
    if (host, port) != known.listens:
        command += ["--http", format_address(host, port)]
    return {
        "image": f"{known.name}:latest",
        "build": ".",
        "init": True,  # handlers may start programs, and a process must reap those that outlive them
        "command": command,
        "environment": [_variable(known, variable) for variable in known.variables],
        **({} if is_loopback(host) else {"ports": [_port(known, port)]}),
        "depends_on": {"rabbitmq": {"condition": "service_healthy"}},
        "healthcheck": {
            "test": ["CMD", "python", "-c", _asking(_ANYWHERE.get(host, host), port)],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "30s",
        },
        "stop_grace_period": f"{known.stop_timeout_s}s",
        "restart": "unless-stopped",
    }


def _port(known: Deployment, port: int) -> str:
    """Return which addresses of the machine lead to the port: /metrics and the page are not for everybody."""
    return f"{port}:{port}" if known.has_http else f"127.0.0.1:{port}:{port}"


def _variable(known: Deployment, variable: Variable) -> str:
    """Return how a variable is passed on. Without that of the broker nothing starts."""
    if variable.name != known.broker_variable:
        return variable.name
    return Interpolated(f"{variable.name}=${{{variable.name}:?the URL of the broker, whose host in here is rabbitmq}}")


def _asking(host: str, port: int) -> str:
    """Return a program that fails unless the process is ready: a slim image has Python and no curl."""
    return f"import urllib.request; urllib.request.urlopen('http://{format_address(host, port)}/readyz', timeout=4)"
