"""`runner export`: files with which others give a pipeline a home."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runner.cli import options
from runner.cli.loader import load_system
from runner.cli.output import echo_error, echo_problems, errors_as_exit_codes

if TYPE_CHECKING:
    from runner.app import System
    from runner.operations.export.deployment import Deployment

F = TypeVar("F", bound=Callable[..., Any])

EXIT_CANNOT_WRITE = 1


def _output(command: F) -> F:
    return click.option(
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write to this file instead of stdout.",
    )(command)


def _http(command: F) -> F:
    return click.option(
        "--http",
        metavar="HOST:PORT",
        callback=_address,
        help="Where probes are answered, if not where telemetry.http says.",
    )(command)


def _address(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, int] | None:
    from runner.units import parse_address

    try:
        return parse_address(value) if value is not None else None
    except ValueError:
        raise click.BadParameter("write HOST:PORT, as in 0.0.0.0:8080") from None


@click.group("export", short_help="Write what others need to run a pipeline.")
def command() -> None:
    """Write a pipeline as RabbitMQ definitions, permissions, a compose file, Kubernetes objects or a systemd unit; or
    what Prometheus and Grafana need to watch it.

    Nothing is asked of a broker, and no user or password of a URL is written.

    Exit codes: 0 written, 1 the file cannot be written, 78 invalid pipeline.
    """


@command.command("definitions", short_help="RabbitMQ's definitions.json of the whole topology.")
@options.paths
@options.broker
@_output
@options.env_file
def _definitions(paths: tuple[Path, ...], broker: str | None, output: Path | None, environ: dict[str, str]) -> None:
    """Write what `up` would declare as definitions for `rabbitmqctl import_definitions` or the management API.

    Left out: what has `declare: false`, and exclusive queues. The virtual host is that of the broker's URL.
    """
    with errors_as_exit_codes():
        from runner.operations.export.definitions import definitions, to_json, vhost_of

        system = _read(paths, environ, broker)
        text = to_json(definitions(system.whole_topology, vhost_of(system.broker)))
    _write(text, output)


@command.command("permissions", short_help="The least rights that a user needs.")
@options.paths
@options.broker
@click.option("--user", default="runner", show_default=True, help="Whose rights the command line sets.")
@click.option("--json", "is_json", is_flag=True, help="Print the expressions as JSON.")
@_output
@options.env_file
def _permissions(
    paths: tuple[Path, ...],
    broker: str | None,
    user: str,
    is_json: bool,
    output: Path | None,
    environ: dict[str, str],
) -> None:
    """Write the rights to configure, write and read that a user needs to run the pipelines, and no more.

    With `topology: manage` they suffice to declare everything; with `verify` or `ignore` somebody else has to.
    """
    with errors_as_exit_codes():
        from runner.operations.export.definitions import vhost_of
        from runner.operations.export.permissions import permissions

        system = _read(paths, environ, broker)
        found = permissions(system.pipelines, system.whole_topology, vhost_of(system.broker))
        as_json = json.dumps(found.as_json(user), indent=2, ensure_ascii=False) + "\n"
    _write(as_json if is_json else found.as_text(user), output)


@command.command("compose", short_help="A compose file with RabbitMQ and a runner.")
@options.paths
@options.broker
@_http
@_output
@options.env_file
def _compose(
    paths: tuple[Path, ...],
    broker: str | None,
    http: tuple[str, int] | None,
    output: Path | None,
    environ: dict[str, str],
) -> None:
    """Write a compose file; the image is built from the project. Variables are named and have no values."""
    with errors_as_exit_codes():
        from runner.operations.export.compose import compose
        from runner.operations.export.definitions import vhost_of

        system = _read(paths, environ, broker)
        text = compose(_deployment(system, paths, environ, http), vhost_of(system.broker))
    _write(text, output)


@command.command("kubernetes", short_help="Deployment, disruption budget and scaling by KEDA.")
@options.paths
@options.broker
@_http
@_output
@options.env_file
def _kubernetes(
    paths: tuple[Path, ...],
    broker: str | None,
    http: tuple[str, int] | None,
    output: Path | None,
    environ: dict[str, str],
) -> None:
    """Write a Deployment, a PodDisruptionBudget, and a ScaledObject with a trigger for each queue that is read.

    Variables come from a Secret and a ConfigMap that are named in the first lines. Queues that are read in order, by
    one process at a time, do not scale.
    """
    with errors_as_exit_codes():
        from runner.operations.export.kubernetes import kubernetes

        system = _read(paths, environ, broker)
        known = _deployment(system, paths, environ, http)
        text = kubernetes(system.pipelines, system.whole_topology, known)
    _write(text, output)


@command.command("systemd", short_help="A unit of systemd.")
@options.paths
@options.broker
@_http
@_output
@options.env_file
def _systemd(
    paths: tuple[Path, ...],
    broker: str | None,
    http: tuple[str, int] | None,
    output: Path | None,
    environ: dict[str, str],
) -> None:
    """Write a service that runs the pipelines in this folder, with this installation of the runner.

    Variables come from a file that the unit names. systemd is told when the pipelines run, and restarts a process that
    does not answer any more.
    """
    with errors_as_exit_codes():
        from runner.operations.export.systemd import systemd
        from runner.operations.pipeline_files import read_specs

        system = _read(paths, environ, broker)
        connect_timeout_s = max(spec.broker.connect_timeout for _, spec in read_specs(paths, environ))
        text = systemd(_deployment(system, paths, environ, http), _program(), Path.cwd(), connect_timeout_s)
    _write(text, output)


def _program() -> list[str]:
    """Return what starts this installation of the runner."""
    script = Path(sys.executable).parent / "runner"
    return [str(script)] if script.is_file() else [sys.executable, "-m", "runner"]


@command.command("alerts", short_help="Alerting rules of Prometheus.")
@options.paths
@_output
@options.env_file
def _alerts(paths: tuple[Path, ...], output: Path | None, environ: dict[str, str]) -> None:
    """Write rules for dead letters, messages that wait, subscribers and producers that nothing runs, and failures.

    They are about the metrics that `up` answers at /metrics where telemetry.http says.
    """
    with errors_as_exit_codes():
        from datetime import UTC, datetime

        from runner.operations.export.alerts import alerts

        text = alerts(_read(paths, environ, None).pipelines, datetime.now(UTC))
    _write(text, output)


@command.command("grafana", short_help="A dashboard of Grafana.")
@options.paths
@_output
@options.env_file
def _grafana(paths: tuple[Path, ...], output: Path | None, environ: dict[str, str]) -> None:
    """Write a dashboard to be imported, which shows the metrics of these pipelines."""
    with errors_as_exit_codes():
        from runner.operations.export.grafana import grafana

        text = grafana(_read(paths, environ, None).pipelines)
    _write(text, output)


def _read(paths: tuple[Path, ...], environ: dict[str, str], broker: str | None) -> System:
    system = load_system(paths, environ, broker)
    echo_problems(system.warnings)
    return system


def _deployment(
    system: System, paths: tuple[Path, ...], environ: dict[str, str], http: tuple[str, int] | None
) -> Deployment:
    from runner.operations.export.deployment import deployment
    from runner.operations.pipeline_files import read_specs

    return deployment(system.pipelines, read_specs(paths, environ), http)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        echo_error(f"{output} cannot be written: {(error.strerror or '').lower()}")
        raise SystemExit(EXIT_CANNOT_WRITE) from None
