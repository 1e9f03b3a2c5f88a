"""A compose file with a broker and the pipelines, from `compose.yaml`. Pure.

Variables appear by name, without values: compose reads them from its environment or from `.env`, and refuses to start
without the broker's.
Source: https://docs.docker.com/reference/compose-file/services/
"""

from __future__ import annotations

from runner.operations.export.definitions import DEFAULT_VHOST
from runner.operations.export.deployment import FOLDER, Deployment, Variable
from runner.operations.export.templates import fill_template
from runner.operations.yaml_writer import Interpolated, to_yaml
from runner.units import LOOPBACK_OF, format_address, is_loopback

_IS_READY = "import urllib.request; urllib.request.urlopen('http://{}/readyz', timeout=4)"
"""A Python program that fails unless the runner is ready: slim images have Python but no curl."""


def compose(deployment: Deployment, vhost: str) -> str:
    """Return the text of a compose file with a broker and a runner."""
    host, port = deployment.http or deployment.reachable
    command = ["runner", "up", *deployment.up_arguments(FOLDER)]
    if (host, port) != deployment.listens:
        command += ["--http", format_address(host, port)]
    # Without HTTP producers the port is for this machine only: /metrics and the page are not public.
    public = "" if deployment.has_http else "127.0.0.1:"
    words = {
        "name": deployment.name,
        "broker": not deployment.file,
        "broker_environment": [
            *("RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS"),
            *([] if vhost == DEFAULT_VHOST else [f"RABBITMQ_DEFAULT_VHOST={vhost}"]),
        ],
        "file": deployment.file,
        "folder": FOLDER,
        "command": command,
        "variables": [_variable(deployment, variable) for variable in deployment.variables],
        "ports": [] if is_loopback(host) else [f"{public}{port}:{port}"],
        "is_ready": _IS_READY.format(format_address(LOOPBACK_OF.get(host, host), port)),
        "stop_s": str(deployment.stop_timeout_s),
    }
    return _heading(deployment) + to_yaml(fill_template("compose.yaml", words))


def _heading(deployment: Deployment) -> str:
    lines = [f"{deployment.broker_variable} is the broker's URL; the broker's host name in this file is rabbitmq."]
    lines = (deployment.file_notes(FOLDER) or lines) + deployment.notes
    return "".join(f"# {line}\n" for line in lines)


def _variable(deployment: Deployment, variable: Variable) -> str:
    """Return how a variable is passed on. Compose refuses to start without the broker's."""
    if variable.name != deployment.broker_variable:
        return variable.name
    return Interpolated(f"{variable.name}=${{{variable.name}:?the URL of the broker, whose host name is rabbitmq}}")
