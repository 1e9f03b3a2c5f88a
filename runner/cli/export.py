"""`runner export`: files for the tools that prepare a broker and deploy a pipeline."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions
from runner.cli.messages import export_messages
from runner.cli.output import cannot_write, check_output, echo_error, echo_problems
from runner.cli.verb import Verb

if TYPE_CHECKING:
    from runner.operations.export.deployment import Deployment
    from runner.system import System

F = TypeVar("F", bound=Callable[..., Any])

EXIT_CANNOT_WRITE = 1


@click.group("export", short_help="Write definitions, deployment files, alerts and dashboards.")
def command() -> None:
    """Write RabbitMQ definitions, permissions, deployment files, and what Prometheus and Grafana need.

    Only `messages` contacts a broker: it takes out what waits there. No user or password of a URL is written.

    Exit codes: 0 written, 1 the file cannot be written, 78 invalid pipeline.
    """


command.add_command(export_messages)


def _output(function: F) -> F:
    return click.option(
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write to this file instead of stdout.",
    )(function)


Write = Callable[..., str]
"""Returns the text of an export, for the pipelines and the command's own options."""

_http_option = click.option(
    "--http",
    metavar="HOST:PORT",
    callback=partial(options.http_address, lowest_port=1),
    help="Address of the probes, unless telemetry.http in the pipeline gives one.",
)


def _export(name: str, short_help: str, *more: Callable[[Any], Any]) -> Callable[[Write], Write]:
    """Register a function that writes a file as `export NAME`, with further options beside those that all have."""

    def add(write: Write) -> Write:
        def run(chosen: PipelineOptions, output: Path | None, **given: Any) -> None:
            system = chosen.load()
            echo_problems(system.warnings)
            _write(write(system, chosen, **given), output)

        for decorate in (_output, options.pipelines(*more)):
            run = decorate(run)
        command.command(name, cls=Verb, short_help=short_help, help=write.__doc__)(run)
        return write

    return add


@_export("definitions", "RabbitMQ's definitions.json of the whole topology.", options.broker)
def _definitions(system: System, _: PipelineOptions) -> str:
    """Write what `up` declares as definitions for `rabbitmqctl import_definitions` or the management API.

    Queues and exchanges with `declare: false`, and exclusive queues, are left out. The virtual host is that of the
    broker's URL.
    """
    from runner.operations.export.definitions import definitions, to_json, vhost_of
    from runner.operations.targets import require_rabbitmq

    require_rabbitmq(system.broker, "export definitions")
    return to_json(definitions(system.whole_topology, vhost_of(system.broker)))


@_export(
    "permissions",
    "The smallest set of permissions that a user needs.",
    options.broker,
    click.option(
        "--user", default="runner", show_default=True, help="The user in the command that sets the permissions."
    ),
    click.option("--json", "is_json", is_flag=True, help="Print the expressions as JSON."),
)
def _permissions(system: System, _: PipelineOptions, user: str, is_json: bool) -> str:
    """Write the smallest configure, write and read permissions with which a user can run the pipelines.

    With `topology: manage` they allow declaring everything. With `verify` or `ignore`, another user has to declare.
    """
    from runner.operations.export.definitions import vhost_of
    from runner.operations.export.permissions import permissions
    from runner.operations.targets import require_rabbitmq

    require_rabbitmq(system.broker, "export permissions")
    found = permissions(system.pipelines, system.whole_topology, vhost_of(system.broker))
    return json.dumps(found.as_json(user), indent=2, ensure_ascii=False) + "\n" if is_json else found.as_text(user)


def _deployment(system: System, chosen: PipelineOptions, http: tuple[str, int] | None) -> Deployment:
    from runner.operations.export.deployment import deployment

    return deployment(system.pipelines, chosen.specs(), http, chosen.overlays)


@_export("compose", "A compose file with RabbitMQ and a runner.", options.broker, _http_option)
def _compose(system: System, chosen: PipelineOptions, http: tuple[str, int] | None) -> str:
    """Write a compose file. The image is built from the project. Variables are passed on by name, without values."""
    from runner.operations.export.compose import compose
    from runner.operations.export.definitions import vhost_of

    return compose(_deployment(system, chosen, http), vhost_of(system.broker))


@_export("kubernetes", "Deployment, disruption budget, and scaling by KEDA.", options.broker, _http_option)
def _kubernetes(system: System, chosen: PipelineOptions, http: tuple[str, int] | None) -> str:
    """Write a Deployment, a PodDisruptionBudget, and a ScaledObject with a trigger for each queue that is read.

    Variables come from a Secret and a ConfigMap, whose names are in the first lines. Queues that are read in order, by
    one process at a time, do not scale.
    """
    from runner.operations.export.kubernetes import kubernetes

    return kubernetes(system.pipelines, system.whole_topology, _deployment(system, chosen, http))


@_export("systemd", "A systemd unit.", options.broker, _http_option)
def _systemd(system: System, chosen: PipelineOptions, http: tuple[str, int] | None) -> str:
    """Write a service that runs the pipelines in the current folder, with this installation of the runner.

    Variables come from a file that the unit names. systemd waits until the pipelines run, and restarts a process that
    no longer answers.
    """
    from runner.operations.export.systemd import systemd

    script = Path(sys.executable).parent / "runner"
    program = [str(script)] if script.is_file() else [sys.executable, "-m", "runner"]
    return systemd(_deployment(system, chosen, http), program, Path.cwd())


@_export("alerts", "Alerting rules for Prometheus.")
def _alerts(system: System, _: PipelineOptions) -> str:
    """Write rules for dead letters, waiting messages, subscribers and producers that no process runs, and failures.

    They use the metrics that `up` serves at /metrics on the address of telemetry.http.
    """
    from datetime import UTC, datetime

    from runner.operations.export.alerts import alerts

    return alerts(system.pipelines, datetime.now(UTC))


@_export("grafana", "A dashboard for Grafana.")
def _grafana(system: System, _: PipelineOptions) -> str:
    """Write a dashboard that shows the metrics of the pipelines, to import into Grafana."""
    from runner.operations.export.grafana import grafana

    return grafana(system.pipelines)


@_export("asyncapi", "An AsyncAPI document of queues, events and payloads.", options.broker)
def _asyncapi(system: System, _: PipelineOptions) -> str:
    """Write an AsyncAPI 3.0 document: queues and events as channels, producers and subscribers as operations.

    Messages have the JSON Schemas of `schema`, or of the annotations of handlers. The broker is in it without user and
    password.
    """
    from runner.operations.export.asyncapi import asyncapi

    return asyncapi(system.pipelines, [spec for _, spec in system.specs], system.topology)


def _write(text: str, output: Path | None) -> None:
    """Write to a file, or to stdout without one."""
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        check_output(output, text, "--output")
        output.write_text(text, "utf-8")
    except OSError as error:
        failure = cannot_write(output, error, "--output")
        echo_error(failure.message, failure.hint)
        raise SystemExit(EXIT_CANNOT_WRITE) from None
